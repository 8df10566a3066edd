#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Compare what tlssnoop printed with the truth.

In: a trace (tlssnoop's stdout, any format) and truth files (what the traced program says its TLS
library moved: "write FD HEX", "read FD HEX", and "close FD" where an fd number becomes free).
Out: one line with counts and status 0, or one line for each difference and status 1.

It must never repair or skip a line that it does not understand: that is a difference too.
"""

import argparse
import base64
import bisect
import collections
import json
import re
import sys

CHUNK = 16384       # no line carries more
MOST_ERRORS = 20    # enough to see what is wrong
UNKNOWN_SHARE = 1000    # --attached-late: one line in so many may be without fd
SHOWN = 40          # bytes of a payload in a message

HEADER = ["TIME", "PID", "COMM", "FD", "DIR", "LEN", "DATA"]
BELOW = ("dump", "text")    # formats without the last column
COLUMNS = re.compile(rb"(?P<time>\d\d:\d\d:\d\d\.\d{6}) +(?P<pid>\d+) +(?P<comm>[!-~]+) +"
                     rb"(?P<fd>-|\d+) +(?P<dir>[!-~]+) +(?P<len>\d+)(?: (?P<data>.*))?")
PID = re.compile(rb'^{"time":"[^"]*","pid":(\d+),')
JSON_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
JSON_KEYS = {"time": str, "pid": int, "tid": int, "uid": int, "comm": str, "lib": str, "dir": str,
             "len": int, "off": int, "conn": str, "truncated": bool,
             "fd": (int, type(None)), "local": (str, type(None)), "remote": (str, type(None))}
ESCAPE = re.compile(r"\\(?:([\\rnt])|x([0-9a-f]{2}))|[ -\[\]-~]")
ESCAPED = {"\\": "\\", "r": "\r", "n": "\n", "t": "\t"}


class Mismatch(Exception):
    """The trace is not what it should be."""


class Line:
    """One printed chunk; data is None where the format does not keep it (text, see raw)."""

    def __init__(self, number, fields, data):
        self.number = number
        self.pid = int(fields["pid"])
        self.comm = fields["comm"]
        self.fd = fields["fd"]
        self.dir = fields["dir"]
        self.len = int(fields["len"])
        self.data = data
        self.raw = None
        self.json = None

    def where(self):
        return f"line {self.number}: fd {'-' if self.fd is None else self.fd} {self.dir}"


class Call:
    """One call of the truth; conn is (fd, how many connections had this number before)."""

    def __init__(self, number, conn, data):
        self.number = number
        self.conn = conn
        self.data = data


def show(data):
    """A payload for a message."""
    if data is None:
        return "(nothing)"
    text = repr(data[:SHOWN])[2:-1]
    return f"'{text}'" + ("..." if len(data) > SHOWN else "")


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


# ---- the formats ----

def escape(data):
    """The DATA column as it has to be."""
    names = {92: "\\\\", 10: "\\n", 13: "\\r", 9: "\\t"}
    return "".join(names.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data)


def unescape(text, number):
    out, pos = [], 0
    while pos < len(text):
        match = ESCAPE.match(text, pos)
        if not match:
            raise Mismatch(f"line {number}: no valid escape or printable byte at column "
                           f"{pos} of DATA: {show(text[pos:].encode('latin-1'))}")
        if match[2]:
            out.append(chr(int(match[2], 16)))
        else:
            out.append(ESCAPED[match[1]] if match[1] else match[0])
        pos = match.end()
    data = "".join(out).encode("latin-1")
    if escape(data) != text:
        raise Mismatch(f"line {number}: DATA escapes what needs none: {show(text.encode())}")
    return data


def parse_columns(line, number):
    match = COLUMNS.fullmatch(line)
    if not match:
        raise Mismatch(f"line {number}: not seven columns: {show(line)}")
    fields = match.groupdict()
    for key in ("pid", "comm", "fd", "dir", "len"):
        fields[key] = fields[key].decode()
    fields["fd"] = None if fields["fd"] == "-" else int(fields["fd"])
    return fields


def check_whole(line, data, text):
    """LEN bytes, and no mark that some are left out."""
    if len(data) == line.len:
        return
    cut = " (cut: ends with ' ...')" if text.endswith(" ...") else ""
    raise Mismatch(f"{line.where()}: LEN is {line.len}, DATA has {len(data)} bytes{cut}")


def parse_ascii(lines):
    for number, raw in lines:
        fields = parse_columns(raw, number)
        text = (fields["data"] or b"").decode("latin-1")
        line = Line(number, fields, unescape(text, number))
        check_whole(line, line.data, text)
        yield line


def parse_hex(lines):
    for number, raw in lines:
        fields = parse_columns(raw, number)
        text = (fields["data"] or b"").decode("latin-1")
        match = re.fullmatch(r"((?:[0-9a-f]{2})*)( \.\.\.)?", text)
        if not match:
            raise Mismatch(f"line {number}: DATA is not lower-case hex: {show(text.encode())}")
        line = Line(number, fields, bytes.fromhex(match[1]))
        check_whole(line, line.data, text)
        yield line


def parse_below(lines):
    """Columns, then the lines that stand below them."""
    line = None
    for number, raw in lines:
        if COLUMNS.fullmatch(raw):
            if line:
                yield line
            fields = parse_columns(raw, number)
            if fields["data"] and fields["data"].strip():
                raise Mismatch(f"line {number}: DATA belongs below: {show(fields['data'])}")
            line = Line(number, fields, None)
            line.raw = []
        elif line:
            line.raw.append((number, raw))
        else:
            raise Mismatch(f"line {number}: not seven columns: {show(raw)}")
    if line:
        yield line


def dump_row(offset, data):
    """A row of -X as it has to be."""
    digits = " ".join(f"{b:02x}" for b in data[:8]) + "  " + " ".join(f"{b:02x}" for b in data[8:])
    text = "".join(chr(b) if 32 <= b < 127 else "." for b in data)
    return f"  {offset:04x}  {digits:<48}  {text}".encode()


def parse_dump(lines):
    for line in parse_below(lines):
        data = b""
        for number, raw in line.raw:
            match = re.fullmatch(rb"  ([0-9a-f]{4,})  ([0-9a-f ]{48})  (.{1,16})", raw)
            row = bytes.fromhex(match[2].decode()) if match else b""
            if not row or raw != dump_row(len(data), row):
                raise Mismatch(f"line {number}: not the dump row for offset {len(data):04x} of the "
                               f"chunk in line {line.number}: '{raw.decode('latin-1')}'")
            data += row
        line.data = data
        check_whole(line, data, "")
        yield line


def parse_text(lines):
    """Not lossless: the text is kept in raw, and no byte of it may steer a terminal."""
    for line in parse_below(lines):
        for number, raw in line.raw:
            for char in raw.decode("utf-8", "surrogateescape"):
                # bytes that are no UTF-8 come as U+DC80 and up: 0x80 to 0x9f are controls too
                code = ord(char) - 0xdc00 if 0xdc80 <= ord(char) <= 0xdcff else ord(char)
                if (code < 32 and char != "\t") or 0x7f <= code < 0xa0:
                    raise Mismatch(f"line {number}: control byte 0x{code:02x} in the text")
        line.raw = b"".join(raw + b"\n" for _, raw in line.raw)
        yield line


def no_twins(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key comes twice")
    return dict(pairs)


def json_data(obj):
    if ("data" in obj) == ("data_base64" in obj):
        raise ValueError("data or data_base64, one of them")
    if "data" in obj:
        return obj["data"].encode()
    data = base64.b64decode(obj["data_base64"], validate=True)
    try:
        data.decode()
    except UnicodeDecodeError:
        return data
    raise ValueError("data_base64 for valid UTF-8")


def parse_json(lines):
    for number, raw in lines:
        try:
            obj = json.loads(raw.decode(), object_pairs_hook=no_twins)
            if not isinstance(obj, dict):
                raise ValueError("not an object")
            for key, kind in JSON_KEYS.items():
                if key not in obj:
                    raise ValueError(f"no key {key}")
                if not isinstance(obj[key], kind) or (kind is int and isinstance(obj[key], bool)):
                    raise ValueError(f"{key} is {obj[key]!r}")
            if not JSON_TIME.fullmatch(obj["time"]):
                raise ValueError(f"time is {obj['time']!r}")
            line = Line(number, obj, json_data(obj))
        except ValueError as err:
            raise Mismatch(f"line {number}: {err}: {show(raw)}") from err
        line.json = obj
        cut = "cut" if obj["truncated"] else "not cut"
        if obj["truncated"] or len(line.data) != line.len:
            raise Mismatch(f"{line.where()}: len is {line.len}, data has {len(line.data)} bytes, "
                           f"marked as {cut}")
        yield line


PARSERS = {"ascii": parse_ascii, "hex": parse_hex, "dump": parse_dump, "text": parse_text,
           "json": parse_json}


def read_trace(path, fmt, header=True, pids=None):
    """pids: those that count; of JSON only."""
    with open(path, "rb") as file:
        content = file.read()
    lines = content.split(b"\n")
    if lines.pop():
        raise Mismatch(f"line {len(lines) + 1}: the last line has no newline")
    numbered = list(enumerate(lines, 1))
    if header and fmt != "json":
        wanted = HEADER[:-1] if fmt in BELOW else HEADER
        if not lines or lines[0].decode("latin-1").split() != wanted:
            raise Mismatch(f"line 1: not the header: {show(lines[0] if lines else None)}")
        numbered = numbered[1:]
    if pids is not None:
        others = [PID.search(line) for line in lines]
        numbered = [line for line, pid in zip(numbered, others) if not pid or int(pid[1]) in pids]
    return list(PARSERS[fmt](numbered))


# ---- the truth ----

def read_truth(path):
    """{(fd, dir): [Call]}"""
    streams, age = collections.defaultdict(list), collections.Counter()
    with open(path, encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                raise Mismatch(f"{path}: line {number} has no newline")
            words = line.split()
            if len(words) == 2 and words[0] == "close":
                age[int(words[1])] += 1
            elif len(words) == 3 and words[0] in ("read", "write"):
                fd = int(words[1])
                streams[fd, words[0]].append(Call(number, (fd, age[fd]), bytes.fromhex(words[2])))
            else:
                raise Mismatch(f"{path}: line {number}: not write, read or close")
    if not streams:
        raise Mismatch(f"{path}: no call in it")
    return streams


def records(size):
    """Chunks of a call, and TLS records of a rustls write."""
    return -(-size // CHUNK)


def chunks(calls):
    return [(call, off, call.data[off:off + CHUNK])
            for call in calls for off in range(0, len(call.data), CHUNK)]


# ---- compare ----

class Comparison:
    def __init__(self, lines, truth, args):
        self.truth = truth
        self.args = args
        self.errors = []
        self.seen = collections.defaultdict(list)
        self.conns = {}         # conn of the trace -> conn of the truth, and back
        self.names = {}
        self.lines = lines

    def error(self, text):
        self.errors.append(text)

    def locate(self, data):
        """Where else in the truth these bytes are: tells a swap from a loss. Not for what is not
        shown, as it looks at everything."""
        if len(self.errors) >= MOST_ERRORS:
            return ""
        places = [f"fd {fd} {way} (truth line {call.number}, offset {off})"
                  for (fd, way), calls in self.truth.items()
                  for call, off, part in chunks(calls) if part == data]
        if not places:
            return "; nowhere in the truth"
        return "; in the truth at " + ", ".join(places[:3])

    def check_columns(self, line):
        args = self.args
        if line.pid != args.pid:
            self.error(f"{line.where()}: expected pid {args.pid}, seen {line.pid}")
        if args.comm is not None and line.comm != args.comm:
            self.error(f"{line.where()}: expected comm {args.comm}, seen {line.comm}")
        if not 0 < line.len <= CHUNK:
            self.error(f"{line.where()}: length {line.len} is not 1 to {CHUNK}")
        if line.json and args.lib is not None and line.json["lib"] != args.lib:
            self.error(f"{line.where()}: expected lib {args.lib}, seen {line.json['lib']}")
        if (line.fd, line.dir) not in self.truth and not (args.attached_late and line.fd is None):
            self.error(f"{line.where()}: nothing was moved there in the truth, seen "
                       f"{line.len} bytes {show(line.data)}{self.locate(line.data)}")

    def check_conn(self, line, conn):
        """conn of the trace and connection of the truth name each other."""
        if not line.json:
            return
        name = line.json["conn"]
        if self.conns.setdefault(name, conn) != conn:
            self.error(f"{line.where()}: conn {name} is also connection {self.conns[name][1]} "
                       f"of fd {self.conns[name][0]}")
        if self.names.setdefault(conn, name) != name:
            self.error(f"{line.where()}: expected conn {self.names[conn]}, seen {name}")

    def check_text(self, line, data):
        """Text that needs no care stands there as it is."""
        if any(not 32 <= b < 127 and b not in b"\n\t" for b in data):
            return
        if line.raw not in (data, data + b"\n"):
            self.error(f"{line.where()}: expected the text {show(data)}, seen {show(line.raw)}, "
                       f"differs at byte {first_difference(line.raw, data)}")

    def same(self, line, data):
        return line.len == len(data) if line.data is None else line.data == data

    def exact_stream(self, key, lines):
        """Stops at the first difference of the stream: what follows it only repeats it."""
        expected = chunks(self.truth[key])
        for (call, off, data), line in zip(expected, lines):
            if not self.same(line, data):
                at = "" if line.data is None else \
                    f", differs at byte {first_difference(line.data, data)}{self.locate(line.data)}"
                self.error(f"{line.where()}: expected {len(data)} bytes {show(data)} (truth line "
                           f"{call.number}, offset {off}), seen {line.len} bytes "
                           f"{show(line.data)}{at}")
                return
            if line.data is None:
                self.check_text(line, data)
            if line.json and line.json["off"] != off:
                self.error(f"{line.where()}: expected off {off}, seen {line.json['off']}")
            self.check_conn(line, call.conn)
        if len(lines) > len(expected):
            line = lines[len(expected)]
            self.error(f"{line.where()}: {len(lines) - len(expected)} lines more than the "
                       f"{len(expected)} of the truth, the first has {line.len} bytes "
                       f"{show(line.data)}")
        elif len(lines) < len(expected):
            call, off, data = expected[len(lines)]
            self.error(f"fd {key[0]} {key[1]}: {len(expected) - len(lines)} of {len(expected)} "
                       f"lines missing at the end, the first is truth line {call.number}, offset "
                       f"{off}: {len(data)} bytes {show(data)}")

    def byte_stream(self, key, lines):
        calls = self.truth[key]
        expected, seen = (b"".join(x.data for x in part) for part in (calls, lines))
        ends, starts = [0], [0]
        for call in calls:
            ends.append(ends[-1] + len(call.data))
        for line in lines:
            starts.append(starts[-1] + line.len)
        more = len(seen) - len(expected)
        if key[1] == "read" and expected.startswith(seen) and -more <= self.args.unread:
            expected = seen
        elif key[1] == "write" and seen.startswith(expected) and 0 < more <= self.args.unread:
            # the one that did not read it has made the truth for both
            lines = lines[:bisect.bisect_left(starts, len(expected))]
            seen = b"".join(line.data for line in lines)
        if seen != expected:
            at = first_difference(seen, expected)
            where = lines[min(bisect.bisect_right(starts, at) - 1, len(lines) - 1)].where() \
                if lines else f"fd {key[0]} {key[1]}"
            self.error(f"{where}: expected a stream of {len(expected)} bytes, seen {len(seen)}; at "
                       f"byte {at} expected {show(expected[at:])}, seen {show(seen[at:])}")
            return
        for line, start in zip(lines, starts):
            self.check_conn(line, calls[bisect.bisect_right(ends, start) - 1].conn)
        wanted = sum(records(len(call.data)) for call in calls)
        if key[1] == "write" and len(lines) != wanted:
            self.error(f"fd {key[0]} write: expected {wanted} lines (records), seen {len(lines)}")

    def late_stream(self, key, expected, lines):
        """These lines are the end of a stream. Returns where it begins, as the first one says."""
        start = expected.find(lines[0].data) if lines else len(expected)
        pos = max(start, 0)
        for line in lines:
            if not expected.startswith(line.data, pos):
                self.error(f"{line.where()}: expected at byte {pos} of the stream "
                           f"{show(expected[pos:pos + line.len])}, seen {line.len} bytes "
                           f"{show(line.data)}{self.locate(line.data)}")
                return start
            self.check_conn(line, self.truth[key][-1].conn)
            pos += line.len
        if not lines or pos < len(expected):
            self.error(f"fd {key[0]} {key[1]}: {len(expected) - pos} bytes missing at the end, "
                       f"{len(lines)} lines")
        return start

    def late_streams(self):
        """Lines without fd are allowed where a stream begins, but few of them."""
        streams = {key: b"".join(call.data for call in calls) for key, calls in self.truth.items()}
        starts = {key: self.late_stream(key, streams[key], self.seen[key]) for key in streams}
        unknown = [line for line in self.lines if line.fd is None]
        for line in reversed(unknown):
            place = next((key for key, start in starts.items()
                          if key[1] == line.dir and start >= line.len and
                          streams[key].startswith(line.data, start - line.len)), None)
            if place:
                starts[place] -= line.len
            else:
                self.error(f"{line.where()}: {line.len} bytes {show(line.data)}: not the beginning "
                           f"of what was seen of any stream{self.locate(line.data)}")
        if len(unknown) * UNKNOWN_SHARE >= len(self.lines):
            self.error(f"{len(unknown)} of {len(self.lines)} lines are without fd")

    def check_peer(self, path):
        """Every record that the peer wrote is one line here."""
        wanted = sum(records(len(call.data)) for (_, way), calls in read_truth(path).items()
                     if way == "write" for call in calls)
        seen = sum(len(lines) for (_, way), lines in self.seen.items() if way == "read")
        if seen != wanted:
            self.error(f"reads: the peer wrote {wanted} records, seen {seen} lines")

    def run(self):
        for line in self.lines:
            self.check_columns(line)
            self.seen[line.fd, line.dir].append(line)
        if self.args.attached_late:
            self.late_streams()
            return
        for key in self.truth:
            if self.args.stream:
                self.byte_stream(key, self.seen[key])
            else:
                self.exact_stream(key, self.seen[key])
        if self.args.peer_truth:
            self.check_peer(self.args.peer_truth)


def take_layer(lines, truth):
    """The lines that go on with a stream of this truth, and the others."""
    left = {key: b"".join(call.data for call in calls) for key, calls in truth.items()}
    taken, others = [], []
    for line in lines:
        stream = left.get((line.fd, line.dir), b"")
        if stream.startswith(line.data) and stream:
            left[line.fd, line.dir] = stream[line.len:]
            taken.append(line)
        else:
            others.append(line)
    return taken, others


def compare(args):
    lines = read_trace(args.trace, args.format, not args.no_header)
    if (args.stream or args.attached_late) and args.format == "text":
        raise Mismatch("text does not keep the bytes: line by line only")
    layers = [(lines, args.truth)]
    if args.inner_truth:
        outer, inner = take_layer(lines, read_truth(args.truth))
        layers = [(outer, args.truth), (inner, args.inner_truth)]
    errors = []
    for part, truth in layers:
        comparison = Comparison(part, read_truth(truth), args)
        comparison.run()
        errors += comparison.errors
    unknown = sum(line.fd is None for line in lines)
    if errors:
        raise Mismatch("\n".join(errors[:MOST_ERRORS] + [
            f"({len(errors)} differences, {unknown} of {len(lines)} lines without fd)"]))
    fds = {line.fd for line in lines} - {None}
    print(f"compared {len(lines)} lines, {sum(line.len for line in lines)} bytes, {len(fds)} fds" +
          f", {unknown} lines without fd" * args.attached_late)


def pairs(args):
    """The truth itself: each stream that one end wrote, another end of the program has read."""
    streams = collections.defaultdict(bytes)
    for number, path in enumerate(args.truth):
        for (_, way), calls in read_truth(path).items():
            for call in calls:
                streams[number, call.conn, way] += call.data
    written, taken = (collections.Counter(data for (*_, w), data in streams.items() if w == way)
                      for way in ("write", "read"))
    wrong = [f"{len(data)} bytes written by one end, read by none: {show(data)}"
             for data in written - taken]
    wrong += [f"{len(data)} bytes read by one end, written by none: {show(data)}"
              for data in taken - written]
    if wrong:
        raise Mismatch("\n".join(wrong))
    print(f"paired {sum(written.values())} streams, {sum(map(len, written.elements()))} bytes")


def conns(args):
    """For traces without a truth: payloads name their connection, one name for each conn (json)
    or fd (other formats), and --ends of these for each name."""
    by_conn, by_name = collections.defaultdict(dict), collections.defaultdict(dict)
    unnamed = 0
    for line in read_trace(args.trace, args.format, not args.no_header):
        key = line.json["conn"] if line.json else line.fd
        found = re.findall(args.name.encode(), line.raw if line.data is None else line.data)
        unnamed += not found
        for name in found:
            by_conn[key].setdefault(name, line)
            by_name[name].setdefault(key, line)
    wrong = [f"{list(names.values())[-1].where()}: conn {key} carries {len(names)} names: "
             f"{', '.join(map(show, sorted(names)))}"
             for key, names in by_conn.items() if len(names) != 1]
    wrong += [f"name {show(name)} is on {len(keys)} connections, expected {args.ends}: "
              + ", ".join(f"{key} (line {line.number})" for key, line in keys.items())
              for name, keys in by_name.items() if len(keys) != args.ends]
    if not by_conn:
        wrong.append(f"no line has a name that fits {args.name}")
    if None in by_conn:
        wrong.append("lines with a name but no fd")
    if wrong:
        raise Mismatch("\n".join(wrong[:MOST_ERRORS]))
    print(f"named {len(by_name)} connections on {len(by_conn)} ends, "
          f"{unnamed} lines without a name")


def owners(args):
    """For payloads that name their connection, of which is known who has it."""
    with open(args.owners, encoding="ascii") as file:
        owner_of = {name: (int(fd), port) for name, fd, port in
                    (line.rsplit(maxsplit=2) for line in file)}
    wrong, conns, seen = [], {}, collections.defaultdict(set)
    lines = read_trace(args.trace, "json")
    for line in lines:
        port = (line.json["local"] or "").rpartition(":")[2]
        if (line.fd, port) not in owner_of.values():
            wrong.append(f"{line.where()}: port {port or '-'} is not of this fd")
        if conns.setdefault(line.json["conn"], line.fd) != line.fd:
            wrong.append(f"{line.where()}: conn {line.json['conn']} was fd "
                         f"{conns[line.json['conn']]} before")
        for name in set(re.findall(args.name.encode(), line.data)):
            name = name.decode()
            seen[name].add(line.dir)
            if owner_of.get(name) != (line.fd, port):
                wrong.append(f"{line.where()}: port {port}: carries '{name}', which is of "
                             f"{owner_of.get(name)}")
    wrong += [f"'{name}' was not both written and read" for name in owner_of if len(seen[name]) != 2]
    if len(conns) != len(set(owner_of.values())):
        wrong.append(f"{len(conns)} conns, {len(set(owner_of.values()))} connections")
    if wrong:
        raise Mismatch("\n".join(wrong[:MOST_ERRORS] + [f"({len(wrong)} differences)"]))
    print(f"found {len(seen)} names on {len(lines)} lines, {len(conns)} connections")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(required=True, metavar="compare|pairs|conns|owners")

    def trace_command(name, func, text):
        command = commands.add_parser(name, help=text)
        command.set_defaults(func=func)
        command.add_argument("--format", choices=PARSERS, required=True)
        command.add_argument("--no-header", action="store_true", help="the trace was made with -q")
        command.add_argument("trace", metavar="TRACE")
        return command

    command = trace_command("compare", compare, "a trace with the truth")
    command.add_argument("--pid", type=int, required=True)
    command.add_argument("--comm")
    command.add_argument("--lib", help="value of the json key lib")
    command.add_argument("--truth", required=True)
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--exact", action="store_true", help="line by line (default)")
    kind.add_argument("--stream", action="store_true", help="byte by byte, a line for each record")
    kind.add_argument("--attached-late", action="store_true", help="byte by byte, from somewhere in "
                      "the middle of every stream to its end")
    command.add_argument("--unread", type=int, default=0, metavar="BYTES", help="with --stream: so "
                         "many at the end of what one wrote may not have been read by the other, who may "
                         "have made the truth for both")
    command.add_argument("--inner-truth", help="with --stream: of TLS within TLS, whose records are "
                         "the plaintext of --truth")
    command.add_argument("--peer-truth", help="with --stream: the writes that were read here")

    command = commands.add_parser("pairs", help="what was written in the truth with what was read")
    command.set_defaults(func=pairs)
    command.add_argument("truth", nargs="+")

    command = trace_command("conns", conns, "names in the payloads with connections")
    command.add_argument("--name", required=True, help="regular expression, best with one group")
    command.add_argument("--ends", type=int, default=1, help="2 if both ends are in the trace")

    command = commands.add_parser("owners", help="names in the payloads with fds and ports")
    command.set_defaults(func=owners)
    command.add_argument("--name", required=True, help="regular expression")
    command.add_argument("--owners", required=True, help="lines of: NAME FD PORT")
    command.add_argument("trace", metavar="TRACE", help="in JSON")

    args = parser.parse_args(argv)
    if args.func is compare and not args.stream:
        for option in "peer_truth", "inner_truth":
            if getattr(args, option):
                parser.error(f"--{option.replace('_', '-')} belongs to --stream")
    return args


def main(argv=None):
    args = parse_args(argv)
    try:
        args.func(args)
    except Mismatch as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
