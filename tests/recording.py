#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
Makes a recording of the facts that tests/recorder wrote: in place of its bytes each chunk gets its
true fd, which is known from the program's truth, and of the records of TLS inside TLS their headers.

In: the facts, and truth files: "write FD HEX" or "read FD HEX" for each call, or "NAME FD PORT" with
--name, a pattern of which every match in the bytes is a NAME. Out: the recording (tests/facts.h), on
stdout, no longer than --bytes; without its first line, which says what may stay without fd.
It must never let a byte of a chunk through that is not of such a header.
"""
import argparse
import collections
import re
import sys

# where these stand in the line of a chunk; its last word is DATA
PID, KEY, LEN, PART, PART_LEN, DIR, HIDDEN = 2, 7, 9, 10, 11, 13, 15


def streams(paths):
    """What went over each fd, by direction."""
    found = collections.defaultdict(bytes)
    for path in paths:
        with open(path, encoding="ascii") as file:
            for words in map(str.split, file):
                if words[0] in ("write", "read"):
                    found[words[0], words[1]] += bytes.fromhex(words[2])
    return found


def owners(paths):
    with open(paths[0], encoding="utf-8") as file:
        return {name: fd for name, fd, _ in (line.rsplit(None, 2) for line in file)}


class Truth:
    """Whose bytes are these?"""

    def __init__(self, args):
        self.name = args.name and re.compile(args.name.encode())
        self.known = owners(args.truth) if self.name else streams(args.truth)

    def owner(self, way, data):
        if self.name:
            fds = {self.known.get(match.decode()) for match in self.name.findall(data)}
            return fds.pop() if len(fds) == 1 else None
        fits = [key for key, stream in self.known.items()
                if key[0] == way and data and stream.startswith(data)]
        if len(fits) != 1:
            return None
        self.known[fits[0]] = self.known[fits[0]][len(data):]
        return fits[0][1]


class Inner:
    """Where the headers of TLS records are, in plaintext that is made of them."""

    def __init__(self):
        self.left = collections.defaultdict(int)    # of a record, by object and direction

    def headers(self, key, data):
        at, found = self.left.pop(key, 0), []
        while at + 5 <= len(data):
            if not (20 <= data[at] <= 23 and data[at + 1] == 3 and data[at + 2] <= 4):
                return found
            found += range(at, at + 5)
            at += 5 + int.from_bytes(data[at + 3:at + 5], "big")
        self.left[key] = max(0, at - len(data))
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--name", metavar="REGEX")
    parser.add_argument("--bytes", type=int, default=50000, metavar="N")
    parser.add_argument("facts")
    parser.add_argument("truth", nargs="+")
    args = parser.parse_args()
    truth, inner = Truth(args), Inner()
    lines, parts, length = [], [], 0
    with open(args.facts, encoding="ascii") as file:
        for words in map(str.split, file):
            if words[0] == "c":
                # a chunk in parts has its fd with the first of them
                parts.append((words, bytes.fromhex(words[-1].strip("-"))))
                words[-1] = "-"
                if int(words[PART]) + int(words[PART_LEN]) == int(words[LEN]):
                    data = b"".join(part for _, part in parts)
                    if words[HIDDEN] == "0" and len(data) == int(words[LEN]):
                        owner = truth.owner("write" if words[DIR] == "1" else "read", data)
                        parts[0][0][-1] = owner or "-"
                        for at in inner.headers((words[PID], words[KEY], words[DIR]), data):
                            for part, _ in parts:
                                place = at - int(part[PART])
                                if 0 <= place < int(part[PART_LEN]):
                                    part.append(f"{place}:{data[at]:x}")
                    parts = []
            lines.append(words)
    for words in lines:
        line = " ".join(words) + "\n"
        length += len(line)
        if length > args.bytes:
            break
        sys.stdout.write(line)


if __name__ == "__main__":
    main()
