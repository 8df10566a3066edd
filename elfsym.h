/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * elfsym.h - where in an ELF file a function begins.
 *
 * In: a file descriptor and patterns.  Out: file offsets, as probes want them.
 * Prints nothing, needs no privilege, and trusts no number in the file.
 */
#ifndef ELFSYM_H
#define ELFSYM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elfsym;

/* A function that the file defines */
struct elfsym_func {
	const char *name;   /* as in the file; valid while the callback runs */
	const char *source; /* where it was found, see those who find; static */
	uint64_t offset;    /* of its first instruction, in bytes from the file's beginning */
	uint64_t address;   /* the same as a virtual address of the file */
};

/*
 * A name sought.  Either .name, a C function's whole name, or a Rust method, told by
 * the end of its mangled path without hash and instantiating crate, once for each of
 * rustc's manglings ("legacy", begins with _ZN; "v0", RFC 2603, begins with _R),
 * by up to two identifiers that must occur in the path as well, and by one that must
 * not.  v0 replaces repeated parts of a path by references, so only the end of it and
 * what occurs once can be relied on.
 */
struct elfsym_pattern {
	const char *name;
	const char *legacy_tail;
	const char *legacy_has;
	const char *v0_tail;
	const char *v0_has[2];
	const char *lacks;
	bool inherent; /* v0: a method of the type itself, not of a trait */
};

/* A symbol's name, taken apart once for any number of patterns */
struct elfsym_name {
	const char *path; /* not terminated at length */
	size_t length;
	enum { NAME_OTHER, NAME_C, NAME_LEGACY, NAME_V0_TRAIT, NAME_V0_INHERENT } kind;
};

/*
 * Opens the ELF file behind fd, which stays the caller's and must stay open until
 * elfsym_close().  Returns 0, or -ENOEXEC: no ELF file, -EOPNOTSUPP: an ELF file for
 * another machine or of 32 bits, -EBADMSG: damaged, -ENOMEM, or what reading it failed with.
 */
int elfsym_open(int fd, struct elfsym **elf);
void elfsym_close(struct elfsym *elf);

/*
 * If the file's .symtab names none of its functions, or was stripped: looks for another
 * file that does.  First in its .gnu_debugdata, then for a debug file by its build-id
 * below /usr/lib/debug/.build-id, then for the one that its .gnu_debuglink names, in dir
 * (absolute; NULL: not known), below it in .debug, and in /usr/lib/debug followed by dir.
 * Each of roots, directory descriptors that stay the caller's, is taken for / in turn:
 * the process may see other files than we do.  It does not matter in whose a debug file
 * is found: it must have the file's build-id, and the checksum that .gnu_debuglink gives.
 * What is damaged, or too large for a debug file, is as if it were not there.
 */
void elfsym_find_debug(struct elfsym *elf, const char *dir, const int *roots, size_t nroots);

/*
 * Calls fn for each function that the file defines, those of .dynsym first; a function
 * with several names, or in both tables, comes once for each.  .source is ".dynsym", or
 * ".symtab", "debugdata", "build-id" or "debuglink".  fn ends the walk by returning other
 * than 0.  Returns what fn returned last, 0 if there is no symbol, -EBADMSG, -E2BIG: more
 * symbols than we look at, -ENOMEM, or what reading the file failed with.
 */
int elfsym_each(struct elfsym *elf, int (*fn)(const struct elfsym_func *func, void *ctx),
		void *ctx);

/* True if the walk includes a full symbol table: without one, functions are missing from it */
bool elfsym_has_symtab(const struct elfsym *elf);

/* Takes a symbol's name apart; does not fail: a name of no use is NAME_OTHER */
struct elfsym_name elfsym_name(const char *symbol);

/* True if the name is the one sought.  (Rules: rustc's manglings, see elfsym.c.) */
bool elfsym_matches(const struct elfsym_name *name, const struct elfsym_pattern *pattern);

/*
 * Looks in .comment and in the data of the file for prefix followed by a version, that
 * is a digit and what follows of [0-9A-Za-z.+-], with two dots in it, and copies that
 * version, terminated, to buf of size bytes.  Returns 0, -ENOENT, -ENOMEM, or what reading
 * failed with.
 */
int elfsym_version(struct elfsym *elf, const char *prefix, char *buf, size_t size);

/* What elfsym_tables() finds */
enum elfsym_role {
	ELFSYM_ENCRYPT = 1, /* rustls's MessageEncrypter::encrypt, 0.24: RecordEncrypter */
	ELFSYM_DECRYPT,	    /* rustls's MessageDecrypter::decrypt, 0.24: RecordDecrypter */
	ELFSYM_NO_DECRYPT,  /* no function: that of the cipher with this encrypt is not found */
	ELFSYM_NO_ENCRYPT,  /* no function: this may be encrypt, but its decrypt is not found */
	ELFSYM_HANDLE,	    /* rustls's ExpectTraffic::handle */
	ELFSYM_EARLY,	    /* rustls's ExpectEarlyData::handle */
	ELFSYM_SSL_READ,    /* OpenSSL's, with the arguments and the result of SSL_read_ex */
	ELFSYM_SSL_WRITE,   /* likewise SSL_write_ex */
	ELFSYM_BIO_READ,    /* the same of OpenSSL's BIO_f_ssl, which SSL_read does not call */
	ELFSYM_BIO_WRITE,   /* likewise */
};

/*
 * Finds functions in the ELF file behind fd by the tables through which they are called:
 * for files without symbols.  It knows rustls 0.20 to 0.24 and OpenSSL, x86-64 and arm64,
 * whichever runs.  Calls fn for each; .name is the cipher ("tls13", "tls12-gcm",
 * "tls12-chacha", "tls12": both), the versions of rustls that have such states ("0.23.11+")
 * "SSL_METHOD" or "BIO_f_ssl", .source is "tables", both static.  fn ends the walk by returning
 * other than 0.  Returns what fn returned last, 0 if there is nothing, or, before any call, one of
 * elfsym_open()'s errors, or -E2BIG: looking through the file would take too long.
 *
 * The functions of rustls's copies in one file are not told apart.  Whoever hooks encrypt
 * or handle must check that the content type is that of application data.  In OpenSSL, the
 * functions are those that SSL_read and SSL_write call: hook the ones or the others.
 */
int elfsym_tables(int fd,
		  int (*fn)(const struct elfsym_func *func, enum elfsym_role role, void *ctx),
		  void *ctx);

#endif
