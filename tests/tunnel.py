#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""An HTTPS proxy on 127.0.0.1 and the one HTTPS site that it leads to: TLS within TLS for a client.

In: --connections tunnels, one after the other, with requests "GET /SIZE" and "POST /SIZE". Out:
"listening PROXY SITE" (ports) on stdout, and two truth files as the client would write them, with
its fd from /proc: --truth, what passed the outer layer, and --inner-truth, what passed the inner.
It must never lead anywhere but to its own site.
"""

import argparse
import select
import signal
import socket
import ssl
import sys
import threading

import relay    # the one next to this file

MAX_SECONDS = 120
BLOCK = 65536


class Layer:
    """One end of the client's TLS: what the client wrote is read here, and the other way round."""

    def __init__(self, context, tcp, truth):
        self.tls = context.wrap_socket(tcp, server_side=True)
        self.truth = truth
        self.fd = None

    def read(self):
        data = self.tls.recv(BLOCK)
        if data:
            self.truth.write(f"write {self.fd} {data.hex()}\n")
        return data

    def write(self, data):
        self.tls.sendall(data)
        self.truth.write(f"read {self.fd} {data.hex()}\n")

    def read_head(self):
        """The request line's words, its Content-Length, and what came behind the head."""
        data = b""
        while b"\r\n\r\n" not in data:
            block = self.read()
            if not block:
                return None, 0, b""
            data += block
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        return lines[0].split(), int(fields.get("content-length", 0)), rest

    def close(self):
        self.truth.write(f"close {self.fd}\n")
        self.tls.close()


def pattern(size):
    return b"".join(b"at %d of %d\n" % (at, size) for at in range(0, size, 8))[:size]


class Tunnel:
    def __init__(self, args):
        self.args = args
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(args.cert, args.key)
        self.proxy = socket.create_server(("127.0.0.1", 0))
        self.site = socket.create_server(("127.0.0.1", 0))
        self.outer_truth = open(args.truth, "w", encoding="ascii")
        self.inner_truth = open(args.inner_truth, "w", encoding="ascii")
        self.fd = None      # of the client's socket, in the tunnel that is open

    def serve_site(self):
        layer = Layer(self.context, self.site.accept()[0], self.inner_truth)
        layer.fd = self.fd
        while True:
            words, length, rest = layer.read_head()
            if not words:
                break
            while len(rest) < length:
                rest += layer.read()
            size = int(words[1].lstrip("/"))
            layer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            reply = pattern(size)
            for at in range(0, size, BLOCK):
                layer.write(reply[at:at + BLOCK])
        layer.close()

    def serve_proxy(self):
        tcp, (_, port) = self.proxy.accept()
        own = tcp.getsockname()[1]
        self.fd = int(relay.socket_owner(port, own).split()[1])
        layer = Layer(self.context, tcp, self.outer_truth)
        layer.fd = self.fd
        words, _, rest = layer.read_head()
        if words[:2] != ["CONNECT", f"localhost:{self.site.getsockname()[1]}"] or rest:
            raise ValueError(f"not this site: {words}")
        with socket.create_connection(self.site.getsockname()) as site:
            layer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self.pump(layer, site)
        layer.close()

    def pump(self, layer, site):
        while True:
            ready = [layer.tls] if layer.tls.pending() else \
                select.select([layer.tls, site], [], [])[0]
            if layer.tls in ready:
                data = layer.read()
                if not data:
                    return
                site.sendall(data)
            if site in ready:
                data = site.recv(BLOCK)
                if not data:
                    return
                layer.write(data)

    def run(self):
        print(f"listening {self.proxy.getsockname()[1]} {self.site.getsockname()[1]}", flush=True)
        for _ in range(self.args.connections):
            thread = threading.Thread(target=self.serve_site, daemon=True)
            thread.start()
            self.serve_proxy()
            thread.join()
        self.outer_truth.close()
        self.inner_truth.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cert", required=True, help="for localhost, PEM")
    parser.add_argument("--key", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--inner-truth", required=True)
    parser.add_argument("--connections", type=int, default=1)
    signal.alarm(MAX_SECONDS)   # a stuck run ends by itself
    Tunnel(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
