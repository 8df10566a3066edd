#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Talks TLS to itself over 127.0.0.1 with whatever TLS library it is given, for the tests to trace.

In: the library's kind and path, certificate and key (a directory with its database for NSS), a line
on stdin when to begin. Out: "ready VERSION" and "ready" on stdout after the set-up, and a truth file
as py_target.py writes it: one line for each call of the library that moved plaintext.
It must never write a truth line from anything but the result of such a call, nor name a function
that the library does not have: it calls what the library exports, and says on stderr what that is.

One thread holds both ends, on sockets that do not block, so that calls are refused and repeated. Only the library itself is called, by ctypes: nothing of Python's own ssl module.
"""

import argparse
import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import sys
import threading
from ctypes import byref, c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint, c_void_p

MAX_SECONDS = 120
EDGES = (1, 8191, 8192, 8193, 16383, 16384, 16385, 65536, 1048576)
SMALL_BUFFER = 131072   # of the sockets: the largest write finds them full


class Refused(Exception):
    """The call wants to be repeated."""


class Failed(Exception):
    """The library says that it cannot go on."""


class Truth:
    def __init__(self, path):
        self.file = open(path, "w", encoding="ascii")

    def moved(self, way, fd, data):
        if data:
            self.file.write(f"{way} {fd} {bytes(data).hex()}\n")


def payload(number, size):
    """Every byte depends on the message and on its position."""
    out, pos = [], 0
    while pos < size:
        out.append(f'message {number} at {pos}\t"\u00e9"\n'.encode())
        pos += len(out[-1])
    return b"".join(out)[:size]


def function(library, name, result, *arguments):
    """A function of the library, or None where it has none of this name."""
    try:
        call = getattr(library, name)
    except AttributeError:
        return None
    call.restype, call.argtypes = result, arguments
    return call


def any_of(library, names, result, *arguments):
    calls = [function(library, name, result, *arguments) for name in names]
    return next(call for call in calls if call)


class End:
    """One end of a connection. writes and reads are its ways to move plaintext: (name, function of
    address and size that returns how many bytes were moved in each of the buffers that it gave the
    library, or raises Refused, largest size)."""

    def __init__(self, sock, truth):
        self.sock, self.fd, self.truth = sock, sock.fileno(), truth
        self.writes, self.reads = [], []
        self.peek = None        # like a read, and moves nothing

    def add(self, ways, name, call, most=EDGES[-1]):
        if call:
            ways.append((name, lambda address, size: [call(address, size)], most))

    def flush(self):
        """Sends what was taken and not sent, where the library has such a thing."""

    def done(self):
        """Fails if something that was to be tried did not come about."""


# ---- OpenSSL, LibreSSL, BoringSSL ----

SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE = 2, 3
SSL_CTRL_SET_ECDH_AUTO = 94
SSL_FILETYPE_PEM = 1
BIO_C_SET_SSL = 109
BIO_FLAGS_SHOULD_RETRY = 8


class OpenSSL:
    def __init__(self, path, args):
        # its libcrypto stands beside it, and its functions are found through it
        self.lib = ctypes.CDLL(path)
        self.contexts = {}
        init = function(self.lib, "SSL_library_init", c_int)
        if init:
            init()
        new = function(self.lib, "SSL_CTX_new", c_void_p, c_void_p)
        for server in (False, True):
            method = any_of(self.lib, ("TLS_method", "SSLv23_method",   # GnuTLS has only:
                                       f"SSLv23_{'server' if server else 'client'}_method"),
                            c_void_p)
            self.contexts[server] = self.check(new(method()), "SSL_CTX_new")
        ctrl = function(self.lib, "SSL_CTX_ctrl", c_long, c_void_p, c_int, c_long, c_void_p)
        if ctrl:    # OpenSSL 1.0.2 has no elliptic curve unless it is told
            ctrl(self.contexts[True], SSL_CTRL_SET_ECDH_AUTO, 1, None)
        for name, file in (("certificate", args.cert), ("PrivateKey", args.key)):
            use = function(self.lib, f"SSL_CTX_use_{name}_file", c_int, c_void_p, c_char_p, c_int)
            self.check(use(self.contexts[True], file.encode(), SSL_FILETYPE_PEM), name)

    @staticmethod
    def check(result, what):
        if not result:
            raise Failed(what)
        return result

    def version(self):
        version = any_of(self.lib, ("OpenSSL_version", "SSLeay_version", "gnutls_check_version"),
                         c_char_p, c_int)
        return version(0).decode()

    def end(self, sock, server, truth):
        return OpenSSLEnd(self, sock, server, truth)


class OpenSSLEnd(End):
    def __init__(self, openssl, sock, server, truth):
        super().__init__(sock, truth)
        lib, check = openssl.lib, openssl.check
        self.error = function(lib, "SSL_get_error", c_int, c_void_p, c_int)
        self.ssl = check(function(lib, "SSL_new", c_void_p, c_void_p)(openssl.contexts[server]),
                         "SSL_new")
        check(function(lib, "SSL_set_fd", c_int, c_void_p, c_int)(self.ssl, self.fd), "SSL_set_fd")
        self.shake = function(lib, "SSL_accept" if server else "SSL_connect", c_int, c_void_p)
        self.peek = self.plain(function(lib, "SSL_peek", c_int, c_void_p, c_void_p, c_int))
        plain = (c_int, c_void_p, c_void_p, c_int)
        counted = (c_int, c_void_p, c_void_p, c_size_t, c_void_p)
        self.add(self.writes, "SSL_write", self.plain(function(lib, "SSL_write", *plain)))
        self.add(self.reads, "SSL_read", self.plain(function(lib, "SSL_read", *plain)))
        self.add(self.writes, "SSL_write_ex", self.counted(function(lib, "SSL_write_ex", *counted)))
        self.add(self.reads, "SSL_read_ex", self.counted(function(lib, "SSL_read_ex", *counted)))
        self.front(lib)

    def front(self, lib):
        """BIO_f_ssl: the same through BIO_write and BIO_read."""
        new, method = (function(lib, name, c_void_p, *arguments)
                       for name, arguments in (("BIO_new", (c_void_p,)), ("BIO_f_ssl", ())))
        if not method:
            return
        bio = new(method())
        function(lib, "BIO_ctrl", c_long, c_void_p, c_int, c_long, c_void_p)(
            bio, BIO_C_SET_SSL, 0, self.ssl)
        retry = function(lib, "BIO_test_flags", c_int, c_void_p, c_int)

        def through(call):
            def move(address, size):
                done = call(bio, address, size)
                if done > 0:
                    return done
                if retry(bio, BIO_FLAGS_SHOULD_RETRY):
                    raise Refused
                raise Failed(f"BIO: {done}")
            return move

        for ways, name in ((self.writes, "BIO_write"), (self.reads, "BIO_read")):
            self.add(ways, name, through(function(lib, name, c_int, c_void_p, c_void_p, c_int)))

    def result(self, ret):
        if self.error(self.ssl, ret) in (SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE):
            raise Refused
        raise Failed(f"SSL error {self.error(self.ssl, ret)}")

    def plain(self, call):
        def move(address, size):
            done = call(self.ssl, address, size)
            return done if done > 0 else self.result(done)
        return call and move

    def counted(self, call):
        def move(address, size):
            done = c_size_t(0)
            ret = call(self.ssl, address, size, byref(done))
            return done.value if ret > 0 else self.result(ret)
        return call and move

    def handshake(self):
        ret = self.shake(self.ssl)
        if ret <= 0:
            self.result(ret)


# ---- GnuTLS ----

GNUTLS_SERVER, GNUTLS_CLIENT, GNUTLS_NONBLOCK, GNUTLS_ENABLE_EARLY_DATA = 1, 2, 8, 1 << 20
GNUTLS_CRD_CERTIFICATE = 1
GNUTLS_X509_FMT_PEM = 1
GNUTLS_E_AGAIN, GNUTLS_E_INTERRUPTED = -28, -52


class Datum(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("size", c_uint)]


class GnuTLS:
    def __init__(self, path, args):
        self.lib = ctypes.CDLL(path)
        self.credentials = c_void_p()
        self.check(self.lib.gnutls_certificate_allocate_credentials(byref(self.credentials)),
                   "credentials")
        self.check(self.lib.gnutls_certificate_set_x509_key_file(
            self.credentials, args.cert.encode(), args.key.encode(), GNUTLS_X509_FMT_PEM), "key")
        self.tickets = Datum()
        self.check(self.lib.gnutls_session_ticket_key_generate(byref(self.tickets)), "tickets")

        self.replays = c_void_p()   # without an answer to those, early data is refused
        self.check(self.lib.gnutls_anti_replay_init(byref(self.replays)), "anti_replay_init")
        self.never = ctypes.CFUNCTYPE(c_int, c_void_p, c_long, c_void_p, c_void_p)(lambda *_: 0)
        self.lib.gnutls_anti_replay_set_add_function(self.replays, self.never)

    @staticmethod
    def check(result, what):
        if result in (GNUTLS_E_AGAIN, GNUTLS_E_INTERRUPTED):
            raise Refused
        if result < 0:
            raise Failed(f"{what}: {result}")
        return result

    def version(self):
        return "GnuTLS " + function(self.lib, "gnutls_check_version", c_char_p, c_char_p)(None).decode()

    def end(self, sock, server, truth):
        return GnuTLSEnd(self, sock, server, truth)


class GnuTLSEnd(End):
    def __init__(self, gnutls, sock, server, truth):
        super().__init__(sock, truth)
        self.lib, self.check = gnutls.lib, gnutls.check
        self.session = c_void_p()
        self.check(self.lib.gnutls_init(byref(self.session),
                                        GNUTLS_NONBLOCK | GNUTLS_ENABLE_EARLY_DATA |
                                        (GNUTLS_SERVER if server else GNUTLS_CLIENT)), "init")
        self.check(self.lib.gnutls_set_default_priority(self.session), "priority")
        self.check(self.lib.gnutls_credentials_set(self.session, GNUTLS_CRD_CERTIFICATE,
                                                   gnutls.credentials), "credentials_set")
        self.lib.gnutls_transport_set_int2(self.session, self.fd, self.fd)
        if server:
            self.check(self.lib.gnutls_session_ticket_enable_server(
                self.session, byref(gnutls.tickets)), "tickets")
            self.lib.gnutls_anti_replay_enable(self.session, gnutls.replays)

        bytes_at = (c_void_p, c_size_t)
        self.send = self.method("gnutls_record_send", *bytes_at)
        send2 = self.method("gnutls_record_send2", *bytes_at, c_size_t, c_uint)
        send_range = self.method("gnutls_record_send_range", *bytes_at, c_void_p)
        receive_seq = self.method("gnutls_record_recv_seq", *bytes_at, c_char_p)
        sequence = ctypes.create_string_buffer(8)
        self.scratch = ctypes.create_string_buffer(max(EDGES))
        self.pending = False
        self.repeated = 0

        def padded(address, size):  # GnuTLS 3.7 makes too large a record of a full one
            return send2(address, size, 16 if size < 16000 else 0, 0)

        def ranged(address, size):
            return send_range(address, size, (c_size_t * 2)(size, size + 7))

        self.add(self.writes, "gnutls_record_send", self.send)
        self.add(self.writes, "gnutls_record_send2", padded)
        # this one does not come back from a socket that is full
        self.add(self.writes, "gnutls_record_send_range", ranged, 65536)
        self.add(self.writes, "gnutls_record_send, then without data", self.send_once)
        self.add(self.writes, "gnutls_record_cork", self.corked)
        self.add(self.reads, "gnutls_record_recv", self.method("gnutls_record_recv", *bytes_at))
        self.add(self.reads, "gnutls_record_recv_seq",
                 lambda at, size: receive_seq(at, size, sequence))

    def method(self, name, *arguments):
        call = function(self.lib, name, c_ssize_t, c_void_p, *arguments)
        return lambda *values: self.check(call(self.session, *values), name)

    def send_once(self, address, size):
        """A call that was refused is repeated without the data, which is gone by then."""
        try:
            if self.pending:
                done = self.send(None, 0)
            else:
                ctypes.memmove(self.scratch, address, size)
                done = self.send(self.scratch, size)
        except Refused:
            ctypes.memset(self.scratch, ord("?"), size)
            self.pending = True
            self.repeated += 1
            raise
        self.pending = False
        return done

    def corked(self, address, size):
        """Takes it all, which flush() sends."""
        self.lib.gnutls_record_cork(self.session)
        done = self.send(address, size)
        self.pending = True
        return done

    def flush(self):
        if self.pending and self.lib.gnutls_record_check_corked(self.session):
            self.check(self.lib.gnutls_record_uncork(self.session, 0), "uncork")
            self.pending = False

    def done(self):
        if not self.repeated:
            raise Failed("no call had to be repeated without data")

    def handshake(self):
        self.check(self.lib.gnutls_handshake(self.session), "handshake")

    def ticket(self):
        """What the other end has sent for the next connection."""
        data = Datum()
        self.check(self.lib.gnutls_session_get_data2(self.session, byref(data)), "get_data2")
        return data

    def resume(self, ticket):
        self.check(self.lib.gnutls_session_set_data(self.session, c_void_p(ticket.data),
                                                    c_size_t(ticket.size)), "set_data")

    def send_early(self, data):
        send = self.method("gnutls_record_send_early_data", c_char_p, c_size_t)
        if send(data, len(data)) == 0:
            self.truth.moved("write", self.fd, data)

    def receive_early(self, size):
        """In pieces, as GnuTLS keeps it for us."""
        receive = self.method("gnutls_record_recv_early_data", c_void_p, c_size_t)
        room = ctypes.create_string_buffer(size)
        while size:
            done = receive(room, min(size, 1000))
            self.truth.moved("read", self.fd, room[:done])
            size -= done


# ---- NSS ----

PR_WOULD_BLOCK_ERROR = -5998
PR_SUCCESS = 0
PR_MSG_PEEK = 2
PR_SOCKOPT_NONBLOCKING = 0
SSL_HANDSHAKE_AS_CLIENT, SSL_HANDSHAKE_AS_SERVER = 5, 6
NICKNAME = b"localhost"


class SocketOption(ctypes.Structure):
    _fields_ = [("option", c_int), ("value", c_size_t)]


class Vector(ctypes.Structure):
    _fields_ = [("base", c_void_p), ("len", c_int)]


class NSS:
    """Several libraries, in the directory of libssl3.so."""

    def __init__(self, path, args):
        directory = os.path.dirname(path)
        self.ssl, self.nspr, self.nss = (
            ctypes.CDLL(os.path.join(directory, name))
            for name in (os.path.basename(path), "libnspr4.so", "libnss3.so"))
        self.call(self.nss, "NSS_Init", c_char_p)(args.cert.encode())
        self.call(self.ssl, "NSS_SetDomesticPolicy")()
        self.call(self.ssl, "SSL_ConfigServerSessionIDCache", c_int, c_uint, c_uint, c_char_p)(
            0, 0, 0, None)

    def call(self, lib, name, *arguments):
        plain = function(lib, name, c_int, *arguments)

        def checked(*values):
            result = plain(*values)
            if result >= 0:
                return result
            error = self.nspr.PR_GetError()
            if error == PR_WOULD_BLOCK_ERROR:
                raise Refused
            raise Failed(f"{name}: {error}")
        return checked

    def version(self):
        return "NSS " + function(self.nss, "NSS_GetVersion", c_char_p)().decode()

    def end(self, sock, server, truth):
        return NSSEnd(self, sock, server, truth)


class NSSEnd(End):
    def __init__(self, nss, sock, server, truth):
        super().__init__(sock, truth)
        plain = function(nss.nspr, "PR_ImportTCPSocket", c_void_p, c_int)(self.fd)
        nonblocking = SocketOption(PR_SOCKOPT_NONBLOCKING, 1)
        nss.call(nss.nspr, "PR_SetSocketOption", c_void_p, c_void_p)(plain, byref(nonblocking))
        desc = function(nss.ssl, "SSL_ImportFD", c_void_p, c_void_p, c_void_p)(None, plain)
        if server:
            certificate, key = (function(nss.nss, name, c_void_p, c_char_p if first else c_void_p,
                                         c_void_p)
                                for first, name in ((True, "PK11_FindCertFromNickname"),
                                                    (False, "PK11_FindKeyByAnyCert")))
            certificate = certificate(NICKNAME, None)
            nss.call(nss.ssl, "SSL_ConfigServerCert", c_void_p, c_void_p, c_void_p, c_void_p,
                     c_uint)(desc, certificate, key(certificate, None), None, 0)
        else:
            self.accept = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int)(
                lambda *_: PR_SUCCESS)  # any certificate
            nss.call(nss.ssl, "SSL_AuthCertificateHook", c_void_p, c_void_p, c_void_p)(
                desc, ctypes.cast(self.accept, c_void_p), None)
            nss.call(nss.ssl, "SSL_SetURL", c_void_p, c_char_p)(desc, b"localhost")
        nss.call(nss.ssl, "SSL_ResetHandshake", c_void_p, c_int)(desc, server)
        self.force = nss.call(nss.ssl, "SSL_ForceHandshake", c_void_p)
        self.desc = desc

        def io(name, *more):
            call = nss.call(nss.nspr, name, c_void_p, c_void_p, c_int, *(c_uint,) * len(more))
            return lambda address, size: call(desc, address, size, *more)

        self.add(self.writes, "PR_Write", io("PR_Write"))
        self.add(self.writes, "PR_Send", io("PR_Send", 0, 0))
        self.add(self.reads, "PR_Read", io("PR_Read"))
        self.add(self.reads, "PR_Recv", io("PR_Recv", 0, 0))
        self.peek = io("PR_Recv", PR_MSG_PEEK, 0)
        self.writev = io("PR_Writev", 0)
        self.writes.append(("PR_Writev", self.write_vectors, EDGES[-1]))

    def write_vectors(self, address, size):
        """The bytes in three pieces, one of them empty."""
        sizes = (size // 3, 0, size - size // 3)
        array = (Vector * 3)(*((address + sum(sizes[:i]), sizes[i]) for i in range(3)))
        left = self.writev(ctypes.addressof(array), len(array))
        for size in sizes:
            yield min(size, left)
            left -= min(size, left)

    def handshake(self):
        self.force(self.desc)


# ---- rustls, by its C API ----

RUSTLS_OK, RUSTLS_PLAINTEXT_EMPTY = 7000, 7011


class Rustls:
    def __init__(self, path, args):
        self.lib = ctypes.CDLL(path)
        for name in ("client_config_builder_new", "server_config_builder_new",
                     "root_cert_store_builder_new", "web_pki_server_cert_verifier_builder_new"):
            getattr(self.lib, f"rustls_{name}").restype = c_void_p
        with open(args.cert, "rb") as cert, open(args.key, "rb") as key:
            cert, key = cert.read(), key.read()

        builder = c_void_p(self.lib.rustls_root_cert_store_builder_new())
        self.check("root_cert_store_builder_add_pem", builder, cert, c_size_t(len(cert)), True)
        roots = self.made("root_cert_store_builder_build", builder)
        builder = c_void_p(self.lib.rustls_web_pki_server_cert_verifier_builder_new(roots))
        verifier = self.made("web_pki_server_cert_verifier_builder_build", builder)
        builder = c_void_p(self.lib.rustls_client_config_builder_new())
        self.lib.rustls_client_config_builder_set_server_verifier(builder, verifier)
        self.client = self.made("client_config_builder_build", builder)

        pair = self.made("certified_key_build", cert, c_size_t(len(cert)), key, c_size_t(len(key)))
        builder = c_void_p(self.lib.rustls_server_config_builder_new())
        self.check("server_config_builder_set_certified_keys", builder, byref(pair), c_size_t(1))
        self.server = self.made("server_config_builder_build", builder)

    def check(self, name, *arguments):
        result = function(self.lib, f"rustls_{name}", c_uint)(*arguments)
        if result != RUSTLS_OK:
            raise Failed(f"{name}: {result}")

    def made(self, name, *arguments):
        """What such a function gives through its last argument."""
        out = c_void_p()
        self.check(name, *arguments, byref(out))
        return out

    def version(self):
        class String(ctypes.Structure):
            _fields_ = [("data", c_void_p), ("size", c_size_t)]
        version = function(self.lib, "rustls_version", String)()
        return ctypes.string_at(version.data, version.size).decode()

    def end(self, sock, server, truth):
        return RustlsEnd(self, sock, server, truth)


class RustlsEnd(End):
    """rustls keeps what it takes until flush() sends it."""

    callback = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t, c_void_p)

    def __init__(self, rustls, sock, server, truth):
        super().__init__(sock, truth)
        self.lib = rustls.lib
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.conn = (rustls.made("server_connection_new", rustls.server) if server else
                     rustls.made("client_connection_new", rustls.client, b"localhost"))
        self.send, self.receive = (self.callback(self.through(name)) for name in ("send", "recv"))
        plain = (c_uint, c_void_p, c_void_p, c_size_t, c_void_p)
        self.add(self.writes, "rustls_connection_write",
                 self.counted(function(self.lib, "rustls_connection_write", *plain)))
        for name in ("rustls_connection_read", "rustls_connection_read_2"):
            read = function(self.lib, name, *plain)
            self.add(self.reads, name, read and self.after_receive(self.counted(read)))
        for name in ("is_handshaking", "wants_write"):
            function(self.lib, f"rustls_connection_{name}", ctypes.c_bool)

    def through(self, name):
        call = function(self.libc, name, c_ssize_t, c_int, c_void_p, c_size_t, c_int)

        def move(_, address, size, moved):
            done = call(self.fd, address, size, 0)
            if done < 0:
                return ctypes.get_errno()
            c_size_t.from_address(moved).value = done
            return 0
        return move

    def tls(self, name, callback):
        """Moves records; True if there were some."""
        done = c_size_t(0)
        error = getattr(self.lib, f"rustls_connection_{name}_tls")(
            self.conn, callback, None, byref(done))
        if error not in (0, errno.EAGAIN):
            raise Failed(f"{name}_tls: {error}")
        return not error and done.value

    def counted(self, call):
        def move(address, size):
            done = c_size_t(0)
            result = call(self.conn, address, size, byref(done))
            if result == RUSTLS_PLAINTEXT_EMPTY or (result == RUSTLS_OK and not done.value):
                raise Refused
            if result != RUSTLS_OK:
                raise Failed(f"rustls: {result}")
            return done.value
        return move

    def take(self):
        """What has come in, until there is plaintext; else refused."""
        if not self.tls("read", self.receive):
            raise Refused
        result = self.lib.rustls_connection_process_new_packets(self.conn)
        if result != RUSTLS_OK:
            raise Failed(f"process_new_packets: {result}")

    def after_receive(self, read):
        def move(address, size):
            while True:
                with contextlib.suppress(Refused):
                    return read(address, size)
                self.take()
        return move

    def flush(self):
        while self.lib.rustls_connection_wants_write(self.conn) and self.tls("write", self.send):
            pass

    def handshake(self):
        self.flush()
        while self.lib.rustls_connection_is_handshaking(self.conn):
            self.take()
            self.flush()


# ---- what all libraries do ----

def repeat(ends, steps):
    """Calls each step until it is not refused any more."""
    while steps:
        left = []
        for step in steps:
            try:
                step()
            except Refused:
                left.append(step)
        if len(left) == len(steps):
            socks = [end.sock for end in ends]
            select.select(socks, socks if len(steps) > 1 else [], [], 0.01)
        steps = left


def transfer(number, size, sender, write, receiver, read, peek):
    """A message from end to end, in as many calls as it takes."""
    data = ctypes.create_string_buffer(payload(number, size), size)
    room = ctypes.create_string_buffer(size)
    sent = got = 0

    while got < size:
        before = sent + got
        with contextlib.suppress(Refused):
            while sent < size:
                sender.flush()
                for done in write(ctypes.addressof(data) + sent, size - sent):
                    sender.truth.moved("write", sender.fd, data[sent:sent + done])
                    sent += done
            sender.flush()
        with contextlib.suppress(Refused):
            while got < size:
                if peek:
                    peek(ctypes.addressof(room) + got, min(size - got, 13))
                for done in read(ctypes.addressof(room) + got, size - got):
                    receiver.truth.moved("read", receiver.fd, room[got:got + done])
                    got += done
        if sent + got == before:
            select.select([receiver.sock], [], [], 0.01)
    if room.raw != data.raw:
        raise Failed(f"message {number} of {size} bytes is not what was sent")


def converse(client, server, sizes):
    number = 0
    for sender, receiver in ((client, server), (server, client)):
        for way in range(max(len(sender.writes), len(receiver.reads))):
            name, write, most = sender.writes[way % len(sender.writes)]
            other, read, _ = receiver.reads[way % len(receiver.reads)]
            print(f"{name}, {other}", file=sys.stderr)
            # through a BIO, the library does not say that both are one connection
            peek = None if other == "BIO_read" else receiver.peek
            for size in (size for size in sizes if size <= most):
                transfer(number, size, sender, write, receiver, read, peek)
                number += 1
        sender.done()


def early_data(ticket, client, server):
    """Before the handshake is over: in two calls, one of which is about a whole record."""
    client.resume(ticket)
    sizes = (1021, 8192)
    for number, size in enumerate(sizes):
        client.send_early(payload(number, size))
    repeat((client, server), [client.handshake, server.handshake])
    server.receive_early(sum(sizes))
    converse(client, server, EDGES)


def connected(blocking):
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pair = [socket.create_connection(listener.getsockname())]
        pair.append(listener.accept()[0])
    for sock in pair:
        sock.setblocking(blocking)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SMALL_BUFFER)
    return pair


def ends_of(library, pair, truth):
    return (library.end(sock, bool(number), truth) for number, sock in enumerate(pair))


KINDS = {"openssl": OpenSSL, "gnutls": GnuTLS, "nss": NSS, "rustls": Rustls}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--library", required=True, metavar="PATH")
    parser.add_argument("--cert", required=True, help="PEM; NSS: directory of its database")
    parser.add_argument("--key", help="PEM")
    parser.add_argument("--blocking", action="store_true", help="for a library that cannot else: all "
                        "that is sent fits into the sockets")
    parser.add_argument("--early", action="store_true", help="a second connection with early data")
    parser.add_argument("--truth", required=True)
    args = parser.parse_args()

    signal.alarm(MAX_SECONDS)   # a stuck run ends by itself
    truth = Truth(args.truth)
    library = KINDS[args.kind](args.library, args)
    pairs = [connected(args.blocking) for _ in range(2)]
    print("version", library.version())
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("any_tls_target: no line on stdin")
    client, server = ends_of(library, pairs[0], truth)
    if args.blocking:
        other = threading.Thread(target=server.handshake, daemon=True)
        other.start()
        client.handshake()
        other.join()
    else:
        repeat((client, server), [client.handshake, server.handshake])
    converse(client, server, EDGES[:-1] if args.blocking else EDGES)
    if args.early:
        early_data(client.ticket(), *ends_of(library, pairs[1], truth))
    truth.file.close()


if __name__ == "__main__":
    main()
