// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym_image.c - an ELF file as the loader leaves it, for those who look for tables.
 *
 * The file is read, not mapped: a file that is cut short while we look at it must not
 * kill us.  Data is held in memory, code comes and goes.  Every number in the file may be
 * hostile: each address is looked up in what was loaded, which is no more than the file
 * has, and looking at code costs of a budget that no honest file exhausts.
 */
#define _GNU_SOURCE
#include "elfsym_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK	    8192       /* bytes of code that are read at a time */
#define WINDOW	    4096       /* and searched at a time */
#define LONGEST	    (1 << 16)  /* bytes of a function that is looked into */
#define FREE_CODE   (64 << 20) /* bytes of code that any file may make us look at, */
#define CODE_FACTOR 6	       /* besides so many times all of it */
#define LOOK	    64	       /* bytes that a look at any code costs at least */

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

void *image_alloc(struct image *im, size_t n, size_t size)
{
	void *p = im->err ? NULL : calloc(n ? n : 1, size);

	if (!p && !im->err)
		im->err = -ENOMEM;
	return p;
}

void *image_room(struct image *im, void *array, size_t n, size_t *room, size_t size)
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

const struct range *text_of(const struct image *im, uint64_t address)
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

uint64_t function_of(const struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);
	uint64_t at, least, bits;

	if (!r || !r->starts)
		return 0;
	at = (address - r->address) / 64;
	least = at > LONGEST / 64 ? at - LONGEST / 64 : 0;
	bits = r->starts[at] & ~0ULL >> (63 - (address - r->address) % 64);
	while (!bits && at > least)
		bits = r->starts[--at];
	return bits ? r->address + at * 64 + 63 - __builtin_clzll(bits) : 0;
}

uint64_t function_end(const struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);
	uint64_t at, most, bits, end;

	if (!r || !r->starts)
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

bool function_begins(const struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);

	return r && r->starts &&
	       r->starts[(address - r->address) / 64] >> (address - r->address) % 64 & 1;
}

uint64_t word(const struct image *im, uint64_t address)
{
	const uint8_t *p = data_at(im, address, 8);

	return p ? get64(p) : 0;
}

const uint8_t *words_of(const struct range *r, size_t *n, uint64_t *address)
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
	size_t slot = offset / BLOCK % IMAGE_BLOCKS;

	if (im->block_at[slot] != at + 1) {
		read_file(im, im->blocks + slot * BLOCK, BLOCK, at);
		im->block_at[slot] = at + 1;
	}
	return im->err ? NULL : im->blocks + slot * BLOCK;
}

size_t read_code(struct image *im, uint64_t address, uint8_t *buf, size_t n)
{
	const struct range *r = text_of(im, address);
	const uint8_t *block;
	uint64_t offset;
	size_t done, some;

	if (!r)
		return 0;
	if (n > r->size - (address - r->address))
		n = r->size - (address - r->address);
	if (!spend(im, n + LOOK))
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

/* Whole addresses count from im->lowest to extent bytes further */
static void scan_code(struct image *im, uint64_t from, uint64_t to, uint64_t extent,
		      void (*fn)(const struct mention *m, void *ctx), void *ctx)
{
	struct scan s = {.lowest = im->lowest, .extent = extent, .fn = fn, .ctx = ctx};
	uint8_t window[WINDOW];
	size_t want, done;

	s.code = window;
	s.address = (from + im->machine->unit - 1) & -(uint64_t)im->machine->unit;
	do {
		want = s.address < to ? to - s.address : 0;
		s.size = read_code(im, s.address, window, want < WINDOW ? want : WINDOW);
		done = im->machine->mentions(&s);
		s.address += done;
	} while (done);
}

void each_mention(struct image *im, uint64_t from, uint64_t to,
		  void (*fn)(const struct mention *m, void *ctx), void *ctx)
{
	scan_code(im, from, to, im->extent, fn, ctx);
}

static void function_at(struct image *im, uint64_t address)
{
	const struct range *r = text_of(im, address);

	if (r)
		r->starts[(address - r->address) / 64] |= 1ULL << (address - r->address) % 64;
}

static void note_call(const struct mention *m, void *ctx)
{
	if (m->call)
		function_at(ctx, m->what);
}

static void add_range(struct range *ranges, size_t *n, uint64_t address, uint64_t size,
		      uint64_t offset)
{
	if (size && *n < IMAGE_RANGES)
		ranges[(*n)++] = (struct range){.address = address, .size = size, .offset = offset};
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
	im->pairs = image_alloc(im, im->npairs, 8);
	if (im->pairs)
		read_file(im, im->pairs, im->npairs * 8, ph->p_offset + sizeof(head));
}

static uint64_t unwind_function(const struct image *im, size_t i)
{
	return im->unwind + (int64_t)im->pairs[2 * i];
}

/*
 * A segment with code.  In some programs, as linkers make them for arm64, constants are in it
 * as well: then .eh_frame_hdr is among them, and code is only from the first function to the
 * last.  Without it there is no telling where, if what the file begins with is code's: all is both.
 */
static void add_text(struct image *im, uint64_t address, uint64_t size, uint64_t offset)
{
	uint64_t end = address + size, from = end, to = address;
	size_t i;

	if (!im->npairs || im->unwind - address >= size) {
		add_range(im->text, &im->ntext, address, size, offset);
		if (!offset)
			add_range(im->data, &im->ndata, address, size, offset);
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

/* The segments, as far as the file has them: no more in all than its size */
static int add_segments(struct image *im, const Elf64_Phdr *ph, size_t n, uint64_t file_size)
{
	uint64_t size, total = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (ph[i].p_type != PT_LOAD || ph[i].p_offset >= file_size)
			continue;
		size = file_size - ph[i].p_offset;
		size = ph[i].p_filesz < size ? ph[i].p_filesz : size;
		total += size;
		if (ph[i].p_vaddr + size < ph[i].p_vaddr || total > file_size)
			return -EBADMSG;
		if (ph[i].p_flags & PF_X)
			add_text(im, ph[i].p_vaddr, size, ph[i].p_offset);
		else
			add_range(im->data, &im->ndata, ph[i].p_vaddr, size, ph[i].p_offset);
	}
	return 0;
}

/* What code of a program that is not moved may mention by its whole address */
static void find_extent(struct image *im)
{
	uint64_t end = 0;
	size_t i;

	im->lowest = UINT64_MAX;
	for (i = 0; i < im->ntext + im->ndata; i++) {
		const struct range *r = i < im->ntext ? &im->text[i] : &im->data[i - im->ntext];

		im->lowest = r->address < im->lowest ? r->address : im->lowest;
		end = r->address + r->size > end ? r->address + r->size : end;
	}
	im->extent = end - im->lowest;
}

static int load(struct image *im)
{
	const Elf64_Phdr *dynamic = NULL;
	Elf64_Phdr ph[IMAGE_RANGES];
	struct stat st;
	Elf64_Ehdr eh;
	size_t i;
	int err;

	if (fstat(im->fd, &st))
		return -errno;
	read_file(im, &eh, sizeof(eh), 0);
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG))
		return -ENOEXEC;
	im->machine = machine_of(&eh);
	if (!im->machine)
		return -EOPNOTSUPP;
	if (eh.e_phnum > IMAGE_RANGES || (eh.e_phnum && eh.e_phentsize != sizeof(*ph)) ||
	    eh.e_phoff > (uint64_t)st.st_size || eh.e_phnum * sizeof(*ph) > st.st_size - eh.e_phoff)
		return -EBADMSG;
	read_file(im, ph, eh.e_phnum * sizeof(*ph), eh.e_phoff);
	for (i = 0; i < eh.e_phnum; i++) {
		if (ph[i].p_type == PT_GNU_EH_FRAME)
			read_unwind(im, &ph[i], st.st_size);
		else if (ph[i].p_type == PT_DYNAMIC)
			dynamic = &ph[i];
	}
	err = add_segments(im, ph, eh.e_phnum, st.st_size);
	if (err)
		return err;
	if (eh.e_type == ET_EXEC)
		find_extent(im);
	for (i = 0; i < im->ndata; i++) {
		im->data[i].bytes = image_alloc(im, im->data[i].size, 1);
		if (im->err)
			return im->err;
		read_file(im, im->data[i].bytes, im->data[i].size, im->data[i].offset);
	}
	im->budget = FREE_CODE;
	for (i = 0; i < im->ntext; i++)
		im->budget += CODE_FACTOR * im->text[i].size;
	im->blocks = image_alloc(im, IMAGE_BLOCKS, BLOCK);
	if (im->err)
		return im->err;
	if (dynamic)
		relocate(im, dynamic);
	return im->err;
}

/*
 * The size of a function: its entry in .eh_frame is {length, link, function, size, ...},
 * all of 4 bytes where .eh_frame_hdr has such.  0 if that is not so.
 */
static uint64_t unwind_size(const struct image *im, size_t i)
{
	uint64_t entry = im->unwind + (int64_t)im->pairs[2 * i + 1];
	const uint8_t *p = data_at(im, entry, 16);

	if (!p || entry + 8 + (int64_t)(int32_t)get32(p + 8) != unwind_function(im, i))
		return 0;
	return get32(p + 12);
}

/* Within a function, no other begins: what the data holds there is no address */
static void clear_function(struct image *im, uint64_t address, uint64_t size)
{
	const struct range *r = text_of(im, address);
	uint64_t at, end, bits;

	if (!r || !spend(im, size / 64))
		return;
	at = address - r->address + 1;
	end = size < r->size - at ? at + size - 1 : r->size;
	for (; at < end; at = (at / 64 + 1) * 64) {
		bits = ~0ULL << at % 64;
		if (end / 64 == at / 64)
			bits &= ~(~0ULL << end % 64);
		r->starts[at / 64] &= ~bits;
	}
}

void find_functions(struct image *im)
{
	uint64_t address;
	const uint8_t *w;
	size_t i, k, n;

	for (i = 0; i < im->ntext; i++) {
		if (im->text[i].starts)
			return;
		im->text[i].starts = image_alloc(im, im->text[i].size / 64 + 1, 8);
		if (im->err)
			return;
	}
	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k < n; k++)
			function_at(im, get64(w + 8 * k));
	}
	for (i = 0; i < im->npairs; i++)
		clear_function(im, unwind_function(im, i), unwind_size(im, i));
	for (i = 0; i < im->npairs; i++)
		function_at(im, unwind_function(im, i));
	for (i = 0; i < im->ntext && !im->npairs; i++)
		scan_code(im, im->text[i].address, im->text[i].address + im->text[i].size, 0,
			  note_call, im);
}

int image_open(int fd, struct image **image)
{
	struct image *im = calloc(1, sizeof(*im));
	int err;

	*image = im;
	if (!im)
		return -ENOMEM;
	im->fd = fd;
	err = load(im);
	return im->err ? im->err : err;
}

void image_close(struct image *im)
{
	size_t i;

	if (!im)
		return;
	for (i = 0; i < im->ntext; i++)
		free(im->text[i].starts);
	for (i = 0; i < im->ndata; i++)
		free(im->data[i].bytes);
	free(im->pairs);
	free(im->blocks);
	free(im);
}
