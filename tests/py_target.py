#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A Python program that talks TLS to itself over 127.0.0.1, for the tests to trace.

In: certificate and key files, a line on stdin when to begin. Out: "ready" on stdout after the
set-up, and a truth file: "write FD HEX" or "read FD HEX" for each call of the ssl module that moved
plaintext, in order, and "close FD" where a connection ends and its fd number may come again.
It must never write a truth line from anything but the result of such a call.

Blocking by default: a thread for each end, the ssl module on the socket. With --asyncio all ends
are streams of one event loop, so TLS goes through memory BIOs and the loop moves the ciphertext.
"""

import argparse
import asyncio
import contextlib
import signal
import socket
import ssl
import sys
import threading

MAX_SECONDS = 120
EDGES = (1, 8191, 8192, 8193, 16383, 16384, 16385, 65536, 1048576)
CONNS = 101         # with --asyncio
MESSAGES = 11


class Truth:
    def __init__(self, path):
        self.file = open(path, "w", encoding="ascii")
        self.lock = threading.Lock()

    def add(self, *lines):
        with self.lock:
            self.file.writelines(line + "\n" for line in lines)


def payload(conn, side, number, size):
    """Names its connection; every byte depends on the message and on its position."""
    out, pos = [], 0
    while pos < size:
        out.append(f'conn {conn} {side} message {number} at {pos}\t"\u00e9"\n'.encode())
        pos += len(out[-1])
    return b"".join(out)[:size]


def contexts(args):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(args.cert, args.key)
    client = ssl.create_default_context(cafile=args.cert)
    return server, client


def together(ends):
    """Calls the functions of a dictionary, each in a thread, as an end waits for the other. Fails if
    one of them fails, with its name."""
    errors = []

    def run(side, function):
        try:
            function()
        except Exception as err:    # a thread's failure is the program's failure
            errors.append(f"{side}: {err!r}")
    threads = [threading.Thread(target=run, args=end, daemon=True) for end in ends.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError("; ".join(errors))


# ---- blocking ----

def blocking_end(tls, side, truth):
    fd = tls.fileno()

    def write(data):
        while data:
            done = tls.send(data)
            truth.add(f"write {fd} {data[:done].hex()}")
            data = data[done:]

    def read(size):
        while size:
            data = tls.recv(size)
            if not data:
                raise EOFError(f"{side}: end of file")
            truth.add(f"read {fd} {data.hex()}")
            size -= len(data)

    with tls:
        for number, size in enumerate(EDGES):
            data = payload(0, side, number, size)
            if side == "client":
                write(data)
            read(size)
            if side == "server":
                write(data)
        truth.add(f"close {fd}")


def run_blocking(args, truth):
    server_ctx, client_ctx = contexts(args)

    def server():
        tls = server_ctx.wrap_socket(listener.accept()[0], server_side=True)
        blocking_end(tls, "server", truth)

    def client():
        tcp = socket.create_connection(listener.getsockname())
        blocking_end(client_ctx.wrap_socket(tcp, server_hostname="localhost"), "client", truth)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield
        together({"server": server, "client": client})


# ---- asyncio ----

class RecordedObject(ssl.SSLObject):
    """The ssl module lets a context name its class: what the streams get in one piece may come
    from several calls, so the calls themselves are recorded. Their fd is known later."""

    def record(self, way, data):
        self.__dict__.setdefault("calls", []).append((way, bytes(data)))

    def read(self, len=1024, buffer=None):      # the names are those of the base class
        result = super().read(len, buffer)
        data = result if buffer is None else memoryview(buffer)[:result]
        if data:
            self.record("read", data)
        return result

    def write(self, data):
        done = super().write(data)
        if done:
            self.record("write", memoryview(data)[:done])
        return done


async def asyncio_end(conn, side, reader, writer):
    fd = writer.get_extra_info("socket").fileno()
    tls = writer.get_extra_info("ssl_object")
    for number in range(MESSAGES):
        size = 20000 if number % 4 == 3 else 200
        if side == "client":
            writer.write(payload(conn, side, number, size))
        seen = await reader.readexactly(size)
        if conn is None:
            conn = int(seen.split()[1])
        if seen != payload(conn, "client" if side == "server" else "server", number, size):
            raise ValueError(f"connection {conn}: {side} read something else in message {number}")
        if side == "server":
            writer.write(payload(conn, side, number, size))
        await writer.drain()
    return fd, tls, writer


async def asyncio_main(args, truth):
    server_ctx, client_ctx = contexts(args)
    server_ctx.sslobject_class = client_ctx.sslobject_class = RecordedObject
    ends = asyncio.Queue()

    async def server(reader, writer):
        try:
            await ends.put(await asyncio_end(None, "server", reader, writer))
        except Exception as err:    # the main task is to fail, not this one
            await ends.put(err)

    async def client(conn):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_ctx,
                                                       server_hostname="localhost")
        return await asyncio_end(conn, "client", reader, writer)

    listener = await asyncio.start_server(server, "127.0.0.1", 0, ssl=server_ctx, backlog=CONNS)
    port = listener.sockets[0].getsockname()[1]
    done = await asyncio.gather(*map(client, range(CONNS)))
    for _ in range(CONNS):
        end = await ends.get()
        if isinstance(end, Exception):
            raise end
        done.append(end)
    # every socket is still open: no fd number has come twice
    for fd, tls, writer in done:
        truth.add(*(f"{way} {fd} {data.hex()}" for way, data in tls.calls), f"close {fd}")
        writer.close()
    listener.close()


def run_asyncio(args, truth):
    yield
    asyncio.run(asyncio_main(args, truth))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cert", required=True, help="for localhost, PEM")
    parser.add_argument("--key", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--asyncio", action="store_true")
    args = parser.parse_args()

    signal.alarm(MAX_SECONDS)   # a stuck run ends by itself
    truth = Truth(args.truth)
    with contextlib.closing(truth.file):
        steps = (run_asyncio if args.asyncio else run_blocking)(args, truth)
        next(steps)             # set-up
        print("ready", flush=True)
        if not sys.stdin.readline():
            sys.exit("py_target: no line on stdin")
        for _ in steps:
            pass


if __name__ == "__main__":
    main()
