// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym_debug.c - where the symbols are of an ELF file that was stripped of them.
 *
 * In: the file, and where debug files may lie.  Out: the symbol table of another file,
 * unpacked from .gnu_debugdata, or a debug file (both as gdb's manual describes them in
 * "MiniDebugInfo" and "Separate Debug Files").  Must never print, and never take a file
 * that is not known to have been made together with this one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "elfsym.h"
#include "elfsym_debug.h"

#define PACKED_MAX   (64 << 20)	   /* bytes of .gnu_debugdata */
#define UNPACKED_MAX (128 << 20)   /* bytes that come of it: 500,000 symbols need half */
#define XZ_MEMORY    (80ULL << 20) /* that unpacking may take: xz -9 takes 65 MiB */
#define DEBUG_MAX    (2ULL << 30)  /* bytes of a debug file, all of which the checksum is of */
#define NOTES_MAX    4096	   /* bytes of a section with notes */
#define LINK_MAX     4096	   /* bytes of .gnu_debuglink */

/* What the linker named the result by; size 0: it did not */
struct build_id {
	uint8_t bytes[64];
	size_t size;
};

/* Looks through the notes of a section: {name's size, size, type, name, contents} each */
static void find_build_id(const uint8_t *notes, size_t n, struct build_id *id)
{
	Elf64_Nhdr nh;
	uint64_t at = 0, name, contents;

	for (; at + sizeof(nh) <= n; at = contents + ((nh.n_descsz + 3ULL) & ~3ULL)) {
		memcpy(&nh, notes + at, sizeof(nh));
		name = at + sizeof(nh);
		contents = name + ((nh.n_namesz + 3ULL) & ~3ULL);
		if (contents > n || nh.n_descsz > n - contents)
			return;
		if (nh.n_type != NT_GNU_BUILD_ID || nh.n_namesz != sizeof(ELF_NOTE_GNU) ||
		    memcmp(notes + name, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) ||
		    nh.n_descsz > sizeof(id->bytes))
			continue;
		id->size = nh.n_descsz;
		memcpy(id->bytes, notes + contents, id->size);
		return;
	}
}

static struct build_id build_id_of(const struct elfsym *e)
{
	struct build_id id = {.size = 0};
	const Elf_Data *notes;
	Elf_Scn *scn = NULL;

	while (!id.size && (scn = elf_nextscn(e->elf, scn)))
		if (elf64_getshdr(scn)->sh_type == SHT_NOTE &&
		    !elfsym_contents(e, scn, NOTES_MAX, &notes))
			find_build_id(notes->d_buf, notes->d_size, &id);
	return id;
}

static bool same_build(const struct build_id *a, const struct build_id *b)
{
	return a->size == b->size && !memcmp(a->bytes, b->bytes, a->size);
}

/* Takes debug over: e's symbols are those of that file, if it has any */
static bool take(struct elfsym *e, struct elfsym *debug, const char *source)
{
	if (!elfsym_has_functions(e, debug)) {
		elfsym_close(debug);
		return false;
	}
	e->debug = debug;
	e->debug_source = source;
	return true;
}

/* Makes room for more of what is unpacked; false: there is none */
static bool more_room(lzma_stream *xz, uint8_t **bytes)
{
	size_t room = xz->total_out ? 2 * xz->total_out : 1 << 20;
	uint8_t *larger = room <= UNPACKED_MAX ? realloc(*bytes, room) : NULL;

	if (!larger)
		return false;
	*bytes = larger;
	xz->next_out = larger + xz->total_out;
	xz->avail_out = room - xz->total_out;
	return true;
}

/*
 * Unpacks a section.  What has no checksum of its own, or not the right one, is not used:
 * a wrong address would be that of a probe.
 */
static int unpack(const struct elfsym *e, Elf_Scn *scn, uint8_t **bytes, uint64_t *size)
{
	lzma_stream xz = LZMA_STREAM_INIT;
	lzma_ret ret = LZMA_OK;
	const Elf_Data *packed;
	int err;

	*bytes = NULL;
	err = elfsym_contents(e, scn, PACKED_MAX, &packed);
	if (err)
		return err;
	if (lzma_stream_decoder(&xz, XZ_MEMORY, LZMA_TELL_NO_CHECK | LZMA_TELL_UNSUPPORTED_CHECK) !=
	    LZMA_OK)
		ret = LZMA_MEM_ERROR;
	xz.next_in = packed->d_buf;
	xz.avail_in = packed->d_size;
	while (ret == LZMA_OK && (xz.avail_out || more_room(&xz, bytes)))
		ret = lzma_code(&xz, LZMA_FINISH);
	*size = xz.total_out;
	lzma_end(&xz);
	if (ret == LZMA_STREAM_END)
		return 0;
	free(*bytes);
	return -EBADMSG;
}

static bool find_packed(struct elfsym *e, const struct build_id *id)
{
	Elf_Scn *scn = elfsym_section(e, ".gnu_debugdata");
	struct build_id other;
	struct elfsym *debug;
	uint8_t *bytes;
	uint64_t size;

	if (!scn || unpack(e, scn, &bytes, &size) || elfsym_open_memory(bytes, size, &debug))
		return false;
	other = build_id_of(debug); /* it need not have one: it is in this very file */
	if (other.size && !same_build(&other, id)) {
		elfsym_close(debug);
		return false;
	}
	return take(e, debug, "debugdata");
}

/*
 * Opens a regular file below a root.  A link in the path leads nowhere else, as the root
 * may be one that others have filled, and nothing but a regular file is opened for reading,
 * as opening a device might do something.
 */
static int open_below(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	char again[32];
	struct stat st;
	int fd, place;

	place = syscall(SYS_openat2, root, path, &how, sizeof(how));
	if (place < 0)
		return -1;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", place);
	fd = -1;
	if (!fstat(place, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size <= DEBUG_MAX)
		fd = open(again, O_RDONLY | O_CLOEXEC);
	close(place);
	return fd;
}

/* The checksum of .gnu_debuglink: CRC-32 as in gzip, over the whole file */
static bool has_checksum(const struct elfsym *e, uint32_t checksum)
{
	uint8_t window[1 << 16];
	uint64_t done = 0;
	uint32_t crc = 0;
	ssize_t n = 1;

	for (; done < e->size && n > 0; done += n) {
		n = pread(e->fd, window, MIN(e->size - done, sizeof(window)), done);
		if (n > 0)
			crc = lzma_crc32(window, n, crc);
	}
	return n > 0 && crc == checksum;
}

/* Uses the debug file at a path if it is the right one */
static bool try_file(struct elfsym *e, const struct build_id *id, int root, const char *path,
		     const uint32_t *checksum)
{
	struct build_id other;
	struct elfsym *debug;
	int fd = open_below(root, path);

	if (fd < 0)
		return false;
	if (elfsym_open(fd, &debug)) {
		close(fd);
		return false;
	}
	debug->owns_fd = true;
	other = build_id_of(debug);
	if (!debug->symtab || !same_build(&other, id) ||
	    (checksum && !has_checksum(debug, *checksum))) {
		elfsym_close(debug);
		return false;
	}
	return take(e, debug, checksum ? "debuglink" : "build-id");
}

static bool find_by_build_id(struct elfsym *e, const struct build_id *id, const int *roots,
			     size_t nroots)
{
	char path[256], *p;
	size_t i;

	if (id->size < 2)
		return false;
	p = path + sprintf(path, "/usr/lib/debug/.build-id/%02x/", id->bytes[0]);
	for (i = 1; i < id->size; i++)
		p += sprintf(p, "%02x", id->bytes[i]);
	strcpy(p, ".debug");
	for (i = 0; i < nroots; i++)
		if (try_file(e, id, roots[i], path, NULL))
			return true;
	return false;
}

/* .gnu_debuglink: a file's name, zeros up to a multiple of 4, the file's checksum */
static bool find_by_link(struct elfsym *e, const struct build_id *id, const char *dir,
			 const int *roots, size_t nroots)
{
	static const char *const places[] = {"%s/%s", "%s/.debug/%s", "/usr/lib/debug%s/%s"};
	Elf_Scn *scn = elfsym_section(e, ".gnu_debuglink");
	const Elf_Data *data;
	char path[PATH_MAX];
	const char *link;
	uint32_t checksum;
	size_t i, k, n;

	if (!scn || elfsym_contents(e, scn, LINK_MAX, &data))
		return false;
	link = data->d_buf;
	n = strnlen(link, data->d_size);
	if (!n || (n & ~3ULL) + 4 + sizeof(checksum) > data->d_size || memchr(link, '/', n))
		return false;
	memcpy(&checksum, link + (n & ~3ULL) + 4, sizeof(checksum));
	for (i = 0; i < nroots; i++)
		for (k = 0; k < sizeof(places) / sizeof(*places); k++)
			if (snprintf(path, sizeof(path), places[k], dir, link) <
				    (int)sizeof(path) &&
			    try_file(e, id, roots[i], path, &checksum))
				return true;
	return false;
}

void elfsym_find_debug(struct elfsym *e, const char *dir, const int *roots, size_t nroots)
{
	struct build_id id = build_id_of(e);

	if (elfsym_has_functions(e, e) || find_packed(e, &id) ||
	    find_by_build_id(e, &id, roots, nroots))
		return;
	if (dir)
		find_by_link(e, &id, dir, roots, nroots);
}
