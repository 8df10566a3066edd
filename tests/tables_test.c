// SPDX-License-Identifier: GPL-2.0-only
/*
 * tables_test.c - what elfsym_tables() finds in a file.
 *
 * In: the file's name.  Out: a line "role name address" for each function, the address in
 * hex as nm writes it.  Nothing found is no failure.  Must never need a privilege.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elfsym.h"

static int print(const struct elfsym_func *func, enum elfsym_role role, void *ctx)
{
	static const char *const roles[] = {
		[ELFSYM_ENCRYPT] = "encrypt",	    [ELFSYM_DECRYPT] = "decrypt",
		[ELFSYM_NO_DECRYPT] = "no-decrypt", [ELFSYM_HANDLE] = "handle",
		[ELFSYM_EARLY] = "early",	    [ELFSYM_NO_ENCRYPT] = "no-encrypt",
		[ELFSYM_SSL_READ] = "ssl-read",	    [ELFSYM_SSL_WRITE] = "ssl-write",
		[ELFSYM_BIO_READ] = "bio-read",	    [ELFSYM_BIO_WRITE] = "bio-write",
	};

	(void)ctx;
	printf("%s %s %016" PRIx64 "\n", roles[role], func->name, func->address);
	return 0;
}

int main(int argc, char **argv)
{
	int fd, err;

	if (argc != 2) {
		fputs("usage: tables_test FILE\n", stderr);
		return EXIT_FAILURE;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	err = fd < 0 ? -errno : elfsym_tables(fd, print, NULL);
	if (fd >= 0)
		close(fd);
	if (err) {
		fprintf(stderr, "tables_test: %s: %s\n", argv[1], strerror(-err));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
