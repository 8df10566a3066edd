#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Writes a file to itself over TLS straight from its mapping, whose pages are not in memory then.

In: certificate and key, a file, a line on stdin when to begin. Out: "ready" on stdout, and a truth
file as that of py_target.py. It must never touch a page of the mapping before OpenSSL does.
"""

import argparse
import mmap
import os
import signal
import socket
import ssl
import sys
import threading

MAX_SECONDS = 120
PIECE = 16384


def read_all(args, sock, truth):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.cert, args.key)
    with context.wrap_socket(sock, server_side=True) as tls:
        while data := tls.recv(PIECE):
            truth.append(f"read {tls.fileno()} {data.hex()}\n")
        tls.unwrap()    # the other end waits for that


def write_all(args, sock, truth):
    context = ssl.create_default_context(cafile=args.cert)
    with open(args.file, "rb") as file, \
            context.wrap_socket(sock, server_hostname="localhost") as tls:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapping, \
                memoryview(mapping) as view:
            os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)
            at = 0
            while at < size:
                done = tls.send(view[at:at + PIECE])
                truth.append(f"write {tls.fileno()} {file.read(done).hex()}\n")
                at += done
        tls.unwrap()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cert", required=True, help="for localhost, PEM")
    parser.add_argument("--key", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("file")
    args = parser.parse_args()

    signal.alarm(MAX_SECONDS)   # a stuck run ends by itself
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("mapped_target: no line on stdin")
    truth = []
    thread = threading.Thread(target=read_all, args=(args, server, truth))
    thread.start()
    write_all(args, client, truth)
    thread.join()
    with open(args.truth, "w", encoding="ascii") as file:
        file.writelines(truth)


if __name__ == "__main__":
    main()
