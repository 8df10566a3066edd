/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * elfsym_debug.h - an ELF file that is open, as elfsym.c and elfsym_debug.c share it.
 *
 * In: a file descriptor, or a file that was unpacked into memory.  Out: its sections and
 * what is in them, through libelf, which reads and does not map.  Prints nothing, and
 * trusts no number in the file: what is held in memory is no more than the file has.
 */
#ifndef ELFSYM_DEBUG_H
#define ELFSYM_DEBUG_H

#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elfsym {
	Elf *elf;
	int fd; /* -1: it is in memory */
	bool owns_fd;
	uint8_t *bytes; /* the whole file in memory, or NULL */
	uint64_t size;
	Elf64_Phdr *loads; /* the PT_LOAD headers */
	size_t nloads;
	Elf_Scn *names;		  /* of the sections; NULL: they have none */
	Elf_Scn *dynsym, *symtab; /* NULL: it has none */
	struct elfsym *debug;	  /* the file that has its symbols instead, or NULL */
	const char *debug_source; /* how that was found; static */
};

/*
 * What is in a section of e, which stays e's until that is closed.  Returns 0, -EBADMSG: it
 * is empty, not in the file, compressed, or cannot be read; or -E2BIG: it has more than most
 * bytes.
 */
int elfsym_contents(const struct elfsym *e, Elf_Scn *scn, size_t most, const Elf_Data **data);

/* The section with contents that has this name, or NULL */
Elf_Scn *elfsym_section(const struct elfsym *e, const char *name);

/* As elfsym_open() for a file in memory: takes bytes, of malloc(), over in any case */
int elfsym_open_memory(uint8_t *bytes, uint64_t size, struct elfsym **elf);

/* True if the symbol table of a file, e or what was found for it, has a function of e's */
bool elfsym_has_functions(const struct elfsym *e, const struct elfsym *in);

#endif
