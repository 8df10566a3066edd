// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym_test.c - elfsym.c with files that this program makes itself.
 *
 * Without arguments: TAP, with whole, odd, cut and damaged files.
 * elfsym_test NAMES FILE: writes an ELF file to FILE that defines all the functions of
 * NAMES (lines of two words, the second is the name; "#" begins a remark), at the file
 * offset FIRST + 16 for the first of them, FIRST + 32 for the second and so on.
 * elfsym_test big FILE: writes one of 200 MB, most of it a hole, with 500,000 functions.
 *
 * Needs no privilege.  Must never leave a file behind that it was not asked for.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lzma.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "elfsym.h"
#include "tap.h"

#if defined(__x86_64__)
#define OUR_MACHINE   EM_X86_64
#define OTHER_MACHINE EM_AARCH64
#else
#define OUR_MACHINE   EM_AARCH64
#define OTHER_MACHINE EM_X86_64
#endif

/* where the code is, in the file and in memory, and the data behind it */
#define FIRST	0x200
#define ADDRESS 0x400000
#define CODE	0x200
#define DATA	0x100

enum { NONE, DYNSYM, DYNSTR, SYMTAB, STRTAB, COMMENT, RODATA, NOTE, DEBUGDATA, SHSTRTAB, SECTIONS };

/* An ELF file in the making: its tables, and in the end all of it */
struct file {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[2];
	Elf64_Shdr sh[SECTIONS];
	char *bytes[SECTIONS];
	char *code, *data;
	size_t hole; /* behind the code and the data */
	char *image;
	size_t size;
	size_t room[SECTIONS];
};

static void *need(void *memory)
{
	if (!memory) {
		perror("elfsym_test");
		exit(EXIT_FAILURE);
	}
	return memory;
}

/* Adds bytes to a section; returns where they begin in it */
static size_t add(struct file *f, int section, const void *bytes, size_t n)
{
	size_t at = f->sh[section].sh_size;

	if (at + n > f->room[section]) { /* twice as much each time: a sanitizer's realloc copies */
		f->room[section] = 2 * (at + n) + 4096;
		f->bytes[section] = need(realloc(f->bytes[section], f->room[section]));
	}
	memcpy(f->bytes[section] + at, bytes, n);
	f->sh[section].sh_size += n;
	return at;
}

static void add_symbol(struct file *f, int table, const char *name, uint64_t value, int type,
		       int section)
{
	Elf64_Sym sym = {
		.st_name = add(f, table + 1, name, strlen(name) + 1),
		.st_info = ELF64_ST_INFO(STB_GLOBAL, type),
		.st_shndx = section,
		.st_value = value,
		.st_size = 16,
	};

	add(f, table, &sym, sizeof(sym));
}

static void add_function(struct file *f, int table, const char *name, uint64_t offset)
{
	add_symbol(f, table, name, ADDRESS + offset, STT_FUNC, 1);
}

static void begin(struct file *f)
{
	static const char *const names[SECTIONS] = {
		"",
		".dynsym",
		".dynstr",
		".symtab",
		".strtab",
		".comment",
		".rodata",
		".note.gnu.build-id",
		".gnu_debugdata",
		".shstrtab",
	};
	static const int types[SECTIONS] = {
		SHT_NULL,     SHT_DYNSYM,   SHT_STRTAB, SHT_SYMTAB,   SHT_STRTAB,
		SHT_PROGBITS, SHT_PROGBITS, SHT_NOTE,	SHT_PROGBITS, SHT_STRTAB,
	};
	static const Elf64_Sym nothing;
	int i;

	memset(f, 0, sizeof(*f));
	memcpy(f->eh.e_ident, ELFMAG, SELFMAG);
	f->eh.e_ident[EI_CLASS] = ELFCLASS64;
	f->eh.e_ident[EI_DATA] = ELFDATA2LSB;
	f->eh.e_ident[EI_VERSION] = EV_CURRENT;
	f->eh.e_type = ET_DYN;
	f->eh.e_machine = OUR_MACHINE;
	f->eh.e_version = EV_CURRENT;
	f->eh.e_ehsize = sizeof(f->eh);
	f->eh.e_phoff = sizeof(f->eh);
	f->eh.e_phentsize = sizeof(f->ph[0]);
	f->eh.e_phnum = 2;
	f->eh.e_shentsize = sizeof(f->sh[0]);
	f->eh.e_shnum = SECTIONS;
	f->eh.e_shstrndx = SHSTRTAB;
	f->ph[0] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X,
		.p_offset = FIRST,
		.p_vaddr = ADDRESS + FIRST,
		.p_filesz = CODE,
		.p_memsz = CODE,
	};
	f->ph[1] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_flags = PF_R,
		.p_offset = FIRST + CODE,
		.p_vaddr = 2 * ADDRESS,
		.p_filesz = DATA,
		.p_memsz = DATA,
	};
	for (i = 0; i < SECTIONS; i++) {
		f->sh[i].sh_name = add(f, SHSTRTAB, names[i], strlen(names[i]) + 1);
		f->sh[i].sh_type = types[i];
		f->sh[i].sh_addralign = 8;
	}
	for (i = DYNSYM; i <= SYMTAB; i += SYMTAB - DYNSYM) {
		f->sh[i].sh_link = i + 1;
		f->sh[i].sh_entsize = sizeof(nothing);
		f->sh[i].sh_info = 1;
		add(f, i, &nothing, sizeof(nothing));
		add(f, i + 1, "", 1);
	}
	f->code = need(calloc(1, CODE));
	f->data = need(calloc(1, DATA));
}

/* Puts the file together */
static void finish(struct file *f)
{
	size_t at = FIRST + CODE + DATA + f->hole;
	int i;

	f->sh[RODATA].sh_flags = SHF_ALLOC;
	f->sh[RODATA].sh_offset = f->ph[1].p_offset;
	f->sh[RODATA].sh_size = f->ph[1].p_filesz;
	for (i = DYNSYM; i < SECTIONS; i++) {
		if (i == RODATA)
			continue;
		f->sh[i].sh_offset = at;
		at += (f->sh[i].sh_size + 7) & ~7ULL;
	}
	f->eh.e_shoff = at;
	f->size = at + sizeof(f->sh);
	f->image = need(calloc(1, f->size));
	memcpy(f->image, &f->eh, sizeof(f->eh));
	memcpy(f->image + f->eh.e_phoff, f->ph, sizeof(f->ph));
	memcpy(f->image + FIRST, f->code, CODE);
	memcpy(f->image + FIRST + CODE, f->data, DATA);
	for (i = DYNSYM; i < SECTIONS; i++)
		if (f->bytes[i])
			memcpy(f->image + f->sh[i].sh_offset, f->bytes[i], f->sh[i].sh_size);
	memcpy(f->image + f->eh.e_shoff, f->sh, sizeof(f->sh));
}

static void release(struct file *f)
{
	int i;

	for (i = 0; i < SECTIONS; i++)
		free(f->bytes[i]);
	free(f->code);
	free(f->data);
	free(f->image);
}

/* A file in memory with these contents */
static int file_of(const char *image, size_t size)
{
	int fd = memfd_create("elfsym_test", MFD_CLOEXEC);

	if (fd < 0 || (size && write(fd, image, size) != (ssize_t)size)) {
		perror("elfsym_test: memfd");
		exit(EXIT_FAILURE);
	}
	return fd;
}

/* What elfsym finds, as text */
static char found[4096];
static int nfound;

static int on_function(const struct elfsym_func *func, void *ctx)
{
	struct elfsym_name name = elfsym_name(func->name);
	size_t n = strlen(found);

	nfound++;
	if (n < 1024 && name.length < 1024)
		snprintf(found + n, sizeof(found) - n, "%s%s:%.100s@%" PRIx64 "=%" PRIx64,
			 n ? " " : "", func->source, func->name, func->offset, func->address);
	return ctx && nfound == *(int *)ctx ? 77 : 0;
}

/* Opens, walks, asks for a version.  Returns the first error. */
static int look(const char *image, size_t size, int *stop_after)
{
	int fd = file_of(image, size), err;
	struct elfsym *elf;
	char version[32];

	found[0] = 0;
	nfound = 0;
	err = elfsym_open(fd, &elf);
	if (!err) {
		elfsym_find_debug(elf, NULL, NULL, 0);
		err = elfsym_each(elf, on_function, stop_after);
		elfsym_version(elf, "OpenSSL ", version, sizeof(version));
		elfsym_close(elf);
	}
	close(fd);
	return err;
}

static void expect(struct file *f, int err, const char *text, const char *what)
{
	int got = look(f->image, f->size, NULL);

	if (!ok(got == err && !strcmp(found, text), "%s", what))
		note("error %d, \"%s\"; expected %d, \"%s\"", got, found, err, text);
}

static void expect_file(struct file *f, int err, const char *text, const char *what)
{
	finish(f);
	expect(f, err, text, what);
	release(f);
}

/* A small file with all that a real one has */
static void begin_usual(struct file *f)
{
	begin(f);
	add_function(f, DYNSYM, "SSL_read", FIRST + 16);
	add_symbol(f, DYNSYM, "SSL_write", ADDRESS + FIRST + 32, STT_FUNC, SHN_UNDEF);
	add_function(f, SYMTAB, "SSL_read@@OPENSSL_3.0.0", FIRST + 16);
	add_function(f, SYMTAB, "local", FIRST + 48);
	add_symbol(f, SYMTAB, "variable", 2 * ADDRESS + 8, STT_OBJECT, 1);
	add(f, COMMENT, "GCC: 12\0rustc version 1.95.0 (abc)", 35);
	memcpy(f->data + 100, "OpenSSL version\0OpenSSL 3.0.17 1 Jul 2025", 41);
}

static const char usual[] = ".dynsym:SSL_read@210=400210 "
			    ".symtab:SSL_read@@OPENSSL_3.0.0@210=400210 .symtab:local@230=400230";

static void check_symbols(void)
{
	struct file f;
	int one = 1;

	begin_usual(&f);
	finish(&f);
	expect(&f, 0, usual, "both tables, no undefined symbol, no variable");
	ok(look(f.image, f.size, &one) == 77 && nfound == 1, "the walk ends when it is told to");
	release(&f);

	begin(&f);
	f.ph[0].p_vaddr = 0x7000;
	add_symbol(&f, SYMTAB, "first", 0x7000, STT_FUNC, 1);
	add_symbol(&f, SYMTAB, "last", 0x7000 + CODE - 1, STT_FUNC, 1);
	add_symbol(&f, SYMTAB, "behind", 0x7000 + CODE, STT_FUNC, 1);
	add_symbol(&f, SYMTAB, "before", 0x6fff, STT_FUNC, 1);
	add_symbol(&f, SYMTAB, "data", 2 * ADDRESS + 8, STT_FUNC, 1);
	add_symbol(&f, SYMTAB, "absolute", 0, STT_FUNC, SHN_ABS);
	expect_file(&f, 0, ".symtab:first@200=7000 .symtab:last@3ff=71ff",
		    "addresses become offsets where a segment for code has them");

	begin(&f);
	f.ph[0].p_vaddr = -0x100ULL;
	add_symbol(&f, SYMTAB, "wraps", 0x10, STT_FUNC, 1);
	expect_file(&f, 0, "", "a segment that goes beyond the last address");

	begin(&f);
	f.sh[SYMTAB].sh_type = SHT_PROGBITS;
	add_function(&f, DYNSYM, "SSL_read", FIRST);
	add_function(&f, SYMTAB, "local", FIRST);
	expect_file(&f, 0, ".dynsym:SSL_read@200=400200", "no .symtab");
}

static void check_odd_files(void)
{
	struct file f;
	int fd;
	struct elfsym *elf;

	ok(look("", 0, NULL) == -ENOEXEC, "an empty file");
	ok(look("#!/bin/sh\n", 10, NULL) == -ENOEXEC, "a text file");
	ok(look("\177ELF", 4, NULL) < 0, "nothing but ELF's first bytes");
	fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok(elfsym_open(fd, &elf) < 0 && !elf, "a directory");
	close(fd);

	begin_usual(&f);
	f.eh.e_ident[EI_CLASS] = ELFCLASS32;
	finish(&f);
	ok(look(f.image, f.size, NULL) == -EOPNOTSUPP, "a file of 32 bits");
	release(&f);

	begin_usual(&f);
	f.eh.e_machine = OTHER_MACHINE;
	expect_file(&f, -EOPNOTSUPP, "", "another machine's");
	begin_usual(&f);
	f.eh.e_shnum = f.eh.e_shstrndx = 0;
	finish(&f);
	memset(f.image + offsetof(Elf64_Ehdr, e_shoff), 0, sizeof(f.eh.e_shoff));
	expect(&f, 0, "", "no sections");
	release(&f);
	begin_usual(&f);
	f.sh[DYNSTR].sh_size--; /* the last byte */
	expect_file(&f, -EBADMSG, "", "names that do not end");
	begin_usual(&f);
	f.sh[DYNSYM].sh_link = 99;
	expect_file(&f, -EBADMSG, "", "names in a section that is not there");
	begin_usual(&f);
	f.sh[DYNSYM].sh_link = DYNSYM;
	finish(&f);
	look(f.image, f.size, NULL);
	ok(true, "names in the table itself");
	release(&f);
	begin_usual(&f);
	f.sh[DYNSTR].sh_flags = SHF_COMPRESSED;
	expect_file(&f, -EBADMSG, "", "names that are compressed");
	begin_usual(&f);
	finish(&f);
	f.sh[DYNSYM].sh_size = 24ULL << 20;
	memcpy(f.image + f.eh.e_shoff, f.sh, sizeof(f.sh));
	ok(look(f.image, f.size, NULL) == -EBADMSG, "symbols beyond the file's end");
	release(&f);
	begin_usual(&f);
	f.sh[DYNSYM].sh_size = 0;
	expect_file(&f, 0, strchr(usual, ' ') + 1, "a table without symbols");
	begin_usual(&f);
	f.eh.e_shnum = 0;
	f.sh[0].sh_size = SECTIONS;
	expect_file(&f, -EBADMSG, "", "more sections than the header can say");
	begin_usual(&f);
	f.eh.e_phnum = PN_XNUM;
	f.sh[0].sh_info = 2;
	expect_file(&f, -EBADMSG, "", "more segments than the header can say");
	begin_usual(&f);
	((Elf64_Sym *)f.bytes[DYNSYM])[1].st_name = 99999;
	expect_file(&f, 0, strchr(usual, ' ') + 1, "a name beyond the names");
	begin_usual(&f);
	f.ph[0].p_filesz = -1ULL;
	finish(&f);
	look(f.image, f.size, NULL);
	ok(true, "a segment without end");
	release(&f);
}

static void check_cut(void)
{
	size_t size, n = 0;
	struct file f;
	int all;

	begin_usual(&f);
	finish(&f);
	look(f.image, f.size, NULL);
	all = nfound;
	for (size = 0; size < f.size; size++) {
		int err = look(f.image, size, NULL);

		n += (err || nfound < all) && nfound <= all;
	}
	ok(n == f.size, "cut at each of %zu lengths: an error or fewer symbols", f.size);
	release(&f);
}

static uint32_t random_state = 1;

static uint32_t random32(void) /* xorshift */
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state;
}

static void check_damaged(void)
{
	int i, k, n, good = 0;
	struct file f;
	char *copy;
	size_t at;

	begin_usual(&f);
	finish(&f);
	copy = need(malloc(f.size));
	for (i = 0; i < 10000; i++) {
		memcpy(copy, f.image, f.size);
		n = 1 + random32() % 8;
		for (k = 0; k < n; k++) {
			at = random32() % f.size;
			/* half of them where the numbers are */
			if (random32() & 1)
				at = random32() & 1 ? at % (FIRST / 2)
						    : f.eh.e_shoff + at % sizeof(f.sh);
			copy[at] = random32();
		}
		good += !look(copy, f.size, NULL);
	}
	ok(good > 0 && good < i, "%d damaged files, %d of which are still readable", i, good);
	free(copy);
	release(&f);
}

static void expect_version(struct file *f, const char *prefix, const char *version,
			   const char *what)
{
	int fd = file_of(f->image, f->size), err;
	char buf[32] = "";
	struct elfsym *elf;

	err = elfsym_open(fd, &elf);
	if (!err)
		err = elfsym_version(elf, prefix, buf, sizeof(buf));
	if (!ok(err == (version ? 0 : -ENOENT) && !strcmp(buf, version ? version : ""), "%s", what))
		note("error %d, \"%s\"", err, buf);
	elfsym_close(elf);
	close(fd);
}

static void check_version(void)
{
	static const char text[] = "/rustls-0.23.46/src";
	size_t window = 1 << 20, at;
	struct file f;
	bool good = true;
	int fd;

	begin_usual(&f);
	finish(&f);
	expect_version(&f, "rustc version ", "1.95.0", "a version in .comment");
	expect_version(&f, "OpenSSL ", "3.0.17", "a version in the data");
	expect_version(&f, "LibreSSL ", NULL, "no version");
	release(&f);

	begin_usual(&f);
	strcpy(f.data, "OpenSSL 1.2.34567890123456789012345678901234567890");
	finish(&f);
	expect_version(&f, "OpenSSL ", "1.2.345678901234567890123456789", "a version that is cut");
	release(&f);

	begin(&f);
	f.ph[1].p_filesz = (1ULL << 63) + 5;
	f.ph[1].p_offset = 1ULL << 62;
	finish(&f);
	expect_version(&f, "OpenSSL ", NULL, "data beyond all files");
	release(&f);
	begin(&f);
	f.ph[1].p_offset = 1ULL << 63;
	finish(&f);
	expect_version(&f, "OpenSSL ", NULL, "data at an offset below 0");
	release(&f);

	begin_usual(&f);
	f.eh.e_shnum = f.eh.e_shstrndx = 0;
	finish(&f);
	memset(f.image + offsetof(Elf64_Ehdr, e_shoff), 0, sizeof(f.eh.e_shoff));
	expect_version(&f, "OpenSSL ", "3.0.17", "a version where there are no sections");
	release(&f);

	/* a long file is read piece by piece */
	begin(&f);
	f.hole = window + 8192;
	f.ph[1].p_filesz = DATA + f.hole;
	finish(&f);
	for (at = window - sizeof(text) - 2; at < window + 2; at++) {
		char buf[32] = "";
		struct elfsym *elf;

		memcpy(f.image + FIRST + CODE + at, text, sizeof(text));
		fd = file_of(f.image, f.size);
		if (elfsym_open(fd, &elf) || elfsym_version(elf, "/rustls-", buf, sizeof(buf)) ||
		    strcmp(buf, "0.23.46")) {
			good = false;
			note("at %zu of a window of %zu: \"%s\"", at, window, buf);
		}
		elfsym_close(elf);
		close(fd);
		memset(f.image + FIRST + CODE + at, 0, sizeof(text));
	}
	ok(good, "a version wherever it lies in a long file");
	release(&f);
}

/* .gnu_debugdata */

#define BUILD_ID "\4\0\0\0\10\0\0\0\3\0\0\0GNU\0eightby"

static void pack(struct file *f, const void *bytes, size_t size, lzma_check check)
{
	size_t room = lzma_stream_buffer_bound(size), n = 0;
	uint8_t *packed = need(malloc(room));

	if (lzma_easy_buffer_encode(0, check, NULL, bytes, size, packed, &n, room) != LZMA_OK) {
		fputs("elfsym_test: xz\n", stderr);
		exit(EXIT_FAILURE);
	}
	add(f, DEBUGDATA, packed, n);
	free(packed);
}

/* A file without .symtab, for .gnu_debugdata */
static void begin_stripped(struct file *f)
{
	begin(f);
	f->sh[SYMTAB].sh_type = SHT_PROGBITS;
	add_function(f, DYNSYM, "SSL_read", FIRST + 16);
	add(f, NOTE, BUILD_ID, sizeof(BUILD_ID));
}

/* The same with what its .symtab was, packed.  Of the functions in it, one is not in code. */
static void begin_packed(struct file *f, const char *id, lzma_check check)
{
	struct file mini;
	int i;

	begin_stripped(f);
	begin(&mini);
	mini.sh[DYNSYM].sh_type = SHT_NOBITS;
	add_function(&mini, SYMTAB, "local", FIRST + 48);
	add_function(&mini, SYMTAB, "elsewhere", FIRST + CODE);
	for (i = 0; i < 200; i++) /* so that there is something to pack */
		add_symbol(&mini, SYMTAB, "variable", 2 * ADDRESS + i, STT_OBJECT, 1);
	if (id)
		add(&mini, NOTE, id, sizeof(BUILD_ID));
	finish(&mini);
	pack(f, mini.image, mini.size, check);
	release(&mini);
}

static const char packed[] = ".dynsym:SSL_read@210=400210 debugdata:local@230=400230";
static const char without[] = ".dynsym:SSL_read@210=400210";

static void expect_packed(const char *id, lzma_check check, const char *text, const char *what)
{
	struct file f;

	begin_packed(&f, id, check);
	expect_file(&f, 0, text, what);
}

/* What unpacks to so many zeros */
static void expect_zeros(size_t size, const char *what)
{
	char *zeros = need(calloc(1, size));
	struct file f;

	begin_stripped(&f);
	pack(&f, zeros, size, LZMA_CHECK_CRC32);
	free(zeros);
	expect_file(&f, 0, without, what);
}

static void check_packed(void)
{
	static const char other[] = "\4\0\0\0\10\0\0\0\3\0\0\0GNU\0another";
	int i, n = 3000, whole = 0, none = 0;
	size_t from, size, at, cut = 0;
	struct file f;
	char *copy;

	expect_packed(BUILD_ID, LZMA_CHECK_CRC64, packed,
		      "symbols in .gnu_debugdata, in code only");
	expect_packed(NULL, LZMA_CHECK_CRC32, packed, "which needs no build-id");
	expect_packed(other, LZMA_CHECK_CRC64, without, "but no other one");
	expect_packed(BUILD_ID, LZMA_CHECK_NONE, without, "and a checksum");
	expect_zeros(1 << 20, "it holds no ELF file");
	expect_zeros((128 << 20) + 1, "it holds too much");

	begin_packed(&f, BUILD_ID, LZMA_CHECK_CRC64);
	add_function(&f, SYMTAB, "own", FIRST + 64);
	f.sh[SYMTAB].sh_type = SHT_SYMTAB;
	expect_file(&f, 0, ".dynsym:SSL_read@210=400210 .symtab:own@240=400240",
		    "where there is a .symtab, it counts");
	begin_packed(&f, BUILD_ID, LZMA_CHECK_CRC64);
	f.sh[SYMTAB].sh_type = SHT_SYMTAB;
	expect_file(&f, 0, packed, "unless there is no function in it");

	begin_packed(&f, BUILD_ID, LZMA_CHECK_CRC64);
	finish(&f);
	from = f.sh[DEBUGDATA].sh_offset;
	size = f.sh[DEBUGDATA].sh_size;
	copy = need(malloc(f.size));
	for (i = 0; i < n; i++) {
		memcpy(copy, f.image, f.size);
		copy[from + random32() % size] ^= 1 << random32() % 8;
		if (look(copy, f.size, NULL))
			break;
		whole += !strcmp(found, packed);
		none += !strcmp(found, without);
	}
	ok(i == n && whole + none == n && none > whole,
	   "%d damaged ones: all of it or nothing, the latter %d times", n, none);
	for (at = 0; at < size; at++) {
		memcpy(copy, f.image, f.size);
		memset(copy + from + at, 0, size - at);
		cut += !look(copy, f.size, NULL) && !strcmp(found, without);
	}
	ok(cut == size, "cut at each of %zu lengths: nothing of it", size);
	free(copy);
	release(&f);
}

/* True if fn ends within so many seconds */
static bool ends_in(unsigned int seconds, void (*fn)(void))
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	if (!child) {
		alarm(seconds);
		fn();
		_exit(EXIT_SUCCESS);
	}
	return child > 0 && waitpid(child, &status, 0) == child && !status;
}

static const struct elfsym_pattern encrypt = {
	.legacy_tail = "MessageEncrypter$GT$7encrypt",
	.v0_tail = "16MessageEncrypter7encrypt",
};

/* A name of a megabyte, each part of which could be the beginning of something */
static void long_name(void)
{
	size_t size = 1 << 20, i;
	char *name = need(malloc(size));
	struct elfsym_name taken;

	memcpy(name, "_RNvX", 5);
	for (i = 5; i < size; i++)
		name[i] = "Cs"[i & 1];
	name[size - 1] = 0;
	taken = elfsym_name(name);
	elfsym_matches(&taken, &encrypt);
	free(name);
}

/* Each symbol's name is the end of the one before it */
static void shared_names(void)
{
	size_t n = 100000, i;
	struct file f;
	struct elfsym *elf;
	int fd, err = 0;

	begin(&f);
	for (i = 0; i < n; i++)
		add_function(&f, SYMTAB, "_RNvXC", FIRST);
	for (i = 0; i < f.sh[STRTAB].sh_size - 1; i++)
		f.bytes[STRTAB][i] = "_RNvXC"[i % 6];
	finish(&f);
	fd = file_of(f.image, f.size);
	if (!elfsym_open(fd, &elf))
		err = elfsym_each(elf, on_function, NULL);
	elfsym_close(elf);
	close(fd);
	release(&f);
	if (err != -E2BIG)
		_exit(EXIT_FAILURE);
}

static void check_hostile(void)
{
	ok(ends_in(5, long_name), "a name of a megabyte does not take long");
	ok(ends_in(30, shared_names),
	   "a hundred thousand names that share their bytes are too many");
}

static bool matches(const char *symbol, const struct elfsym_pattern *pattern)
{
	struct elfsym_name name = elfsym_name(symbol);

	return elfsym_matches(&name, pattern);
}

static void check_names(void)
{
	static const struct elfsym_pattern c = {.name = "SSL_read"};
	static const struct elfsym_pattern inherent = {.v0_tail = "4read", .inherent = true};

	ok(matches("SSL_read", &c) && matches("SSL_read@OPENSSL_1.1.0", &c) &&
		   matches("SSL_read@@OPENSSL_3.0.0", &c),
	   "a C name, with and without version");
	ok(!matches("SSL_read_ex", &c) && !matches("SSL_rea", &c) && !matches("xSSL_read", &c) &&
		   !matches("", &c),
	   "and no other");
	ok(!matches("_RNvXs_NtC1a1bNtC1a16MessageEncrypter7encrypt", &inherent) &&
		   matches("_RNvMs_NtC1a1b4read", &inherent) &&
		   !matches("_RNvXs_NtC1a1b4read", &inherent),
	   "a method of the type is none of a trait");
	ok(!matches("_R", &encrypt) && !matches("_RNvX", &encrypt) && !matches("_ZN", &encrypt) &&
		   !matches("_ZN17h0123456789abcdefE", &encrypt) && !matches("_", &encrypt),
	   "names that end too early");
}

static void write_out(const struct file *f, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	size_t tables = FIRST + CODE + DATA + f->hole;

	/* not the hole */
	if (fd < 0 || pwrite(fd, f->image, FIRST + CODE + DATA, 0) < 0 ||
	    pwrite(fd, f->image + tables, f->size - tables, tables) < 0 || close(fd)) {
		perror(path);
		exit(EXIT_FAILURE);
	}
}

/* The code begins at FIRST and goes on through the hole */
static void make(const char *names, const char *path)
{
	char *line = NULL, name[1024];
	FILE *in = need(fopen(names, "re"));
	size_t size = 0, offset = FIRST;
	struct file f;

	begin(&f);
	add(&f, COMMENT, "rustc version 1.95.0", 21); /* handle is not used if it is not known */
	while (getline(&line, &size, in) > 0)
		if (line[0] != '#' && sscanf(line, "%*s %1023s", name) == 1)
			add_function(&f, SYMTAB, name, offset += 16);
	f.hole = offset;
	f.ph[0].p_filesz = CODE + DATA + f.hole;
	finish(&f);
	write_out(&f, path);
	release(&f);
	free(line);
	fclose(in);
}

static void make_big(const char *path)
{
	char name[128];
	struct file f;
	int i;

	begin(&f);
	f.hole = 200 << 20;
	f.ph[0].p_filesz = CODE + DATA + f.hole;
	for (i = 0; i < 500000; i++) {
		snprintf(name, sizeof(name),
			 "_ZN4core3fmt8builders%08d11DebugStruct5field17h%016xE", i, i);
		add_function(&f, SYMTAB, name, FIRST + 16 * i);
	}
	add_function(&f, DYNSYM, "SSL_read", FIRST);
	finish(&f);
	write_out(&f, path);
	release(&f);
}

int main(int argc, char **argv)
{
	if (argc == 3) {
		if (!strcmp(argv[1], "big"))
			make_big(argv[2]);
		else
			make(argv[1], argv[2]);
		return EXIT_SUCCESS;
	}
	check_symbols();
	check_odd_files();
	check_cut();
	check_damaged();
	check_version();
	check_names();
	check_packed();
	check_hostile();
	return tap_end();
}
