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

struct image {
	int fd;
	const struct machine *machine;
	bool absolute; /* it is not moved when loaded, so code may hold whole addresses */
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
	const char *nothing[3], *yes[4]; /* in hex: all essences of "return" and "return true" */
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

/* Makes room for one more in an array of n elements */
static bool make_room(struct image *im, void *array, size_t n, size_t *room, size_t size)
{
	void *larger;

	if (n < *room)
		return true;
	larger = im->err ? NULL : reallocarray(*(void **)array, *room ? *room * 2 : 64, size);
	if (!larger) {
		im->err = im->err ? im->err : -ENOMEM;
		return false;
	}
	*room = *room ? *room * 2 : 64;
	*(void **)array = larger;
	return true;
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
	if (!spend(im, n))
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
	uint64_t data = 0, file_size;
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
		if (ph[i].p_vaddr + size < ph[i].p_vaddr)
			return -EBADMSG;
		if (ph[i].p_flags & PF_X)
			add_text(im, ph[i].p_vaddr, size, ph[i].p_offset);
		else
			add_range(im->data, &im->ndata, ph[i].p_vaddr, size, ph[i].p_offset);
	}
	for (i = 0; i < im->ndata; i++) {
		struct range *r = &im->data[i];

		data += r->size;
		if (data > file_size)
			return -EBADMSG; /* the same bytes many times over */
		r->bytes = allocate(im, r->size, 1);
		if (r->bytes)
			read_file(im, r->bytes, r->size, r->offset);
	}
	im->budget = FREE_CODE;
	for (i = 0; i < im->ntext; i++)
		im->budget += CODE_FACTOR * im->text[i].size;
	im->blocks = allocate(im, BLOCKS, BLOCK);
	if (!im->err && dynamic)
		relocate(im, dynamic);
	return im->err;
}
