#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Stands between a TLS client and a TLS server on 127.0.0.1 and keeps what passed, in plaintext.

In: one TLS connection after the other, or many at once; each gets its own one to --upstream. Out:
"listening PORT" on stdout, and in --account for both ends of each connection, named by the port
that is the relay's peer (client) or the relay's own (towards the server):
    PORT.write, PORT.read   the bytes that the program there wrote and read
    PORT.owner              "PID FD" of its socket, as /proc says while it is open
With --starttls, what that protocol says before TLS passes first, and is not kept.
It ends when --connections of them are over. It must never change a byte, and keeps a byte before
it passes it on.
"""

import argparse
import asyncio
import os
import pathlib
import signal
import socket
import ssl
import sys

MAX_SECONDS = 120
BLOCK = 65536


def holders(inode):
    """"PID FD" of each process that has this socket."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            for link in (process / "fd").iterdir():
                if os.readlink(link) == f"socket:[{inode}]":
                    yield f"{process.name} {link.name}\n"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass    # gone meanwhile, or none that even root may look at


def socket_owner(local, remote):
    """PID and fd of the TCP socket between these two ports of 127.0.0.1."""
    wanted = f":{local:04X}", f":{remote:04X}"
    rows = [line.split() for name in ("tcp", "tcp6")    # the same address, mapped
            for line in open(f"/proc/net/{name}", encoding="ascii")]
    inode = next(row[9] for row in rows
                 if all(end.endswith("0100007F" + port) for end, port in zip(row[1:3], wanted)))
    while len(found := list(holders(inode))) > 1:
        pass    # a server that forks for each connection is about to close its own
    if found:
        return found[0]
    raise LookupError(f"nobody has the socket from port {local} to port {remote}")


class Relay:
    def __init__(self, args):
        self.args = args
        self.accepted = 0
        self.results = asyncio.Queue()
        self.server_ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server_ctx.load_cert_chain(args.cert, args.key)
        self.client_ctx = ssl.create_default_context(cafile=args.cert)
        if args.alpn:
            self.server_ctx.set_alpn_protocols([args.alpn])
            self.client_ctx.set_alpn_protocols([args.alpn])

    def account(self, port, kind):
        return open(os.path.join(self.args.account, f"{port}.{kind}"), "xb")

    def keep_owner(self, port, local, remote):
        with self.account(port, "owner") as file:
            file.write(socket_owner(local, remote).encode())

    async def pump(self, reader, writer, written, read):
        """What one end writes, the other is to read."""
        with written, read:
            while data := await reader.read(BLOCK):
                written.write(data)
                read.write(data)
                writer.write(data)
                await writer.drain()

    async def receive(self, sock, count):
        """Not a byte more: what follows is TLS."""
        data = b""
        while len(data) < count:
            part = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
            if not part:
                raise EOFError("the connection ended before TLS")
            data += part
        return data

    async def packet(self, sock):
        """Of MariaDB: its length in 3 bytes, and its number."""
        head = await self.receive(sock, 4)
        return head + await self.receive(sock, int.from_bytes(head[:3], "little"))

    async def before_tls(self, client, server):
        """MariaDB: a greeting, then the client's wish for TLS; PostgreSQL: the wish, then "S"."""
        send = asyncio.get_running_loop().sock_sendall
        if self.args.starttls == "mysql":
            await send(client, await self.packet(server))
            await send(server, await self.packet(client))
        else:
            await send(server, await self.receive(client, 8))
            await send(client, await self.receive(server, 1))

    async def relay(self, sock):
        loop = asyncio.get_running_loop()
        up_sock = socket.socket()
        up_sock.setblocking(False)
        await loop.sock_connect(up_sock, ("127.0.0.1", self.args.upstream))
        if self.args.starttls:
            await self.before_tls(sock, up_sock)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock,
                                                          ssl=self.server_ctx)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        client = writer.get_extra_info("peername")[1]
        self.keep_owner(client, client, writer.get_extra_info("sockname")[1])
        up_reader, up_writer = await asyncio.open_connection(
            sock=up_sock, ssl=self.client_ctx, server_hostname="localhost")
        own = up_writer.get_extra_info("sockname")[1]
        self.keep_owner(own, self.args.upstream, own)
        pumps = [asyncio.create_task(self.pump(reader, up_writer, self.account(client, "write"),
                                               self.account(own, "read"))),
                 asyncio.create_task(self.pump(up_reader, writer, self.account(own, "write"),
                                               self.account(client, "read")))]
        # the end of one direction is that of the connection: TLS streams have no half of one
        done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, up_writer):
            end.close()
        for pump in done:
            pump.result()

    async def connected(self, sock):
        try:
            await self.results.put(await self.relay(sock))
        except Exception as err:    # the main task is to fail, not this one
            await self.results.put(err)

    async def accept(self, listener):
        tasks = []
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            tasks.append(asyncio.create_task(self.connected(sock)))

    async def run(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            print(f"listening {listener.getsockname()[1]}", flush=True)
            accepting = asyncio.create_task(self.accept(listener))
            for _ in range(self.args.connections):
                error = await self.results.get()
                if error:
                    raise error
            accepting.cancel()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cert", required=True, help="for localhost, PEM")
    parser.add_argument("--key", required=True)
    parser.add_argument("--upstream", type=int, required=True, metavar="PORT")
    parser.add_argument("--account", required=True, metavar="DIRECTORY")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--starttls", choices=["mysql", "postgres"], help="what comes before TLS")
    parser.add_argument("--alpn", help="the protocol to offer and to take")
    args = parser.parse_args()
    signal.alarm(MAX_SECONDS)   # a stuck run ends by itself
    asyncio.run(Relay(args).run())


if __name__ == "__main__":
    sys.exit(main())
