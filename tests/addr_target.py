#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Both ends of TLS connections between sockets of several families, for the tests of addresses.

In: certificate and key files, a line on stdin when to begin. Out: "ready" on stdout after the
set-up, a truth file as of py_target.py, and ADDRESSES: "FD LOCAL REMOTE" of each end as the sockets
themselves say, written as tlssnoop does.
With --fork before, the handshake is part of the set-up and a child goes on with the client's end:
"child PID" comes before "ready", its truth is TRUTH.child. --fork later: the same after the line.
It must never say an address that getsockname() or getpeername() did not.
"""

import argparse
import contextlib
import functools
import os
import signal
import socket
import ssl
import sys

import py_target    # the one next to this file

FAMILIES = ("inet", "inet6", "mapped", "unix")


def connected_pair(family):
    """The client's and the server's socket."""
    if family == "unix":
        return socket.socketpair()
    if family == "mapped":      # the server's socket is of IPv6, and the client's address of IPv4
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        host, kind = {"inet": ("127.0.0.1", socket.AF_INET), "inet6": ("::1", socket.AF_INET6)}[family]
        listener = socket.create_server((host, 0), family=kind)
    with listener:
        host = "::1" if family == "inet6" else "127.0.0.1"
        client = socket.create_connection((host, listener.getsockname()[1]))
        return client, listener.accept()[0]


def address(sock, name):
    if sock.family == socket.AF_UNIX:
        return "unix"
    host, port = name[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def handshake(args, family):
    server_ctx, client_ctx = py_target.contexts(args)
    pair = connected_pair(family)
    ends = {}

    def serve():
        ends["server"] = server_ctx.wrap_socket(pair[1], server_side=True)

    def connect():
        ends["client"] = client_ctx.wrap_socket(pair[0], server_hostname="localhost")
    py_target.together({"server": serve, "client": connect})
    with open(args.addresses, "a", encoding="ascii") as file:
        for tls in ends.values():
            file.write(f"{tls.fileno()} {address(tls, tls.getsockname())} "
                       f"{address(tls, tls.getpeername())}\n")
    return ends


def talk(ends, truth):
    py_target.together({side: functools.partial(py_target.blocking_end, tls, side, truth)
                        for side, tls in ends.items()})


def ready():
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("addr_target: no line on stdin")


def fork_and_talk(args, truth):
    """The child has the client's end, the parent the server's."""
    mine, yours = os.pipe()
    ends = handshake(args, args.family[0])
    child = os.fork()
    if child == 0:
        os.read(mine, 1)
        truth = py_target.Truth(args.truth + ".child")
        with contextlib.closing(truth.file):
            ends["server"].close()
            talk({"client": ends["client"]}, truth)
        os._exit(0)
    print(f"child {child}", flush=True)
    ends["client"].close()
    if args.fork == "before":
        ready()
    os.write(yours, b"x")
    talk({"server": ends["server"]}, truth)
    if os.waitpid(child, 0)[1]:
        sys.exit("addr_target: the child failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cert", required=True, help="for localhost, PEM")
    parser.add_argument("--key", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--addresses", required=True)
    parser.add_argument("--fork", choices=("before", "later"))
    parser.add_argument("family", choices=FAMILIES, nargs="+")
    args = parser.parse_args()

    signal.alarm(py_target.MAX_SECONDS)     # a stuck run ends by itself
    truth = py_target.Truth(args.truth)
    with contextlib.closing(truth.file):
        if args.fork != "before":
            ready()
        if args.fork:
            fork_and_talk(args, truth)
            return
        for family in args.family:
            talk(handshake(args, family), truth)


if __name__ == "__main__":
    main()
