#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Is a file harmless to a terminal that shows it?

In: a file's name. Out: status 0, or 1 with the first character that is not harmless.
Harmless are visible characters in valid UTF-8, the blank, new line and tab: no control code of
either set, nothing that is not seen or that turns the direction of text. Judged by Unicode's own
categories, so that it cannot share an omission with the program under test.
"""

import sys
import unicodedata

with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for number, line in enumerate(file, 1):
        for character in line:
            if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
                sys.exit(f"line {number}: U+{ord(character):04X} in {line!r}")
