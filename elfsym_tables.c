// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym_tables.c - where in an ELF file without symbols a TLS library's functions begin.
 *
 * What a library calls through a table cannot be inlined, and the table tells what it is
 * by its shape: rustls's vtables of three traits, OpenSSL's SSL_METHOD.  In: the file's
 * program headers, its data as the loader leaves it, and what code says about addresses.
 * Nothing is disassembled: only a few whole functions of some bytes are known by sight,
 * and code "mentions" an address where four bytes would lead to it.  A hit may be wrong
 * in theory, never in practice so far; whoever uses it must check what the function is
 * called with.
 *
 * As in elfsym.c, the file is read, not mapped, and every number in it may be hostile:
 * all reads are checked against what was loaded, and the code looked at has a budget.
 * Of the file, only data is held in memory, code comes and goes.  Must never print.
 */
#define _GNU_SOURCE
#include "elfsym.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define HEADERS	     64		/* program headers, and parts of a segment */
#define BLOCK	     8192	/* of code, read at a time */
#define BLOCKS	     512	/* of these in memory */
#define WINDOW	     4096	/* of code, looked at by a search for mentions */
#define LONGEST	     (1 << 16)	/* function that is looked into */
#define FREE_CODE    (64 << 20) /* bytes of code that any file may make us look at */
#define CODE_FACTOR  6		/* besides so many times all of it */
#define HITS	     128	/* more than any file has */
#define CIPHERS	     256	/* candidates, likewise */
#define CIPHER_USERS 64		/* functions that mention one */
#define LEADS	     65536	/* that may be followed */
#define DECRYPTERS   4		/* that could belong to one encrypter */

/* A part of the file in memory: data with its bytes, code with its functions' starts */
struct range {
	uint64_t address, size, offset;
	uint8_t *bytes;
	uint64_t *starts; /* a bit for each byte */
};

struct hit {
	enum elfsym_role role;
	const char *name;
	uint64_t address;
};

struct bytes {
	size_t n;
	const char *bytes;
};

struct image {
	int fd;
	const struct machine *machine;
	bool absolute; /* it is not moved when loaded, so code may hold whole addresses */
	uint64_t lowest, extent; /* all addresses that it has */
	struct range text[HEADERS], data[HEADERS];
	size_t ntext, ndata;
	uint64_t unwind; /* .eh_frame_hdr's address; its pairs {function, entry}, relative */
	int32_t *pairs;
	size_t npairs;
	uint64_t *tables; /* addresses of what could be a vtable */
	size_t ntables, tables_room;
	uint8_t *blocks;
	uint64_t block_at[BLOCKS]; /* offset in the file + 1; 0: not read yet */
	uint64_t budget;
	int err; /* the first error; what is read after it is 0 */
	struct hit hits[HITS];
	size_t nhits;
};

/* An address that code mentions: where, what, and whether by a call */
typedef void mention_fn(struct image *im, uint64_t where, uint64_t what, bool call, void *ctx);

/* Code in which mentions are looked for, piece by piece */
struct scan {
	struct image *im;
	const uint8_t *code;
	size_t size;
	uint64_t address;
	uint64_t page[32]; /* arm64: what adrp left in a register, or 0 */
	mention_fn *fn;
	void *ctx;
};

/* What a function of some bytes does */
struct body {
	uint64_t hash;
	bool nothing; /* returns at once */
	bool yes;     /* returns true */
};

/* The instructions of a machine, as far as we must know them */
struct machine {
	uint16_t elf;
	uint32_t relative; /* the relocation that adds the load address */
	unsigned int unit; /* bytes of the shortest instruction */
	/* shows all mentions in a piece, returns how many bytes are done with */
	size_t (*mentions)(struct scan *s);
	/* n if the function returns its second argument + n; *certain: and does nothing else */
	unsigned int (*adds)(const uint8_t *code, size_t size, bool *certain);
	/* the code up to the first return, call or jump, without what differs from copy to
	 * copy; writes no more than size bytes, returns how many */
	size_t (*essence)(uint8_t *code, size_t size);
	/* how much more it adds 17 than it compares with a record's largest length */
	int (*encrypts)(const uint8_t *code, size_t size);
	struct bytes nothing[3], yes[4]; /* all essences of "return" and of "return true" */
};

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static int64_t sign_extend(uint64_t v, unsigned int bits)
{
	return (int64_t)(v << (64 - bits)) >> (64 - bits);
}

/* The image */

/* Reads n bytes, with zeros for what the file does not have (any more) */
static void read_file(struct image *im, void *buf, size_t n, uint64_t offset)
{
	size_t done = 0;
	ssize_t got = 1;

	while (!im->err && done < n && got) {
		got = pread(im->fd, (char *)buf + done, n - done, offset + done);
		if (got < 0) {
			im->err = -errno;
			break;
		}
		done += got;
	}
	memset((char *)buf + done, 0, n - done);
}

static void *allocate(struct image *im, size_t n, size_t size)
{
	void *p = im->err ? NULL : calloc(n ? n : 1, size);

	if (!p && !im->err)
		im->err = -ENOMEM;
	return p;
}

/* Makes room for one more in an array of n elements; false: there is no memory */
#define MAKE_ROOM(im, array, n, room)                                                              \
	((array) = make_room(im, array, n, &(room), sizeof(*(array))), (n) < (room))

static void *make_room(struct image *im, void *array, size_t n, size_t *room, size_t size)
{
	void *larger;

	if (n < *room || im->err)
		return array;
	larger = reallocarray(array, *room ? *room * 2 : 64, size);
	if (!larger) {
		im->err = -ENOMEM;
		return array;
	}
	*room = *room ? *room * 2 : 64;
	return larger;
}

static const struct range *range_of(const struct range *ranges, size_t n, uint64_t address)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (address - ranges[i].address < ranges[i].size)
			return &ranges[i];
	return NULL;
}

static const struct range *text_of(const struct image *im, uint64_t address)
{
	return range_of(im->text, im->ntext, address);
}

/* size bytes of data at an address, or NULL */
static uint8_t *data_at(const struct image *im, uint64_t address, size_t size)
{
	const struct range *r = range_of(im->data, im->ndata, address);

	if (!r || r->size - (address - r->address) < size)
		return NULL;
	return r->bytes + (address - r->address);
}

static bool function_begins(const struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);

	return r && r->starts[(address - r->address) / 64] >> (address - r->address) % 64 & 1;
}

static uint64_t word(const struct image *im, uint64_t address)
{
	const uint8_t *p = data_at(im, address, 8);

	return p ? get64(p) : 0;
}

/* The first word of a range of data: words lie at multiples of 8 */
static const uint8_t *words_of(const struct range *r, size_t *n, uint64_t *address)
{
	uint64_t skip = -r->address & 7;

	*n = r->size > skip ? (r->size - skip) / 8 : 0;
	*address = r->address + skip;
	return r->bytes + skip;
}

/* Takes n bytes off the budget; false if they are not there */
static bool spend(struct image *im, uint64_t n)
{
	if (!im->err && im->budget < n)
		im->err = -E2BIG;
	if (im->err)
		return false;
	im->budget -= n;
	return true;
}

/* The block of the file that has an offset; NULL after an error */
static const uint8_t *block_with(struct image *im, uint64_t offset)
{
	uint64_t at = offset - offset % BLOCK;
	size_t slot = offset / BLOCK % BLOCKS;

	if (im->block_at[slot] != at + 1) {
		read_file(im, im->blocks + slot * BLOCK, BLOCK, at);
		im->block_at[slot] = at + 1;
	}
	return im->err ? NULL : im->blocks + slot * BLOCK;
}

/* Copies code to buf; returns how much of n bytes there is */
static size_t read_code(struct image *im, uint64_t address, uint8_t *buf, size_t n)
{
	const struct range *r = text_of(im, address);
	const uint8_t *block;
	uint64_t offset;
	size_t done, some;

	if (!r)
		return 0;
	if (n > r->size - (address - r->address))
		n = r->size - (address - r->address);
	if (!spend(im, n + 64))
		return 0;
	offset = r->offset + (address - r->address);
	for (done = 0; done < n; done += some) {
		block = block_with(im, offset + done);
		if (!block)
			return 0;
		some = BLOCK - (offset + done) % BLOCK;
		if (some > n - done)
			some = n - done;
		memcpy(buf + done, block + (offset + done) % BLOCK, some);
	}
	return n;
}

/* What the machines' instructions look like */

/* clang-format off */
#define BYTES(s) {sizeof(s) - 1, s}
/* clang-format on */

static bool starts_with(const uint8_t *p, const uint8_t *end, const struct bytes *b)
{
	return (size_t)(end - p) >= b->n && !memcmp(p, b->bytes, b->n);
}

/* Steps over bytes that may be there */
static const uint8_t *past(const uint8_t *p, const uint8_t *end, const struct bytes *b)
{
	return starts_with(p, end, b) ? p + b->n : p;
}

/* What an unoptimised function adds: in how many steps, with how many jumps on overflow */
struct sum {
	unsigned int adds[2], n, jumps;
	bool called; /* and what a function that it calls returns: a tag's length, 16 */
};

static void add_step(struct sum *s, unsigned int step)
{
	if (s->n < ARRAY_SIZE(s->adds))
		s->adds[s->n] = step;
	s->n++;
}

static unsigned int sum_of(const struct sum *s)
{
	static const struct {
		unsigned int n, adds[2], sum;
	} sums[] = {{1, {17}, 17},    {2, {1, 16}, 17}, {1, {24}, 24},
		    {2, {8, 16}, 24}, {2, {8, 24}, 24}, {1, {16}, 16}};
	size_t i;

	if (s->n == 1 && (s->adds[0] == 1 || s->adds[0] == 8))
		return s->called && s->jumps >= 2 ? s->adds[0] + 16 : 0;
	for (i = 0; i < ARRAY_SIZE(sums) && s->jumps; i++)
		if (s->n == sums[i].n && !memcmp(s->adds, sums[i].adds, sizeof(s->adds)))
			return sums[i].sum;
	return 0;
}

/* x86-64 */

static const struct bytes x86_endbr = BYTES("\xf3\x0f\x1e\xfa");

/*
 * An address is four bytes, relative to what follows them, behind the opcode of call or
 * jmp, or a ModRM byte that says so: that covers lea, mov and indirect calls as well.
 */
static size_t x86_mentions(struct scan *s)
{
	size_t i;

	for (i = 0; i + 5 <= s->size; i++) {
		const uint8_t *p = s->code + i;
		uint64_t at = s->address + i;

		if ((p[0] & 0xc7) == 0x05 || (p[0] & 0xfe) == 0xe8)
			s->fn(s->im, at, at + 5 + (int32_t)get32(p + 1), p[0] == 0xe8, s->ctx);
		if (s->im->absolute && get32(p + 1) - s->im->lowest < s->im->extent)
			s->fn(s->im, at, get32(p + 1), false, s->ctx);
	}
	return i;
}

/* The length of add r64, imm8, or lea r64, [r64 + imm8], not of rsp, or inc r64; else 0 */
static size_t x86_add(const uint8_t *p, const uint8_t *end, struct sum *sum)
{
	if (end - p < 4 || p[0] != 0x48)
		return 0;
	if (p[1] == 0xff && (p[2] & 0xf8) == 0xc0) {
		add_step(sum, 1);
		return 3;
	}
	if (((p[1] == 0x83 && (p[2] & 0xf8) == 0xc0) || (p[1] == 0x8d && (p[2] & 0xc0) == 0x40)) &&
	    (p[2] & 7) != 4 && p[3] && p[3] < 0x80) {
		add_step(sum, p[3]);
		return 4;
	}
	return 0;
}

/* The length of a jump on carry, zero or above, or of setb; else 0 */
static size_t x86_jump(const uint8_t *p, const uint8_t *end)
{
	if (end - p >= 2 && (p[0] == 0x72 || p[0] == 0x73 || p[0] == 0x74 || p[0] == 0x77))
		return 2;
	if (end - p >= 6 && p[0] == 0x0f && !p[4] && !p[5] &&
	    (p[1] == 0x82 || p[1] == 0x83 || p[1] == 0x84 || p[1] == 0x87))
		return 6;
	return end - p >= 2 && p[0] == 0x0f && p[1] == 0x92 ? 2 : 0;
}

static unsigned int x86_adds(const uint8_t *code, size_t size, bool *certain)
{
	static const struct bytes frame = BYTES("\x55\x48\x89\xe5"), unframe = BYTES("\x5d"),
				  adds[] = {BYTES("\x48\x8d\x46"),	      /* lea rax, [rsi + n] */
					    BYTES("\x48\x89\xf0\x48\x83\xc0")}; /* mov, add */
	const uint8_t *end = code + size, *p = past(past(code, end, &x86_endbr), end, &frame), *n;
	struct sum sum = {0};
	size_t i, step, back;

	for (i = 0; i < ARRAY_SIZE(adds); i++) {
		n = past(p, end, &adds[i]);
		*certain = n > p && end - n > 2 && *past(n + 1, end, &unframe) == 0xc3;
		if (*certain)
			return *n;
	}
	end = memchr(code, 0xc3, size);
	for (p = code; end && p < end; p += step) {
		/* add r64, r64 soon after a call */
		back = p - code < 25 ? p - code : 25;
		if (back > 8 && end - p >= 3 && p[0] == 0x48 && p[1] == 0x01 && p[2] >= 0xc0 &&
		    memchr(p - back, 0xe8, back - 8))
			sum.called = true;
		step = x86_add(p, end, &sum);
		if (!step) {
			step = x86_jump(p, end);
			sum.jumps += !!step;
		}
		step += !step;
	}
	return end ? sum_of(&sum) : 0;
}

/* Calls and jumps lead elsewhere in each copy, so all but their opcode is left out */
static size_t x86_essence(uint8_t *code, size_t size)
{
	size_t skip = past(code, code + size, &x86_endbr) - code, i;

	size = size - skip < 32 ? size - skip : 32;
	memmove(code, code + skip, size);
	for (i = 0; i < size; i++)
		if (code[i] == 0xc3 || (code[i] & 0xfe) == 0xe8)
			return i + 1;
	return size;
}

static int x86_encrypts(const uint8_t *code, size_t size)
{
	const uint8_t *p;
	int n = 0;

	for (p = code; p + 5 <= code + size; p++) {
		/* add or lea r64 with 17; maybe with a byte more where the base is rsp or r12 */
		if ((p[0] & 0xf8) == 0x48 &&
		    ((p[1] == 0x83 && (p[2] & 0xf8) == 0xc0 && p[3] == 17) ||
		     (p[1] == 0x8d && (p[2] & 0xc0) == 0x40 &&
		      p[3 + (p[3] == 0x24)] == 17)))
			n++;
		/* the numbers 0x4000, 0x4001, 0x4002 */
		if (p[0] <= 2 && p[1] == 0x40 && !p[2] && !p[3])
			n--;
	}
	return n;
}

/* arm64 */

#define ARM_RET	   0xd65f03c0
#define ARM_BTI_C  0xd503245f
#define ARM_FRAME1 0xa9bf7bfd /* stp x29, x30, [sp, #-16]! */
#define ARM_FRAME2 0x910003fd /* mov x29, sp */
#define ARM_UNDO   0xa8c17bfd /* ldp x29, x30, [sp], #16 */

static bool arm_is_bl(uint32_t w)
{
	return w >> 26 == 0x25;
}

static bool arm_is_branch(uint32_t w)
{
	return w >> 26 == 0x05 || arm_is_bl(w);
}

/* Not code of the function itself: hints for the processor, the set-up of a frame */
static bool arm_is_decor(uint32_t w)
{
	return w == ARM_BTI_C || w == ARM_FRAME1 || w == ARM_FRAME2 || w == ARM_UNDO ||
	       w == 0xd503233f /* paciasp */ || w == 0xd50323bf /* autiasp */;
}

static bool arm_is_adrp(uint32_t w)
{
	return (w & 0x9f000000) == 0x90000000;
}

/* An address is adrp's page and what a later add or ldr adds to it; adr, b, bl say it */
static size_t arm_mentions(struct scan *s)
{
	size_t i;

	for (i = 0; i + 4 <= s->size; i += 4) {
		uint32_t w = get32(s->code + i);
		uint64_t at = s->address + i, *from = &s->page[w >> 5 & 31];
		int64_t adr = sign_extend((w >> 5 & 0x7ffff) << 2 | (w >> 29 & 3), 21);

		if (function_begins(s->im, at))
			memset(s->page, 0, sizeof(s->page));
		if (arm_is_adrp(w))
			s->page[w & 31] = (at & ~4095ULL) + adr * 4096;
		else if ((w & 0x9f000000) == 0x10000000)
			s->fn(s->im, at, at + adr, false, s->ctx);
		else if ((w & 0xffc00000) == 0x91000000 && *from)
			s->fn(s->im, at, *from + (w >> 10 & 0xfff), false, s->ctx);
		else if ((w & 0xffc00000) == 0xf9400000 && *from)
			s->fn(s->im, at, *from + (w >> 10 & 0xfff) * 8, false, s->ctx);
		else if (arm_is_branch(w))
			s->fn(s->im, at, at + sign_extend(w & 0x3ffffff, 26) * 4, arm_is_bl(w),
			      s->ctx);
	}
	return i;
}

static unsigned int arm_adds(const uint8_t *code, size_t size, bool *certain)
{
	uint32_t essence[2] = {0}, w, last = 0;
	struct sum sum = {0};
	size_t i, n = 0;

	for (i = 0; i + 4 <= size; i += 4) {
		w = get32(code + i);
		if (!arm_is_decor(w)) {
			if (n < ARRAY_SIZE(essence))
				essence[n] = w;
			n++;
		}
		if (w == ARM_RET)
			break;
		/* add, adds x, x, #n; not of the stack, nor what belongs to adrp */
		if ((w & 0xdfc00000) == 0x91000000 && (w & 31) < 29 && (w >> 5 & 31) < 29 &&
		    !(arm_is_adrp(last) && (last & 31) == (w >> 5 & 31)))
			add_step(&sum, w >> 10 & 0xfff);
		/* b.cs, b.cc, b.eq, b.hi */
		sum.jumps += (w & 0xff00000e) == 0x54000002 || (w & 0xff00000f) == 0x54000000 ||
			     (w & 0xff00000f) == 0x54000008;
		sum.called |= arm_is_bl(w);
		last = w;
	}
	if (i + 4 > size)
		return 0;
	*certain = n == 2 && (essence[0] & 0xffc003ff) == 0x91000020; /* add x0, x1, #n */
	return *certain ? essence[0] >> 10 & 0xfff : sum_of(&sum);
}

static size_t arm_essence(uint8_t *code, size_t size)
{
	size_t i, n = 0;
	uint32_t w;

	for (i = 0; i + 4 <= size; i += 4) {
		w = get32(code + i);
		if (arm_is_decor(w))
			continue;
		if (arm_is_branch(w))
			w = 0x14000000;
		memcpy(code + n, &w, 4);
		n += 4;
		if (w == ARM_RET || w == 0x14000000)
			break;
	}
	return n;
}

static int arm_encrypts(const uint8_t *code, size_t size)
{
	size_t i;
	int n = 0;

	for (i = 0; i + 4 <= size; i += 4) {
		uint32_t w = get32(code + i), number = w >> 5 & 0xffff;

		if ((w & 0xdfc00000) == 0x91000000 && (w >> 10 & 0xfff) == 17)
			n++;
		/* mov of 0x4000, 0x4001, 0x4002; cmp, subs with 0x4000 */
		if (((w & 0x7f800000) == 0x52800000 && number >= 0x4000 && number <= 0x4002) ||
		    (w & 0x7ffffc00) == 0x71401000)
			n--;
	}
	return n;
}

static const struct machine machines[] = {
	{
		.elf = EM_X86_64,
		.relative = R_X86_64_RELATIVE,
		.unit = 1,
		.mentions = x86_mentions,
		.adds = x86_adds,
		.essence = x86_essence,
		.encrypts = x86_encrypts,
		.nothing = {BYTES("\xc3"), BYTES("\x55\x48\x89\xe5\x5d\xc3"),
			    BYTES("\x48\x89\x7c\x24\xf8\xc3")},
		.yes = {BYTES("\xb0\x01\xc3"), BYTES("\xb8\x01\0\0\0\xc3"),
			BYTES("\x55\x48\x89\xe5\xb0\x01\x5d\xc3"), BYTES("\xb0\x01\x24\x01\xc3")},
	},
	{
		.elf = EM_AARCH64,
		.relative = R_AARCH64_RELATIVE,
		.unit = 4,
		.mentions = arm_mentions,
		.adds = arm_adds,
		.essence = arm_essence,
		.encrypts = arm_encrypts,
		.nothing = {BYTES("\xc0\x03\x5f\xd6"),
			    BYTES("\xff\x43\0\xd1\xe0\x07\0\xf9\xff\x43\0\x91\xc0\x03\x5f\xd6")},
		.yes = {BYTES("\x20\0\x80\x52\xc0\x03\x5f\xd6"),
			BYTES("\x28\0\x80\x52\0\x01\0\x12\xc0\x03\x5f\xd6")},
	},
};

static const struct machine *machine_of(const Elf64_Ehdr *eh)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(machines); i++)
		if (eh->e_ident[EI_CLASS] == ELFCLASS64 && eh->e_ident[EI_DATA] == ELFDATA2LSB &&
		    eh->e_machine == machines[i].elf)
			return &machines[i];
	return NULL;
}

/* Loading */

static void add_range(struct range *ranges, size_t *n, uint64_t address, uint64_t size,
		      uint64_t offset)
{
	if (size && *n < HEADERS)
		ranges[(*n)++] =
			(struct range){.address = address, .size = size, .offset = offset};
}

/*
 * Reads .eh_frame_hdr: which functions there are.  Leaves none if it is not of the only
 * kind that linkers make: addresses of four bytes, relative to itself.
 */
static void read_unwind(struct image *im, const Elf64_Phdr *ph, uint64_t file_size)
{
	static const uint8_t kind[] = {1, 0x1b, 0x03, 0x3b};
	uint8_t head[12];
	uint64_t room;

	if (im->pairs || ph->p_filesz < sizeof(head) || ph->p_offset > file_size ||
	    file_size - ph->p_offset < sizeof(head))
		return;
	room = file_size - ph->p_offset < ph->p_filesz ? file_size - ph->p_offset : ph->p_filesz;
	read_file(im, head, sizeof(head), ph->p_offset);
	if (memcmp(head, kind, sizeof(kind)) || get32(head + 8) > (room - sizeof(head)) / 8)
		return;
	im->unwind = ph->p_vaddr;
	im->npairs = get32(head + 8);
	im->pairs = allocate(im, im->npairs, 8);
	if (im->pairs)
		read_file(im, im->pairs, im->npairs * 8, ph->p_offset + sizeof(head));
}

static uint64_t unwind_function(const struct image *im, size_t i)
{
	return im->unwind + (int64_t)im->pairs[2 * i];
}

/*
 * A segment with code.  In some static programs its constants are in it as well: then
 * .eh_frame_hdr is among them, and code is only from the first function to the last.
 */
static void add_text(struct image *im, uint64_t address, uint64_t size, uint64_t offset)
{
	uint64_t end = address + size, from = end, to = address;
	size_t i;

	if (im->unwind - address >= size) {
		add_range(im->text, &im->ntext, address, size, offset);
		return;
	}
	for (i = 0; i < im->npairs; i++) {
		uint64_t at = unwind_function(im, i);

		if (at - address >= size)
			continue;
		from = at < from ? at : from;
		to = at > to ? at : to;
	}
	from = from < to ? from : to;
	to = end - to > 4096 ? to + 4096 : end;
	add_range(im->data, &im->ndata, address, from - address, offset);
	add_range(im->text, &im->ntext, from, to - from, offset + (from - address));
	add_range(im->data, &im->ndata, to, end - to, offset + (to - address));
}

/* Does what the loader would do at address 0.  Words that RELR lists hold that already */
static void relocate(struct image *im, const Elf64_Phdr *dynamic)
{
	uint64_t i, rela = 0, size = 0;
	const uint8_t *d, *r;
	uint8_t *at;

	for (i = 0; i < dynamic->p_filesz / sizeof(Elf64_Dyn); i++) {
		d = data_at(im, dynamic->p_vaddr + i * sizeof(Elf64_Dyn), sizeof(Elf64_Dyn));
		if (!d || get64(d) == DT_NULL)
			break;
		if (get64(d) == DT_RELA)
			rela = get64(d + 8);
		else if (get64(d) == DT_RELASZ)
			size = get64(d + 8);
	}
	for (i = 0; i < size / sizeof(Elf64_Rela); i++) {
		r = data_at(im, rela + i * sizeof(Elf64_Rela), sizeof(Elf64_Rela));
		if (!r)
			break;
		if (get32(r + 8) != im->machine->relative)
			continue;
		at = data_at(im, get64(r), 8);
		if (at)
			memcpy(at, r + 16, 8);
	}
}

static int load(struct image *im)
{
	const Elf64_Phdr *dynamic = NULL;
	uint64_t file_size, total = 0, end = 0;
	Elf64_Phdr ph[HEADERS];
	struct stat st;
	Elf64_Ehdr eh;
	size_t i;

	if (fstat(im->fd, &st))
		return -errno;
	file_size = st.st_size;
	read_file(im, &eh, sizeof(eh), 0);
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG))
		return im->err ? im->err : -ENOEXEC;
	im->machine = machine_of(&eh);
	if (!im->machine)
		return -EOPNOTSUPP;
	if (eh.e_phentsize != sizeof(*ph) || eh.e_phnum > HEADERS)
		return -EBADMSG;
	im->absolute = eh.e_type == ET_EXEC;
	im->lowest = UINT64_MAX;
	read_file(im, ph, eh.e_phnum * sizeof(*ph), eh.e_phoff);

	for (i = 0; i < eh.e_phnum; i++) {
		if (ph[i].p_type == PT_GNU_EH_FRAME)
			read_unwind(im, &ph[i], file_size);
		else if (ph[i].p_type == PT_DYNAMIC)
			dynamic = &ph[i];
	}
	for (i = 0; i < eh.e_phnum; i++) {
		uint64_t size = ph[i].p_filesz;

		if (ph[i].p_type != PT_LOAD || ph[i].p_offset >= file_size)
			continue;
		if (size > file_size - ph[i].p_offset)
			size = file_size - ph[i].p_offset;
		total += size;
		if (ph[i].p_vaddr + size < ph[i].p_vaddr || total > file_size)
			return -EBADMSG; /* or the same bytes many times over */
		im->lowest = ph[i].p_vaddr < im->lowest ? ph[i].p_vaddr : im->lowest;
		end = ph[i].p_vaddr + size > end ? ph[i].p_vaddr + size : end;
		if (ph[i].p_flags & PF_X)
			add_text(im, ph[i].p_vaddr, size, ph[i].p_offset);
		else
			add_range(im->data, &im->ndata, ph[i].p_vaddr, size, ph[i].p_offset);
	}
	im->extent = end - im->lowest;
	for (i = 0; i < im->ndata; i++) {
		struct range *r = &im->data[i];

		r->bytes = allocate(im, r->size, 1);
		if (r->bytes)
			read_file(im, r->bytes, r->size, r->offset);
	}
	im->budget = FREE_CODE;
	for (i = 0; i < im->ntext; i++) {
		im->budget += CODE_FACTOR * im->text[i].size;
		im->text[i].starts = allocate(im, im->text[i].size / 64 + 1, 8);
	}
	im->blocks = allocate(im, BLOCKS, BLOCK);
	if (!im->err && dynamic)
		relocate(im, dynamic);
	return im->err;
}

static void unload(struct image *im)
{
	size_t i;

	for (i = 0; i < im->ntext; i++)
		free(im->text[i].starts);
	for (i = 0; i < im->ndata; i++)
		free(im->data[i].bytes);
	free(im->pairs);
	free(im->tables);
	free(im->blocks);
	free(im);
}

/* Functions */

/* Calls fn for all mentions in the code between two addresses of one range */
static void each_mention(struct image *im, uint64_t from, uint64_t to, mention_fn *fn, void *ctx)
{
	uint8_t window[WINDOW];
	struct scan s = {.im = im, .code = window, .fn = fn, .ctx = ctx};
	size_t want, done;

	s.address = (from + im->machine->unit - 1) & -(uint64_t)im->machine->unit;
	do {
		want = s.address < to ? to - s.address : 0;
		s.size = read_code(im, s.address, window, want < WINDOW ? want : WINDOW);
		done = im->machine->mentions(&s);
		s.address += done;
	} while (done);
}

static void function_at(struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);

	if (r)
		r->starts[(address - r->address) / 64] |= 1ULL << (address - r->address) % 64;
}

static void called_function(struct image *im, uint64_t where, uint64_t what, bool call, void *ctx)
{
	(void)where;
	(void)ctx;
	if (call)
		function_at(im, what);
}

/*
 * Functions begin where .eh_frame_hdr says so, and at every address that the data holds:
 * those that call no other may have no entry there.  Without it, where calls lead to.
 */
static void find_functions(struct image *im)
{
	uint64_t address;
	const uint8_t *w;
	size_t i, k, n;

	for (i = 0; i < im->npairs; i++)
		function_at(im, unwind_function(im, i));
	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k < n; k++)
			function_at(im, get64(w + 8 * k));
	}
	for (i = 0; i < im->ntext && !im->npairs; i++)
		each_mention(im, im->text[i].address, im->text[i].address + im->text[i].size,
			     called_function, NULL);
}

/* Where the function begins that has the code at an address; 0 if that is too far away */
static uint64_t function_of(const struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);
	uint64_t at, least, bits;

	if (!r)
		return 0;
	at = (address - r->address) / 64;
	least = at > LONGEST / 64 ? at - LONGEST / 64 : 0;
	bits = r->starts[at] & ~0ULL >> (63 - (address - r->address) % 64);
	while (!bits && at > least)
		bits = r->starts[--at];
	return bits ? r->address + at * 64 + 63 - __builtin_clzll(bits) : 0;
}

/* Where the next function begins, or the code ends that could belong to this one */
static uint64_t function_end(const struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);
	uint64_t at, most, bits, end;

	if (!r)
		return address;
	at = (address - r->address) / 64;
	most = at + LONGEST / 64 < r->size / 64 ? at + LONGEST / 64 : r->size / 64;
	/* in two steps: shifting by 64 is not defined */
	bits = r->starts[at] & ~0ULL << (address - r->address) % 64 << 1;
	while (!bits && at < most)
		bits = r->starts[++at];
	end = bits ? r->address + at * 64 + __builtin_ctzll(bits) : address + 4096;
	return end < r->address + r->size ? end : r->address + r->size;
}

/* What rustc puts in its tables: {drop or 0, size, align, methods in the trait's order} */

#define METHODS 5	/* at most, that we look at */
#define LARGEST 0x4000	/* object that we look for */

struct vtable {
	uint64_t address, drop, size, align, method[METHODS];
};

/* Which vtables: with at least so many methods, a size from least to below most */
struct shape {
	unsigned int methods;
	uint64_t least, most;
	unsigned int aligns; /* a bit for each: its value */
};

static const struct shape any_vtable = {1, 0, LARGEST, 1 | 8 | 16 | 32 | 64};

/*
 * Old compilers, up to 1.7x, put a fourth word into the header if the trait has
 * supertraits: the address of a vtable of the same type for these.
 */
static bool is_vtable(const struct image *im, uint64_t address, const struct shape *shape,
		      struct vtable *t)
{
	uint64_t first = address + 24, super;
	unsigned int i;

	if (address % 8)
		return false;
	t->address = address;
	t->drop = word(im, address);
	t->size = word(im, address + 8);
	t->align = word(im, address + 16);
	if (t->size < shape->least || t->size >= shape->most || !(t->align & shape->aligns) ||
	    t->align & (t->align - 1) || t->size % t->align || (t->drop && !text_of(im, t->drop)))
		return false;
	super = word(im, first);
	if (super % 8 == 0 && !text_of(im, super) && word(im, super + 8) == t->size &&
	    word(im, super + 16) == t->align)
		first += 8;
	for (i = 0; i < shape->methods; i++) {
		t->method[i] = word(im, first + 8 * i);
		if (!text_of(im, t->method[i]))
			return false;
	}
	return true;
}

static void find_tables(struct image *im)
{
	struct vtable t;
	uint64_t address;
	const uint8_t *w;
	size_t i, k, n;

	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k + 4 <= n; k++) {
			/* cheaper than is_vtable(): most words end here */
			if (get64(w + 8 * k + 8) >= LARGEST ||
			    !(get64(w + 8 * k + 16) & any_vtable.aligns) ||
			    !is_vtable(im, address + 8 * k, &any_vtable, &t))
				continue;
			if (!MAKE_ROOM(im, im->tables, im->ntables, im->tables_room))
				return;
			im->tables[im->ntables++] = address + 8 * k;
		}
	}
}

/* The next table of a shape from number *i on; false: there is none */
static bool next_table(const struct image *im, const struct shape *shape, size_t *i,
		       struct vtable *t)
{
	while (*i < im->ntables)
		if (is_vtable(im, im->tables[(*i)++], shape, t))
			return true;
	return false;
}

/* The tables of one shape that a function mentions */
struct mentioned {
	const struct shape *shape;
	struct vtable v[16];
	size_t n;
};

static void table_mentioned(struct image *im, uint64_t where, uint64_t what, bool call, void *ctx)
{
	struct mentioned *m = ctx;
	struct vtable t;
	size_t i, k;

	(void)where;
	(void)call;
	/* its address may come from the GOT */
	for (i = 0; i < 2 && m->n < ARRAY_SIZE(m->v); i++, what = word(im, what)) {
		if (!is_vtable(im, what, m->shape, &t))
			continue;
		for (k = 0; k < m->n && m->v[k].address != what; k++)
			;
		if (k == m->n)
			m->v[m->n++] = t;
	}
}

/* Results */

static void add_hit(struct image *im, enum elfsym_role role, const char *name, uint64_t address)
{
	size_t i;

	for (i = 0; i < im->nhits; i++)
		if (im->hits[i].role == role && im->hits[i].address == address)
			return;
	if (im->nhits < HITS)
		im->hits[im->nhits++] = (struct hit){role, name, address};
}

/*
 * rustls 0.22 and newer
 *
 * MessageEncrypter::encrypted_payload_len returns its argument + a number that tells the
 * cipher, in a function that all compilers make alike; it is the method after encrypt.
 * From there, the way to the decrypter: the cipher suite's trait object has the methods
 * encrypter and decrypter, which make the objects, and so mention their vtables.
 */
static const struct shape encrypter_shape = {2, 16, LARGEST, 8 | 16 | 32 | 64};
static const struct shape decrypter_shape = {1, 16, LARGEST, 8 | 16 | 32 | 64};
static const struct shape suite_shape = {2, 0, 0x100, 1 | 8};

static const struct {
	unsigned int adds;
	const char *name;
	bool common; /* others than rustls add so much as well */
} overheads[] = {
	{1 + 16, "tls13", false},      /* type, tag */
	{8 + 16, "tls12-gcm", false},  /* nonce, tag */
	{16, "tls12-chacha", true},    /* tag */
};

struct cipher {
	const char *name;
	bool certain; /* not only unoptimised code like it */
	bool common, believed;
	struct vtable encrypter;
	uint64_t decrypt[DECRYPTERS + 1];
	size_t ndecrypt;
	size_t users; /* functions that mention what leads to it */
};

/* An address that leads to a cipher: its vtable, or a function that mentions that */
struct lead {
	uint64_t address;
	struct cipher *cipher;
};

struct leads {
	struct lead *v;
	size_t n, room;
};

struct search {
	struct cipher ciphers[CIPHERS];
	size_t nciphers;
	struct leads leads, users;
};

static bool is_tls13(const struct cipher *c)
{
	return c->name == overheads[0].name;
}

/* What the function could be the encrypted_payload_len of, or NULL */
static bool is_payload_len(struct image *im, uint64_t function, struct cipher *c)
{
	uint8_t code[128];
	unsigned int n;
	size_t i;

	n = im->machine->adds(code, read_code(im, function, code, sizeof(code)), &c->certain);
	for (i = 0; i < ARRAY_SIZE(overheads); i++) {
		if (n != overheads[i].adds)
			continue;
		c->name = overheads[i].name;
		c->common = overheads[i].common;
		return true;
	}
	return false;
}

/*
 * All that looks like an encrypter.  Every rustls has TLS 1.3, so without that there is
 * none; and a program is optimised as a whole, so that uncertain ones count only where
 * no TLS 1.3 is certain.
 */
static void find_encrypters(struct image *im, struct search *s)
{
	struct cipher c = {0};
	bool tls13 = false, certain = false;
	size_t i = 0, n = 0;

	while (next_table(im, &encrypter_shape, &i, &c.encrypter)) {
		if (!is_payload_len(im, c.encrypter.method[1], &c))
			continue;
		if (s->nciphers == CIPHERS) {
			s->nciphers = 0;
			return;
		}
		tls13 |= is_tls13(&c);
		certain |= is_tls13(&c) && c.certain;
		s->ciphers[s->nciphers++] = c;
	}
	for (i = 0; i < s->nciphers; i++)
		if (tls13 && (s->ciphers[i].certain || !certain))
			s->ciphers[n++] = s->ciphers[i];
	s->nciphers = n;
}

static int by_address(const void *a, const void *b)
{
	const struct lead *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	return (x->cipher > y->cipher) - (x->cipher < y->cipher);
}

/* The first of sorted leads with this address, which may have several; NULL: none */
static const struct lead *first_lead(const struct leads *leads, uint64_t address)
{
	size_t from = 0, to = leads->n, mid;

	while (from < to) {
		mid = (from + to) / 2;
		if (leads->v[mid].address < address)
			from = mid + 1;
		else
			to = mid;
	}
	return from < leads->n && leads->v[from].address == address ? &leads->v[from] : NULL;
}

static const struct lead *next_lead(const struct leads *leads, const struct lead *l)
{
	return l + 1 < leads->v + leads->n && l[1].address == l->address ? l + 1 : NULL;
}

static void add_lead(struct image *im, struct leads *leads, uint64_t address, struct cipher *c)
{
	if (leads->n < LEADS && MAKE_ROOM(im, leads->v, leads->n, leads->room))
		leads->v[leads->n++] = (struct lead){address, c};
}

static void sort_leads(struct leads *leads)
{
	if (leads->n)
		qsort(leads->v, leads->n, sizeof(*leads->v), by_address);
}

static void note_user(struct image *im, uint64_t where, uint64_t what, bool call, void *ctx)
{
	struct search *s = ctx;
	const struct lead *l = first_lead(&s->leads, what);
	uint64_t function = l ? function_of(im, where) : 0;

	(void)call;
	for (; function && l; l = next_lead(&s->leads, l))
		if (l->cipher->users < CIPHER_USERS) {
			add_lead(im, &s->users, function, l->cipher);
			l->cipher->users++;
		}
}

/* Finds which functions mention a lead, directly or by a pointer to it (GOT) */
static void find_users(struct image *im, struct search *s)
{
	const struct lead *l;
	uint64_t address;
	const uint8_t *w;
	size_t i, k, n;

	sort_leads(&s->leads);
	s->users.n = 0;
	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k < n; k++)
			for (l = first_lead(&s->leads, get64(w + 8 * k)); l;
			     l = next_lead(&s->leads, l))
				add_lead(im, &s->users, address + 8 * k, l->cipher);
	}
	for (i = 0; i < s->users.n; i++)
		add_lead(im, &s->leads, s->users.v[i].address, s->users.v[i].cipher);
	sort_leads(&s->leads);

	s->users.n = 0;
	for (i = 0; i < s->nciphers; i++)
		s->ciphers[i].users = 0;
	for (i = 0; i < im->ntext; i++)
		each_mention(im, im->text[i].address, im->text[i].address + im->text[i].size,
			     note_user, s);
	sort_leads(&s->users);
}

static bool is_encrypter(const struct search *s, uint64_t address)
{
	size_t i;

	for (i = 0; i < s->nciphers; i++)
		if (s->ciphers[i].encrypter.address == address)
			return true;
	return false;
}

/* Takes the decrypters that a function makes: if there are any, those of the encrypter's size */
static void take_decrypters(struct image *im, struct search *s, struct cipher *c,
			    uint64_t function)
{
	struct mentioned m = {.shape = &decrypter_shape};
	bool same_size = false;
	size_t i, k;

	each_mention(im, function, function_end(im, function), table_mentioned, &m);
	for (i = 0; i < m.n; i++)
		same_size |= m.v[i].size == c->encrypter.size && !is_encrypter(s, m.v[i].address);
	for (i = 0; i < m.n; i++) {
		uint64_t decrypt = m.v[i].method[0];

		if (is_encrypter(s, m.v[i].address) || decrypt == c->encrypter.method[0] ||
		    (same_size && m.v[i].size != c->encrypter.size))
			continue;
		for (k = 0; k < c->ndecrypt && c->decrypt[k] != decrypt; k++)
			;
		if (k == c->ndecrypt && k <= DECRYPTERS)
			c->decrypt[c->ndecrypt++] = decrypt;
	}
}

struct callees {
	uint64_t caller, v[64];
	size_t n;
};

static void callee_mentioned(struct image *im, uint64_t where, uint64_t what, bool call, void *ctx)
{
	struct callees *c = ctx;
	int i;

	(void)where;
	(void)call; /* a function's last call is a jump */
	for (i = 0; i < 2 && c->n < ARRAY_SIZE(c->v); i++, what = word(im, what))
		if (what != c->caller && function_begins(im, what))
			c->v[c->n++] = what;
}

/* The decrypters of a suite's method decrypter, which may have them made by another function */
static void find_made(struct image *im, struct search *s, struct cipher *c, uint64_t decrypter)
{
	struct callees callees = {.caller = decrypter};
	size_t i;

	take_decrypters(im, s, c, decrypter);
	if (c->ndecrypt)
		return;
	each_mention(im, decrypter, function_end(im, decrypter), callee_mentioned, &callees);
	for (i = 0; i < callees.n; i++)
		take_decrypters(im, s, c, callees.v[i]);
}

/*
 * From an encrypter's vtable to who mentions it; if none of these is a suite's method
 * encrypter, to who mentions these, and once more.
 */
static void find_decrypters(struct image *im, struct search *s)
{
	const struct lead *l;
	struct vtable suite;
	size_t hop, i;

	for (i = 0; i < s->nciphers; i++)
		add_lead(im, &s->leads, s->ciphers[i].encrypter.address, &s->ciphers[i]);
	for (hop = 0; hop < 3 && s->leads.n; hop++) {
		find_users(im, s);
		for (i = 0; next_table(im, &suite_shape, &i, &suite);)
			for (l = first_lead(&s->users, suite.method[0]); l;
			     l = next_lead(&s->users, l))
				find_made(im, s, l->cipher, suite.method[1]);
		s->leads.n = 0;
		for (i = 0; i < s->users.n; i++) {
			l = &s->users.v[i];
			if (!l->cipher->ndecrypt && l->cipher->users < CIPHER_USERS &&
			    (!i || by_address(l, l - 1)))
				add_lead(im, &s->leads, l->address, l->cipher);
		}
	}
}

static bool find_rustls(struct image *im)
{
	struct search *s = allocate(im, 1, sizeof(*s));
	bool tls13 = false;
	size_t i, k;

	if (!s)
		return false;
	find_encrypters(im, s);
	if (s->nciphers)
		find_decrypters(im, s);
	for (i = 0; i < s->nciphers; i++) {
		struct cipher *c = &s->ciphers[i];

		if (c->ndecrypt > DECRYPTERS)
			c->ndecrypt = 0;
		c->believed = c->ndecrypt || (c->certain && !c->common);
		tls13 |= c->believed && is_tls13(c);
	}
	for (i = 0; i < s->nciphers && tls13; i++) {
		struct cipher *c = &s->ciphers[i];

		if (!c->believed)
			continue;
		add_hit(im, ELFSYM_ENCRYPT, c->name, c->encrypter.method[0]);
		for (k = 0; k < c->ndecrypt; k++)
			add_hit(im, ELFSYM_DECRYPT, c->name, c->decrypt[k]);
		if (!c->ndecrypt)
			add_hit(im, ELFSYM_NO_DECRYPT, c->name, c->encrypter.method[0]);
	}
	free(s->leads.v);
	free(s->users.v);
	free(s);
	return tls13;
}

/*
 * rustls 0.20 and 0.21
 *
 * The suites of TLS 1.2 are two empty types whose trait has just two methods, decrypter
 * and encrypter, each making one object.  TLS 1.3 has no such trait: its two vtables are
 * those left of the same size and align, and the code tells which is which.
 */
static const struct shape old_suite_shape = {2, 0, 1, 1};
static const struct shape old_cipher_shape = {1, 0x28, 0x400, 8 | 16};
#define OLD_SUITES 2
#define OLD_SIZE   0x230 /* without TLS 1.2 there is nothing to compare with: ring's size */
#define OLD_ALIGN  16

/* The only vtable that a short function mentions */
static bool makes(struct image *im, uint64_t function, struct vtable *t)
{
	struct mentioned m = {.shape = &old_cipher_shape};
	uint64_t end = function_end(im, function);

	if (end - function >= 0x400)
		return false;
	each_mention(im, function, end, table_mentioned, &m);
	*t = m.v[0];
	return m.n == 1;
}

static int encrypts(struct image *im, uint64_t function)
{
	uint64_t size = function_end(im, function) - function;
	uint8_t code[0xc00];

	size = read_code(im, function, code, size < sizeof(code) ? size : sizeof(code));
	return im->machine->encrypts(code, size);
}

static void find_old_rustls(struct image *im)
{
	struct vtable suite, t, encrypter[OLD_SUITES + 1], decrypter[OLD_SUITES + 1], left[3];
	size_t i, k, n = 0, nleft = 0;
	int more;

	for (i = 0; n <= OLD_SUITES && next_table(im, &old_suite_shape, &i, &suite);)
		if (suite.method[0] != suite.method[1] &&
		    makes(im, suite.method[0], &decrypter[n]) &&
		    makes(im, suite.method[1], &encrypter[n]) &&
		    decrypter[n].address != encrypter[n].address)
			n++;
	if (n && n != OLD_SUITES)
		return;
	for (i = 0; nleft < 3 && next_table(im, &old_cipher_shape, &i, &t);) {
		bool like = !n && t.size == OLD_SIZE && t.align == OLD_ALIGN;

		for (k = 0; k < n; k++) {
			like |= t.size == encrypter[k].size && t.align == encrypter[k].align;
			if (t.address == encrypter[k].address || t.address == decrypter[k].address)
				break;
		}
		/* where drop comes twice, the next table begins */
		if (k == n && like && t.method[0] != t.drop)
			left[nleft++] = t;
	}
	for (i = 0; i < n; i++) {
		add_hit(im, ELFSYM_ENCRYPT, "tls12", encrypter[i].method[0]);
		add_hit(im, ELFSYM_DECRYPT, "tls12", decrypter[i].method[0]);
	}
	if (nleft != 2)
		return;
	more = encrypts(im, left[0].method[0]) - encrypts(im, left[1].method[0]);
	if (more) {
		add_hit(im, ELFSYM_ENCRYPT, "tls13", left[more < 0].method[0]);
		add_hit(im, ELFSYM_DECRYPT, "tls13", left[more > 0].method[0]);
	}
}

/*
 * rustls's states: the vtables of dyn State
 *
 * Most states leave some methods at the trait's defaults and have an empty
 * handle_decrypt_error, so they form a family; ExpectTraffic is what stands among them
 * and overrides defaults.  The compiler makes copies of a default, so its code is what
 * is compared.  Numbers are those of methods, handle is 0.
 */
#define BIT(n)	     (1U << (n))
#define FAMILY_LEAST 8	    /* different handles */
#define FAMILY_NEAR  0x1000 /* bytes that ExpectTraffic may be away from its family */
#define TRAFFIC_SIZE 0x60   /* of ExpectTraffic at least */
#define FAMILIES     256    /* candidates for one */
#define STATES	     65536  /* candidates for a state */

static const struct layout {
	const char *name;
	unsigned int empty;	/* handle_decrypt_error */
	unsigned int defaults;	/* what most leave alone */
	unsigned int overrides; /* what ExpectTraffic does not */
	unsigned int yes;	/* of these, the one that only says that it is ExpectTraffic */
	struct shape shape;
} layouts[] = {
	/* 1 export_keying_material, 2 extract_secrets, 3 send_key_update_request */
	{"0.23.11+", 4, BIT(1) | BIT(2) | BIT(3), BIT(1) | BIT(2), 0, {5, 8, 0x1000, 8}},
	/* the same without 3; also 0.21 with the feature secret_extraction */
	{"0.22-0.23.10", 3, BIT(1) | BIT(2), BIT(1) | BIT(2), 0, {4, 8, 0x1000, 8}},
	/* 1 is_traffic, 3 into_external_state */
	{"0.24", 2, BIT(1) | BIT(3), BIT(1) | BIT(3), 1, {4, 8, 0x1000, 8}},
	{"0.20-0.21", 2, BIT(1), BIT(1), 0, {3, 8, 0x1000, 8}},
};

#define METHODS_COMPARED 4

struct state {
	uint64_t address, size, handle;
	uint64_t defaults; /* hash of the bodies of the methods of layout.defaults */
	struct body body[METHODS_COMPARED];
};

static bool is_one_of(const struct bytes *list, size_t n, const uint8_t *code, size_t size)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (list[i].n && list[i].n == size && !memcmp(list[i].bytes, code, size))
			return true;
	return false;
}

static uint64_t hash(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n--)
		h = (h ^ *p++) * 0x100000001b3; /* FNV-1a */
	return h;
}

static struct body body_of(struct image *im, uint64_t function)
{
	const struct machine *m = im->machine;
	struct body body;
	uint8_t code[40];
	size_t n;

	n = m->essence(code, read_code(im, function, code, sizeof(code)));
	body.hash = hash(0, code, n);
	body.nothing = is_one_of(m->nothing, ARRAY_SIZE(m->nothing), code, n);
	body.yes = is_one_of(m->yes, ARRAY_SIZE(m->yes), code, n);
	return body;
}

/* Reads a vtable as that of a state; false if its handle_decrypt_error is not empty */
static bool read_state(struct image *im, const struct layout *l, const struct vtable *t,
		       struct state *s)
{
	size_t i;

	if (!body_of(im, t->method[l->empty]).nothing)
		return false;
	*s = (struct state){.address = t->address, .size = t->size, .handle = t->method[0]};
	for (i = 0; i < METHODS_COMPARED; i++) {
		if (!(l->defaults & BIT(i)))
			continue;
		s->body[i] = body_of(im, t->method[i]);
		s->defaults = hash(s->defaults, &s->body[i].hash, sizeof(s->body[i].hash));
	}
	return true;
}

static int by_family(const void *a, const void *b)
{
	const struct state *x = a, *y = b;

	if (x->defaults != y->defaults)
		return x->defaults < y->defaults ? -1 : 1;
	return (x->handle > y->handle) - (x->handle < y->handle);
}

static bool is_traffic(const struct layout *l, const struct state *s, const struct state *usual)
{
	size_t i;

	if (s->size < TRAFFIC_SIZE || (l->yes && !s->body[l->yes].yes))
		return false;
	for (i = 0; i < METHODS_COMPARED; i++)
		if (l->overrides & BIT(i) &&
		    (s->body[i].nothing || s->body[i].hash == usual->body[i].hash))
			return false;
	return true;
}

/* Finds ExpectTraffic near a group of states of the same defaults, if that is a family */
static void find_traffic(struct image *im, const struct layout *l, const struct state *states,
			 size_t nstates, const struct state *group, size_t n)
{
	uint64_t from = UINT64_MAX, to = 0;
	size_t i, handles = 1;

	for (i = 0; i < METHODS_COMPARED; i++)
		if (group->body[i].nothing || group->body[i].yes)
			return;
	for (i = 0; i < n; i++) {
		handles += i && group[i].handle != group[i - 1].handle;
		from = group[i].address < from ? group[i].address : from;
		to = group[i].address > to ? group[i].address : to;
	}
	if (handles < FAMILY_LEAST)
		return;
	for (i = 0; i < nstates; i++)
		if (states[i].address + FAMILY_NEAR > from &&
		    states[i].address < to + FAMILY_NEAR && is_traffic(l, &states[i], group))
			add_hit(im, ELFSYM_HANDLE, l->name, states[i].handle);
}

static void find_states(struct image *im, const struct layout *l)
{
	size_t i, n = 0, room = 0, from, families = 0;
	struct state *states = NULL;
	struct vtable t;

	for (i = 0; n < STATES && next_table(im, &l->shape, &i, &t);)
		if (MAKE_ROOM(im, states, n, room) &&
		    read_state(im, l, &t, &states[n]))
			n++;
	if (n)
		qsort(states, n, sizeof(*states), by_family);
	for (from = 0; from < n; from = i) {
		for (i = from + 1; i < n && states[i].defaults == states[from].defaults; i++)
			;
		if (i - from >= FAMILY_LEAST && families++ < FAMILIES)
			find_traffic(im, l, states, n, &states[from], i - from);
	}
	free(states);
}

/*
 * OpenSSL's SSL_METHOD
 *
 * {version, flags, mask, functions}: TLS_method and its client and server variants are
 * equal but for accept and connect, which confirms them.  Read and write are those of
 * SSL_read_ex and SSL_write_ex: (SSL *, buffer, length, size_t *done), 1 for success.
 */
static const struct method {
	uint64_t head[2];
	unsigned int functions;
	unsigned int accept; /* connect, read, peek and write come after it */
} methods[] = {
	{{0x10000, 0}, 22, 3}, /* OpenSSL 1.1.1 to 3.1 */
	{{0x10000, 0}, 25, 6}, /* from 3.2 on */
};

#define METHODS_MOST 32 /* candidates: three are usual */

static bool is_method(const struct image *im, const struct method *m, uint64_t address)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(m->head); i++)
		if (word(im, address + 8 * i) != m->head[i])
			return false;
	for (i = 0; i < m->functions; i++)
		if (!text_of(im, word(im, address + sizeof(m->head) + 8 * i)))
			return false;
	return true;
}

static bool are_variants(const struct image *im, const struct method *m, uint64_t a, uint64_t b)
{
	unsigned int i, differ = 0;

	for (i = 0; i < m->functions; i++) {
		if (word(im, a + 8 * i) == word(im, b + 8 * i))
			continue;
		if (i != m->accept && i != m->accept + 1)
			return false;
		differ++;
	}
	return differ;
}

static void find_methods(struct image *im, const struct method *m)
{
	uint64_t address, found[METHODS_MOST];
	size_t i, k, n, nfound = 0;
	const uint8_t *w;

	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k < n && nfound < METHODS_MOST; k++)
			if (get64(w + 8 * k) == m->head[0] && is_method(im, m, address + 8 * k))
				found[nfound++] = address + 8 * k + sizeof(m->head);
	}
	for (i = 0; i < nfound; i++)
		for (k = 0; k < i; k++)
			if (are_variants(im, m, found[i], found[k])) {
				address = found[i] + 8 * m->accept;
				add_hit(im, ELFSYM_SSL_READ, "SSL_METHOD", word(im, address + 16));
				add_hit(im, ELFSYM_SSL_WRITE, "SSL_METHOD", word(im, address + 32));
			}
}

int elfsym_tables(int fd,
		  int (*fn)(const struct elfsym_func *func, enum elfsym_role role, void *ctx),
		  void *ctx)
{
	struct image *im = calloc(1, sizeof(*im));
	int ret;
	size_t i;

	if (!im)
		return -ENOMEM;
	im->fd = fd;
	ret = load(im);
	if (!ret) {
		find_tables(im);
		find_functions(im);
		if (!im->err && !find_rustls(im) && !im->err)
			find_old_rustls(im);
		for (i = 0; i < ARRAY_SIZE(layouts); i++)
			find_states(im, &layouts[i]);
		for (i = 0; i < ARRAY_SIZE(methods); i++)
			find_methods(im, &methods[i]);
		ret = im->err;
	}
	for (i = 0; i < im->nhits && !ret; i++) {
		const struct hit *h = &im->hits[i];
		const struct range *r = text_of(im, h->address);
		struct elfsym_func func = {.name = h->name,
					   .source = ".vtable",
					   .offset = r->offset + (h->address - r->address),
					   .address = h->address};

		ret = fn(&func, h->role, ctx);
	}
	unload(im);
	return ret;
}
