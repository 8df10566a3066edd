/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tap.h - what the test programs in C say: one line "ok" or "not ok" for each check
 * (Test Anything Protocol), the plan at the end.  One program, one file: the counters
 * are static.  Must never end the program: the other checks shall run as well.
 */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static int tap_checks, tap_failed;

/* A remark; it belongs to the check before it */
__attribute__((format(printf, 1, 2))) static inline void note(const char *text, ...)
{
	va_list args;

	fputs("# ", stdout);
	va_start(args, text);
	vprintf(text, args);
	va_end(args);
	putchar('\n');
}

__attribute__((format(printf, 2, 3))) static inline bool ok(bool good, const char *text, ...)
{
	va_list args;

	printf("%sok %d - ", good ? "" : "not ", ++tap_checks);
	va_start(args, text);
	vprintf(text, args);
	va_end(args);
	putchar('\n');
	tap_failed += !good;
	return good;
}

/* The plan; the program's exit status */
static inline int tap_end(void)
{
	printf("1..%d\n", tap_checks);
	return fflush(stdout) || tap_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
