// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym.c - where in an ELF file a function begins.
 *
 * The file is read, not mapped: a file that is cut short while we look at it must
 * not kill us.  Every number in it may be wrong or hostile; libelf checks those of
 * the headers and sections, we check the rest.  Must never print, and never use
 * more memory than the file's symbol and string tables take.
 */
#define _GNU_SOURCE
#include "elfsym.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#else
#error "tlssnoop knows x86-64 and arm64 only"
#endif

struct elfsym {
	Elf *elf;
	int fd;
	Elf_Scn *dynsym;
	Elf_Scn *symtab;
	Elf_Scn *comment;
	GElf_Phdr *loads; /* the PT_LOAD headers */
	size_t nloads;
};

static int read_loads(struct elfsym *e)
{
	size_t n, i;

	if (elf_getphdrnum(e->elf, &n))
		return -EBADMSG;
	e->loads = calloc(n ? n : 1, sizeof(*e->loads));
	if (!e->loads)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		GElf_Phdr *load = &e->loads[e->nloads];

		if (!gelf_getphdr(e->elf, i, load))
			return -EBADMSG;
		if (load->p_type == PT_LOAD && load->p_vaddr + load->p_filesz >= load->p_vaddr &&
		    load->p_offset <= INT64_MAX && load->p_filesz <= INT64_MAX - load->p_offset)
			e->nloads++;
	}
	return 0;
}

static int read_sections(struct elfsym *e, const GElf_Ehdr *eh)
{
	Elf_Scn *scn = NULL;
	size_t names, n;
	GElf_Shdr sh;

	if (elf_getshdrnum(e->elf, &n))
		return -EBADMSG;
	if (!n) /* sections are optional, if rare to lack; libelf hides those behind the end */
		return eh->e_shoff ? -EBADMSG : 0;
	if (elf_getshdrstrndx(e->elf, &names) || !gelf_getshdr(elf_getscn(e->elf, 0), &sh) ||
	    sh.sh_type != SHT_NULL)
		return -EBADMSG;
	while ((scn = elf_nextscn(e->elf, scn))) {
		const char *name;

		if (!gelf_getshdr(scn, &sh))
			return -EBADMSG;
		name = elf_strptr(e->elf, names, sh.sh_name);
		if (sh.sh_type == SHT_SYMTAB)
			e->symtab = scn;
		else if (sh.sh_type == SHT_DYNSYM)
			e->dynsym = scn;
		else if (sh.sh_type == SHT_PROGBITS && name && !strcmp(name, ".comment"))
			e->comment = scn;
	}
	return 0;
}

int elfsym_open(int fd, struct elfsym **elf)
{
	struct elfsym *e;
	GElf_Ehdr eh;
	int err;

	*elf = NULL;
	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOTSUP;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->fd = fd;
	e->elf = elf_begin(fd, ELF_C_READ, NULL);
	err = -EIO;
	if (!e->elf)
		goto fail;
	err = -ENOEXEC;
	if (elf_kind(e->elf) != ELF_K_ELF)
		goto fail;
	err = -EBADMSG;
	if (!gelf_getehdr(e->elf, &eh))
		goto fail;
	err = -EOPNOTSUPP;
	if (gelf_getclass(e->elf) != ELFCLASS64 || eh.e_machine != OUR_MACHINE ||
	    eh.e_ident[EI_DATA] != ELFDATA2LSB)
		goto fail;
	err = read_loads(e);
	if (!err)
		err = read_sections(e, &eh);
	if (err)
		goto fail;
	*elf = e;
	return 0;
fail:
	elfsym_close(e);
	return err;
}

void elfsym_close(struct elfsym *e)
{
	if (!e)
		return;
	elf_end(e->elf);
	free(e->loads);
	free(e);
}

bool elfsym_has_symtab(const struct elfsym *e)
{
	return e->symtab;
}

/* The place in the file of an address in executable memory, or 0 */
static uint64_t code_offset(const struct elfsym *e, uint64_t address)
{
	size_t i;

	for (i = 0; i < e->nloads; i++) {
		const GElf_Phdr *load = &e->loads[i];

		if ((load->p_flags & PF_X) && address >= load->p_vaddr &&
		    address - load->p_vaddr < load->p_filesz)
			return load->p_offset + (address - load->p_vaddr);
	}
	return 0;
}

static int each_of(struct elfsym *e, Elf_Scn *scn, const char *source,
		   int (*fn)(const struct elfsym_func *, void *), void *ctx)
{
	Elf_Data *data, *strings;
	const Elf64_Sym *sym, *end;
	GElf_Shdr sh;
	int ret = 0;

	if (!scn)
		return 0;
	if (!gelf_getshdr(scn, &sh))
		return -EBADMSG;
	data = elf_getdata(scn, NULL);
	strings = elf_getdata(elf_getscn(e->elf, sh.sh_link), NULL);
	if (!data || !strings || !strings->d_size || !strings->d_buf ||
	    ((const char *)strings->d_buf)[strings->d_size - 1])
		return -EBADMSG;
	sym = data->d_buf;
	end = sym + data->d_size / sizeof(*sym);
	for (; sym < end && !ret; sym++) {
		struct elfsym_func func;

		/* an undefined symbol may have an address all the same: that of its PLT */
		if (sym->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(sym->st_info) != STT_FUNC ||
		    sym->st_name >= strings->d_size)
			continue;
		func.offset = code_offset(e, sym->st_value);
		if (!func.offset)
			continue;
		func.address = sym->st_value;
		func.name = (const char *)strings->d_buf + sym->st_name;
		func.source = source;
		ret = fn(&func, ctx);
	}
	return ret;
}

int elfsym_each(struct elfsym *e, int (*fn)(const struct elfsym_func *, void *), void *ctx)
{
	int ret;

	ret = each_of(e, e->dynsym, ".dynsym", fn, ctx);
	if (!ret)
		ret = each_of(e, e->symtab, ".symtab", fn, ctx);
	return ret;
}

static bool ends_with(const char *s, size_t n, const char *tail)
{
	size_t t = strlen(tail);

	return n >= t && !memcmp(s + n - t, tail, t);
}

static bool has(const struct elfsym_name *name, const char *what)
{
	return memmem(name->path, name->length, what, strlen(what));
}

static size_t count_if(const char *s, int (*is)(int))
{
	size_t n = 0;

	while (is((unsigned char)s[n]))
		n++;
	return n;
}

/*
 * v0: a generic function's name ends with the path of the crate that instantiated it, a
 * crate root C[s<base 62>_]<length>[_]<name>, or a reference B<base 62>_ to one that
 * occurred before.  Returns the length without it.
 */
static size_t without_instance(const char *s, size_t n)
{
	size_t i, j, len;
	char *end;

	for (i = 0; i < n; i++) {
		if (s[i] != 'C')
			continue;
		j = i + 1;
		if (s[j] == 's') {
			j += 1 + count_if(s + j + 1, isalnum);
			if (s[j++] != '_')
				continue;
		}
		if (!isdigit((unsigned char)s[j]))
			continue;
		len = strtoul(s + j, &end, 10);
		j = end - s;
		if (s[j] == '_' && j + 1 + len == n)
			j++;
		if (len && len < n && j + len == n)
			return i;
	}
	if (n && s[n - 1] == '_') {
		for (i = n - 1; i && isalnum((unsigned char)s[i - 1]); i--)
			if (s[i - 1] == 'B')
				return i - 1;
	}
	return n;
}

/* No name sought is so long; taking one apart takes time by its square */
#define NAME_MAX_LENGTH 2048

/*
 * rustc's two manglings.  legacy: _ZN <length and name>... 17h<16 hex digits>E, with the
 * characters that a linker dislikes written as $XX$; closures and shims have a {{...}}
 * in their path.  v0: _R, then the kind of the last part of the path: Nv a function, in
 * M an inherent implementation or X one of a trait.  LLVM adds .llvm.<number> to local
 * functions that it makes visible to other units; any other suffix (.cold, .part.0)
 * means a fragment of a function.
 */
struct elfsym_name elfsym_name(const char *symbol)
{
	struct elfsym_name name = {.path = symbol, .length = strnlen(symbol, NAME_MAX_LENGTH)};
	const char *suffix, *at;

	if (name.length == NAME_MAX_LENGTH)
		return name;
	if (symbol[0] != '_' || (symbol[1] != 'Z' && symbol[1] != 'R')) {
		at = strchr(symbol, '@'); /* a version, as in SSL_read@@OPENSSL_3.0.0 */
		if (at)
			name.length = at - symbol;
		name.kind = NAME_C;
		return name;
	}
	suffix = strstr(symbol, ".llvm.");
	if (suffix && !suffix[6 + count_if(suffix + 6, isdigit)])
		name.length = suffix - symbol;
	if (!strncmp(symbol, "_ZN", 3)) {
		size_t n = name.length;

		if (n < 24 || strncmp(symbol + n - 20, "17h", 3) || symbol[n - 1] != 'E' ||
		    count_if(symbol + n - 17, isxdigit) < 16)
			return name;
		name.length = n - 20;
		if (!has(&name, "$u7b$$u7b$") && !has(&name, "drop_in_place"))
			name.kind = NAME_LEGACY;
	} else if (!strncmp(symbol, "_RNvM", 5) || !strncmp(symbol, "_RNvX", 5)) {
		if (memchr(symbol, '.', name.length))
			return name;
		name.length = without_instance(symbol, name.length);
		name.kind = symbol[4] == 'X' ? NAME_V0_TRAIT : NAME_V0_INHERENT;
	}
	return name;
}

bool elfsym_matches(const struct elfsym_name *name, const struct elfsym_pattern *p)
{
	size_t i;

	switch (name->kind) {
	case NAME_C:
		return p->name && strlen(p->name) == name->length &&
		       !memcmp(name->path, p->name, name->length);
	case NAME_LEGACY:
		if (!p->legacy_tail || !ends_with(name->path, name->length, p->legacy_tail) ||
		    (p->legacy_has && !has(name, p->legacy_has)))
			return false;
		break;
	case NAME_V0_TRAIT:
	case NAME_V0_INHERENT:
		if (!p->v0_tail || p->inherent != (name->kind == NAME_V0_INHERENT) ||
		    !ends_with(name->path, name->length, p->v0_tail))
			return false;
		for (i = 0; i < 2; i++)
			if (p->v0_has[i] && !has(name, p->v0_has[i]))
				return false;
		break;
	default:
		return false;
	}
	return !p->lacks || !has(name, p->lacks);
}

static bool is_version_char(char c)
{
	return isalnum((unsigned char)c) || (c && strchr(".+-", c));
}

/* A version behind prefix in n bytes of data, within the first limit of them.  Returns 0 or
 * -ENOENT */
static int version_in(const char *data, size_t n, size_t limit, const char *prefix, char *buf,
		      size_t size)
{
	size_t len = strlen(prefix), i;
	const char *p = data, *end = data + n;

	while ((p = memmem(p, end - p, prefix, len)) && p < data + limit) {
		p += len;
		if (p == end || !isdigit((unsigned char)*p))
			continue;
		for (i = 0; p + i < end && i + 1 < size && is_version_char(p[i]); i++)
			buf[i] = p[i];
		buf[i] = 0;
		return 0;
	}
	return -ENOENT;
}

#define WINDOW	(1 << 20) /* bytes of a file read at a time */
#define OVERLAP 256	  /* more than a prefix and a version take */

static int version_in_segment(struct elfsym *e, const GElf_Phdr *load, char *window,
			      const char *prefix, char *buf, size_t size)
{
	uint64_t done = 0, want;
	ssize_t n, limit;

	while (done < load->p_filesz) {
		want = load->p_filesz - done < WINDOW ? load->p_filesz - done : WINDOW;
		n = pread(e->fd, window, want, load->p_offset + done);
		if (n < 0)
			return -errno;
		/* what begins in the last bytes may go on: it is found in the next window */
		limit = n == WINDOW ? n - OVERLAP : n;
		if (!version_in(window, n, limit, prefix, buf, size))
			return 0;
		if (n < WINDOW)
			break;
		done += limit;
	}
	return -ENOENT;
}

int elfsym_version(struct elfsym *e, const char *prefix, char *buf, size_t size)
{
	Elf_Data *comment = e->comment ? elf_rawdata(e->comment, NULL) : NULL;
	char *window;
	size_t i;
	int err = -ENOENT;

	if (comment && comment->d_buf &&
	    !version_in(comment->d_buf, comment->d_size, comment->d_size, prefix, buf, size))
		return 0;
	window = malloc(WINDOW);
	if (!window)
		return -ENOMEM;
	for (i = 0; i < e->nloads && err == -ENOENT; i++)
		if (!(e->loads[i].p_flags & PF_W))
			err = version_in_segment(e, &e->loads[i], window, prefix, buf, size);
	free(window);
	return err;
}
