// SPDX-License-Identifier: GPL-2.0-only
/*
 * replay_test.c - correlate.c under the facts of real programs.
 *
 * In: recordings (facts.h), each of which begins with a line "# N without fd": so many
 * chunks may stay so, most of them the last ones, as a recording is cut off.  Out: TAP.
 * Demanded of each: all chunks whose true fd is known have that one or none, and come in
 * the order in which they were there.  Needs no kernel and no privilege.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <string.h>

#include "correlate.h"
#include "facts.h"
#include "tap.h"

#define FDS_MAX 1024

static struct {
	int chunks, known, wrong, unknown, early, out, allowed;
	__u64 last[FDS_MAX][2]; /* time of the chunk that came out last, by direction */
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
	if (truth < FDS_MAX) {
		if (chunk->fact.time < seen.last[truth][chunk->dir]) {
			seen.early++;
			note("chunk of %d bytes of fd %d comes after a later one", (int)chunk->len,
			     truth);
		}
		seen.last[truth][chunk->dir] = chunk->fact.time;
	}
	if (v->fd < 0 || v->fd == truth)
		return;
	seen.wrong++;
	note("chunk of %d bytes of fd %d has fd %d", (int)chunk->len, truth, v->fd);
}

/* The next n numbers of the line, of which the rest is in *at */
static void get_numbers(char **at, int base, __u64 *numbers, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		numbers[i] = strtoull(*at, at, base);
}

/* A pair "N:N"; false: there is none any more */
static bool get_pair(char **at, int base, __u64 pair[2])
{
	if (**at != ' ')
		return false;
	get_numbers(at, 10, pair, 1);
	*at += **at == ':';
	get_numbers(at, base, pair + 1, 1);
	return true;
}

static struct fact get_fact(enum fact_type type, char **at)
{
	__u64 v[5];

	get_numbers(at, 10, v, 5);
	return (struct fact){
		.type = type,
		.time = now,
		.tgid = v[0],
		.tid = v[1],
		.fd = v[2],
		.sock = v[3],
		.lost = v[4],
	};
}

static void play_chunk(char *at)
{
	struct fact fact = get_fact(FACT_CHUNK, &at);
	__u64 v[9], byte[2];
	struct chunk *c;
	int truth, used;

	get_numbers(&at, 16, v, 2);
	get_numbers(&at, 10, v + 2, 7);
	c = calloc(1, sizeof(*c) + v[4]);
	if (!c)
		abort();
	*c = (struct chunk){.fact = fact, .key = v[0], .addr = v[1], .len = v[2], .part = v[3]};
	c->part_len = c->captured = v[4];
	c->lib = v[5];
	c->dir = v[6];
	c->nested = v[7];
	c->hidden = v[8];
	c->ends.family = c->nested ? 2 : 0;
	if (sscanf(at, " %d%n", &truth, &used) == 1)
		c->off = 1 + truth;
	else
		used = strlen(" -");
	at += used;
	while (get_pair(&at, 16, byte) && byte[0] < c->captured)
		c->data[byte[0]] = byte[1];
	if (!c->hidden && c->part + c->part_len == c->len)
		seen.chunks++;
	correlate_fact(correlator, &c->fact);
	free(c);
}

static void play_io(char *at)
{
	struct io io = {.fact = get_fact(FACT_IO, &at), .ends.family = 2};
	__u64 v[4], record[2];

	get_numbers(&at, 16, &io.addr, 1);
	get_numbers(&at, 10, v, 4);
	io.bytes = v[0];
	io.dir = v[1];
	io.rest = v[2];
	io.lead = v[3];
	while (io.nrecords < RECORDS_MAX && get_pair(&at, 10, record)) {
		io.ctype[io.nrecords] = record[0];
		io.length[io.nrecords++] = record[1];
	}
	correlate_fact(correlator, &io.fact);
}

static bool play(char *line)
{
	const char *letter = strchr(FACT_LETTERS, *line);
	char *at = line + 1;
	struct fact f;
	__u64 passed;

	if (*line == '#')
		return sscanf(line, "# %d without fd", &seen.allowed) == 1;
	get_numbers(&at, 10, &passed, 1);
	now += passed * 1000;
	if (*line == TICK_LETTER)
		correlate_tick(correlator, now);
	else if (!letter)
		return false;
	else if (letter - FACT_LETTERS == FACT_CHUNK)
		play_chunk(at);
	else if (letter - FACT_LETTERS == FACT_IO)
		play_io(at);
	else {
		f = get_fact(letter - FACT_LETTERS, &at);
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
	ok(good && seen.known && seen.out == seen.chunks && !seen.wrong && !seen.early &&
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
