// SPDX-License-Identifier: GPL-2.0-only
/*
 * record.c - a correlator that decides nothing and writes the facts down.
 *
 * Linked with tlssnoop in place of correlate.c it makes tests/recorder, which takes the
 * options of tlssnoop and prints no chunks: each fact is a line of text (facts.h) in the
 * file that FACTS names, in the order in which tlssnoop got it.  For the tests' own
 * programs only, as the bytes of the chunks are among it.  Must not be installed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "correlate.h"
#include "facts.h"

struct correlator {
	FILE *file;
	__u64 last; /* time of the last line, us */
};

struct correlator *correlate_new(correlate_fn fn, void *ctx)
{
	struct correlator *c = calloc(1, sizeof(*c));
	const char *name = getenv("FACTS");

	(void)fn;
	(void)ctx;
	if (c && name)
		c->file = fopen(name, "w");
	if (c && c->file)
		return c;
	free(c);
	return NULL;
}

static void print_time(struct correlator *c, char letter, __u64 time)
{
	fprintf(c->file, "%c %" PRId64, letter, (int64_t)(time / 1000 - c->last));
	c->last = time / 1000;
}

static void print_chunk(FILE *file, const struct chunk *c)
{
	__u32 i;

	fprintf(file, " %" PRIx64 " %" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d %d %d %d ",
		(uint64_t)c->key, (uint64_t)c->addr, (uint64_t)c->len, (uint64_t)c->part,
		(uint64_t)c->part_len, c->lib, c->dir, c->nested, c->hidden);
	for (i = 0; i < c->captured; i++)
		fprintf(file, "%02x", c->data[i]);
	if (!c->captured)
		putc('-', file);
}

static void print_io(FILE *file, const struct io *io)
{
	int i;

	fprintf(file, " %" PRIx64 " %" PRIu64 " %d %" PRIu64 " %" PRIu64, (uint64_t)io->addr,
		(uint64_t)io->bytes, io->dir, (uint64_t)io->rest, (uint64_t)io->lead);
	for (i = 0; i < io->nrecords && i < RECORDS_MAX; i++)
		fprintf(file, " %d:%d", io->ctype[i], io->length[i]);
}

void correlate_fact(struct correlator *c, const struct fact *f)
{
	print_time(c, FACT_LETTERS[f->type], f->time);
	fprintf(c->file, " %u %u %d %" PRIu64 " %u", f->tgid, f->tid, f->fd, (uint64_t)f->sock,
		f->lost);
	if (f->type == FACT_CHUNK)
		print_chunk(c->file, (const struct chunk *)f);
	else if (f->type == FACT_IO)
		print_io(c->file, (const struct io *)f);
	putc('\n', c->file);
}

void correlate_tick(struct correlator *c, __u64 now)
{
	print_time(c, TICK_LETTER, now);
	putc('\n', c->file);
}

void correlate_flush(struct correlator *c)
{
	fflush(c->file);
}

void correlate_free(struct correlator *c)
{
	if (c)
		fclose(c->file);
	free(c);
}
