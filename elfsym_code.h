/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * elfsym_code.h - what can be told from machine code without disassembling it.
 *
 * In: bytes of code.  Out: the addresses that it mentions, and which of a few small
 * functions it is.  x86-64 and arm64, whichever runs.  Reads no file, allocates nothing,
 * prints nothing; looks at no byte behind the size given.
 */
#ifndef ELFSYM_CODE_H
#define ELFSYM_CODE_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An address that code mentions */
struct mention {
	uint64_t from, to; /* the first and the last instruction that say it */
	uint64_t what;
	bool call;
};

/* Code in which mentions are looked for, piece by piece */
struct scan {
	const uint8_t *code;
	size_t size;
	uint64_t address;
	uint64_t lowest, extent; /* of what whole addresses may lead to; 0: there are none */
	struct {
		uint64_t at, page;
	} adrp[32]; /* arm64: where one was, by the register that it set */
	void (*fn)(const struct mention *m, void *ctx);
	void *ctx;
};

struct bytes {
	size_t n;
	const char *bytes;
};

/* What a function returns: its second argument and a number */
struct added {
	unsigned int n; /* 0: it is not known to do that */
	bool certain;	/* in the only way that optimising compilers have */
	int64_t callee; /* if not 0: 16 of n come from there, in bytes from this function */
};

/* The instructions of a machine, as far as we must know them */
struct machine {
	uint16_t elf;
	uint32_t relative; /* the relocation that adds the load address */
	unsigned int unit; /* bytes of the shortest instruction */

	/* Shows all mentions in a piece; returns how many of its bytes are done with */
	size_t (*mentions)(struct scan *s);

	struct added (*adds)(const uint8_t *code, size_t size);

	/* Where the code jumps to at once, in bytes from its beginning; 0: it does not */
	int64_t (*jumps)(const uint8_t *code, size_t size);

	/* Reduces a function to its code up to the first return, call or jump, without what
	 * differs from copy to copy; returns how many bytes that is */
	size_t (*essence)(uint8_t *code, size_t size);

	/* How much more often it adds 17 than it compares with a record's largest length */
	int (*encrypts)(const uint8_t *code, size_t size);

	/* Has it the number itself in it? */
	bool (*has_number)(const uint8_t *code, size_t size, uint32_t number);

	struct bytes nothing[3], yes[4]; /* all essences of "return" and of "return true" */
};

/* The machine that the file is for; NULL: another one, or of 32 bits */
const struct machine *machine_of(const Elf64_Ehdr *eh);

static inline uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}

#endif
