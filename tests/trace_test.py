#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Proves that trace.py accepts a right trace and notices every kind of wrong one.

In: traces made here from a small truth, right ones and ones with a single defect. Out: unittest's
report. It needs no tlssnoop; lines written by hand keep it from agreeing only with itself.
It must never take a wrong trace's rejection for granted: the message has to name the defect.
"""

import base64
import contextlib
import io
import json
import os
import tempfile
import unittest

import trace as snoop_trace

PID = 4711
FORMATS = ("ascii", "hex", "dump", "text", "json")
LOSSLESS = ("ascii", "hex", "dump", "json")
HEADER = "TIME            PID     COMM             FD   DIR    LEN DATA\n"
HEADERS = {"ascii": HEADER, "hex": HEADER, "dump": HEADER.replace(" DATA", ""),
           "text": HEADER.replace(" DATA", ""), "json": ""}
NASTY = b"a \\ \r\n\t\x00\x7f\x80\xff\xc3\xa9 ..."
LONG = bytes(i * i // 251 % 256 for i in range(40000))
TRUTH = [("write", 5, b"GET / one\n"), ("read", 6, b"GET / one\n"), ("write", 5, NASTY),
         ("write", 6, LONG), ("read", 6, NASTY), ("read", 5, LONG[:16384]),
         ("read", 5, LONG[16384:32768]), ("read", 5, LONG[32768:]),
         ("close", 5, b""), ("write", 5, b"another one"), ("read", 6, b"another one")]


def chunks_of(truth):
    """What a right tracer sees."""
    out, age = [], {}
    for way, fd, data in truth:
        if way == "close":
            age[fd] = age.get(fd, 0) + 1
        for off in range(0, len(data), 16384):
            out.append({"dir": way, "fd": fd, "data": data[off:off + 16384], "off": off,
                        "pid": PID, "comm": "prog", "conn": f"{fd}.{age.get(fd, 0)}"})
    return out


def safe_text(data):
    return "".join(chr(b) if 32 <= b < 127 or b in b"\n\t" else "." for b in data) + "\n"


def printed(fmt, chunk):
    data = chunk["data"]
    length = chunk.get("len", len(data))
    if fmt == "json":
        obj = {"time": "2024-05-06T07:08:09.000001Z", "pid": chunk["pid"], "tid": PID, "uid": 0,
               "comm": chunk["comm"], "lib": "openssl", "fd": chunk["fd"], "dir": chunk["dir"],
               "len": length, "off": chunk["off"], "conn": chunk["conn"], "local": None,
               "remote": "127.0.0.1:443", "truncated": chunk.get("truncated", False)}
        try:
            obj["data"] = data.decode()
        except UnicodeDecodeError:
            obj["data_base64"] = base64.b64encode(data).decode()
        return json.dumps(obj) + "\n"
    fd = "-" if chunk["fd"] is None else chunk["fd"]
    line = f"10:51:07.123456 {chunk['pid']:<7} {chunk['comm']:<16} {fd:<4} {chunk['dir']:<5} " \
           f"{length:>5} "
    if fmt == "dump":
        rows = [snoop_trace.dump_row(i, data[i:i + 16]).decode() for i in range(0, len(data), 16)]
        return line + "\n" + "".join(row + "\n" for row in rows)
    if fmt == "text":
        return line + "\n" + safe_text(data)
    data = data.hex() if fmt == "hex" else snoop_trace.escape(data)
    return line + data + (" ..." if chunk.get("truncated") else "") + "\n"


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def path(self, name, content):
        path = os.path.join(self.dir.name, name)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        return path

    def truth(self, calls=None, name="truth"):
        return self.path(name, "".join(f"{way} {fd} {data.hex()}".rstrip() + "\n"
                                       for way, fd, data in calls or TRUTH))

    def run_main(self, *argv):
        """(status, all that was printed)"""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = snoop_trace.main(list(argv))
        return status, out.getvalue()

    def compare_text(self, fmt, text, *more, truth=None):
        return self.run_main("compare", "--format", fmt, "--pid", str(PID), *more,
                             "--truth", self.truth(truth), self.path("trace", text))

    def compare(self, fmt, chunks, *more, truth=None):
        text = HEADERS[fmt] + "".join(printed(fmt, chunk) for chunk in chunks)
        return self.compare_text(fmt, text, *more, truth=truth)

    def detects(self, change, *words, formats=FORMATS, more=()):
        """change() spoils the list of chunks in place; the message has all the words."""
        for fmt in formats:
            with self.subTest(format=fmt):
                chunks = chunks_of(TRUTH)
                change(chunks)
                status, text = self.compare(fmt, chunks, *more)
                self.assertEqual(status, 1, text)
                for word in words:
                    self.assertIn(word, text)


class Right(Case):
    def test_every_format(self):
        for fmt in FORMATS:
            with self.subTest(format=fmt):
                status, text = self.compare(fmt, chunks_of(TRUTH), "--comm", "prog")
                self.assertEqual((status, text), (0, "compared 12 lines, 80076 bytes, 2 fds\n"))

    def test_stream(self):
        chunks = chunks_of(TRUTH)
        first = chunks[0]
        chunks[0:1] = [dict(first, data=first["data"][:4]), dict(first, data=first["data"][4:])]
        chunks[2], chunks[1] = chunks[1], chunks[2]     # other streams may come in any order
        reads = [c for c in chunks if c["dir"] == "read"]
        truth = [call for call in TRUTH if call[0] == "read"]
        for fmt in LOSSLESS:
            status, text = self.compare(fmt, reads, "--stream", truth=truth)
            self.assertEqual(status, 0, text)

    def test_attached_late(self):
        calls = [(way, fd, b"%s on %d number %d" % (way.encode(), fd, number))
                 for number in range(600) for fd in (5, 6) for way in ("write", "read")]
        chunks = chunks_of(calls)[100:]
        chunks[0]["fd"] = chunks[3]["fd"] = None
        self.assertEqual(self.compare("json", chunks, "--attached-late", truth=calls),
                         (0, f"compared 2300 lines, {sum(len(c['data']) for c in chunks)} bytes, "
                             "2 fds, 2 lines without fd\n"))

        def wrong(change, *words):
            spoilt = [dict(chunk) for chunk in chunks]
            change(spoilt)
            status, text = self.compare("json", spoilt, "--attached-late", truth=calls)
            self.assertEqual(status, 1)
            for word in words:
                self.assertIn(word, text)
        wrong(lambda c: c.pop(), "fd 6 read", "missing at the end")
        wrong(lambda c: c.pop(100), "line 104: fd 5 write", "number 50', seen", "(1 differences, 2 of 2299")
        wrong(lambda c: c[100].update(fd=6), "line 101: fd 6 write", "in the truth at fd 5 write")
        wrong(lambda c: c[4].update(fd=6), "fd 6 write", "in the truth at fd 5 write")
        wrong(lambda c: c[100].update(fd=None), "fd - write", "not the beginning")
        wrong(lambda c: c[3].update(data=b"?"), "line 4: fd - read", "not the beginning")
        wrong(lambda c: [x.update(fd=None) for x in c[:4]], "4 of 2300 lines are without fd")
        wrong(lambda c: c.__delitem__(slice(0, None, 4)), "fd 5 write", "0 lines")

    def test_inner_truth(self):
        record = b"\x17\x03\x03 a record"
        outer = [("write", 5, b"CONNECT"), ("write", 5, record), ("read", 5, record)]
        inner = [("write", 5, b"GET"), ("read", 5, b"OK")]
        order = [("write", 5, b"CONNECT"), ("write", 5, b"GET"), ("write", 5, record),
                 ("read", 5, record[:5]), ("read", 5, record[5:]), ("read", 5, b"OK")]

        def compare(chunks):
            return self.compare("json", chunks, "--stream", "--inner-truth",
                                self.truth(inner, "inner"), truth=outer)
        self.assertEqual(compare(chunks_of(order))[0], 0)
        for number in range(len(order)):
            self.assertEqual(compare(chunks_of(order[:number] + order[number + 1:]))[0], 1)
        status, text = compare(chunks_of(order[:2] + [("write", 6, record)] + order[3:]))
        self.assertIn("fd 6 write: nothing was moved there", text)
        self.assertEqual(status, 1)

    def test_by_hand(self):
        truth = [("write", 5, b"G\\ \r\n\t\xe9"), ("read", 5, bytes(range(48, 66)))]
        columns = "10:51:07.123456 4711    curl             5    "
        lines = {
            "ascii": columns + "write     7 G\\\\ \\r\\n\\t\\xe9\n"
                     + columns + "read     18 0123456789:;<=>?@A\n",
            "hex": columns + "write     7 475c200d0a09e9\n"
                   + columns + "read     18 303132333435363738393a3b3c3d3e3f4041\n",
            "dump": columns + "write     7\n"
                    "  0000  47 5c 20 0d 0a 09 e9                              G\\ ....\n"
                    + columns + "read     18\n"
                    "  0000  30 31 32 33 34 35 36 37  38 39 3a 3b 3c 3d 3e 3f  0123456789:;<=>?\n"
                    "  0010  40 41                                             @A\n",
            "text": columns + "write     7\nG\\ .\n\t.\n" + columns + "read     18\n"
                    "0123456789:;<=>?@A\n",
        }
        for fmt, text in lines.items():
            with self.subTest(format=fmt):
                self.assertEqual(self.compare_text(fmt, HEADERS[fmt] + text, truth=truth)[0], 0)
                self.assertEqual(self.compare_text(fmt, text, "--no-header", truth=truth)[0], 0)
                self.assertEqual(self.compare_text(fmt, text, truth=truth)[0], 1)


class Wrong(Case):
    def test_missing_line(self):
        self.detects(lambda c: c.pop(0), "fd 5 write")
        self.detects(lambda c: c.pop(4), "fd 6 write", "offset 16384")
        self.detects(lambda c: c.pop(), "fd 6 read", "missing")
        self.detects(lambda c: c.clear(), "missing")

    def test_extra_line(self):
        self.detects(lambda c: c.append(dict(c[1], data=b"more")), "fd 6 read", "1 lines more")

    def test_repeated_line(self):
        self.detects(lambda c: c.append(c[-1]), "1 lines more")
        self.detects(lambda c: c.insert(1, c[0]), "line ", "fd 5 write")

    def test_repeated_chunk_of_a_call(self):
        self.detects(lambda c: c[4].update(data=c[3]["data"]), "truth line 4, offset 0",
                     formats=LOSSLESS)

    def test_swapped_pair(self):
        def swap(c):
            c[0], c[2] = c[2], c[0]
        self.detects(swap, "fd 5 write", "expected 10 bytes")
        self.detects(swap, "in the truth at fd 5 write (truth line 3, offset 0)", formats=LOSSLESS)

    def test_wrong_fd(self):
        self.detects(lambda c: c[0].update(fd=6), "fd 6 write")
        self.detects(lambda c: c[0].update(fd=7), "fd 7 write: nothing was moved there")
        self.detects(lambda c: c[0].update(fd=None), "fd - write: nothing was moved there")

    def test_wrong_dir(self):
        self.detects(lambda c: c[0].update(dir="read"), "fd 5 read")
        self.detects(lambda c: c[0].update(dir="peek"), "fd 5 peek")

    def test_wrong_length(self):
        self.detects(lambda c: c[0].update(len=11), "11")
        self.detects(lambda c: c[0].update(data=b"GET / on"), "expected 10 bytes", "seen 8")

    def test_wrong_byte(self):
        self.detects(lambda c: c[0].update(data=b"GET / onf\n"), "differs at byte 8")
        self.detects(lambda c: c[3].update(data=c[3]["data"][:-1] + b"!"), "byte 16383",
                     formats=LOSSLESS)

    def test_truncated(self):
        cut = {"data": b"GET", "len": 10, "truncated": True}
        self.detects(lambda c: c[0].update(cut), "LEN is 10, DATA has", "cut",
                     formats=("ascii", "hex"))
        self.detects(lambda c: c[0].update(cut), "marked as cut", formats=("json",))
        self.detects(lambda c: c[0].update(truncated=True), "marked as cut", formats=("json",))
        self.detects(lambda c: c[0].update(data=b"GET", len=10), "LEN is 10", formats=("dump",))

    def test_wrong_pid_or_comm(self):
        self.detects(lambda c: c[0].update(pid=1), "expected pid 4711, seen 1")
        self.detects(lambda c: c[0].update(comm="prog2"), "expected comm prog", "seen prog2",
                     more=("--comm", "prog"))

    def test_line_too_long(self):
        def join(c):
            c[3:5] = [dict(c[3], data=LONG[:32768])]
        self.detects(join, "length 32768")
        self.detects(join, "length 32768", formats=LOSSLESS, more=("--stream",))

    def test_json_off_conn_lib(self):
        js = ("json",)
        self.detects(lambda c: c[4].update(off=0), "expected off 16384, seen 0", formats=js)
        self.detects(lambda c: c[0].update(conn="x"), "expected conn x", formats=js)
        self.detects(lambda c: [x.update(conn="x") for x in c], "conn x is also", formats=js)
        self.detects(lambda c: c[10].update(conn="5.0"), "also connection 0 of fd 5", formats=js)
        self.detects(lambda c: c[10].update(conn="5.0"), "also connection 0 of fd 5", formats=js,
                     more=("--stream",))
        self.detects(lambda c: None, "expected lib gnutls", formats=js, more=("--lib", "gnutls"))

    def test_stream(self):
        def stream(change, *words):
            self.detects(change, *words, formats=LOSSLESS, more=("--stream",))

        def swap(c):
            c[0], c[2] = c[2], c[0]
        stream(swap, "fd 5 write", "at byte 0")
        stream(lambda c: c.pop(4), "fd 6 write", "at byte 16384")
        stream(lambda c: c.pop(), "fd 6 read")
        stream(lambda c: c.append(c[-1]), "fd 6 read")
        stream(lambda c: c[0].update(fd=6), "fd 6 write")
        stream(lambda c: c[0].update(data=b"GET / onf\n"), "at byte 8")

        def split(c):
            c[0:1] = [dict(c[0], data=c[0]["data"][:4]), dict(c[0], data=c[0]["data"][4:])]
        stream(split, "fd 5 write: expected 3 lines (records), seen 4")

    def test_unread(self):
        def unread(change, *words, at_most="20"):
            self.detects(change, *words, formats=LOSSLESS, more=("--stream", "--unread", at_most))

        def shorten(number):
            return lambda c: c[number].update(data=c[number]["data"][:-11])
        reads = [i for i, c in enumerate(chunks_of(TRUTH)) if c["dir"] == "read"]
        unread(shorten(reads[-1]), "fd 6 read", at_most="10")
        unread(shorten(reads[0]), "fd 6 read")
        chunks = chunks_of(TRUTH)
        shorten(reads[-1])(chunks)
        chunks = [c for c in chunks if c["data"]]
        status, text = self.compare("json", chunks, "--stream", "--unread", "11")
        self.assertEqual(status, 0, text)

        def lengthen(c):
            last = [chunk for chunk in c if chunk["dir"] == "write" and chunk["data"]][-1]
            c.append(dict(last, data=b"x" * 11, off=0))
        unread(lengthen, "fd 5 write", at_most="10")
        unread(lambda c: c[0].update(data=c[0]["data"] + b"x" * 11), "fd 5 write")
        chunks = chunks_of(TRUTH)
        lengthen(chunks)
        status, text = self.compare("json", [c for c in chunks if c["data"]], "--stream", "--unread", "11")
        self.assertEqual(status, 0, text)

    def test_peer_truth(self):
        reads = [call for call in TRUTH if call[0] == "read"]
        peer = [("write", 9, data) for _, _, data in reads]
        for extra, status in ([], 0), ([("write", 9, b"x")], 1):
            path = self.truth(peer + extra, "peer")
            got, text = self.compare("json", chunks_of(reads), "--stream", "--peer-truth", path,
                                     truth=reads)
            self.assertEqual(got, status, text)
        self.assertIn("the peer wrote 7 records, seen 6 lines", text)

    def test_options(self):
        self.detects(lambda c: None, "line by line only", formats=("text",), more=("--stream",))
        with self.assertRaises(SystemExit):
            self.compare("json", chunks_of(TRUTH), "--peer-truth", "peer")


class Owners(Case):
    def test_owners(self):
        path = self.path("owners", "query 1; 5 443\nquery 2; 6 444\n")

        def owners(change):
            chunks = chunks_of([(way, fd, data) for way in ("write", "read") for fd, data in
                                ((5, b"query 1; ? query 1;"), (6, b"query 2; ?"), (6, b"more"))])
            change(chunks)
            objects = [json.loads(printed("json", chunk)) for chunk in chunks]
            for obj in objects:
                obj["local"] = {5: "127.0.0.1:443", 6: "127.0.0.1:444"}.get(obj["fd"])
            text = "".join(json.dumps(obj) + "\n" for obj in objects)
            return self.run_main("owners", "--name", r"query \d+;", "--owners", path,
                                 self.path("trace", text))
        self.assertEqual(owners(lambda c: None), (0, "found 2 names on 6 lines, 2 connections\n"))
        for change, word in (
                (lambda c: c[0].update(fd=6), "carries 'query 1;', which is of (5, '443')"),
                (lambda c: c[2].update(fd=None), "fd - write: port - is not of this fd"),
                (lambda c: c[2].update(conn="5.0"), "conn 5.0 was fd 5 before"),
                (lambda c: c[2].update(conn="6.1"), "3 conns, 2 connections"),
                (lambda c: c.pop(0), "'query 1;' was not both")):
            status, text = owners(change)
            self.assertEqual(status, 1)
            self.assertIn(word, text)


class Syntax(Case):
    def wrong(self, fmt, text, *words):
        status, message = self.compare_text(fmt, HEADERS[fmt] + text,
                                            truth=[("write", 5, b"GET / one\n")])
        self.assertEqual(status, 1)
        for word in words:
            self.assertIn(word, message)

    def columns(self, data):
        return f"10:51:07.123456 4711 prog 5 write 10{data}\n"

    def test_ascii(self):
        right = " GET / one\\n"
        self.assertEqual(self.compare_text("ascii", HEADER + self.columns(right),
                                           truth=[("write", 5, b"GET / one\n")])[0], 0)
        for data in (" GET / one\\0", " GET / one\\x0A", " GET / one\\", " GET / one\r",
                     " GET / one\x80", " GET / one\\\""):
            with self.subTest(data=data):
                self.wrong("ascii", self.columns(data), "no valid escape")
        self.wrong("ascii", self.columns(" GET / one\\x0a"), "escapes what needs none")
        self.wrong("ascii", self.columns(" \\x47ET / one\\n"), "escapes what needs none")
        self.wrong("ascii", self.columns("  GET / one\\n"), "LEN is 10, DATA has 11")
        self.wrong("ascii", self.columns(right)[:-1], "no newline")
        self.wrong("ascii", self.columns(right) + "\n", "not seven columns")
        self.wrong("ascii", self.columns(right) + HEADER, "not seven columns")
        for text in ("", self.columns(right), HEADERS["dump"]):
            self.assertIn("line 1: not the header", self.compare_text("ascii", text)[1])
        self.assertIn("line 1: not the header", self.compare_text("text", HEADER)[1])
        self.wrong("ascii", self.columns(right).replace("prog", "my prog"), "not seven columns")
        self.wrong("ascii", self.columns(right).replace("07.123456", "07.123"), "not seven")

    def test_hex(self):
        self.wrong("hex", self.columns(" 474554202f206f6e650"), "not lower-case hex")
        self.wrong("hex", self.columns(" 474554202f206f6e650A"), "not lower-case hex")
        self.wrong("hex", self.columns(" 474554202f206f6e65"), "DATA has 9 bytes")
        self.wrong("hex", self.columns(" 4745 ..."), "DATA has 2 bytes (cut")

    def test_dump(self):
        row = "  0000  47 45 54 20 2f 20 6f 6e  65 0a" + " " * 20 + "GET / one.\n"
        head = self.columns("")
        truth = [("write", 5, b"GET / one\n")]
        self.assertEqual(self.compare_text("dump", HEADERS["dump"] + head + row, truth=truth)[0], 0)
        for change in (("0000", "0010"), ("one.", "ten."), ("  65", " 65"), ("0a", "0A"),
                       ("one.", "one. ")):
            with self.subTest(change=change):
                self.wrong("dump", head + row.replace(*change), "line 3: not the dump row")
        self.wrong("dump", head + row + row, "line 4: not the dump row")
        self.wrong("dump", head, "DATA has 0 bytes")
        self.wrong("dump", row + head, "not seven columns")
        self.wrong("dump", self.columns(" GET") + row, "belongs below")

    def test_text(self):
        head = self.columns("")
        for data, code in (("GET\x1b[2J", "1b"), ("GET\r", "0d"), ("GET\x7f", "7f"),
                           ("GET\x9b", "9b"), ("GET\0", "00")):
            self.wrong("text", head + data + "\n", f"line 3: control byte 0x{code}")
        status, text = self.compare_text("text", (HEADERS["text"] + head).encode() + b"GET\x9b\n",
                                         truth=[("write", 5, b"GET / one\n")])
        self.assertEqual(status, 1)
        self.assertIn("control byte 0x9b", text)
        self.wrong("text", head + "GET / onf\n", "expected the text", "differs at byte 8")
        self.wrong("text", head, "expected the text")

    def test_json(self):
        right = printed("json", chunks_of(TRUTH)[0])
        truth = [("write", 5, b"GET / one\n")]
        self.assertEqual(self.compare_text("json", right, truth=truth)[0], 0)
        self.wrong("json", "[1]\n", "not an object")
        for old, new, word in (
                ('"fd": 5', '"fd": "5"', "fd is '5'"), ('"pid": 4711, ', "", "no key pid"),
                ("Z\"", "+00:00\"", "time is"), ('"uid": 0', '"uid": 0, "uid": 1', "twice"),
                ('"uid": 0', '"uid": true', "uid is True"),
                ('"data": "GET / one\\n"', '"data_base64": "R0VUIC8gb25lCg=="', "valid UTF-8"),
                ('"data":', '"data_base64": "/w==", "data":', "one of them"),
                ('"data":', '"payload":', "one of them"), ("}", "", "line 1")):
            with self.subTest(new=new):
                self.assertIn(old, right)
                self.wrong("json", right.replace(old, new), word)


class Truth(Case):
    def test_pairs(self):
        good = [("write", 5, b"ab"), ("write", 5, b"c"), ("read", 6, b"abc"), ("close", 6, b""),
                ("write", 6, b"x"), ("read", 5, b"x")]
        self.assertEqual(self.run_main("pairs", self.truth(good)),
                         (0, "paired 2 streams, 4 bytes\n"))
        self.assertEqual(self.run_main("pairs", self.truth(good[:3] + good[4:5], "one"),
                                       self.truth(good[5:], "two"))[0], 0)
        for bad in (good[:-1], good[1:], good[:2] + [("read", 6, b"abd")] + good[3:]):
            status, text = self.run_main("pairs", self.truth(bad))
            self.assertEqual(status, 1)
            self.assertIn("by one end", text)

    def test_broken(self):
        for text in ("", "write 5 6\n", "write 5 61", "wrote 5 61\n", "write 5\n"):
            with self.subTest(text=text):
                with self.assertRaises((snoop_trace.Mismatch, ValueError)):
                    snoop_trace.read_truth(self.path("truth", text))


class Conns(Case):
    def conns(self, names, *more, fmt="json"):
        """names: [(connection, its payload)]"""
        chunks = [dict(chunks_of(TRUTH)[0], conn=conn, data=data.encode(),
                       fd=int(conn) if conn else None) for conn, data in names]
        text = "".join(printed(fmt, chunk) for chunk in chunks)
        return self.run_main("conns", "--format", fmt, "--name", r"conn (\d+)", *more,
                             self.path("trace", HEADERS[fmt] + text))

    def test_right(self):
        good = [("7", "conn 1 a"), ("8", "conn 2 a"), ("7", "conn 1 b"), ("8", "rest")]
        for fmt in FORMATS:
            status, text = self.conns(good, fmt=fmt)
            self.assertEqual((status, text),
                             (0, "named 2 connections on 2 ends, 1 lines without a name\n"))

    def test_wrong(self):
        for names, word in (([("7", "conn 1"), ("7", "conn 2")], "conn 7 carries 2 names"),
                            ([("7", "conn 1"), ("8", "conn 1")], "is on 2 connections, expected 1"),
                            ([("7", "nobody")], "no line has a name")):
            status, text = self.conns(names)
            self.assertEqual(status, 1)
            self.assertIn(word, text)
        status, text = self.conns([("7", "conn 1"), ("", "conn 2")], fmt="ascii")
        self.assertEqual((status, text), (1, "lines with a name but no fd\n"))
        both = [("7", "conn 1"), ("8", "conn 1")]
        self.assertEqual(self.conns(both, "--ends", "2")[0], 0)
        self.assertEqual(self.conns(both[:1], "--ends", "2")[0], 1)


if __name__ == "__main__":
    unittest.main()
