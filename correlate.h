/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * correlate.h - which socket does a chunk of plaintext belong to?
 *
 * In: the facts of tlssnoop.h in the order of the ring buffer.  Out: chunks with a
 * verdict, each exactly once.  A function of its input alone: no kernel, no clock, no
 * output, no privilege; so it can be tested by replaying recorded facts.
 */
#ifndef CORRELATE_H
#define CORRELATE_H

#include "tlssnoop.h"

struct correlator;

struct verdict {
	int fd;			      /* -1: not known */
	__u64 conn;		      /* number of the connection, the same for all its chunks */
	const struct endpoints *ends; /* family 0: not known; valid during the call */
};

/* Receives every chunk with its verdict; the chunk is valid during the call */
typedef void (*correlate_fn)(const struct chunk *chunk, const struct verdict *verdict, void *ctx);

/* Returns a correlator that calls fn(..., ctx), or NULL without memory */
struct correlator *correlate_new(correlate_fn fn, void *ctx);

/*
 * Takes the next fact: a struct fact, chunk or io, by its type.  Keeps no pointer to it.
 * Chunks may come out at once, or later, or others than the one put in.  Without memory
 * a chunk comes out at once, undecided.
 */
void correlate_fact(struct correlator *c, const struct fact *fact);

/* Says what time it is (ns, the clock of the facts): chunks that waited long come out */
void correlate_tick(struct correlator *c, __u64 now);

/* All chunks that still wait come out */
void correlate_flush(struct correlator *c);

/* Flushes and frees; NULL is allowed */
void correlate_free(struct correlator *c);

#endif
