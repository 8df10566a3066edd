#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs a command on a terminal of its own and has a dialogue with it.

usage: terminal.py [expect REGEX | stopped FILE | send TEXT]... -- COMMAND [ARG...]

In: what to wait for in the command's output, behind what was found before, or that the process whose
pid is in FILE has stopped, and what to type then (TEXT with Python's escapes: \\x03 is ^C). Out: all
that the terminal showed, on stdout; the status is the command's, 128 and the signal's number if one
ended it, 99 if what was expected did not come.
It must never leave the command running.
"""

import os
import pty
import re
import select
import signal
import sys
import time

MAX_SECONDS = 60


def read_more(master, end):
    """None: the terminal is closed."""
    ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
    if not ready:
        raise TimeoutError
    try:
        return os.read(master, 4096) or None
    except OSError:     # EIO: nobody has the other side any more
        return None


def wait_stopped(path, end):
    with open(path, encoding="ascii") as file:
        status = f"/proc/{file.read()}/status"
    while "\nState:\tT" not in open(status, encoding="utf-8").read():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def talk(master, steps):
    end, seen, at, data = time.monotonic() + MAX_SECONDS, b"", 0, b""
    for verb, text in steps + [("end", "")]:
        if verb == "send":
            os.write(master, text.encode().decode("unicode_escape").encode("latin-1"))
            continue
        if verb == "stopped":
            wait_stopped(text, end)
            continue
        while data is not None:
            found = re.search(text.encode(), seen[at:]) if verb == "expect" else None
            if found:
                at += found.end()
                break
            data = read_more(master, end)
            seen += data or b""
            os.write(1, data or b"")
        else:
            if verb == "expect":
                raise EOFError(text)


def main():
    split = sys.argv.index("--")
    steps = list(zip(sys.argv[1:split:2], sys.argv[2:split:2]))
    command = sys.argv[split + 1:]
    pid, master = pty.fork()
    if not pid:
        os.execvp(command[0], command)
    try:
        talk(master, steps)
    except (TimeoutError, EOFError) as err:
        print(f"\nterminal.py: did not come: {err!r}", flush=True)
        os.killpg(os.tcgetpgrp(master), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 99
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
