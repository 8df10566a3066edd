#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Compare a trace of many processes with what each of them says that it did.

In: a trace in JSON, which may hold other processes as well: they are nobody's business here; and a
directory that has of each process that counts either
    PID, PID.stream         its truth, as trace.py takes it, to be compared by lines, or byte by byte
                            with a line for each record that it wrote to itself (rustls)
    NAME.pid, .said, .body  of tests/fetch: who it was, what curl said of it, and what it got
Out: one line with counts and status 0, or one line for each difference and status 1.
It must never pass without having compared something, nor take a process that is missing for one
that was silent.
"""

import argparse
import collections
import pathlib
import re
import sys
import types

import trace as snoop_trace     # the one next to this file


def lines_after(mark, said):
    """The header lines of one direction: curl -v puts a mark before each."""
    return b"".join(line[len(mark):] for line in said.splitlines(True) if line.startswith(mark))


class Fetch:
    """One curl: the bytes that it says it sent and got, and its port."""

    def __init__(self, pid_file):
        said = pid_file.with_suffix(".said").read_bytes()
        self.name = pid_file.stem
        self.pid = int(pid_file.read_text(encoding="ascii"))
        self.bytes = {"write": lines_after(b"> ", said),
                      "read": lines_after(b"< ", said) + pid_file.with_suffix(".body").read_bytes()}
        port = re.search(rb"^port (\d+)$", said, re.M)
        self.port = int(port[1]) if port else None


def port_of(address):
    return int(address.rpartition(":")[2]) if address else None


def check_fetch(fetch, whose, lines):
    """lines: those of its connection on one side. Yields what is wrong with them."""
    its_address = "local" if whose == "client" else "remote"
    what = f"fetch {fetch.name} (pid {fetch.pid}, port {fetch.port}) {whose}"
    for way in "write", "read":
        seen = b"".join(line.data for line in lines if line.dir == way)
        wanted = fetch.bytes[way if whose == "client" else {"write": "read", "read": "write"}[way]]
        if seen != wanted:
            at = snoop_trace.first_difference(seen, wanted)
            yield (f"{what} {way}: expected {len(wanted)} bytes, seen {len(seen)}; at byte {at} "
                   f"expected {snoop_trace.show(wanted[at:])}, seen {snoop_trace.show(seen[at:])}")
    for key, wanted in ("fd", 1), ("conn", 1):
        names = {line.json[key] for line in lines}
        if len(names) > wanted or None in names:
            yield f"{what}: {key} is {names}"
    for line in lines:
        if port_of(line.json[its_address]) != fetch.port:
            yield f"{line.where()}: {what}: seen {line.json[its_address]}"


def take_served(served, fetch):
    """The lines of its connection at the server. Its port may come again, if others need many: then
    it is the one with its request."""
    conns = [conn for conn in served if port_of(conn[1]) == fetch.port]
    asked = [conn for conn in conns
             if fetch.bytes["write"] == b"".join(line.data for line in served[conn] if line.dir == "read")]
    return served.pop((asked or conns or [None])[0], [])


def check_fetches(directory, lines, servers, only_server):
    clients, served, errors = collections.defaultdict(list), collections.defaultdict(list), []
    for line in lines:
        if line.pid in servers:
            served[line.json["conn"], line.json["remote"]].append(line)
        else:
            clients[line.pid].append(line)
    fetches = [Fetch(path) for path in directory.glob("*.pid")]
    for fetch in fetches:
        if not (fetch.port and fetch.bytes["write"] and fetch.bytes["read"]):
            errors.append(f"fetch {fetch.name}: curl did not say what it did")
        if not only_server:
            errors += check_fetch(fetch, "client", clients[fetch.pid])
        if servers:
            errors += check_fetch(fetch, "server", take_served(served, fetch))
        elif only_server:
            raise snoop_trace.Mismatch("--only-server needs a --server")
    errors += [f"the server has {sum(line.len for line in lines)} bytes as conn {conn} with {remote}, "
               "which nobody fetched" for (conn, remote), lines in served.items()]
    return len(fetches), errors


def truths_in(directory):
    """(path, pid, whether it is to be compared byte by byte) of each."""
    for path in directory.iterdir():
        match = re.fullmatch(r"(\d+)(\.stream)?", path.name)
        if match:
            yield path, int(match[1]), bool(match[2])


def check_truths(directory, lines):
    by_pid, errors, count = collections.defaultdict(list), [], 0
    for line in lines:
        by_pid[line.pid].append(line)
    for path, pid, stream in truths_in(directory):
        args = types.SimpleNamespace(pid=pid, comm=None, lib=None, attached_late=False,
                                     stream=stream, unread=0, peer_truth=path if stream else None)
        comparison = snoop_trace.Comparison(by_pid[pid], snoop_trace.read_truth(path), args)
        comparison.run()
        errors += [f"pid {pid}: {error}" for error in comparison.errors]
        count += 1
    return count, errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--server", type=int, action="append", default=[], metavar="PID",
                        help="of those who answered the fetches: compare their side as well")
    parser.add_argument("--only-server", action="store_true", help="the curls were not traced")
    parser.add_argument("--alone", action="store_true", help="the trace has nobody else")
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("trace", metavar="TRACE")
    args = parser.parse_args()
    try:
        known = {int(path.read_text(encoding="ascii")) for path in args.directory.glob("*.pid")}
        known |= {pid for _, pid, _ in truths_in(args.directory)} | set(args.server)
        lines = snoop_trace.read_trace(args.trace, "json", pids=None if args.alone else known)
        fetches, errors = check_fetches(args.directory, lines, set(args.server), args.only_server)
        truths, more = check_truths(args.directory, lines)
        errors += more
        errors += [f"{line.where()}: pid {line.pid}: of nobody who is known"
                   for line in lines if line.pid not in known]
        if not fetches + truths:
            errors.append(f"{args.directory}: nothing to compare with")
        if errors:
            raise snoop_trace.Mismatch("\n".join(errors[:snoop_trace.MOST_ERRORS] +
                                                 [f"({len(errors)} differences)"]))
    except snoop_trace.Mismatch as err:
        print(err, file=sys.stderr)
        return 1
    print(f"compared {fetches} fetches and {truths} truths with {len(lines)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
