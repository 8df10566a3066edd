#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Python's own HTTP server or client over TLS, as programs use them, for the tests to trace.

In: "server CERT KEY", or "client CERT" with the server's port as a line on stdin. Out: the server
says "listening PORT"; the client checks what it gets and its status says whether that was right.
Both come over one connection that is kept alive, and end after it.
"""

import http.client
import http.server
import ssl
import sys

REQUESTS = 23
SIZES = (1, 8192, 16385, 200000)


def body(number):
    size = SIZES[number % len(SIZES)]
    return b"".join(b"request %d at %d\n" % (number, at) for at in range(0, size, 8))[:size]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[::-1])

    def log_message(self, *_):
        pass


def serve(cert, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        print(f"listening {server.server_port}", flush=True)
        server.handle_request()


def ask(cert):
    context = ssl.create_default_context(cafile=cert)
    print("ready", flush=True)
    connection = http.client.HTTPSConnection("localhost", int(sys.stdin.readline()),
                                             context=context)
    for number in range(REQUESTS):
        connection.request("POST", f"/{number}", body(number))
        if connection.getresponse().read() != body(number)[::-1]:
            sys.exit(f"request {number}: not the reply that belongs to it")
    connection.close()


if __name__ == "__main__":
    {"server": serve, "client": ask}[sys.argv[1]](*sys.argv[2:])
