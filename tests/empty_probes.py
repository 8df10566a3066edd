#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Puts probes that do nothing where tlssnoop would put its own: what no tracer can be below.

In: what "tlssnoop -L -p PID" prints, on stdin. Out: "Tracing" on stderr when they are in place; they go
when the process is gone. Attaches with multi-uprobe links (Linux 6.6), the cheapest way there is.
It must never do anything in a probe.
"""

import collections
import ctypes
import os
import platform
import select
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, LINK_CREATE = 5, 28
KPROBE, UPROBE_MULTI, AT_RETURN = 2, 48, 1
RETURN_ZERO = bytes.fromhex("b700000000000000" "9500000000000000")

libc = ctypes.CDLL(None, use_errno=True)


class ProgLoad(ctypes.Structure):
    """union bpf_attr for BPF_PROG_LOAD"""
    _fields_ = [("prog_type", ctypes.c_uint32), ("insn_cnt", ctypes.c_uint32),
                ("insns", ctypes.c_char_p), ("license", ctypes.c_char_p),
                ("log", ctypes.c_uint64 * 2), ("kern_version", ctypes.c_uint32),
                ("prog_flags", ctypes.c_uint32), ("prog_name", ctypes.c_char * 16),
                ("prog_ifindex", ctypes.c_uint32), ("expected_attach_type", ctypes.c_uint32)]


class LinkCreate(ctypes.Structure):
    """union bpf_attr for BPF_LINK_CREATE of a multi-uprobe link"""
    _fields_ = [("prog_fd", ctypes.c_uint32), ("target_fd", ctypes.c_uint32),
                ("attach_type", ctypes.c_uint32), ("flags", ctypes.c_uint32),
                ("path", ctypes.c_char_p), ("offsets", ctypes.c_void_p),
                ("ref_ctr_offsets", ctypes.c_void_p), ("cookies", ctypes.c_void_p),
                ("cnt", ctypes.c_uint32), ("multi_flags", ctypes.c_uint32),
                ("pid", ctypes.c_uint32)]


def bpf(command, attr):
    fd = libc.syscall(SYS_BPF, command, ctypes.byref(attr), ctypes.sizeof(attr))
    if fd < 0:
        sys.exit("empty_probes: " + os.strerror(ctypes.get_errno()))
    return fd


def link(prog, pid, path, offsets, flags):
    array = (ctypes.c_uint64 * len(offsets))(*offsets)
    bpf(LINK_CREATE, LinkCreate(prog_fd=prog, attach_type=UPROBE_MULTI, path=path.encode(),
                                offsets=ctypes.addressof(array), cnt=len(offsets), multi_flags=flags,
                                pid=pid))


def main():
    prog = bpf(PROG_LOAD, ProgLoad(prog_type=KPROBE, insn_cnt=len(RETURN_ZERO) // 8, insns=RETURN_ZERO,
                                   license=b"GPL", expected_attach_type=UPROBE_MULTI))
    sites = collections.defaultdict(list)
    sys.stdin.readline()
    for line in sys.stdin:
        if line.startswith("#"):    # remarks
            continue
        pid, library, _, _, _, offset, _, path = line.split(None, 7)
        sites[int(pid), library, path.rstrip("\n")].append(int(offset, 16))
    for (pid, library, path), offsets in sites.items():
        link(prog, pid, path, offsets, 0)
        if library == "openssl":    # what rustls' functions get is complete at their entry
            link(prog, pid, path, offsets, AT_RETURN)
    ends = select.poll()
    ends.register(os.pidfd_open(pid), select.POLLIN)
    print("Tracing nothing", file=sys.stderr, flush=True)
    ends.poll()


main()
