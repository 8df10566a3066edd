#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run `rustup check` against a release server on loopback, slowly enough to be traced.

In: a directory for all files, and one line on stdin. Out: "ready" on stdout when rustup (its pid
is in DIR/pid) has connected and waits for the TLS handshake; the line on stdin lets it go on. The
truth, as rustup sees it, is in DIR/truth: what the server received was written, what it sent was
read, on the descriptor that rustup has for the connection. Ends with rustup.

It must never touch the user's own rustup directory, and never answer anybody but loopback.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import signal
import socket
import ssl
import subprocess
import sys

HOST = "localhost"
TRIPLE = f"{platform.machine()}-unknown-linux-gnu"
DONE = (0, 100)     # 100: there is an update
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

PAGES = {
    "/dist/channel-rust-stable.toml": MANIFEST,
    "/dist/channel-rust-stable.toml.sha256": hashlib.sha256(MANIFEST).hexdigest().encode(),
    "/rustup/release-stable.toml": b"schema-version = '1'\nversion = '1.0.0'\n",
}


def tls_context(directory):
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run([*CERTIFICATE, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


def start_rustup(directory, cert, port):
    """An installation with one empty toolchain, to have something to ask about."""
    (directory / f"home/toolchains/stable-{TRIPLE}/lib/rustlib").mkdir(parents=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(directory),
           "RUSTUP_HOME": str(directory / "home"), "CARGO_HOME": str(directory / "cargo"),
           "RUSTUP_DIST_SERVER": f"https://{HOST}:{port}",
           "RUSTUP_UPDATE_ROOT": f"https://{HOST}:{port}/rustup",
           "RUSTUP_USE_RUSTLS": "1",    # versions before 1.28 have another default
           "SSL_CERT_FILE": str(cert)}
    with open(directory / "log", "wb") as log:
        return subprocess.Popen(["rustup", "check"], env=env, stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log)


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


def serve(tcp, context, fd, truth):
    """One request, one reply."""
    with context.wrap_socket(tcp, server_side=True) as tls:
        request = b""
        while b"\r\n\r\n" not in request:
            record = tls.recv(16384)
            if not record:
                raise EOFError(f"rustup closed the connection after {request!r}")
            request += record
            print("write", fd, record.hex(), file=truth)
        page = PAGES.get(request.split()[1].decode())
        status = "404 Not Found" if page is None else "200 OK"
        page = page or b"not here\n"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        reply = head.encode() + page
        tls.sendall(reply)
        print("read", fd, reply.hex(), file=truth)
        print("close", fd, file=truth)
        with contextlib.suppress(OSError):
            tls.unwrap()


def serve_all(listener, context, rustup, truth):
    waiting = True
    while True:
        try:
            tcp, address = listener.accept()
        except OSError:     # shut down, because rustup has ended
            return
        fd = descriptor(rustup.pid, address)
        if waiting:
            print("ready", flush=True)
            if not sys.stdin.readline():
                raise EOFError("stdin ended before the line that starts the work")
            waiting = False
        serve(tcp, context, fd, truth)


def main():
    directory = pathlib.Path(sys.argv[1])
    context, cert = tls_context(directory)
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            open(directory / "truth", "w", encoding="ascii") as truth:
        signal.signal(signal.SIGCHLD, lambda *_: listener.shutdown(socket.SHUT_RDWR))
        rustup = start_rustup(directory, cert, listener.getsockname()[1])
        try:
            (directory / "pid").write_text(str(rustup.pid), encoding="ascii")
            serve_all(listener, context, rustup, truth)
        finally:
            rustup.kill()   # after an error; else it has ended already
            rustup.wait()
    if rustup.returncode not in DONE:
        sys.exit(f"rustup ended with {rustup.returncode}:\n{(directory / 'log').read_text()}")


if __name__ == "__main__":
    main()
