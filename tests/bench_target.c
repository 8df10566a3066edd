// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench_target - how long does a round take?  For tests/bench.
 *
 * usage: bench_target CERT KEY KIND LEN ROUNDS RATE
 * KIND is what a round does on a socket pair, on one thread:
 *   tls    SSL_write of LEN bytes at one end and SSL_read of them at the other
 *   plain  write and read of LEN bytes
 *   call   getppid, a system call that does nothing
 * RATE is rounds per second, 0: back to back.  Prints "ready" after the handshake, begins when a
 * line has come on stdin, and prints the median in nanoseconds, of single rounds of tls, of the
 * means of 1000 of the others: so nothing else that runs now and then gets into it.
 *
 * It must never measure its own waiting, nor make a system call in order to measure.
 */
#define _GNU_SOURCE
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_LEN 16384 /* what one record takes, and a socket pair holds */

static SSL *ends[2];
static int fds[2];
static unsigned char out[MAX_LEN], in[MAX_LEN];

static void die(const char *what)
{
	fprintf(stderr, "bench_target: %s\n", what);
	exit(EXIT_FAILURE);
}

static void connect_ends(const char *cert, const char *key)
{
	SSL_CTX *client = SSL_CTX_new(TLS_client_method());
	SSL_CTX *server = SSL_CTX_new(TLS_server_method());

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || !client || !server ||
	    SSL_CTX_use_certificate_file(server, cert, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_use_PrivateKey_file(server, key, SSL_FILETYPE_PEM) != 1)
		die("set-up failed");
	/* without tickets a blocking handshake needs no second thread, but turns */
	SSL_CTX_set_num_tickets(server, 0);
	ends[0] = SSL_new(client);
	ends[1] = SSL_new(server);
	if (!ends[0] || !ends[1] || !SSL_set_fd(ends[0], fds[0]) || !SSL_set_fd(ends[1], fds[1]))
		die("set-up failed");
	SSL_set_connect_state(ends[0]);
	SSL_set_accept_state(ends[1]);
}

/* One end after the other goes as far as it can without waiting */
static void handshake(void)
{
	struct timeval soon = {.tv_usec = 1000};
	struct timeval never = {0};
	int i;

	for (i = 0; i < 2; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	for (i = 0; !SSL_is_init_finished(ends[0]) || !SSL_is_init_finished(ends[1]); i++) {
		if (i == 100)
			die("no handshake");
		SSL_do_handshake(ends[i % 2]);
	}
	for (i = 0; i < 2; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never));
}

static void tls(int len)
{
	if (SSL_write(ends[0], out, len) != len || SSL_read(ends[1], in, len) != len)
		die("SSL_write or SSL_read failed");
}

static void plain(int len)
{
	if (write(fds[0], out, len) != len || read(fds[1], in, len) != len)
		die("write or read failed");
}

static void call(int len)
{
	(void)len;
	syscall(SYS_getppid);
}

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts); /* no system call: vdso(7) */
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	static const struct kind {
		const char *name;
		void (*round)(int len);
		long group; /* rounds that are measured together */
	} kinds[] = {{"tls", tls, 1}, {"plain", plain, 1000}, {"call", call, 1000}};
	const struct kind *kind = NULL;
	long long next, *times;
	long groups, rate, i, k;
	struct timespec at;
	char line[16];
	int len;

	if (argc != 7)
		die("usage: bench_target CERT KEY KIND LEN ROUNDS RATE");
	for (i = 0; i < (long)(sizeof(kinds) / sizeof(*kinds)); i++)
		if (!strcmp(argv[3], kinds[i].name))
			kind = &kinds[i];
	len = atoi(argv[4]);
	rate = atol(argv[6]);
	if (!kind || len < 1 || len > MAX_LEN)
		die("KIND or LEN is wrong");
	groups = atol(argv[5]) / kind->group;
	times = groups > 0 ? calloc(groups, sizeof(*times)) : NULL;
	if (!times)
		die("ROUNDS is wrong");
	connect_ends(argv[1], argv[2]);
	handshake();
	puts("ready");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		die("no line on stdin");

	next = now();
	for (i = 0; i < groups; i++) {
		if (rate) {
			next += 1000000000 / rate;
			at = (struct timespec){next / 1000000000, next % 1000000000};
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		}
		times[i] = -now();
		for (k = 0; k < kind->group; k++)
			kind->round(len);
		times[i] = (times[i] + now()) / kind->group;
	}
	qsort(times, groups, sizeof(*times), by_value);
	printf("%lld\n", times[groups / 2]);
	return EXIT_SUCCESS;
}
