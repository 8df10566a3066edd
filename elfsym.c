// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym.c - where in an ELF file a function begins.
 *
 * In: the sections that elfsym_file.c reads.  Out: functions, and what their names and
 * the file's constants tell.  Must never print, never use more memory than the names of
 * one symbol table take, and never look at these longer than an honest file needs.
 */
#define _GNU_SOURCE
#include "elfsym.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "elfsym_file.h"

#define STRINGS_MAX (256 << 20) /* bytes of names that a symbol table may have */
#define SYMBOLS_MAX (256 << 20) /* bytes of the table itself */
#define SYMBOLS	    2048	/* that are read at a time */

/* Names may share their bytes; linkers let few do so */
#define NAMES_FREE   (64 << 20) /* bytes of names that any file may make us look at, */
#define NAMES_FACTOR 4		/* besides so many times all of them */

/* No name sought is so long; taking one apart takes time by its square */
#define NAME_MAX_LENGTH 2048

bool elfsym_has_symtab(const struct elfsym *e)
{
	return e->debug || elf_has_functions(e, e);
}

/* The place in the file of an address in executable memory, or 0 */
static uint64_t code_offset(const struct elfsym *e, uint64_t address)
{
	size_t i;

	for (i = 0; i < e->nloads; i++) {
		const Elf64_Phdr *load = &e->loads[i];

		if ((load->p_flags & PF_X) && address >= load->p_vaddr &&
		    address - load->p_vaddr < load->p_filesz)
			return load->p_offset + (address - load->p_vaddr);
	}
	return 0;
}

/*
 * Reads symbols from a table of in, which is e or a debug file of it: as many as there is
 * room for, from *done bytes on, which goes on.  Returns how many, 0 at the end, or -errno.
 */
static int read_symbols(const struct elfsym *in, const Elf64_Shdr *table, uint64_t *done,
			Elf64_Sym *symbols)
{
	uint64_t n = MIN((table->sh_size - *done) / sizeof(*symbols), SYMBOLS);
	int err;

	if (table->sh_size > SYMBOLS_MAX)
		return -E2BIG;
	err = elf_read(in, symbols, n * sizeof(*symbols), table->sh_offset + *done);
	*done += n * sizeof(*symbols);
	return err ? err : (int)n;
}

/* Where in the file is the function that a symbol defines?  0: it defines none */
static uint64_t function_offset(const struct elfsym *e, const Elf64_Sym *sym)
{
	/* an undefined symbol may have an address all the same: that of its PLT */
	if (sym->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(sym->st_info) != STT_FUNC)
		return 0;
	return code_offset(e, sym->st_value);
}

/* Calls fn for the functions of e in a table of in */
static int each_of(const struct elfsym *e, const struct elfsym *in, const Elf64_Shdr *table,
		   const char *source, int (*fn)(const struct elfsym_func *, void *), void *ctx)
{
	struct elfsym_func func = {.source = source};
	Elf64_Sym symbols[SYMBOLS];
	uint64_t budget, done = 0;
	const Elf64_Shdr *sh;
	void *strings;
	int i, n, ret;
	size_t length;

	if (table->sh_link >= in->nsections)
		return -EBADMSG;
	sh = &in->sections[table->sh_link];
	ret = elf_load(in, sh, STRINGS_MAX, &strings);
	if (!ret && (!sh->sh_size || ((char *)strings)[sh->sh_size - 1]))
		ret = -EBADMSG;
	budget = NAMES_FREE + NAMES_FACTOR * sh->sh_size;
	while (!ret && (n = read_symbols(in, table, &done, symbols))) {
		ret = MIN(n, 0);
		for (i = 0; i < n && !ret; i++) {
			func.offset = function_offset(e, &symbols[i]);
			if (!func.offset || symbols[i].st_name >= sh->sh_size)
				continue;
			func.address = symbols[i].st_value;
			func.name = (const char *)strings + symbols[i].st_name;
			length = strnlen(func.name, NAME_MAX_LENGTH);
			ret = budget < length ? -E2BIG : fn(&func, ctx);
			budget -= length;
		}
	}
	free(strings);
	return ret;
}

bool elf_has_functions(const struct elfsym *e, const struct elfsym *in)
{
	Elf64_Sym symbols[SYMBOLS];
	uint64_t done = 0;
	int i, n = 0;

	while (in->symtab && (n = read_symbols(in, in->symtab, &done, symbols)) > 0)
		for (i = 0; i < n; i++)
			if (function_offset(e, &symbols[i]))
				return true;
	return false;
}

int elfsym_each(struct elfsym *e, int (*fn)(const struct elfsym_func *, void *), void *ctx)
{
	int ret = 0;

	if (e->dynsym)
		ret = each_of(e, e, e->dynsym, ".dynsym", fn, ctx);
	if (!ret && e->symtab)
		ret = each_of(e, e, e->symtab, ".symtab", fn, ctx);
	if (!ret && e->debug)
		ret = each_of(e, e->debug, e->debug->symtab, e->debug_source, fn, ctx);
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
	const char *at;
	size_t n;

	if (name.length == NAME_MAX_LENGTH)
		return name;
	if (symbol[0] != '_' || (symbol[1] != 'Z' && symbol[1] != 'R')) {
		at = strchr(symbol, '@'); /* a version, as in SSL_read@@OPENSSL_3.0.0 */
		if (at)
			name.length = at - symbol;
		name.kind = NAME_C;
		return name;
	}
	for (n = name.length; isdigit((unsigned char)symbol[n - 1]); n--)
		;
	if (n > 6 && !strncmp(symbol + n - 6, ".llvm.", 6))
		name.length = n - 6;
	if (!strncmp(symbol, "_ZN", 3)) {
		n = name.length;
		if (n < 24 || strncmp(symbol + n - 20, "17h", 3) || symbol[n - 1] != 'E' ||
		    count_if(symbol + n - 17, isxdigit) < 16)
			return name;
		name.length = n - 20;
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
		    (p->legacy_has && !has(name, p->legacy_has)) || has(name, "$u7b$$u7b$") ||
		    has(name, "drop_in_place"))
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
	size_t len = strlen(prefix), i, dots;
	const char *p = data, *end = data + n;

	while ((p = memmem(p, end - p, prefix, len)) && p < data + limit) {
		p += len;
		if (p == end || !isdigit((unsigned char)*p))
			continue;
		for (i = dots = 0; p + i < end && i + 1 < size && is_version_char(p[i]); i++) {
			buf[i] = p[i];
			dots += p[i] == '.';
		}
		buf[i] = 0;
		if (dots >= 2) /* else it is a message: "OpenSSL 3.3 or later", "OpenSSL 3's" */
			return 0;
	}
	buf[0] = 0;
	return -ENOENT;
}

#define WINDOW	    (1 << 20) /* bytes of a file read at a time */
#define OVERLAP	    256	      /* more than a prefix and a version take */
#define COMMENT_MAX (1 << 16) /* bytes of .comment, which has a few hundred */

/* The same in a part of the file.  Returns 0, -ENOENT, or what reading it failed with */
static int version_in_bytes(struct elfsym *e, uint64_t offset, uint64_t length, char *window,
			    const char *prefix, char *buf, size_t size)
{
	uint64_t done = 0, want, limit;
	int err = 0;

	if (offset > e->size)
		return -ENOENT;
	length = MIN(length, e->size - offset);
	while (done < length && !err) {
		want = MIN(length - done, WINDOW);
		err = elf_read(e, window, want, offset + done);
		/* what begins in the last bytes may go on: it is found in the next window */
		limit = want == WINDOW ? want - OVERLAP : want;
		if (!err && !version_in(window, want, limit, prefix, buf, size))
			return 0;
		done += limit;
	}
	return err ? err : -ENOENT;
}

/* The sections with constants; where there are no sections, what cannot be written to */
int elfsym_version(struct elfsym *e, const char *prefix, char *buf, size_t size)
{
	const Elf64_Shdr *sh = elf_section(e, ".comment");
	char *window = malloc(WINDOW);
	uint64_t left = e->size; /* honest sections do not overlap */
	int err = -ENOENT;
	size_t i;

	if (!window)
		return -ENOMEM;
	if (sh)
		err = version_in_bytes(e, sh->sh_offset, MIN(sh->sh_size, COMMENT_MAX), window,
				       prefix, buf, size);
	for (i = 0; i < e->nsections && err == -ENOENT; i++) {
		sh = &e->sections[i];
		if (sh->sh_type != SHT_PROGBITS || sh->sh_size > left ||
		    (sh->sh_flags & (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR)) != SHF_ALLOC)
			continue;
		err = version_in_bytes(e, sh->sh_offset, sh->sh_size, window, prefix, buf, size);
		left -= sh->sh_size;
	}
	for (i = 0; i < e->nloads && !e->nsections && err == -ENOENT; i++) {
		if (e->loads[i].p_flags & PF_W || e->loads[i].p_filesz > left)
			continue;
		err = version_in_bytes(e, e->loads[i].p_offset, e->loads[i].p_filesz, window,
				       prefix, buf, size);
		left -= e->loads[i].p_filesz;
	}
	free(window);
	return err;
}
