// SPDX-License-Identifier: GPL-2.0-only
/*
 * tables_test.c - what elfsym_tables() finds in files.
 *
 * In: names of files.  Out: for each function a line "role name address", the address in
 * hex as nm writes it; with several files, the file's name before it.  With --symbols, the
 * same of the file's symbols: what it should have found.  Status 0 also if there is nothing.
 * Must never need a privilege, nor write anywhere else.
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
	static const char *const roles[] = {"encrypt", "decrypt",  "no-decrypt",
					    "handle",  "ssl-read", "ssl-write"};
	const char *file = ctx;

	if (file)
		printf("%s: ", file);
	printf("%s %s %016" PRIx64 "\n", roles[role], func->name, func->address);
	return 0;
}

int main(int argc, char **argv)
{
	int i, fd, err, status = EXIT_SUCCESS;

	for (i = 1; i < argc; i++) {
		fd = open(argv[i], O_RDONLY | O_CLOEXEC);
		err = fd < 0 ? -errno : elfsym_tables(fd, print, argc > 2 ? argv[i] : NULL);
		if (fd >= 0)
			close(fd);
		if (err) {
			fprintf(stderr, "tables_test: %s: %s\n", argv[i], strerror(-err));
			status = EXIT_FAILURE;
		}
	}
	return status;
}
