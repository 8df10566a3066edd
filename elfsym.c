// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym.c - where in an ELF file a function begins.
 *
 * The file is read, not mapped: a file that is cut short while we look at it must not
 * kill us.  Every number in it may be wrong or hostile: libelf checks those of the headers,
 * we check the rest.  Must never print, never use more memory than the file's symbols and
 * their names take, and never look at these longer than an honest file needs.
 */
#define _GNU_SOURCE
#include "elfsym.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elfsym_debug.h"

#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#else
#error "tlssnoop knows x86-64 and arm64 only"
#endif

#define STRINGS_MAX  (256 << 20) /* bytes of names that a symbol table may have */
#define SYMBOLS_MAX  (256 << 20) /* bytes of the table itself */
#define SECTIONS_MAX (1 << 20)	 /* bytes of sections' names */

/* Names may share their bytes; linkers let few do so */
#define NAMES_FREE   (64 << 20) /* bytes of names that any file may make us look at, */
#define NAMES_FACTOR 4		/* besides so many times all of them */

/* No name sought is so long; taking one apart takes time by its square */
#define NAME_MAX_LENGTH 2048

int elfsym_contents(const struct elfsym *e, Elf_Scn *scn, size_t most, const Elf_Data **data)
{
	const Elf64_Shdr *sh = elf64_getshdr(scn);

	*data = NULL;
	if (!sh || sh->sh_type == SHT_NOBITS || sh->sh_flags & SHF_COMPRESSED ||
	    sh->sh_offset > e->size || sh->sh_size > e->size - sh->sh_offset)
		return -EBADMSG;
	if (sh->sh_size > most)
		return -E2BIG;
	*data = elf_getdata(scn, NULL);
	return *data && (*data)->d_buf ? 0 : -EBADMSG;
}

static int read_loads(struct elfsym *e)
{
	const Elf64_Phdr *headers;
	size_t n, i;

	if (elf_getphdrnum(e->elf, &n))
		return -EBADMSG;
	headers = n ? elf64_getphdr(e->elf) : NULL;
	if (n && !headers)
		return -EBADMSG;
	e->loads = calloc(n ? n : 1, sizeof(*e->loads));
	if (!e->loads)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		const Elf64_Phdr *load = &headers[i];

		if (load->p_type == PT_LOAD && load->p_vaddr + load->p_filesz >= load->p_vaddr &&
		    load->p_offset <= INT64_MAX && load->p_filesz <= INT64_MAX - load->p_offset)
			e->loads[e->nloads++] = *load;
	}
	return 0;
}

static int read_sections(struct elfsym *e, const Elf64_Ehdr *eh)
{
	const Elf_Data *names;
	const Elf64_Shdr *sh;
	Elf_Scn *scn = NULL;
	size_t n;

	if (elf_getshdrnum(e->elf, &n))
		return -EBADMSG;
	if (!n) /* sections are optional, if rare to lack; libelf hides those behind the end */
		return eh->e_shoff ? -EBADMSG : 0;
	sh = elf64_getshdr(elf_getscn(e->elf, 0));
	if (!sh || sh->sh_type != SHT_NULL)
		return -EBADMSG;
	while ((scn = elf_nextscn(e->elf, scn))) {
		sh = elf64_getshdr(scn);
		if (!sh)
			return -EBADMSG;
		if (sh->sh_type == SHT_SYMTAB)
			e->symtab = scn;
		else if (sh->sh_type == SHT_DYNSYM)
			e->dynsym = scn;
	}
	if (eh->e_shstrndx == SHN_UNDEF)
		return 0;
	e->names = elf_getscn(e->elf, eh->e_shstrndx);
	return elfsym_contents(e, e->names, SECTIONS_MAX, &names);
}

Elf_Scn *elfsym_section(const struct elfsym *e, const char *name)
{
	size_t length = strlen(name) + 1;
	const Elf64_Shdr *sh;
	const Elf_Data *names;
	Elf_Scn *scn = NULL;

	if (!e->names || elfsym_contents(e, e->names, SECTIONS_MAX, &names))
		return NULL;
	while ((scn = elf_nextscn(e->elf, scn))) {
		sh = elf64_getshdr(scn);
		if (sh->sh_type != SHT_NOBITS && sh->sh_name < names->d_size &&
		    length <= names->d_size - sh->sh_name &&
		    !memcmp((const char *)names->d_buf + sh->sh_name, name, length))
			return scn;
	}
	return NULL;
}

/*
 * Has libelf look at a file's headers.  It makes room for all that a file says it has, and
 * their numbers need not be in the first header, if they are larger than in any linked file.
 */
static int read_headers(struct elfsym *e, const Elf64_Ehdr *first)
{
	const Elf64_Ehdr *eh;
	int err;

	if (memcmp(first->e_ident, ELFMAG, SELFMAG))
		return -ENOEXEC;
	if (first->e_ident[EI_CLASS] == ELFCLASS32)
		return -EOPNOTSUPP;
	if ((first->e_shoff && !first->e_shnum) || first->e_phnum == PN_XNUM)
		return -EBADMSG;
	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOTSUP;
	e->elf = e->bytes ? elf_memory((char *)e->bytes, e->size)
			  : elf_begin(e->fd, ELF_C_READ, NULL);
	eh = e->elf ? elf64_getehdr(e->elf) : NULL;
	if (!eh)
		return -EBADMSG;
	if (eh->e_machine != OUR_MACHINE || eh->e_ident[EI_DATA] != ELFDATA2LSB)
		return -EOPNOTSUPP;
	err = read_loads(e);
	return err ? err : read_sections(e, eh);
}

static int open_new(const struct elfsym *how, const Elf64_Ehdr *first, struct elfsym **elf)
{
	struct elfsym *e = malloc(sizeof(*e));
	int err;

	*elf = NULL;
	if (!e) {
		free(how->bytes);
		return -ENOMEM;
	}
	*e = *how;
	err = read_headers(e, first);
	if (err)
		elfsym_close(e);
	else
		*elf = e;
	return err;
}

int elfsym_open(int fd, struct elfsym **elf)
{
	struct elfsym how = {.fd = fd};
	Elf64_Ehdr first = {0};
	struct stat st;

	*elf = NULL;
	if (fstat(fd, &st) || pread(fd, &first, sizeof(first), 0) < 0)
		return -errno;
	how.size = st.st_size;
	return open_new(&how, &first, elf);
}

int elfsym_open_memory(uint8_t *bytes, uint64_t size, struct elfsym **elf)
{
	struct elfsym how = {.fd = -1, .bytes = bytes, .size = size};
	Elf64_Ehdr first = {0};

	memcpy(&first, bytes, MIN(size, sizeof(first)));
	return open_new(&how, &first, elf);
}

void elfsym_close(struct elfsym *e)
{
	if (!e)
		return;
	elfsym_close(e->debug);
	elf_end(e->elf);
	if (e->owns_fd)
		close(e->fd);
	free(e->bytes);
	free(e->loads);
	free(e);
}

bool elfsym_has_symtab(const struct elfsym *e)
{
	return e->debug || elfsym_has_functions(e, e);
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

/* Where in the file is the function that a symbol defines?  0: it defines none */
static uint64_t function_offset(const struct elfsym *e, const Elf64_Sym *sym)
{
	/* an undefined symbol may have an address all the same: that of its PLT */
	if (sym->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(sym->st_info) != STT_FUNC)
		return 0;
	return code_offset(e, sym->st_value);
}

/* Calls fn for the functions of e in a table of in, which is e or a debug file of it */
static int each_of(const struct elfsym *e, const struct elfsym *in, Elf_Scn *table,
		   const char *source, int (*fn)(const struct elfsym_func *, void *), void *ctx)
{
	struct elfsym_func func = {.source = source};
	const Elf64_Sym *sym, *end;
	const Elf_Data *symbols, *strings;
	uint64_t budget;
	size_t length;
	int ret;

	if (!elf64_getshdr(table)->sh_size)
		return 0;
	ret = elfsym_contents(in, table, SYMBOLS_MAX, &symbols);
	if (!ret)
		ret = elfsym_contents(in, elf_getscn(in->elf, elf64_getshdr(table)->sh_link),
				      STRINGS_MAX, &strings);
	if (ret)
		return ret;
	if (((const char *)strings->d_buf)[strings->d_size - 1])
		return -EBADMSG;
	budget = NAMES_FREE + NAMES_FACTOR * strings->d_size;
	sym = symbols->d_buf;
	end = sym + symbols->d_size / sizeof(*sym);
	for (; sym < end && !ret; sym++) {
		func.offset = function_offset(e, sym);
		if (!func.offset || sym->st_name >= strings->d_size)
			continue;
		func.address = sym->st_value;
		func.name = (const char *)strings->d_buf + sym->st_name;
		length = strnlen(func.name, NAME_MAX_LENGTH);
		ret = budget < length ? -E2BIG : fn(&func, ctx);
		budget -= length;
	}
	return ret;
}

bool elfsym_has_functions(const struct elfsym *e, const struct elfsym *in)
{
	const Elf64_Sym *sym, *end;
	const Elf_Data *symbols;

	if (!in->symtab || elfsym_contents(in, in->symtab, SYMBOLS_MAX, &symbols))
		return false;
	sym = symbols->d_buf;
	end = sym + symbols->d_size / sizeof(*sym);
	for (; sym < end; sym++)
		if (function_offset(e, sym))
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
	uint64_t done, limit;
	ssize_t n;

	if (offset > e->size)
		return -ENOENT;
	length = MIN(length, e->size - offset);
	for (done = 0; done < length; done += limit) {
		n = pread(e->fd, window, MIN(length - done, WINDOW), offset + done);
		if (n <= 0)
			return n ? -errno : -ENOENT; /* the file was cut meanwhile */
		/* what begins in the last bytes may go on: it is found in the next window */
		limit = n == WINDOW ? n - OVERLAP : n;
		if (!version_in(window, n, limit, prefix, buf, size))
			return 0;
	}
	return -ENOENT;
}

/* The sections with constants; where there are no sections, what cannot be written to */
int elfsym_version(struct elfsym *e, const char *prefix, char *buf, size_t size)
{
	Elf_Scn *comment = elfsym_section(e, ".comment"), *scn = NULL;
	const Elf64_Shdr *sh = comment ? elf64_getshdr(comment) : NULL;
	char *window = malloc(WINDOW);
	uint64_t left = e->size; /* honest sections do not overlap */
	int err = -ENOENT;
	bool any = false;
	size_t i;

	if (!window)
		return -ENOMEM;
	if (sh)
		err = version_in_bytes(e, sh->sh_offset, MIN(sh->sh_size, COMMENT_MAX), window,
				       prefix, buf, size);
	while (err == -ENOENT && (scn = elf_nextscn(e->elf, scn))) {
		any = true;
		sh = elf64_getshdr(scn);
		if (sh->sh_type != SHT_PROGBITS || sh->sh_size > left ||
		    (sh->sh_flags & (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR)) != SHF_ALLOC)
			continue;
		err = version_in_bytes(e, sh->sh_offset, sh->sh_size, window, prefix, buf, size);
		left -= sh->sh_size;
	}
	for (i = 0; i < e->nloads && !any && err == -ENOENT; i++) {
		if (e->loads[i].p_flags & PF_W || e->loads[i].p_filesz > left)
			continue;
		err = version_in_bytes(e, e->loads[i].p_offset, e->loads[i].p_filesz, window,
				       prefix, buf, size);
		left -= e->loads[i].p_filesz;
	}
	free(window);
	return err;
}
