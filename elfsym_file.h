/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * elfsym_file.h - an ELF file's headers and bytes, for those who look for symbols.
 *
 * In: a file descriptor, or a file that was unpacked into memory.  Out: its segments, its
 * sections and what is in them.  Prints nothing, and trusts no number in the file: what
 * lies beyond its end cannot be read, and what is held in memory has a bound.
 */
#ifndef ELFSYM_FILE_H
#define ELFSYM_FILE_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elfsym {
	int fd;
	bool owns_fd;
	uint8_t *bytes; /* the whole file in memory, or NULL: it is read from fd */
	uint64_t size;
	Elf64_Phdr *loads; /* the PT_LOAD headers */
	size_t nloads;
	Elf64_Shdr *sections;
	size_t nsections;
	char *names; /* of the sections, terminated */
	size_t names_size;
	const Elf64_Shdr *dynsym, *symtab; /* NULL: it has none */
	struct elfsym *debug;		   /* the file that has its symbols instead, or NULL */
	const char *debug_source;	   /* how that was found; static */
};

/* Reads n bytes at an offset.  Returns 0, -EBADMSG: the file ends before, or -errno. */
int elf_read(const struct elfsym *e, void *buf, size_t n, uint64_t offset);

/*
 * Reads a section whole into memory, which the caller frees.  Returns 0, -EBADMSG: it is
 * not in the file, or compressed; -E2BIG: it has more than most bytes; -ENOMEM or -errno.
 */
int elf_load(const struct elfsym *e, const Elf64_Shdr *sh, size_t most, void **bytes);

/* The section with contents that has this name, or NULL */
const Elf64_Shdr *elf_section(const struct elfsym *e, const char *name);

/* As elfsym_open() for a file in memory: takes bytes, of malloc(), over in any case */
int elf_open_memory(uint8_t *bytes, uint64_t size, struct elfsym **elf);

/* True if the symbol table of a file, e or what was found for it, has a function of e's */
bool elf_has_functions(const struct elfsym *e, const struct elfsym *in);

#endif
