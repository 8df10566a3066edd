#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Compare what tlssnoop printed of programs that keep no truth with what relay.py kept.

In: a trace of one or several processes, and the relay's account of their connections. Out: one line
with counts and status 0, or one line for each difference and status 1.
It must never pass without having compared both directions of a connection of every process.
"""

import argparse
import collections
import pathlib
import sys

import trace as snoop_trace     # the one next to this file


def read_account(directory, pids):
    """{port: (pid, fd)} of the connections of these processes."""
    owners = {}
    for path in pathlib.Path(directory).glob("*.owner"):
        pid, fd = map(int, path.read_text(encoding="ascii").split())
        if pid in pids:
            owners[int(path.stem)] = pid, fd
    return owners


def port_of(line, owners):
    """The port that names the line's connection: it is at one of its two ends. Formats without
    addresses have only the fd."""
    if line.json:
        ports = [int(end.rpartition(":")[2]) for end in (line.json["local"], line.json["remote"])
                 if end]
        found = [port for port in ports if port in owners]
    else:
        found = [port for port, owner in owners.items() if owner == (line.pid, line.fd)]
    return found[0] if len(found) == 1 else None


def compare(args):
    owners = read_account(args.account, args.pid)
    errors = [f"the account knows no connection of pid {pid}"
              for pid in args.pid if pid not in {owner for owner, _ in owners.values()}]
    seen, conns = collections.defaultdict(bytes), collections.defaultdict(set)
    lines = snoop_trace.read_trace(args.trace, args.format)
    for line in lines:
        port = port_of(line, owners)
        if port is None:
            errors.append(f"{line.where()}: pid {line.pid}: of no connection that is known")
            continue
        if owners[port] != (line.pid, line.fd):
            errors.append(f"{line.where()}: expected pid {owners[port][0]} fd {owners[port][1]}, "
                          f"seen pid {line.pid} fd {line.fd}")
        if line.len > snoop_trace.CHUNK:
            errors.append(f"{line.where()}: {line.len} bytes in one line")
        if line.json:
            conns[port].add(line.json["conn"])
        seen[port, line.dir] += line.data
    for port, (pid, fd) in owners.items():
        for way in "write", "read":
            wanted = pathlib.Path(args.account, f"{port}.{way}").read_bytes()
            have = seen[port, way]
            if not wanted:
                errors.append(f"pid {pid} port {port}: the account has no {way}")
            if have != wanted:
                at = snoop_trace.first_difference(have, wanted)
                errors.append(f"pid {pid} fd {fd} port {port} {way}: expected {len(wanted)} bytes, "
                              f"seen {len(have)}; at byte {at} expected "
                              f"{snoop_trace.show(wanted[at:])}, seen {snoop_trace.show(have[at:])}")
    errors += [f"port {port}: several conn: {', '.join(sorted(names))}"
               for port, names in conns.items() if len(names) != 1]
    names = [name for conn in conns.values() for name in conn]
    errors += [f"conn {name} is on several ports" for name in set(names) if names.count(name) > 1]
    if errors:
        raise snoop_trace.Mismatch("\n".join(errors[:snoop_trace.MOST_ERRORS]))
    print(f"compared {len(lines)} lines, {sum(map(len, seen.values()))} bytes, "
          f"{len(owners)} connections")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--format", choices=snoop_trace.PARSERS, default="json")
    parser.add_argument("--account", required=True, metavar="DIRECTORY")
    parser.add_argument("--pid", type=int, action="append", required=True)
    parser.add_argument("trace", metavar="TRACE")
    try:
        compare(parser.parse_args())
    except snoop_trace.Mismatch as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
