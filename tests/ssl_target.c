// SPDX-License-Identifier: GPL-2.0-only
/*
 * ssl_target - a program that talks TLS to itself with OpenSSL, for the tests to trace.
 *
 * It drives both ends of each connection over 127.0.0.1, an SSL object and an fd of its own for
 * each end, and writes a truth file: one line, in order, for every call that moved plaintext
 *	write FD HEX
 *	read FD HEX
 * and "close FD" where the fd's connection ends and the number may come again. Stdout gets the
 * line "ready" after the set-up; TLS begins when a line has come on stdin.
 *
 * It must never put anything into the truth file that the return value of a TLS call did not say:
 * calls that fail, peek or want a retry leave no line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <liburing.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))

#define MAX_CONNS    100
#define MAX_SECONDS  120 /* nothing here takes a tenth of it: a stuck run ends by itself */
#define MAX_EARLY    16384
#define SMALL_BUFFER 16384 /* SO_SNDBUF, SO_RCVBUF where a write is to find the socket full */

enum call {
	CALL_WRITE,
	CALL_WRITE_EX,
	CALL_WRITE_EX2,
	CALL_WRITE_BIO,
	CALL_WRITE_EARLY,
	CALL_READ,
	CALL_READ_EX,
	CALL_READ_BIO,
	CALL_READ_EARLY,
	CALL_PEEK,
	CALL_PEEK_EX,
};

struct end {
	SSL *ssl;
	BIO *bio; /* BIO_f_ssl in front of ssl, for the _BIO calls */
	int fd;
	int write_fd; /* the same, or another descriptor of the same socket */
	bool server;
	bool defer;	   /* memory BIO: ciphertext stays until flush() is called */
	unsigned int conn; /* number of the connection in the whole run */
	unsigned int sent; /* messages written */
	pthread_t thread;
};

struct conn {
	struct end client, server;
};

struct mode {
	const char *name, *help;
	unsigned int conns;  /* at the same time */
	unsigned int rounds; /* one after the other; 0: N of the command line */
	const char *payload;
	int numbers;		       /* on the command line */
	bool sockets_only;	       /* makes no sense over memory BIOs */
	bool decoy;		       /* the other output looks like TLS */
	bool nonblock;		       /* non-blocking sockets with small buffers */
	void (*before)(struct end *e); /* in the thread of an end, instead of a plain handshake */
	void (*end)(struct end *e);    /* in the thread of an end, after the handshake */
	void (*solo)(struct conn *c);  /* in one thread for all ends, after those of the ends */
};

static const size_t edges[] = {0, 1, 8191, 8192, 8193, 16383, 16384, 16385, 65536, 1048576};
static const size_t early_lens[] = {1, 1021, 8192};

static const struct mode *mode;
static const char *payload;	      /* bytes, text, utf8 */
static bool mem;		      /* TLS over memory BIOs */
static char transport;		      /* how its bytes travel: the first letter of --bio */
static unsigned long count, bulk_len; /* N and LEN of the command line */
static unsigned int round_nr;
static SSL_CTX *client_ctx, *server_ctx;
static SSL_SESSION *session; /* of the round before, for early data */
static int listener;
static int noise_pipe[2], noise_plain[2];
static FILE *truth;

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *fmt, ...)
{
	va_list ap;

	fputs("ssl_target: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	ERR_print_errors_fp(stderr);
	exit(EXIT_FAILURE);
}

static void check(bool ok, const char *what)
{
	if (!ok)
		die("%s failed (errno: %s)", what, strerror(errno));
}

static void *allocate(size_t size)
{
	void *p = malloc(size ? size : 1);

	check(p, "malloc");
	return p;
}

/* ---- truth ---- */

static void truth_line(const char *what, int fd, const unsigned char *data, size_t len)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static const char digits[] = "0123456789abcdef";
	size_t i;

	pthread_mutex_lock(&lock);
	fprintf(truth, "%s %d%s", what, fd, len ? " " : "");
	for (i = 0; i < len; i++) {
		putc_unlocked(digits[data[i] >> 4], truth);
		putc_unlocked(digits[data[i] & 15], truth);
	}
	putc_unlocked('\n', truth);
	pthread_mutex_unlock(&lock);
}

/* ---- payload ---- */

/* Every byte depends on connection, side, message and position: nothing can be swapped unseen. */
static void fill(const struct end *e, unsigned char *buf, size_t len)
{
	uint32_t seed = (e->conn * 2 + e->server) * 2654435761u + e->sent * 2246822519u;
	const char *extra = strcmp(payload, "utf8") ? "" : " \u00e9\u20ac\U0001f600\r";
	char unit[128];
	size_t pos;
	int n;

	if (!strcmp(payload, "bytes")) {
		for (pos = 0; pos < len; pos++)
			buf[pos] = (uint32_t)((seed + pos) * 3266489917u) >> 24;
		return;
	}
	for (pos = 0; pos < len; pos += n) {
		n = snprintf(unit, sizeof(unit), "conn %u %s message %u at %zu\t\"\\\"%s\n",
			     e->conn, e->server ? "server" : "client", e->sent, pos, extra);
		memcpy(buf + pos, unit, MIN((size_t)n, len - pos));
	}
}

/* ---- sockets and memory BIOs ---- */

static void set_nonblock(int fd)
{
	check(!fcntl(fd, F_SETFL, O_NONBLOCK), "fcntl");
}

static void small_buffers(int fd)
{
	int size = SMALL_BUFFER;

	check(!setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) &&
		      !setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)),
	      "setsockopt");
}

static void send_all(int fd, const char *p, size_t len)
{
	ssize_t n;

	for (; len; p += n, len -= n) {
		n = send(fd, p, len, 0);
		check(n > 0, "send");
	}
}

/* One send or receive that no system call of that name makes */
static ssize_t through_ring(int fd, bool write, void *buf, size_t len)
{
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	ssize_t n;

	check(!io_uring_queue_init(1, &ring, 0), "io_uring_queue_init");
	sqe = io_uring_get_sqe(&ring);
	if (write)
		io_uring_prep_send(sqe, fd, buf, len, 0);
	else
		io_uring_prep_recv(sqe, fd, buf, len, 0);
	check(io_uring_submit(&ring) == 1, "io_uring_submit");
	check(!io_uring_wait_cqe(&ring, &cqe), "io_uring_wait_cqe");
	n = cqe->res;
	io_uring_queue_exit(&ring);
	return n;
}

/* The same through a pipe, as a relay does: the bytes on the socket pass no buffer of ours */
static ssize_t through_pipe(int fd, bool write_it, void *buf, size_t len)
{
	int ends[2];
	ssize_t n;

	len = MIN(len, 4096);
	check(!pipe(ends), "pipe");
	if (write_it)
		check(write(ends[1], buf, len) == (ssize_t)len, "write to the pipe");
	n = write_it ? splice(ends[0], NULL, fd, NULL, len, 0)
		     : splice(fd, NULL, ends[1], NULL, len, 0);
	check(n > 0, "splice");
	if (!write_it)
		check(read(ends[0], buf, n) == n, "read from the pipe");
	close(ends[0]);
	close(ends[1]);
	return n;
}

/* Ciphertext, over the socket: with pipe every other time and in halves */
static ssize_t move(int fd, bool write, void *buf, size_t len)
{
	static _Thread_local unsigned int turn;

	if (transport == 'u')
		return through_ring(fd, write, buf, len);
	if (transport == 'p') {
		len = (len + 1) / 2;
		if (turn++ % 2)
			return through_pipe(fd, write, buf, len);
	}
	return write ? send(fd, buf, len, 0) : recv(fd, buf, len, 0);
}

/* Several records that wait in the BIO leave in one send, if that takes them. */
static void flush(struct end *e)
{
	BIO *out = SSL_get_wbio(e->ssl);
	ssize_t n;
	char *data;
	long len;

	if (!mem)
		return;
	len = BIO_get_mem_data(out, &data);
	for (; len; data += n, len -= n) {
		n = move(e->write_fd, true, data, len);
		check(n > 0, "send");
	}
	(void)BIO_reset(out);
}

static void feed(struct end *e)
{
	char buf[65536];
	ssize_t n = move(e->fd, false, buf, sizeof(buf));

	check(n > 0 && BIO_write(SSL_get_rbio(e->ssl), buf, n) == n, "recv");
}

static void wait_for(struct end *e, int error)
{
	struct pollfd p = {.fd = e->fd};

	if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
		die("connection %u, fd %d: SSL error %d", e->conn, e->fd, error);
	if (mem) {
		flush(e);
		feed(e);
		return;
	}
	p.events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
	check(poll(&p, 1, MAX_SECONDS * 1000) == 1, "poll");
}

static void connect_pair(int fds[2])
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	int i, one = 1;

	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	check(fds[0] >= 0, "socket");
	if (mode->nonblock)
		small_buffers(fds[0]);
	check(!getsockname(listener, (void *)&addr, &len), "getsockname");
	check(!connect(fds[0], (void *)&addr, len), "connect");
	fds[1] = accept(listener, NULL, NULL);
	check(fds[1] >= 0, "accept");
	for (i = 0; i < 2; i++)
		check(!setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)),
		      "setsockopt");
}

/* From now on the connection reads and writes through these. */
static void use_fds(struct end *e, int read_fd, int write_fd)
{
	e->fd = read_fd;
	e->write_fd = write_fd;
	if (!mem)
		check(SSL_set_rfd(e->ssl, read_fd) && SSL_set_wfd(e->ssl, write_fd), "SSL_set_fd");
}

/* ---- TLS calls ---- */

/* Make one call; returns the SSL error, SSL_ERROR_NONE if it went well. */
static int attempt(struct end *e, enum call call, void *buf, size_t len, size_t *done)
{
	/* A failed _ex call may leave its counter alone: who reads that, sees bytes never moved. */
	size_t moved = 4096;
	int ret = 0;

	ERR_clear_error();
	switch (call) {
	case CALL_WRITE:
		ret = SSL_write(e->ssl, buf, len);
		moved = ret;
		break;
	case CALL_WRITE_EX:
		ret = SSL_write_ex(e->ssl, buf, len, &moved);
		break;
	case CALL_WRITE_EX2:
#if OPENSSL_VERSION_NUMBER >= 0x30300000L
		ret = SSL_write_ex2(e->ssl, buf, len, 0, &moved);
#else
		die("SSL_write_ex2 came with OpenSSL 3.3");
#endif
		break;
	case CALL_WRITE_BIO:
		ret = BIO_write_ex(e->bio, buf, len, &moved);
		break;
	case CALL_WRITE_EARLY:
		ret = SSL_write_early_data(e->ssl, buf, len, &moved);
		break;
	case CALL_READ:
		ret = SSL_read(e->ssl, buf, len);
		moved = ret;
		break;
	case CALL_READ_EX:
		ret = SSL_read_ex(e->ssl, buf, len, &moved);
		break;
	case CALL_READ_BIO:
		ret = BIO_read_ex(e->bio, buf, len, &moved);
		break;
	case CALL_READ_EARLY:
		ret = SSL_read_early_data(e->ssl, buf, len, &moved);
		break;
	case CALL_PEEK:
		ret = SSL_peek(e->ssl, buf, len);
		moved = ret;
		break;
	case CALL_PEEK_EX:
		ret = SSL_peek_ex(e->ssl, buf, len, &moved);
		break;
	}
	*done = ret > 0 ? moved : 0;
	if (*done && call < CALL_PEEK)
		truth_line(call < CALL_READ ? "write" : "read",
			   call < CALL_READ ? e->write_fd : e->fd, buf, *done);
	return ret > 0 ? SSL_ERROR_NONE : SSL_get_error(e->ssl, ret);
}

/* Make a call until it moves bytes; 0 is the end of early data. */
static size_t transfer(struct end *e, enum call call, void *buf, size_t len)
{
	size_t done;
	int error;

	while ((error = attempt(e, call, buf, len, &done)) != SSL_ERROR_NONE)
		wait_for(e, error);
	if (!e->defer)
		flush(e);
	return done;
}

/* A call that must not succeed. */
static void refused(struct end *e, enum call call, void *buf, size_t len)
{
	size_t done;

	if (attempt(e, call, buf, len, &done) == SSL_ERROR_NONE)
		die("connection %u: call %d succeeded, it should not", e->conn, call);
}

static void write_message(struct end *e, enum call call, size_t len)
{
	unsigned char *buf = allocate(len);
	size_t pos = 0;

	fill(e, buf, len);
	if (!len) /* some versions call this an error, none may call it data */
		attempt(e, call, buf, len, &pos);
	while (pos < len)
		pos += transfer(e, call, buf + pos, len - pos);
	e->sent++;
	free(buf);
}

static void read_message(struct end *e, enum call call, size_t len, size_t step)
{
	unsigned char *buf = allocate(step);
	size_t pos = 0;

	if (len)
		attempt(e, call, buf, 0, &pos);
	while (pos < len)
		pos += transfer(e, call, buf, MIN(step, len - pos));
	free(buf);
}

static void handshake(struct end *e)
{
	int ret;

	while ((ret = SSL_do_handshake(e->ssl)) != 1)
		wait_for(e, SSL_get_error(e->ssl, ret));
	flush(e);
}

static void exchange(struct end *e, enum call write, enum call read, size_t len, size_t step)
{
	if (!e->server)
		write_message(e, write, len);
	read_message(e, read, len, step);
	if (e->server)
		write_message(e, write, len);
}

/* ---- modes ---- */

static void exchange_edges(struct end *e, enum call write, enum call read)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(edges); i++)
		exchange(e, write, read, edges[i], edges[i]);
	exchange(e, write, read, 65536, 1000); /* many reads for one record */
}

static void mode_edges(struct end *e)
{
	exchange_edges(e, CALL_WRITE, CALL_READ);
}

static void mode_ex(struct end *e)
{
	exchange_edges(e, CALL_WRITE_EX, CALL_READ_EX);
	if (OPENSSL_VERSION_NUMBER >= 0x30300000L)
		exchange_edges(e, CALL_WRITE_EX2, CALL_READ_EX);
}

static void mode_nonblock(struct end *e)
{
	exchange_edges(e, CALL_WRITE, CALL_READ);
	SSL_set_mode(e->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
	exchange_edges(e, CALL_WRITE_EX, CALL_READ_EX);
}

static void mode_bulk(struct end *e)
{
	unsigned long i;

	/* One direction after the other: two blocking writers would wait for each other. */
	for (i = 0; i < 2 * count; i++) {
		if (e->server == (i >= count))
			write_message(e, CALL_WRITE, bulk_len);
		else
			read_message(e, CALL_READ, bulk_len, bulk_len);
	}
}

static void mode_named(struct end *e)
{
	int i;

	for (i = 0; i < 11; i++)
		exchange(e, CALL_WRITE, CALL_READ, 200, 200);
}

static void mode_short(struct end *e)
{
	exchange(e, CALL_WRITE, CALL_READ, 200, 200);
}

/* Round 0 has no session yet, so no early data; round n sends the first n lengths. */
static void early_data(struct end *e)
{
	unsigned char buf[MAX_EARLY];
	unsigned int i;

	if (e->server) {
		for (i = 0; transfer(e, CALL_READ_EARLY, buf, sizeof(buf)); i++)
			if (!i) /* the server may answer before the handshake is over */
				write_message(e, CALL_WRITE_EARLY, early_lens[1]);
		handshake(e);
		return;
	}
	if (session)
		check(SSL_set_session(e->ssl, session), "SSL_set_session");
	for (i = 0; i < round_nr; i++)
		write_message(e, CALL_WRITE_EARLY, early_lens[i]);
	handshake(e);
	if (!round_nr)
		return;
	if (SSL_get_early_data_status(e->ssl) != SSL_EARLY_DATA_ACCEPTED)
		die("round %u: the server did not take the early data", round_nr);
	read_message(e, CALL_READ, early_lens[1], early_lens[1]);
}

static void mode_early(struct end *e)
{
	exchange(e, CALL_WRITE, CALL_READ, 1021, 1021);
	if (!e->server) {
		SSL_SESSION_free(session);
		session = SSL_get1_session(e->ssl);
	}
}

static void peek_at(struct end *from, struct end *to, size_t len)
{
	unsigned char *buf = allocate(len);

	write_message(from, CALL_WRITE, len);
	transfer(to, CALL_PEEK, buf, len);
	transfer(to, CALL_PEEK_EX, buf, len);
	read_message(to, CALL_READ, len / 2, len);
	transfer(to, CALL_PEEK_EX, buf, len);
	read_message(to, CALL_READ_EX, len - len / 2, len);
	free(buf);
}

static void mode_peek(struct conn *c)
{
	static const size_t lens[] = {1, 8192, 16384, 20000};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		peek_at(&c->client, &c->server, lens[i]);
		peek_at(&c->server, &c->client, lens[i]);
	}
}

static void greet(struct conn *c, enum call write, enum call read)
{
	write_message(&c->client, write, 100);
	read_message(&c->server, read, 100, 100);
	write_message(&c->server, write, 100);
	read_message(&c->client, read, 100, 100);
}

static void close_end(struct end *e)
{
	truth_line("close", e->fd, NULL, 0);
	close(e->fd);
	e->fd = -1;
}

static void fail_reads(struct end *e)
{
	static const enum call calls[] = {CALL_READ, CALL_READ_EX, CALL_READ_BIO, CALL_PEEK,
					  CALL_PEEK_EX};
	unsigned char buf[4096];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		refused(e, calls[i], buf, sizeof(buf));
}

static void fail_writes(struct end *e)
{
	unsigned char buf[4096];

	fill(e, buf, sizeof(buf));
	refused(e, CALL_WRITE, buf, sizeof(buf));
	refused(e, CALL_WRITE_EX, buf, sizeof(buf));
	refused(e, CALL_WRITE_BIO, buf, sizeof(buf));
}

/* The same write again and again on a full socket; it never comes to its end. */
static void fail_full(struct end *e, enum call call)
{
	size_t len = 1 << 20;
	unsigned char *buf = allocate(len);
	int i;

	fill(e, buf, len);
	for (i = 0; i < 3; i++)
		refused(e, call, buf, len);
	free(buf);
}

static void mode_fail(struct conn *c)
{
	struct linger reset = {.l_onoff = 1};
	struct pollfd gone;
	int i;

	for (i = 0; i < 6; i++)
		greet(c + i, CALL_WRITE, CALL_READ);

	/* 0: nothing to read yet */
	fail_reads(&c[0].client);
	fail_reads(&c[0].server);
	greet(c, CALL_WRITE_EX, CALL_READ_EX);

	/* 1, 2: the peer does not read */
	fail_full(&c[1].client, CALL_WRITE);
	fail_full(&c[2].server, CALL_WRITE_EX);

	/* 3: half closed in good order: the other half still works */
	SSL_shutdown(c[3].client.ssl);
	fail_writes(&c[3].client);
	fail_reads(&c[3].server);
	write_message(&c[3].server, CALL_WRITE_EX, 1000);
	read_message(&c[3].client, CALL_READ_EX, 1000, 1000);

	/* 4: end of file without a word */
	shutdown(c[4].server.fd, SHUT_WR);
	fail_reads(&c[4].client);

	/* 5: reset */
	setsockopt(c[5].server.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close_end(&c[5].server);
	gone = (struct pollfd){.fd = c[5].client.fd, .events = POLLIN};
	check(poll(&gone, 1, MAX_SECONDS * 1000) == 1, "poll");
	fail_writes(&c[5].client);
	fail_reads(&c[5].client);
}

/* A plain connection carries what TLS 1.3 would make of a message of this length. */
static void decoy(size_t len)
{
	char record[5 + 16384 + 17] = {0x17, 3, 3};

	len = MIN(len, 16384) + 17;
	record[3] = len >> 8;
	record[4] = len;
	send_all(noise_plain[0], record, 5 + len);
	check(recv(noise_plain[1], record, 5 + len, MSG_WAITALL) == (ssize_t)(5 + len),
	      "recv from the plain socket");
}

/* What a program does between two TLS calls, and what must not be taken for the connection. */
static void noise(size_t len)
{
	static unsigned int count;
	char line[64], back[64];
	int n = snprintf(line, sizeof(line), "noise line %u\n", ++count);

	check(write(STDERR_FILENO, line, n) == n, "write to stderr");
	check(write(noise_pipe[1], line, n) == n, "write to the pipe");
	check(read(noise_pipe[0], back, n) == n, "read from the pipe");
	if (mode->decoy) {
		decoy(len);
		return;
	}
	send_all(noise_plain[0], line, n);
	check(recv(noise_plain[1], back, n, MSG_WAITALL) == n, "recv from the plain socket");
}

static struct end *pick(struct conn *c, unsigned int i, bool server)
{
	c += i % mode->conns;
	return server ? &c->server : &c->client;
}

/*
 * Two messages on each connection, another order in every step (conns is a prime). Over memory
 * BIOs the ciphertext leaves later and in another order than the plaintext came, but not in the
 * first round: with equal lengths nobody could then tell the connections apart.
 */
static void mixed_half(struct conn *c, unsigned int nr, bool server)
{
	size_t len = nr % 4 == 3 ? 20000 : 256;
	struct end *e;
	unsigned int i;

	for (i = 0; i < 2 * mode->conns; i++) {
		e = pick(c, i * 3 + nr, server);
		e->defer = nr > 0;
		write_message(e, CALL_WRITE, len);
		noise(len);
	}
	for (i = 0; i < mode->conns; i++)
		flush(pick(c, i * 5 + nr, server));
	for (i = 0; i < 2 * mode->conns; i++) {
		read_message(pick(c, i * 2 + nr, !server), CALL_READ, len, 1000);
		noise(len);
	}
}

static void mode_mixed(struct conn *c)
{
	unsigned int nr;

	check(!pipe(noise_pipe), "pipe");
	connect_pair(noise_plain);
	for (nr = 0; nr < 11; nr++) {
		mixed_half(c, nr, false);
		mixed_half(c, nr, true);
	}
	for (nr = 0; nr < 2; nr++) {
		close(noise_pipe[nr]);
		close(noise_plain[nr]);
	}
}

static int another(int fd)
{
	fd = dup(fd);
	check(fd >= 0, "dup");
	return fd;
}

/* The number is that of another socket now. */
static void replace(int fd, int with)
{
	truth_line("close", fd, NULL, 0);
	check(dup2(with, fd) == fd, "dup2");
}

static void greet_all(struct conn *c)
{
	unsigned int i;

	for (i = 0; i < 3 * mode->conns; i++)
		greet(c + i % mode->conns, CALL_WRITE, CALL_READ);
}

/* The same socket under several numbers, and the same number for several sockets. */
static void mode_dup(struct conn *c)
{
	struct end *a = &c[0].client, *b = &c[1].client, *d = &c[2].client;
	int fd = a->fd, copy = another(fd), spare;
	unsigned int i;

	greet_all(c);
	for (i = 0; i < 7; i++) { /* through either */
		use_fds(a, i % 2 ? copy : fd, i % 3 ? copy : fd);
		greet_all(c);
	}

	use_fds(a, copy, copy); /* the first number goes, the connection goes on */
	truth_line("close", fd, NULL, 0);
	close(fd);
	greet_all(c);

	use_fds(a, a->fd, another(a->fd)); /* which gets that number again */
	check(a->write_fd == fd, "reuse of the number");
	greet_all(c);
	close(a->write_fd);
	use_fds(a, copy, copy);

	spare = another(b->fd); /* two connections change places */
	replace(b->fd, d->fd);
	replace(d->fd, spare);
	close(spare);
	fd = b->fd;
	use_fds(b, d->fd, d->fd);
	use_fds(d, fd, fd);
	greet_all(c);

	SSL_shutdown(b->ssl); /* one ends, and another takes its number */
	flush(b);
	fd = b->fd;
	b->fd = -1;
	replace(fd, d->fd);
	close_end(d);
	use_fds(d, fd, fd);
	greet(&c[0], CALL_WRITE, CALL_READ);
	greet(&c[2], CALL_WRITE, CALL_READ);
}

/* All connections in turn, until another line comes on stdin */
static void mode_busy(struct conn *c)
{
	struct pollfd more = {.fd = STDIN_FILENO, .events = POLLIN};
	unsigned int i, turns;

	for (turns = 0; !poll(&more, 1, 0); turns++) {
		for (i = 0; i < mode->conns; i++)
			greet(c + (i * 7 + turns) % mode->conns, CALL_WRITE, CALL_READ);
		if (!turns) {
			puts("running");
			fflush(stdout);
		}
	}
}

static const struct mode modes[] = {
	{"edges", "SSL_write, SSL_read: lengths around buffer and record sizes, up to 1 MiB", 1, 1,
	 "bytes", .end = mode_edges},
	{"ex", "the same with the _ex calls (and SSL_write_ex2 from OpenSSL 3.3)", 1, 1, "bytes",
	 .end = mode_ex},
	{"early", "early data on resumed sessions, both ways (TLS 1.3)", 1,
	 ARRAY_SIZE(early_lens) + 1, "bytes", .before = early_data, .end = mode_early},
	{"nonblock", "edges on non-blocking sockets, then again with partial writes", 1, 1, "bytes",
	 .sockets_only = true, .nonblock = true, .end = mode_nonblock},
	{"fail", "calls that fail, between some that do not", 6, 1, "bytes", .sockets_only = true,
	 .nonblock = true, .solo = mode_fail},
	{"peek", "SSL_peek and SSL_peek_ex before reads", 1, 1, "bytes", .solo = mode_peek},
	{"bulk", "N messages of LEN bytes in each direction, at full speed", 1, 1, "bytes",
	 .numbers = 2, .end = mode_bulk},
	{"threads", "200 threads, 100 connections at once, messages name the connection", 100, 1,
	 "utf8", .end = mode_named},
	{"reuse", "13 connections one after the other that get the same fd numbers", 1, 13, "utf8",
	 .end = mode_named},
	{"short", "N connections one after the other, a message each way", 1, 0, "utf8",
	 .numbers = 1, .end = mode_short},
	{"mixed", "one thread, 7 connections in turn, with other output in between", 7, 1, "utf8",
	 .solo = mode_mixed},
	{"decoy", "the same, and some of the other output looks like TLS", 7, 1, "utf8",
	 .decoy = true, .solo = mode_mixed},
	{"dup", "the same socket under several numbers, and the other way round", 3, 1, "utf8",
	 .solo = mode_dup},
	{"busy", "one thread, 50 connections in turn until another line comes; says \"running\"",
	 50, 1, "utf8", .solo = mode_busy},
};

/* ---- set-up ---- */

static SSL_CTX *new_ctx(const SSL_METHOD *method, int version, const char *cipher)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	check(ctx, "SSL_CTX_new");
	if (version)
		check(SSL_CTX_set_min_proto_version(ctx, version) &&
			      SSL_CTX_set_max_proto_version(ctx, version),
		      "--tls");
	if (cipher)
		check(version == TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(ctx, cipher)
						: SSL_CTX_set_cipher_list(ctx, cipher),
		      "--cipher");
	return ctx;
}

static void set_certificate(SSL_CTX *ctx)
{
	EVP_PKEY_CTX *gen = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
	EVP_PKEY *key = NULL;
	X509 *cert = X509_new();
	X509_NAME *name;

	check(gen && cert && EVP_PKEY_keygen_init(gen) > 0 &&
		      EVP_PKEY_CTX_set_ec_paramgen_curve_nid(gen, NID_X9_62_prime256v1) > 0 &&
		      EVP_PKEY_keygen(gen, &key) > 0,
	      "key generation");
	name = X509_NAME_new();
	check(name &&
		      X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
						 (const unsigned char *)"localhost", -1, -1, 0) &&
		      X509_set_version(cert, 2) &&
		      ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) &&
		      X509_gmtime_adj(X509_getm_notBefore(cert), -3600) &&
		      X509_gmtime_adj(X509_getm_notAfter(cert), 86400) &&
		      X509_set_subject_name(cert, name) && X509_set_issuer_name(cert, name) &&
		      X509_set_pubkey(cert, key) && X509_sign(cert, key, EVP_sha256()),
	      "certificate");
	check(SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1,
	      "SSL_CTX_use_certificate");
	X509_NAME_free(name);
	X509_free(cert);
	EVP_PKEY_free(key);
	EVP_PKEY_CTX_free(gen);
}

static void set_up(int version, const char *cipher)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};

	signal(SIGPIPE, SIG_IGN);
	alarm(MAX_SECONDS);
	client_ctx = new_ctx(TLS_client_method(), version, cipher);
	server_ctx = new_ctx(TLS_server_method(), version, cipher);
	set_certificate(server_ctx);
	SSL_CTX_set_max_early_data(server_ctx, MAX_EARLY);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	check(listener >= 0, "socket");
	if (mode->nonblock)
		small_buffers(listener); /* what accept() returns inherits them */
	check(!bind(listener, (void *)&addr, sizeof(addr)) && !listen(listener, 1), "listen");
}

static void start_end(struct end *e, unsigned int conn, int fd, bool server)
{
	BIO *in, *out;

	*e = (struct end){.fd = fd, .write_fd = fd, .conn = conn, .server = server};
	e->ssl = SSL_new(server ? server_ctx : client_ctx);
	e->bio = BIO_new(BIO_f_ssl());
	check(e->ssl && e->bio, "SSL_new");
	BIO_set_ssl(e->bio, e->ssl, BIO_NOCLOSE);
	if (mem) {
		in = BIO_new(BIO_s_mem());
		out = BIO_new(BIO_s_mem());
		check(in && out, "BIO_new");
		SSL_set_bio(e->ssl, in, out);
	}
	use_fds(e, fd, fd);
	if (server)
		SSL_set_accept_state(e->ssl);
	else
		SSL_set_connect_state(e->ssl);
	if (mode->nonblock)
		set_nonblock(fd);
}

static void *run_end(void *arg)
{
	struct end *e = arg;

	if (mode->before)
		mode->before(e);
	else
		handshake(e);
	if (mode->end)
		mode->end(e);
	return NULL;
}

static void stop_end(struct end *e)
{
	if (e->fd >= 0) {
		SSL_shutdown(e->ssl); /* the session stays good for the next round */
		close_end(e);
	}
	BIO_free(e->bio);
	SSL_free(e->ssl);
}

static void run_round(void)
{
	static struct conn conns[MAX_CONNS];
	unsigned int i;
	int fds[2];

	for (i = 0; i < mode->conns; i++) {
		connect_pair(fds);
		start_end(&conns[i].client, round_nr * mode->conns + i, fds[0], false);
		start_end(&conns[i].server, round_nr * mode->conns + i, fds[1], true);
	}
	for (i = 0; i < mode->conns; i++)
		check(!pthread_create(&conns[i].client.thread, NULL, run_end, &conns[i].client) &&
			      !pthread_create(&conns[i].server.thread, NULL, run_end,
					      &conns[i].server),
		      "pthread_create");
	for (i = 0; i < mode->conns; i++)
		check(!pthread_join(conns[i].client.thread, NULL) &&
			      !pthread_join(conns[i].server.thread, NULL),
		      "pthread_join");
	if (mode->solo)
		mode->solo(conns);
	for (i = 0; i < mode->conns; i++) {
		stop_end(&conns[i].client);
		stop_end(&conns[i].server);
	}
}

/* ---- command line ---- */

static _Noreturn void usage(const char *wrong)
{
	size_t i;

	fprintf(stderr,
		"ssl_target: %s\n"
		"usage: ssl_target --mode MODE --truth FILE [--tls 1.2|1.3] [--cipher NAME]\n"
		"                  [--bio socket|mem|uring|pipe] [--payload bytes|text|utf8] [N LEN]\n"
		"modes:\n",
		wrong);
	for (i = 0; i < ARRAY_SIZE(modes); i++)
		fprintf(stderr, "  %-9s %s%s\n", modes[i].name, modes[i].help,
			modes[i].sockets_only ? " (--bio socket only)" : "");
	exit(64);
}

static const char *one_of(const char *value, const char *const *list, const char *wrong)
{
	for (; *list; list++)
		if (!strcmp(value, *list))
			return value;
	usage(wrong);
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || !n || n > 1 << 24)
		usage("N and LEN are numbers from 1");
	return n;
}

int main(int argc, char **argv)
{
	static const char *const versions[] = {"1.2", "1.3", NULL};
	static const char *const bios[] = {"socket", "mem", "uring", "pipe", NULL};
	static const char *const payloads[] = {"bytes", "text", "utf8", NULL};
	static const struct option options[] = {{"mode", required_argument, NULL, 'm'},
						{"truth", required_argument, NULL, 't'},
						{"tls", required_argument, NULL, 'v'},
						{"cipher", required_argument, NULL, 'c'},
						{"bio", required_argument, NULL, 'b'},
						{"payload", required_argument, NULL, 'p'},
						{0}};
	const char *cipher = NULL, *path = NULL;
	int opt, version = 0;
	char line[64];
	size_t i;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'm':
			for (i = 0; i < ARRAY_SIZE(modes); i++)
				if (!strcmp(optarg, modes[i].name))
					mode = &modes[i];
			break;
		case 't':
			path = optarg;
			break;
		case 'v':
			version = one_of(optarg, versions, "--tls is 1.2 or 1.3")[2] == '2'
					  ? TLS1_2_VERSION
					  : TLS1_3_VERSION;
			break;
		case 'c':
			cipher = optarg;
			break;
		case 'b':
			transport = *one_of(optarg, bios, "--bio is one of these");
			mem = transport != 's';
			break;
		case 'p':
			payload = one_of(optarg, payloads, "--payload is bytes, text or utf8");
			break;
		default:
			usage("unknown option");
		}
	}
	if (!mode || !path)
		usage("--mode and --truth are needed");
	if (mem && mode->sockets_only)
		usage("this mode needs --bio socket");
	if (mode->before && version == TLS1_2_VERSION)
		usage("early data came with TLS 1.3");
	if (argc - optind != mode->numbers)
		usage("N belongs to modes bulk and short, LEN to bulk, and only there");
	if (mode->numbers > 0)
		count = number(argv[optind]);
	if (mode->numbers > 1)
		bulk_len = number(argv[optind + 1]);
	if (!payload)
		payload = mode->payload;

	truth = fopen(path, "w");
	check(truth, path);
	set_up(version, cipher);
	puts("ready");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		die("no line on stdin");

	for (round_nr = 0; round_nr < (mode->rounds ? mode->rounds : count); round_nr++)
		run_round();

	SSL_SESSION_free(session);
	SSL_CTX_free(client_ctx);
	SSL_CTX_free(server_ctx);
	check(!fclose(truth), path);
	return EXIT_SUCCESS;
}
