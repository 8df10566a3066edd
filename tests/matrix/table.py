#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The table of what the matrix verified, made from its traces.

usage: table.py row PACKAGE BUILD MANGLING TRACE STRIPPED-TRACE   prints a row; "-": none
       table.py check README ROWS                                  fails if the table differs

In: traces in JSON that were compared with the truth already, and the package's Cargo.lock. Out: a
row of Markdown. It must never print a row for a trace in which a session is missing.
"""
import base64
import difflib
import json
import os
import re
import sys

HEAD = ["| rustls | built with | names | providers | records | records, stripped |",
        "|---|---|---|---|---|---|"]
# rows that not every machine can make
OPTIONAL = "rustc 1.63"
# the first bytes of a message: who sends it, and in which session
MESSAGE = re.compile(rb"(client|server) ([a-z-]+) (1\.[23]) (AES_128|CHACHA20) message ")


def version(package):
    lock = os.path.join(os.path.dirname(os.path.abspath(__file__)), package, "Cargo.lock")
    with open(lock, encoding="utf-8") as file:
        return re.search(r'\nname = "rustls"\nversion = "([^"]+)"', file.read())[1]


def read(path):
    """The count of lines of a trace, and the providers in it."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    seen = {(line["dir"],) + found.groups() for line in lines
            if (found := MESSAGE.match(line["data"].encode() if "data" in line else
                                       base64.b64decode(line["data_base64"])))}
    providers = {session[2] for session in seen}
    wanted = len(providers) * 2 * 2 * 2 * 2  # directions, ends, versions of TLS, ciphers
    if not seen or len(seen) != wanted:
        sys.exit(f"table.py: {path}: {len(seen)} of {wanted} sessions seen")
    return len(lines), ", ".join(name.decode() for name in sorted(providers, reverse=True))


def row(package, build, mangling, trace, stripped):
    count, providers = read(trace)
    rest = "none: it says so" if stripped == "-" else f"all {read(stripped)[0]}"
    print(f"| {version(package)} | {build} | {mangling} | {providers} | all {count} | {rest} |")


def check(readme, rows):
    with open(rows, encoding="utf-8") as file:
        made = file.read().splitlines()
    with open(readme, encoding="utf-8") as file:
        lines = file.read().splitlines()
    start = lines.index(HEAD[0]) if HEAD[0] in lines else len(lines)
    table = lines[start:lines.index("", start)] if start < len(lines) else []
    if not any(OPTIONAL in line for line in made):
        table = [line for line in table if OPTIONAL not in line]
    if table != HEAD + made:
        sys.exit("\n".join(difflib.unified_diff(table, HEAD + made, readme, "this run", lineterm="")))


if __name__ == "__main__":
    {"row": row, "check": check}[sys.argv[1]](*sys.argv[2:])
