#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run rustup or cargo against a server of releases on loopback, slowly enough to be traced.

In: a directory for all files, which of the two, the program and, for cargo, rustc; then one line on
stdin. Out: "ready" on stdout when the program (its pid is in DIR/pid) has connected and waits for
the TLS handshake; the line on stdin lets it go on. The truth, as the program sees it, is in
DIR/truth: what the server received was written, what it sent was read, on the descriptor that the
program has for the connection. Ends with the program.

It must never touch the user's own directories, and never answer anybody but loopback.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import platform
import random
import signal
import socket
import ssl
import subprocess
import sys
import tarfile

HOST = "localhost"
TRIPLE = f"{platform.machine()}-unknown-linux-gnu"
CERTIFICATE = ("openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec",
               "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={HOST}",
               "-addext", f"subjectAltName=DNS:{HOST}",
               "-addext", "basicConstraints=critical,CA:FALSE")    # rustls refuses a CA as server

MANIFEST = f"""manifest-version = "2"
date = "2024-02-29"
[pkg.rust]
version = "1.0.0 (0123456789 2024-02-29)"
[pkg.rust.target.{TRIPLE}]
available = true
url = "https://{HOST}/rust.tar.gz"
hash = "{64 * "0"}"
""".encode() + b"".join(b"# line %d makes this more than one record\n" % i for i in range(2003))

CRATE = "traced-crate"
CRATE_SIZE = 300007     # of a file that does not shrink, for a page of many records
PACKAGE = """[package]
name = "{name}"
version = "1.0.0"
edition = "2021"
[lib]
path = "lib.rs"
"""


class Client:
    """What is run, its environment, the pages that it may ask for, and the statuses of success."""

    def __init__(self, command, directory, env, pages, done=(0,)):
        self.command, self.directory, self.pages, self.done = command, directory, pages, done
        self.env = {"PATH": os.environ["PATH"], "HOME": str(directory),
                    "CARGO_HOME": str(directory / "cargo"), **env}


def rustup(directory, url, cert, program):
    """An installation with one empty toolchain, to have something to ask about."""
    (directory / f"home/toolchains/stable-{TRIPLE}/lib/rustlib").mkdir(parents=True)
    env = {"RUSTUP_HOME": str(directory / "home"),
           "RUSTUP_DIST_SERVER": url,
           "RUSTUP_UPDATE_ROOT": f"{url}/rustup",
           "RUSTUP_USE_RUSTLS": "1",    # versions before 1.28 have another default
           "SSL_CERT_FILE": str(cert)}
    pages = {
        "/dist/channel-rust-stable.toml": MANIFEST,
        "/dist/channel-rust-stable.toml.sha256": hashlib.sha256(MANIFEST).hexdigest().encode(),
        "/rustup/release-stable.toml": b"schema-version = '1'\nversion = '1.0.0'\n",
    }
    return Client([program, "check"], directory, env, pages, (0, 100))  # 100: there is an update


def crate():
    """The file of a package that has nothing in it."""
    files = {"Cargo.toml": PACKAGE.format(name=CRATE).encode(), "lib.rs": b"",
             "data": random.Random(CRATE).randbytes(CRATE_SIZE)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{CRATE}-1.0.0/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def cargo(directory, url, cert, program, rustc):
    """A package that needs another one, which a registry has."""
    own = directory / "package"
    own.mkdir()
    (own / "lib.rs").touch()
    (own / "Cargo.toml").write_text(
        PACKAGE.format(name="asking") +
        f'[dependencies]\n{CRATE} = {{version = "1", registry = "here"}}\n', encoding="ascii")
    env = {"RUSTC": rustc, "CARGO_HTTP_CAINFO": str(cert),
           "CARGO_REGISTRIES_HERE_INDEX": f"sparse+{url}/index/"}
    packed = crate()
    pages = {
        "/index/config.json": json.dumps({"dl": f"{url}/crates"}).encode(),
        f"/index/{CRATE[:2]}/{CRATE[2:4]}/{CRATE}": json.dumps(
            {"name": CRATE, "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
             "cksum": hashlib.sha256(packed).hexdigest()}).encode() + b"\n",
        f"/crates/{CRATE}/1.0.0/download": packed,
    }
    command = [program, "fetch", "--manifest-path", str(own / "Cargo.toml")]
    return Client(command, directory, env, pages)


def tls_context(directory):
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run([*CERTIFICATE, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


def start(client):
    with open(client.directory / "log", "wb") as log:
        return subprocess.Popen(client.command, env=client.env, cwd=client.directory,
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def descriptor(pid, address):
    """Which of its fds the process has bound to address."""
    ip, port = address
    local = socket.inet_aton(ip)[::-1].hex().upper() + f":{port:04X}"
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
        inode = next(row[9] for row in map(str.split, table) if row[1] == local and row[9] != "0")
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(link) == f"socket:[{inode}]":
            return int(link.name)
    raise LookupError(f"no fd of {pid} is socket {inode}")


def serve(tcp, context, fd, pages, truth):
    """One request, one reply."""
    with context.wrap_socket(tcp, server_side=True) as tls:
        request = b""
        while b"\r\n\r\n" not in request:
            record = tls.recv(16384)
            if not record:
                raise EOFError(f"the client closed the connection after {request!r}")
            request += record
            print("write", fd, record.hex(), file=truth)
        page = pages.get(request.split()[1].decode())
        status = "404 Not Found" if page is None else "200 OK"
        page = page or b"not here\n"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        reply = head.encode() + page
        tls.sendall(reply)
        print("read", fd, reply.hex(), file=truth)
        print("close", fd, file=truth)
        with contextlib.suppress(OSError):
            tls.unwrap()


def serve_all(listener, context, client, pid, truth):
    waiting = True
    while True:
        try:
            tcp, address = listener.accept()
        except OSError:     # shut down, because the client has ended
            return
        fd = descriptor(pid, address)
        if waiting:
            print("ready", flush=True)
            if not sys.stdin.readline():
                raise EOFError("stdin ended before the line that starts the work")
            waiting = False
        serve(tcp, context, fd, client.pages, truth)


def main():
    directory, kind = pathlib.Path(sys.argv[1]), {"rustup": rustup, "cargo": cargo}[sys.argv[2]]
    context, cert = tls_context(directory)
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            open(directory / "truth", "w", encoding="ascii") as truth:
        signal.signal(signal.SIGCHLD, lambda *_: listener.shutdown(socket.SHUT_RDWR))
        url = f"https://{HOST}:{listener.getsockname()[1]}"
        client = kind(directory, url, cert, *sys.argv[3:])
        process = start(client)
        try:
            (directory / "pid").write_text(str(process.pid), encoding="ascii")
            serve_all(listener, context, client, process.pid, truth)
        finally:
            process.kill()  # after an error; else it has ended already
            process.wait()
    if process.returncode not in client.done:
        sys.exit(f"it ended with {process.returncode}:\n{(directory / 'log').read_text()}")


if __name__ == "__main__":
    main()
