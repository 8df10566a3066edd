// SPDX-License-Identifier: GPL-2.0-only
/*
 * replay_test.c - correlate.c under the facts of real programs.
 *
 * In: recordings (facts.h), each of which begins with a line "# N without fd": so many
 * chunks may stay so, most of them the last ones, as a recording is cut off.  Out: TAP.
 * Demanded of each: all chunks whose true fd is known have that one or none.  Needs no
 * kernel and no privilege.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <string.h>

#include "correlate.h"
#include "facts.h"
#include "tap.h"

static struct {
	int chunks, known, wrong, unknown, out, allowed;
} seen;

static struct correlator *correlator;
static __u64 now;

static void on_chunk(const struct chunk *chunk, const struct verdict *v, void *ctx)
{
	int truth = (int)chunk->off - 1; /* passes through */

	(void)ctx;
	seen.out++;
	if (truth < 0)
		return;
	seen.known++;
	seen.unknown += v->fd < 0;
	if (v->fd < 0 || v->fd == truth)
		return;
	seen.wrong++;
	note("chunk of %d bytes of fd %d has fd %d", (int)chunk->len, truth, v->fd);
}

/* The next number of the line, of which the rest is in *at */
static __u64 number(char **at, int base)
{
	return strtoull(*at, at, base);
}

static void get_fact(struct fact *f, enum fact_type type, char **at)
{
	f->type = type;
	f->time = now;
	f->tgid = number(at, 10);
	f->tid = number(at, 10);
	f->fd = number(at, 10);
	f->sock = number(at, 10);
	f->lost = number(at, 10);
}

static void play_chunk(char *at)
{
	struct chunk c = {0};
	int truth;

	get_fact(&c.fact, FACT_CHUNK, &at);
	c.key = number(&at, 16);
	c.addr = number(&at, 16);
	c.len = number(&at, 10);
	c.part = number(&at, 10);
	c.part_len = number(&at, 10);
	c.lib = number(&at, 10);
	c.dir = number(&at, 10);
	c.nested = number(&at, 10);
	c.hidden = number(&at, 10);
	c.ends.family = c.nested ? 2 : 0;
	if (sscanf(at, "%d", &truth) == 1)
		c.off = 1 + truth;
	if (!c.hidden && c.part + c.part_len == c.len)
		seen.chunks++;
	correlate_fact(correlator, &c.fact);
}

static void play_io(char *at)
{
	struct io io = {.ends.family = 2};

	get_fact(&io.fact, FACT_IO, &at);
	io.addr = number(&at, 16);
	io.bytes = number(&at, 10);
	io.dir = number(&at, 10);
	io.rest = number(&at, 10);
	io.lead = number(&at, 10);
	while (io.nrecords < RECORDS_MAX && *at == ' ') {
		io.ctype[io.nrecords] = number(&at, 10);
		at += *at == ':';
		io.length[io.nrecords++] = number(&at, 10);
	}
	correlate_fact(correlator, &io.fact);
}

static bool play(char *line)
{
	const char *letter = strchr(FACT_LETTERS, *line);
	struct fact f = {0};
	char *at = line + 1;

	if (*line == '#')
		return sscanf(line, "# %d without fd", &seen.allowed) == 1;
	now += (__s64)number(&at, 10) * 1000;
	if (*line == TICK_LETTER)
		correlate_tick(correlator, now);
	else if (!letter)
		return false;
	else if (letter - FACT_LETTERS == FACT_CHUNK)
		play_chunk(at);
	else if (letter - FACT_LETTERS == FACT_IO)
		play_io(at);
	else {
		get_fact(&f, letter - FACT_LETTERS, &at);
		correlate_fact(correlator, &f);
	}
	return true;
}

static void replay(const char *name)
{
	FILE *file = fopen(name, "r");
	char *line = NULL;
	size_t size = 0;
	bool good = file;

	memset(&seen, 0, sizeof(seen));
	now = 0;
	correlator = correlate_new(on_chunk, NULL);
	if (!correlator)
		abort();
	while (good && getline(&line, &size, file) > 0)
		good = play(line);
	correlate_free(correlator);
	free(line);
	if (file)
		fclose(file);
	ok(good && seen.known && seen.out == seen.chunks && !seen.wrong &&
		   seen.unknown <= seen.allowed,
	   "%s", basename(name));
	note("%d chunks, of %d the fd is known: %d have a wrong one, %d none (allowed: %d)",
	     seen.chunks, seen.known, seen.wrong, seen.unknown, seen.allowed);
}

int main(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++)
		replay(argv[i]);
	return tap_end();
}
