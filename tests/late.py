#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Keeps a trace as it comes, and says how late its lines were.

usage: late.py TRACE <pipe

In: lines of tlssnoop -j. Out: the same lines in the file TRACE, each at once; at the end on stdout by
how many milliseconds the latest of them came later than what it tells happened.
"""

import datetime
import json
import sys


def main():
    worst = 0
    with open(sys.argv[1], "w", buffering=1, encoding="utf-8") as trace:
        for line in sys.stdin:
            now = datetime.datetime.now(datetime.timezone.utc)
            then = datetime.datetime.fromisoformat(json.loads(line)["time"].replace("Z", "+00:00"))
            worst = max(worst, (now - then) / datetime.timedelta(milliseconds=1))
            trace.write(line)
    print(round(worst))


main()
