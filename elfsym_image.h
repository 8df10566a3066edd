/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * elfsym_image.h - an ELF file as the loader leaves it, for those who look for tables.
 *
 * In: a file descriptor.  Out: words of its data, pieces of its code, where functions
 * begin and which addresses they mention.  Any address may be asked for: where there is
 * nothing, there is 0.  Prints nothing, and trusts no number in the file.
 */
#ifndef ELFSYM_IMAGE_H
#define ELFSYM_IMAGE_H

#include "elfsym_code.h"

#define IMAGE_RANGES 64 /* program headers, and parts of a segment */
#define IMAGE_BLOCKS 512

/* A part of the file: data with its bytes, code with where functions begin */
struct range {
	uint64_t address, size, offset;
	uint8_t *bytes;
	uint64_t *starts; /* a bit for each byte */
};

struct image {
	int fd;
	int err; /* the first error, -errno; all that is read after it is 0 */
	const struct machine *machine;
	struct range text[IMAGE_RANGES], data[IMAGE_RANGES];
	size_t ntext, ndata;
	uint64_t lowest, extent; /* of all addresses, if the file is not moved when loaded */
	uint64_t unwind;	 /* .eh_frame_hdr's address, to which its pairs are relative */
	int32_t *pairs;		 /* {function, its entry} */
	size_t npairs;
	uint8_t *blocks; /* some of the code */
	uint64_t block_at[IMAGE_BLOCKS];
	uint64_t budget; /* bytes of code that may still be looked at */
};

/*
 * Returns 0, or -ENOEXEC: no ELF file, -EOPNOTSUPP: for another machine or of 32 bits,
 * -EBADMSG: damaged, -E2BIG, -ENOMEM or what reading it failed with.  The image is to be
 * closed in any case.
 */
int image_open(int fd, struct image **im);
void image_close(struct image *im);

/* Zeroed memory for n elements; NULL: after an error */
void *image_alloc(struct image *im, size_t n, size_t size);

/* Room for one more element in an array of n; what MAKE_ROOM says */
void *image_room(struct image *im, void *array, size_t n, size_t *room, size_t size);

/* Makes room for one more element in an array of n; false: after an error */
#define MAKE_ROOM(im, array, n, room)                                                              \
	((array) = image_room(im, array, n, &(room), sizeof(*(array))), (n) < (room))

static inline uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}

/* The range of code that has an address, or NULL */
const struct range *text_of(const struct image *im, uint64_t address);

/* The word of data at an address */
uint64_t word(const struct image *im, uint64_t address);

/* All words of a range of data, which lie at multiples of 8: how many, and the first's address */
const uint8_t *words_of(const struct range *r, size_t *n, uint64_t *address);

/* Copies code to buf, as much as there is of n bytes; returns how much */
size_t read_code(struct image *im, uint64_t address, uint8_t *buf, size_t n);

/*
 * Finds out where functions begin, if that is not known yet: where .eh_frame_hdr says so,
 * and, as those that call no other may have no entry there, between these at every address
 * that the data holds.  Without .eh_frame_hdr, also where calls lead.  Before, the next
 * three find nothing.
 */
void find_functions(struct image *im);

bool function_begins(const struct image *im, uint64_t address);

/* Where the function begins that has the code at an address; 0 if that is too far away */
uint64_t function_of(const struct image *im, uint64_t address);

/* Where the next function begins, or what belongs to the one at an address must end */
uint64_t function_end(const struct image *im, uint64_t address);

/* Calls fn for each address that the code from one address to another of one range mentions */
void each_mention(struct image *im, uint64_t from, uint64_t to,
		  void (*fn)(const struct mention *m, void *ctx), void *ctx);

#endif
