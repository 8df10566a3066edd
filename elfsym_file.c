// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym_file.c - an ELF file's headers and bytes, for those who look for symbols.
 *
 * The file is read, not mapped: a file that is cut short while we look at it must not
 * kill us.  Every number in it may be wrong or hostile.  Must never print.
 */
#define _GNU_SOURCE
#include "elfsym_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elfsym.h"

#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#else
#error "tlssnoop knows x86-64 and arm64 only"
#endif

#define SECTIONS_MAX (1 << 16) /* no linked file has so many */
#define NAMES_MAX    (1 << 20) /* bytes of their names */

int elf_read(const struct elfsym *e, void *buf, size_t n, uint64_t offset)
{
	size_t done = 0;
	ssize_t got;

	if (offset > e->size || n > e->size - offset)
		return -EBADMSG;
	if (e->bytes) {
		memcpy(buf, e->bytes + offset, n);
		return 0;
	}
	for (; done < n; done += got) {
		got = pread(e->fd, (char *)buf + done, n - done, offset + done);
		if (got < 0)
			return -errno;
		if (!got) /* it was cut meanwhile */
			return -EBADMSG;
	}
	return 0;
}

int elf_load(const struct elfsym *e, const Elf64_Shdr *sh, size_t most, void **bytes)
{
	int err;

	*bytes = NULL;
	if (sh->sh_type == SHT_NOBITS || sh->sh_flags & SHF_COMPRESSED || sh->sh_offset > e->size ||
	    sh->sh_size > e->size - sh->sh_offset)
		return -EBADMSG;
	if (sh->sh_size > most)
		return -E2BIG;
	*bytes = malloc(sh->sh_size ? sh->sh_size : 1);
	if (!*bytes)
		return -ENOMEM;
	err = elf_read(e, *bytes, sh->sh_size, sh->sh_offset);
	if (err) {
		free(*bytes);
		*bytes = NULL;
	}
	return err;
}

/* n headers of size bytes each, as they stand in the file */
static int read_headers(const struct elfsym *e, void **headers, size_t n, size_t size,
			uint64_t offset)
{
	Elf64_Shdr whole = {.sh_type = SHT_PROGBITS, .sh_offset = offset, .sh_size = n * size};

	return elf_load(e, &whole, n * size, headers);
}

static int read_loads(struct elfsym *e, const Elf64_Ehdr *eh)
{
	void *headers;
	size_t i;
	int err;

	if (eh->e_phnum && eh->e_phentsize != sizeof(Elf64_Phdr))
		return -EBADMSG;
	err = read_headers(e, &headers, eh->e_phnum, sizeof(Elf64_Phdr), eh->e_phoff);
	e->loads = headers;
	for (i = 0; i < eh->e_phnum && !err; i++) {
		const Elf64_Phdr *load = &e->loads[i];

		if (load->p_type == PT_LOAD && load->p_vaddr + load->p_filesz >= load->p_vaddr &&
		    load->p_offset <= INT64_MAX && load->p_filesz <= INT64_MAX - load->p_offset)
			e->loads[e->nloads++] = *load;
	}
	return err;
}

static int read_names(struct elfsym *e, size_t number)
{
	const Elf64_Shdr *sh = &e->sections[number];
	void *names;
	int err;

	if (number == SHN_UNDEF)
		return 0;
	if (number >= e->nsections || !sh->sh_size)
		return -EBADMSG;
	err = elf_load(e, sh, NAMES_MAX, &names);
	if (err)
		return err;
	e->names = names;
	e->names_size = sh->sh_size;
	e->names[e->names_size - 1] = 0;
	return 0;
}

static int read_sections(struct elfsym *e, const Elf64_Ehdr *eh)
{
	size_t n = eh->e_shnum, i;
	Elf64_Shdr first;
	void *headers;
	int err;

	if (!eh->e_shoff) /* sections are optional, if rare to lack */
		return n ? -EBADMSG : 0;
	if (eh->e_shentsize != sizeof(first))
		return -EBADMSG;
	err = elf_read(e, &first, sizeof(first), eh->e_shoff);
	if (err)
		return err;
	if (!n) /* too many for this field */
		n = first.sh_size;
	if (!n || n > SECTIONS_MAX || first.sh_type != SHT_NULL)
		return -EBADMSG;
	err = read_headers(e, &headers, n, sizeof(first), eh->e_shoff);
	if (err)
		return err;
	e->sections = headers;
	e->nsections = n;
	for (i = 0; i < n; i++) {
		if (e->sections[i].sh_type == SHT_SYMTAB)
			e->symtab = &e->sections[i];
		else if (e->sections[i].sh_type == SHT_DYNSYM)
			e->dynsym = &e->sections[i];
	}
	return read_names(e, eh->e_shstrndx == SHN_XINDEX ? first.sh_link : eh->e_shstrndx);
}

const Elf64_Shdr *elf_section(const struct elfsym *e, const char *name)
{
	size_t i;

	for (i = 0; i < e->nsections; i++) {
		const Elf64_Shdr *sh = &e->sections[i];

		if (sh->sh_type != SHT_NOBITS && sh->sh_name < e->names_size &&
		    !strcmp(e->names + sh->sh_name, name))
			return sh;
	}
	return NULL;
}

/* Reads the headers of a file whose size is known */
static int open_sized(struct elfsym *e)
{
	Elf64_Ehdr eh = {0};
	int err;

	err = elf_read(e, &eh, e->size < sizeof(eh) ? e->size : sizeof(eh), 0);
	if (err)
		return err;
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG))
		return -ENOEXEC;
	if (e->size < sizeof(eh) || eh.e_ident[EI_VERSION] != EV_CURRENT)
		return -EBADMSG;
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != OUR_MACHINE ||
	    eh.e_ident[EI_DATA] != ELFDATA2LSB)
		return -EOPNOTSUPP;
	err = read_loads(e, &eh);
	return err ? err : read_sections(e, &eh);
}

static int open_new(const struct elfsym *how, struct elfsym **elf)
{
	struct elfsym *e = malloc(sizeof(*e));
	int err;

	*elf = NULL;
	if (!e) {
		free(how->bytes);
		return -ENOMEM;
	}
	*e = *how;
	err = open_sized(e);
	if (err)
		elfsym_close(e);
	else
		*elf = e;
	return err;
}

int elfsym_open(int fd, struct elfsym **elf)
{
	struct elfsym how = {.fd = fd};
	struct stat st;

	*elf = NULL;
	if (fstat(fd, &st))
		return -errno;
	how.size = st.st_size;
	return open_new(&how, elf);
}

int elf_open_memory(uint8_t *bytes, uint64_t size, struct elfsym **elf)
{
	struct elfsym how = {.fd = -1, .bytes = bytes, .size = size};

	return open_new(&how, elf);
}

void elfsym_close(struct elfsym *e)
{
	if (!e)
		return;
	elfsym_close(e->debug);
	if (e->owns_fd)
		close(e->fd);
	free(e->bytes);
	free(e->loads);
	free(e->sections);
	free(e->names);
	free(e);
}
