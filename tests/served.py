#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A file system of one directory, whose server may cease to answer in the middle of a file.

usage: served.py DIRECTORY MOUNTPOINT

Shows the files of DIRECTORY at MOUNTPOINT, read-only, by the kernel's FUSE protocol (7.31). Prints
"ready". A line on stdin with a number: from now on reads that go beyond so many bytes of a file are
never answered, nor can a signal end them; an empty line: all are again, those that waited, too.
At the end of stdin the mount is gone, and whoever waits gets an error. It must never write.
"""

import ctypes
import errno
import os
import select
import stat
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 18, 25, 26
OPENDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 27, 29, 36, 42
ROOT = 1


class Server:
    def __init__(self, directory, mountpoint):
        self.names = sorted(os.listdir(directory))
        self.files = [os.open(os.path.join(directory, name), os.O_RDONLY) for name in self.names]
        self.root = os.open(directory, os.O_RDONLY)
        self.limit = None
        self.waiting = []
        self.fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"served", mountpoint.encode(), b"fuse", 0, options.encode()):
            sys.exit(os.strerror(ctypes.get_errno()))

    def attributes(self, node):
        st = os.fstat(self.root if node == ROOT else self.files[node - ROOT - 1])
        mode = stat.S_IFDIR | 0o755 if node == ROOT else st.st_mode
        times = [st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns]
        return struct.pack("=6Q10I", node, st.st_size, st.st_blocks, *(t // 10**9 for t in times),
                           *(t % 10**9 for t in times), mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, unique, body=b"", error=0):
        os.write(self.fuse, struct.pack("=IiQ", 16 + len(body), -error, unique) + body)

    def read(self, unique, node, body):
        offset, size = struct.unpack_from("=8xQI", body)
        if self.limit is not None and offset + size > self.limit:
            self.waiting.append((unique, node, body))
        else:
            self.answer(unique, os.pread(self.files[node - ROOT - 1], size, offset))

    def request(self):
        data = os.read(self.fuse, 1 << 20)
        opcode, unique, node = struct.unpack_from("=4xIQQ", data)
        body = data[40:]
        if opcode == INIT:  # no reading ahead
            self.answer(unique, struct.pack("=4I2H2I2H32x", 7, 31, 0, 0, 16, 12, 4096, 1, 0, 0))
        elif opcode == LOOKUP:
            name = os.fsdecode(body[:-1])
            if name in self.names:
                node = ROOT + 1 + self.names.index(name)
                self.answer(unique, struct.pack("=4Q2I", node, 0, 60, 60, 0, 0) + self.attributes(node))
            else:
                self.answer(unique, error=errno.ENOENT)
        elif opcode == GETATTR:
            self.answer(unique, struct.pack("=QII", 60, 0, 0) + self.attributes(node))
        elif opcode in (OPEN, OPENDIR):
            self.answer(unique, struct.pack("=QII", 0, 0, 0))
        elif opcode == READ:
            self.read(unique, node, body)
        elif opcode in (RELEASE, RELEASEDIR, FLUSH):
            self.answer(unique)
        elif opcode not in (FORGET, BATCH_FORGET, INTERRUPT):
            self.answer(unique, error=errno.ENOSYS)

    def set_limit(self, line):
        self.limit = int(line) if line.strip() else None
        waiting, self.waiting = self.waiting, []
        for request in waiting:
            self.read(*request)


def main():
    server = Server(*sys.argv[1:])
    print("ready", flush=True)
    while True:
        for fd in select.select([sys.stdin, server.fuse], [], [])[0]:
            if fd == server.fuse:
                server.request()
                continue
            line = sys.stdin.readline()
            if not line:
                return
            server.set_limit(line)
            print(f"limit {server.limit}", flush=True)


main()
