// SPDX-License-Identifier: GPL-2.0-only
/*
 * correlate_test.c - correlate.c, one rule after the other.
 *
 * In: nothing; every check makes the facts it needs.  Out: TAP.  Chunks are numbered
 * from 1 in each check, and what comes out is compared as text: "1:3 2:-" means that
 * first chunk 1 came out with fd 3, then chunk 2 without.  How programs mix all this is
 * the matter of schedules_test.c.
 * Needs no kernel and no privilege.  Must never depend on time or addresses.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <string.h>

#include "correlate.h"
#include "tap.h"

#define MS 1000000ULL

/* what a record has besides the plaintext */
#define TLS13	   17
#define TLS12_GCM  24
#define TLS_CHACHA 16

static struct correlator *correlator;
static __u64 now;
static __u32 lost, tgid;
static int number;	/* of the last chunk */
static char out[4096];	/* what came out */
static __u64 conn[256]; /* of each chunk, by its number */
static int family[256]; /* of the ends that it came with */
static struct chunk last_chunk;
static char last_data[CHUNK_MAX];
static unsigned long long count;

static void on_chunk(const struct chunk *chunk, const struct verdict *v, void *ctx)
{
	size_t n = strlen(out);

	(void)ctx;
	count++;
	last_chunk = *chunk;
	memcpy(last_data, chunk->data, chunk->captured);
	if (chunk->off >= sizeof(conn) / sizeof(*conn))
		return;
	conn[chunk->off] = v->conn;
	family[chunk->off] = v->ends->family;
	if (v->fd < 0)
		snprintf(out + n, sizeof(out) - n, "%s%d:-", n ? " " : "", (int)chunk->off);
	else
		snprintf(out + n, sizeof(out) - n, "%s%d:%d", n ? " " : "", (int)chunk->off, v->fd);
}

static void begin(void)
{
	correlator = correlate_new(on_chunk, NULL);
	if (!correlator)
		abort();
	now = 1000 * MS;
	lost = number = 0;
	tgid = 1;
	out[0] = 0;
	count = 0;
}

static void expect(const char *text, const char *what)
{
	if (!ok(!strcmp(out, text), "%s", what))
		note("came out: \"%s\", expected: \"%s\"", out, text);
	out[0] = 0;
}

static void end(const char *text, const char *what)
{
	correlate_flush(correlator);
	expect(text, what);
	correlate_free(correlator);
	ok(!out[0], "... and nothing after the end");
}

/* Facts.  The inode number of a socket is 100 + fd where nothing else is said. */

static void give(struct fact *f, __u32 type, int tid, int fd, __u64 sock)
{
	f->time = now += 1000;
	f->type = type;
	f->lost = lost;
	f->tgid = tgid;
	f->tid = tid;
	f->fd = fd;
	f->sock = sock;
	correlate_fact(correlator, f);
}

static void chunk(int tid, enum library lib, enum direction dir, __u64 key, __u64 len, __u64 addr,
		  enum nested nested, int fd)
{
	struct chunk c = {
		.key = key,
		.addr = addr,
		.off = ++number, /* passes through, so it may carry the number */
		.len = len,
		.part_len = len,
		.lib = lib,
		.dir = dir,
		.nested = nested,
		.ends.family = nested ? 2 : 0,
	};

	give(&c.fact, FACT_CHUNK, tid, nested ? fd : -1, nested ? 100 + fd : 0);
}

static void encrypt(int tid, __u64 key, __u64 len)
{
	chunk(tid, LIB_RUSTLS, DIR_WRITE, key, len, 0, NESTED_NONE, -1);
}

static void decrypt(int tid, __u64 key, __u64 len, __u64 addr)
{
	chunk(tid, LIB_RUSTLS, DIR_READ, key, len, addr, NESTED_NONE, -1);
}

/* OpenSSL on memory buffers */
static void memory(int tid, enum direction dir, __u64 key, __u64 len)
{
	chunk(tid, LIB_OPENSSL, dir, key, len, 0, NESTED_NONE, -1);
}

/* OpenSSL on a socket */
static void nested(int tid, enum direction dir, __u64 key, __u64 len, int fd)
{
	chunk(tid, LIB_OPENSSL, dir, key, len, 0, NESTED_RECORD, fd);
}

/* Records of application data, up to two (0: no more) */
static void sent(int tid, int fd, __u64 sock, __u16 first, __u16 second)
{
	struct io io = {
		.dir = DIR_WRITE,
		.bytes = first + second + 10,
		.nrecords = second ? 2 : 1,
		.length = {first, second},
		.ctype = {23, 23},
		.ends.family = 2,
	};

	give(&io.fact, FACT_IO, tid, fd, sock);
}

/* A receive in which a record of this length begins, or if that is 0 one ends */
static void received_part(int tid, int fd, __u64 sock, __u64 addr, __u64 bytes, __u16 length)
{
	struct io io = {
		.dir = DIR_READ,
		.addr = addr,
		.bytes = bytes,
		.nrecords = length > 0,
		.lead = length ? 0 : bytes,
		.length = {length},
		.ctype = {23},
		.ends.family = 2,
	};

	give(&io.fact, FACT_IO, tid, fd, sock);
}

/* A receive of exactly one record, so long with its header */
static void received(int tid, int fd, __u64 sock, __u64 addr, __u64 bytes)
{
	received_part(tid, fd, sock, addr, bytes, bytes - 5);
}

/* A client's first message, at its end or at the server's */
static void hello_at(enum direction dir, int tid, int fd, __u64 sock)
{
	struct io io = {
		.dir = dir,
		.bytes = 300,
		.nrecords = 1,
		.length = {295},
		.ctype = {22},
		.ends.family = 2,
	};

	give(&io.fact, FACT_IO, tid, fd, sock);
}

static void hello(int tid, int fd, __u64 sock)
{
	hello_at(DIR_READ, tid, fd, sock);
}

/* A change of cipher, and behind it a record of this type and length: of TLS 1.2 Finished (22), of
 * TLS 1.3 whatever it is (23) */
static void change_cipher(enum direction dir, int tid, int fd, __u64 sock, __u64 addr, __u8 ctype,
			  __u16 length)
{
	struct io io = {
		.dir = dir,
		.addr = addr,
		.bytes = 6 + 5 + length,
		.nrecords = 2,
		.length = {1, length},
		.ctype = {20, ctype},
		.ends.family = 2,
	};

	give(&io.fact, FACT_IO, tid, fd, sock);
}

static void fact(enum fact_type type, int fd, __u64 sock)
{
	struct fact f = {0};

	give(&f, type, 1, fd, sock);
}

static void tick_after(int ms)
{
	now += ms * MS;
	correlate_tick(correlator, now);
}

/* A part of a chunk; its bytes are those of text, which the whole chunk has in a row */
static void part(int tid, __u64 key, const char *text, __u64 at, __u64 len, __u64 captured)
{
	struct chunk *c = calloc(1, sizeof(*c) + captured);

	if (!c)
		abort();
	c->key = key;
	c->off = at ? number : ++number;
	c->len = strlen(text);
	c->part = at;
	c->part_len = len;
	c->captured = captured;
	c->lib = LIB_RUSTLS;
	c->dir = DIR_WRITE;
	memcpy(c->data, text + at, captured);
	give(&c->fact, FACT_CHUNK, tid, -1, 0);
	free(c);
}

/* Plaintext of the outer session of TLS inside TLS: the header of an inner record at its front */
static void decrypt_record(int tid, __u64 key, __u64 len, __u64 addr, __u16 inner)
{
	__u8 header[] = {23, 3, 3, inner >> 8, inner & 255};
	struct chunk *c = calloc(1, sizeof(*c) + sizeof(header));

	if (!c)
		abort();
	c->key = key;
	c->addr = addr;
	c->off = ++number;
	c->len = c->part_len = len;
	c->captured = sizeof(header);
	c->lib = LIB_RUSTLS;
	c->dir = DIR_READ;
	memcpy(c->data, header, sizeof(header));
	give(&c->fact, FACT_CHUNK, tid, -1, 0);
	free(c);
}

/* The checks */

static void check_nested(void)
{
	begin();
	nested(1, DIR_WRITE, 0xa, 10, 3);
	expect("1:3", "a nested call tells the socket at once");
	memory(1, DIR_READ, 0xa, 10);
	memory(2, DIR_READ, 0xa, 10);
	memory(2, DIR_WRITE, 0xa, 10);
	expect("2:3 3:3 4:3", "and that of later calls without one, on any thread");
	nested(1, DIR_READ, 0xb, 10, 4);
	memory(1, DIR_READ, 0xa, 10);
	expect("5:4 6:3", "another connection on the thread makes no difference");
	nested(1, DIR_READ, 0xa, 10, 5);
	memory(1, DIR_READ, 0xa, 10);
	expect("7:5 8:5", "SSL_set_fd: the newer socket counts");
	ok(conn[1] != conn[5] && conn[1] != conn[7] && conn[5] != conn[7] && conn[1] == conn[6],
	   "one number for each connection");
	ok(family[1] == 2 && family[2] == 2 && family[4] == 2, "addresses come with all of them");
	end("", "nothing waits");

	begin();
	memory(1, DIR_READ, 0xa, 10);
	memory(1, DIR_READ, 0xa, 10);
	expect("", "what was buffered when the tracing began waits");
	nested(1, DIR_READ, 0xa, 10, 3);
	end("1:3 2:3 3:3", "for the socket of the next call");
}

static void check_lengths(void)
{
	static const struct {
		const char *name;
		__u64 plain, record;
		bool fits;
		__u16 finished; /* of the handshake, if it was seen */
	} rows[] = {
		{"TLS 1.3", 100, 100 + TLS13, true, 0},
		{"TLS 1.3, one byte", 1, 1 + TLS13, true, 0},
		{"TLS 1.3, a full record", CHUNK_MAX, CHUNK_MAX + TLS13, true, 0},
		{"TLS 1.2 GCM", 100, 100 + TLS12_GCM, true, 0},
		{"ChaCha20", 100, 100 + TLS_CHACHA, true, 0},
		/* IV, then plaintext, SHA-1 digest and padding together in blocks */
		{"CBC, MAC then encrypt", 100, 16 + 128, true, 64},
		/* 11 + 20 bytes and the padding's length fill two blocks */
		{"CBC, the smallest padding", 11, 16 + 32, true, 64},
		{"CBC, the largest padding", 12, 16 + 48, true, 64},
		/* IV, then plaintext and padding in blocks, then SHA-256 digest */
		{"CBC, encrypt then MAC", 100, 16 + 112 + 32, true, 80},
		{"CBC, SHA-384", 100, 16 + 112 + 48, true, 96},
		{"CBC, if nothing says that it is", 100, 16 + 128, false, 0},
		{"GCM, if the handshake says so", 100, 100 + TLS12_GCM, true, 40},
		{"GCM, and this is not", 100, 100 + TLS_CHACHA, false, 40},
		{"ChaCha20, if the handshake says so", 100, 100 + TLS_CHACHA, true, 32},
		{"a shorter record", 100, 99, false, 0},
		{"a record of the same length", 100, 100, false, 0},
		{"TLS 1.3, one byte less", 100, 99 + TLS13 - 1, false, 0},
		{"TLS 1.3, one byte more", 100, 101 + TLS13, false, 0},
		{"GCM, one byte more", 100, 101 + TLS12_GCM, false, 0},
		{"twice the length", 100, 200 + TLS13, false, 0},
	};
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		begin();
		if (rows[i].finished) {
			hello(1, 3, 103);
			change_cipher(DIR_WRITE, 1, 3, 103, 0, 22, rows[i].finished);
		}
		encrypt(1, 0xa, rows[i].plain);
		sent(1, 3, 103, rows[i].record, 0);
		correlate_flush(correlator);
		ok(!strcmp(out, rows[i].fits ? "1:3" : "1:-"), "length: %s", rows[i].name);
		correlate_free(correlator);
	}
}

static void check_writes(void)
{
	begin();
	encrypt(1, 0xa, 10);
	expect("", "what is encrypted waits");
	sent(1, 3, 103, 10 + TLS13, 0);
	expect("1:3", "for the record that is sent");
	ok(family[1] == 2, "which brings the addresses");
	encrypt(1, 0xa, 10);
	encrypt(1, 0xa, 20);
	sent(1, 3, 103, 10 + TLS13, 20 + TLS13);
	end("2:3 3:3", "two records in one call");

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xb, 10);
	sent(1, 4, 104, 10 + TLS13, 0);
	expect("1:3 2:4", "two connections of one thread");
	encrypt(1, 0xa, 10);
	encrypt(1, 0xb, 10);
	sent(1, 4, 104, 10 + TLS13, 0);
	sent(1, 3, 103, 10 + TLS13, 0);
	end("3:3 4:4", "of equal length, sent in the other order");
	ok(conn[1] == conn[3] && conn[2] == conn[4] && conn[1] != conn[2],
	   "... each with its own number");

	begin();
	encrypt(1, 0xa, 10);
	received(1, 5, 105, 0x1000, 5 + 50 + TLS13);
	sent(1, 3, 103, 10 + TLS13, 0);
	end("1:-", "a connection older than the tracing may send what is older as well");

	begin();
	hello(1, 3, 103);
	encrypt(1, 0xa, 10);
	received(1, 5, 105, 0x1000, 5 + 50 + TLS13);
	sent(1, 3, 103, 10 + TLS13, 0);
	end("1:3", "... but for one that was seen from its start");

	begin();
	hello(1, 3, 103);
	hello(1, 4, 104);
	encrypt(1, 0xa, 10);
	tick_after(101);
	expect("1:-", "its record may come too late");
	encrypt(1, 0xb, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	end("2:-", "... and is not another connection's then");

	begin();
	hello(1, 3, 103);
	memory(1, DIR_WRITE, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	hello(1, 4, 104);
	encrypt(1, 0xb, 2);
	sent(1, 3, 103, 2 + TLS13, 0); /* an alert of OpenSSL's, which nobody sees */
	end("1:3 2:-", "what OpenSSL owns is not rustls's");

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xa, 10); /* EAGAIN: no fact */
	encrypt(2, 0xb, 10);
	sent(2, 4, 104, 10 + TLS13, 0);
	expect("1:3", "while a chunk waits, later ones of others do as well");
	sent(2, 3, 103, 10 + TLS13, 0);
	end("2:3 3:4", "another thread sends what waited");

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xa, 11);
	encrypt(1, 0xa, 12);
	encrypt(1, 0xa, 13);
	sent(1, 3, 103, 12 + TLS13, 0);
	expect("1:3 2:3 3:3", "chunks that were passed over come out with the one that was sent");
	end("4:3", "but not the one behind");

	begin();
	encrypt(1, 0xa, 10);
	encrypt(2, 0xb, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	sent(2, 4, 104, 10 + TLS13, 0);
	correlate_flush(correlator);
	ok(!strstr(out, "1:4") && !strstr(out, "2:3"),
	   "two threads, equal lengths: nobody has the other's socket");
	correlate_free(correlator);

	begin();
	encrypt(1, 0xa, 36);
	sent(2, 4, 104, 36 + TLS13, 0); /* a Finished of TLS 1.3, say */
	sent(1, 3, 103, 36 + TLS13, 0);
	end("1:3", "a record of another thread's handshake that has the length is not it");

	begin();
	encrypt(1, 0xa, 10);
	tgid = 2;
	sent(1, 3, 103, 10 + TLS13, 0);
	end("1:-", "another process has nothing to do with it");
}

static void check_memory(void)
{
	begin();
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	memory(1, DIR_READ, 0xa, 10);
	memory(1, DIR_WRITE, 0xa, 20);
	sent(1, 3, 103, 20 + TLS13, 0);
	end("1:3 2:3", "OpenSSL on memory buffers");
	ok(conn[1] == conn[2], "... both directions have one number");

	begin();
	hello_at(DIR_WRITE, 1, 3, 103); /* the first that is seen of the thread */
	received(1, 3, 103, 0x1000, 5 + 500 + TLS13);
	memory(1, DIR_WRITE, 0xa, 105);
	sent(1, 3, 103, 52 + TLS13, 105 + TLS13);
	end("1:3", "a client's first bytes, sent with the end of its handshake");

	begin();
	memory(1, DIR_WRITE, 0xa, 20);
	memory(1, DIR_READ, 0xa, 10);
	sent(1, 3, 103, 20 + TLS13, 0);
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	memory(1, DIR_READ, 0xa, 10);
	tick_after(50);
	expect("1:3 2:3 3:3", "reads that waited come before those that need not");
	end("", "and all of them");

	begin();
	memory(1, DIR_READ, 0xa, 11);
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	memory(1, DIR_READ, 0xa, 10);
	tick_after(50);
	correlate_flush(correlator);
	ok(strstr(out, "1:") < strstr(out, "2:"), "a read without evidence keeps its place");
	correlate_free(correlator);
}

/* rustls has an object for each key */
static void check_keys(void)
{
	begin();
	hello(1, 3, 103);
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xb, 20);
	sent(1, 3, 103, 20 + TLS13, 0);
	encrypt(1, 0xb, 10); /* its record is never sent */
	tick_after(200);
	expect("1:3 2:3 3:3", "two objects of one connection");
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xb, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	expect("4:3 5:3", "the record is of what waits, not of what came out, with either key");
	encrypt(1, 0xa, 10);
	encrypt(1, 0xb, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	expect("6:3", "... and of what was written first");
	end("7:3", "... the other comes after it");

	begin();
	hello(1, 3, 103);
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xb, 20);
	sent(1, 3, 103, 20 + TLS13, 0);
	expect("1:3 2:3", "again two objects of one connection");
	encrypt(1, 0xa, 10); /* its record is not seen */
	encrypt(1, 0xb, 20);
	sent(1, 3, 103, 20 + TLS13, 0);
	expect("3:3 4:3", "what was sent with the new key tells that all with the old one was");
	end("", "... and nothing else");
}

/* Three old connections on one thread, where all is alike, fd 3 first: what is read and then
 * written on each, of which the library's part is seen or not */
static void round_of_three(bool seen)
{
	int fd;

	for (fd = 3; fd < 6; fd++) {
		received(1, fd, 100 + fd, 0x1000 * fd, 5 + 10 + TLS13);
		if (seen) {
			memory(1, DIR_READ, 0xa0 + fd, 10);
			memory(1, DIR_WRITE, 0xa0 + fd, 10);
		}
		sent(1, fd, 100 + fd, 10 + TLS13, 0);
	}
}

static void check_in_the_middle(void)
{
	begin();
	round_of_three(false);
	memory(1, DIR_WRITE, 0xa5, 10); /* its record is not seen, nor was what came before it */
	number = 0;
	round_of_three(true);
	round_of_three(true);
	tick_after(200);
	out[0] = 0;
	number = 0;
	round_of_three(true);
	end("1:3 2:3 3:4 4:4 5:5 6:5", "not even the first call was seen whole: soon all is known");
}

static void check_reads(void)
{
	int fd;

	begin();
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	decrypt(1, 0xa, 10, 0x1005);
	received(1, 4, 104, 0x9000, 5 + 10 + TLS13);
	decrypt(1, 0xb, 10, 0x9005);
	expect("1:3 2:4", "reads in place");
	decrypt(2, 0xa, 10, 0x77777);
	end("3:3", "a read without any receive has its object's socket");

	begin();
	received(1, 3, 103, 0x1000, 4096); /* the buffer's former owner */
	decrypt(1, 0xa, 4096 - 5 - TLS13, 0x1005);
	received(1, 4, 104, 0x1000, 5 + 10 + TLS12_GCM);
	decrypt(1, 0xb, 10, 0x1005 + 8);
	end("1:3 2:4", "TLS 1.2: the byte behind the record is another receive's");

	begin();
	received(1, 3, 103, 0x1000, 4096);
	decrypt(1, 0xa, 4096 - 5 - TLS13, 0x1005);
	received(1, 4, 104, 0x9000, 5 + 10 + TLS13);
	decrypt(1, 0xb, 10, 0x2000 - TLS13 - 10);
	end("1:3 2:-", "plaintext where another connection's record ended: chance or not?");

	begin();
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	for (fd = 4; fd < 1000; fd++)
		received(2, fd, 100 + fd, 0x9000 + 0x100 * fd, 5 + 10 + TLS13);
	decrypt(1, 0xa, 10, 0x1005);
	end("1:3", "a thread that had to wait while others received a thousand times the like");

	begin();
	hello(1, 3, 103);
	hello_at(DIR_WRITE, 1, 3, 103);
	change_cipher(DIR_READ, 1, 3, 103, 0x1000, 23, 10 + TLS13);
	decrypt(1, 0xa, 10, 0x1000 + 6 + 5);
	hello(1, 4, 104);
	hello_at(DIR_WRITE, 1, 4, 104);
	change_cipher(DIR_READ, 1, 4, 104, 0x2000, 23, 36 + TLS13);
	decrypt(1, 0xb, 36, 0x2000 + 6 + 5);
	end("1:3 2:-", "early data may come when the server has answered, but Finished is none");

	begin();
	hello(1, 3, 103);
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	received(1, 3, 103, 0x1000 + 5 + 10 + TLS13, 5 + 10 + TLS13);
	decrypt(1, 0xa, 10, 0x55000);
	hello(1, 4, 104);
	received(1, 4, 104, 0x2000, 5 + 30 + TLS13);
	decrypt(1, 0xb, 30, 0x55000);
	decrypt(1, 0xa, 10, 0x55000);
	end("1:3 2:4 3:3", "reads by order, then by their object's socket");

	begin();
	received(1, 2, 102, 0x1000, 5 + 7 + TLS13);
	decrypt(1, 0x9, 7, 0x1005); /* from now on the thread is known */
	received(1, 3, 103, 0x2000, 5 + 10 + TLS13);
	decrypt(1, 0xa, 10, 0x55000);
	expect("1:2", "a connection older than the tracing: once may be chance");
	received(1, 3, 103, 0x2000, 5 + 20 + TLS13);
	decrypt(1, 0xa, 20, 0x55000);
	end("2:3 3:3", "... and twice is not");

	begin();
	hello(1, 3, 103);
	hello(1, 4, 104);
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	received(1, 4, 104, 0x2000, 5 + 10 + TLS13);
	decrypt(1, 0xa, 10, 0x55000);
	end("1:-", "two connections received such a record, and nobody has read it");

	begin();
	hello(1, 3, 103);
	received_part(1, 3, 103, 0x1000, 20, 10 + TLS13);
	decrypt(1, 0xa, 10, 0x55000);
	end("1:-", "a record of which the end has not come was not read");

	begin();
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	decrypt(2, 0xa, 10, 0x55000);
	correlate_flush(correlator);
	ok(!strcmp(out, "1:-"), "another thread's receive is no evidence");
	correlate_free(correlator);

	begin();
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	decrypt(1, 0xa, 10, 0x1005);
	decrypt(1, 0xb, 500, 0x77000);
	end("1:3 2:-", "what is longer than the receive did not come with it");

	begin();
	received_part(1, 3, 103, 0x1000, 2000, 4000 + TLS13);
	received_part(1, 3, 103, 0x1000 + 2000, 5 + 4000 + TLS13 - 2000, 0);
	decrypt(1, 0xa, 4000, 0x1005);
	correlate_flush(correlator);
	ok(!strcmp(out, "1:3"), "one record in two receives");
	correlate_free(correlator);
}

static void check_inner(void)
{
	begin();
	hello(1, 3, 103);
	received(1, 3, 103, 0x1000, 5 + 1022 + TLS13);
	decrypt_record(1, 0xa, 1022, 0x1005, 1000 + TLS13);
	decrypt(1, 0xb, 1000, 0x55000);
	expect("1:3 2:3", "TLS inside TLS: the outer record in place, the inner one by order");
	received(1, 3, 103, 0x1000, 5 + 1022 + TLS13);
	received_part(1, 3, 103, 0x1000 + 5 + 1022 + TLS13, 500, 1000 + TLS13);
	decrypt_record(1, 0xa, 1022, 0x1005, 1000 + TLS13);
	received_part(1, 3, 103, 0x1000 + 5 + 1022 + TLS13 + 500, 5 + 1000 + TLS13 - 500, 0);
	decrypt(1, 0xa, 1000, 0x1000 + 5 + 1022 + TLS13 + 5);
	decrypt(1, 0xb, 1000, 0x55000);
	end("3:3 4:3 5:3", "... an outer record like the inner one, whose end came after that");

	begin();
	hello(1, 3, 103);
	hello(1, 4, 104);
	received(1, 3, 103, 0x1000, 5 + 1022 + TLS13);
	decrypt_record(1, 0xa, 1022, 0x1005, 1000 + TLS13);
	received(1, 4, 104, 0x9000, 5 + 1022 + TLS13);
	decrypt_record(1, 0xc, 1022, 0x9005, 1000 + TLS13);
	decrypt(1, 0xb, 1000, 0x55000);
	end("1:3 2:4 3:-", "two connections have such an inner record, and nobody has read it");

	begin();
	hello(1, 3, 103);
	received(1, 3, 103, 0x1000, 5 + 600 + TLS13);
	decrypt_record(1, 0xa, 600, 0x1005, 1000 + TLS13);
	decrypt(1, 0xb, 1000, 0x55000);
	end("1:3 2:-", "an inner record of which the end has not come was not read");
}

static void check_close(void)
{
	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	fact(FACT_CLOSE, 3, 0);
	encrypt(1, 0xa, 10);
	sent(1, 3, 203, 10 + TLS13, 0);
	end("1:3 2:3", "fd and object used again");
	ok(conn[1] != conn[2], "... by another connection");

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	fact(FACT_CLOSE, 3, 0);
	encrypt(1, 0xa, 10);
	end("1:3 2:-", "an object outlives its socket");

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	fact(FACT_CLOSE, 3, 203); /* another thread was quick to use the number again */
	encrypt(1, 0xa, 20);
	encrypt(1, 0xb, 10);
	sent(1, 3, 203, 10 + TLS13, 0);
	correlate_flush(correlator);
	ok(!strstr(out, "2:3"), "the number was given to another socket before the close was told");
	ok(conn[3] != conn[1], "... which is another connection");
	correlate_free(correlator);

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xb, 10);
	sent(1, 3, 203, 10 + TLS13, 0); /* the close itself was not seen */
	encrypt(1, 0xa, 11);
	correlate_flush(correlator);
	ok(!strcmp(out, "1:3 2:3 3:-"), "a number that names another socket now");
	ok(conn[1] != conn[2], "... is another connection");
	correlate_free(correlator);

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xa, 20); /* sent with an earlier record's call, beyond what is reported */
	fact(FACT_CLOSE, 3, 0);
	end("1:3 2:3", "what waits when its socket is closed was the socket's");

	begin();
	nested(1, DIR_WRITE, 0xa, 10, 3);
	fact(FACT_CLOSE, 4, 0);
	fact(FACT_CLOSE, 3, 103);
	memory(1, DIR_WRITE, 0xa, 10);
	fact(FACT_CLOSE, -1, 0);
	memory(1, DIR_WRITE, 0xa, 10);
	end("1:3 2:3 3:-", "only a close of the own fd counts, or one of all");

	begin();
	encrypt(1, 0xa, 10); /* its send fails, its connection ends, its address is free */
	hello(1, 4, 104);
	encrypt(1, 0xa, 10);
	sent(1, 4, 104, 10 + TLS13, 0);
	end("1:- 2:4", "what was encrypted before a socket was there was not sent on it");
}

static void check_dup(void)
{
	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	received(1, 4, 103, 0x1000, 5 + 10 + TLS13);
	decrypt(1, 0xb, 10, 0x1005);
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	expect("1:3 2:4 3:3", "one socket, a number for each direction");
	ok(conn[1] == conn[2] && conn[1] == conn[3], "... is one connection");
	fact(FACT_CLOSE, 4, 0);
	decrypt(1, 0xb, 10, 0x77777);
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	end("4:3 5:3", "one of the numbers is closed");
	ok(conn[1] == conn[4] && conn[1] == conn[5], "... and the connection goes on");

	begin();
	nested(1, DIR_WRITE, 0xa, 10, 3);
	fact(FACT_CLOSE, 4, 103); /* dup2(3, 4) */
	memory(1, DIR_WRITE, 0xa, 10);
	fact(FACT_CLOSE, 3, 105); /* dup2(5, 3) */
	memory(1, DIR_WRITE, 0xa, 10);
	end("1:3 2:3 3:-", "dup2 onto the socket ends it");
}

static void check_process(void)
{
	static const enum fact_type types[] = {FACT_EXEC, FACT_EXIT};
	size_t i;

	for (i = 0; i < 2; i++) {
		begin();
		encrypt(1, 0xa, 10);
		sent(1, 3, 103, 10 + TLS13, 0);
		encrypt(1, 0xa, 20);
		tgid = 2;
		encrypt(1, 0xa, 10);
		sent(1, 4, 104, 10 + TLS13, 0);
		tgid = 1;
		fact(types[i], -1, 0);
		expect("1:3 2:3 3:4", i ? "exit" : "exec");
		encrypt(1, 0xa, 10);
		tgid = 2;
		encrypt(1, 0xa, 10);
		end("4:- 5:4", "... ends what was known of the process, and of no other");
		ok(conn[4] != conn[1], "... and is another connection");
		ok(conn[5] == conn[3], "... while the other process' goes on");
	}
}

static void check_lost(void)
{
	begin();
	nested(1, DIR_WRITE, 0xa, 10, 3);
	encrypt(1, 0xb, 10);
	sent(1, 4, 104, 10 + TLS13, 0);
	encrypt(1, 0xb, 20);
	encrypt(1, 0xc, 10);
	lost = 1;
	memory(1, DIR_WRITE, 0xa, 10);
	encrypt(1, 0xb, 10);
	expect("1:3 2:4 3:4 4:-", "facts were lost: what waits comes out as it is");
	end("5:- 6:-", "and what was known is forgotten");

	begin();
	encrypt(1, 0xb, 10);
	sent(1, 4, 104, 10 + TLS13, 0);
	lost = 1;
	encrypt(2, 0xb, 30);
	encrypt(1, 0xc, 30);
	sent(1, 4, 104, 30 + TLS13, 0);
	end("1:4 2:4 3:-", "what was known before is worth a first piece of evidence");

	begin();
	part(1, 0xa, "abcdef", 0, 2, 2);
	lost = 1; /* the part in the middle */
	part(1, 0xa, "abcdef", 4, 2, 2);
	sent(1, 3, 103, 6 + TLS13, 0);
	correlate_flush(correlator);
	ok(count == 1 && last_chunk.len == 6 && last_chunk.captured == 2 &&
		   !memcmp(last_data, "ab", 2),
	   "a lost part: the chunk comes out once, cut");
	correlate_free(correlator);

	begin();
	lost = 1;
	part(1, 0xa, "abcdef", 2, 4, 4);
	encrypt(1, 0xa, 10);
	correlate_flush(correlator);
	ok(count == 1, "the first part was lost: the chunk is");
	correlate_free(correlator);
}

static void check_parts(void)
{
	begin();
	part(1, 0xa, "abcdef", 0, 2, 2);
	part(2, 0xb, "uvwxyz", 0, 1, 1);
	part(1, 0xa, "abcdef", 2, 1, 1);
	encrypt(3, 0xc, 10);
	sent(3, 5, 105, 10 + TLS13, 0);
	part(2, 0xb, "uvwxyz", 1, 5, 5);
	part(1, 0xa, "abcdef", 3, 3, 3);
	sent(2, 4, 104, 6 + TLS13, 0);
	correlate_flush(correlator);
	ok(count == 3, "three chunks, two of them in parts");
	correlate_free(correlator);

	begin();
	part(1, 0xa, "abcdef", 0, 2, 2);
	part(1, 0xa, "abcdef", 2, 1, 1);
	part(1, 0xa, "abcdef", 3, 3, 3);
	sent(1, 3, 103, 6 + TLS13, 0);
	ok(last_chunk.captured == 6 && !memcmp(last_data, "abcdef", 6) && !last_chunk.part &&
		   last_chunk.len == 6,
	   "parts in a row have all their bytes");
	expect("1:3", "and are one chunk, of one record");
	part(1, 0xa, "abcdef", 0, 2, 2);
	part(1, 0xa, "abcdef", 2, 2, 1); /* -s 3 */
	part(1, 0xa, "abcdef", 4, 2, 0);
	sent(1, 3, 103, 6 + TLS13, 0);
	ok(last_chunk.captured == 3 && last_chunk.len == 6 && !memcmp(last_data, "abc", 3),
	   "what -s leaves");
	part(1, 0xa, "abcdef", 0, 2, 2);
	part(1, 0xa, "abcdef", 2, 2, 0); /* could not be read */
	part(1, 0xa, "abcdef", 4, 2, 2);
	sent(1, 3, 103, 6 + TLS13, 0);
	ok(last_chunk.captured == 2 && last_chunk.len == 6, "nothing follows a gap");
	part(1, 0xa, "abcdef", 0, 2, 2);
	out[0] = 0;
	end("4:3", "a chunk that is not complete at the end comes out");
}

static void check_time(void)
{
	int i;

	begin();
	encrypt(1, 0xa, 10);
	tick_after(99);
	expect("", "a chunk waits");
	tick_after(2);
	expect("1:-", "100 ms");
	end("", "not more");

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xa, 20);
	encrypt(1, 0xb, 10);
	tick_after(60);
	nested(1, DIR_READ, 0xc, 10, 5);
	expect("1:3", "what needs no evidence waits for its turn");
	tick_after(31);
	expect("4:5", "30 ms");
	tick_after(10);
	end("2:3 3:-", "after 100 ms a chunk has what is known of its object");

	begin();
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0);
	encrypt(1, 0xb, 50); /* waits, and is before the others */
	encrypt(1, 0xa, 20);
	now += 5 * MS;
	encrypt(1, 0xa, 30);
	now += 80 * MS;
	sent(1, 3, 103, 20 + TLS13, 0);
	tick_after(22);
	end("1:3 2:- 3:3 4:3",
	    "a chunk whose evidence came late is not overtaken by the next of its connection");

	begin();
	for (i = 0; i < 4; i++)
		encrypt(1, 0xa, 10);
	tick_after(101);
	expect("1:- 2:- 3:- 4:-", "an object whose chunks wait in vain");
	tick_after(1000);
	encrypt(1, 0xa, 20);
	sent(1, 3, 103, 20 + TLS13, 0);
	encrypt(1, 0xa, 20);
	sent(1, 3, 103, 20 + TLS13, 0);
	correlate_flush(correlator);
	ok(strstr(out, "6:3"), "learns when evidence comes at last");
	correlate_free(correlator);

	begin();
	for (i = 0; i < 60; i++) { /* a program that uses io_uring: never any evidence */
		encrypt(1, 0xa, 10);
		tick_after(5);
	}
	correlate_flush(correlator);
	for (i = 1; i < 60; i++) {
		char one[16], next[16];

		snprintf(one, sizeof(one), "%d:", i);
		snprintf(next, sizeof(next), " %d:", i + 1);
		if (strstr(out, one) > strstr(out, next))
			break;
	}
	if (!ok(i == 60, "without evidence the order stays"))
		note("%s", out);
	correlate_free(correlator);

	begin();
	for (i = 0; i < 4; i++)
		encrypt(1, 0xa, 20);
	tick_after(101);
	out[0] = 0;
	encrypt(1, 0xb, 10); /* not sent yet */
	encrypt(1, 0xa, 10);
	sent(1, 3, 103, 10 + TLS13, 0); /* the latter */
	correlate_flush(correlator);
	ok(!strstr(out, "5:3"),
	   "an object that does not wait does not leave its record to another");
	correlate_free(correlator);

	begin();
	for (i = 0; i < 4; i++)
		encrypt(1, 0xa, 10);
	tick_after(101);
	received(1, 3, 103, 0x1000, 5 + 10 + TLS13);
	out[0] = 0;
	decrypt(1, 0xa, 10, 0x1005);
	end("5:3", "an address that waited in vain is another object's now");
}

/* Bytes that malloc has given out */
static size_t allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

static size_t churn(bool close_them)
{
	size_t before = allocated(), most = 0, used;
	int i;

	begin();
	number = sizeof(conn); /* not recorded */
	for (i = 0; i < 1000000; i++) {
		int fd = close_them ? 3 : 3 + i;

		encrypt(1 + i % 100000, 0x100000 + 64 * (__u64)i, 100);
		sent(1 + i % 100000, fd, 1000 + i, 100 + TLS13, 0);
		received(1 + i % 100000, fd, 1000 + i, 0x1000, 5 + 100 + TLS13);
		decrypt(1 + i % 100000, 0x100000 + 64 * (__u64)i + 32, 100, 0x1005);
		if (close_them)
			fact(FACT_CLOSE, fd, 0);
		if (i % 50000 == 0) {
			correlate_tick(correlator, now);
			used = allocated() - before;
			most = used > most ? used : most;
		}
	}
	correlate_flush(correlator);
	correlate_free(correlator);
	return most;
}

static void check_bounds(void)
{
	size_t before = allocated(), most;
	int i;

	most = churn(true);
	ok(most < 32 << 20 && count == 2000000, "a million connections one after the other");
	note("%zu KiB", most >> 10);
	most = churn(false);
	ok(most < 64 << 20 && count == 2000000, "a million connections that are never closed");
	note("%zu KiB", most >> 10);
	begin();
	number = sizeof(conn);
	for (i = 0; i < 1000000; i++)
		encrypt(1, 0x100 + i % 1000, 100);
	most = allocated() - before;
	ok(most < 64 << 20, "a million chunks that nothing is known of");
	note("%zu KiB", most >> 10);
	correlate_flush(correlator);
	ok(count == 1000000, "... and each came out");
	correlate_free(correlator);
	begin();
	for (i = 0; i < 10000; i++) {
		tgid = i + 1;
		number = sizeof(conn);
		encrypt(1, 0xa, 100);
		fact(FACT_EXIT, -1, 0);
	}
	correlate_free(correlator);
	ok(allocated() <= before + 4096, "nothing is left behind");
}

/* GnuTLS: a write that was refused and kept, or its repetition */
static void gnutls(bool kept, __u64 addr, const char *text, __u64 len)
{
	struct chunk *c = calloc(1, sizeof(*c) + 16);

	if (!c)
		abort();
	c->key = 0x700;
	c->addr = addr;
	c->len = c->part_len = len;
	c->captured = strlen(text);
	memcpy(c->data, text, c->captured);
	c->lib = LIB_GNUTLS;
	c->dir = DIR_WRITE;
	c->nested = NESTED_RECORD;
	c->hidden = c->kept = kept;
	give(&c->fact, FACT_CHUNK, 1, 5, 105);
	free(c);
}

static void expect_data(const char *text, const char *what)
{
	ok(count == 1 && last_chunk.captured == strlen(text) &&
		   !memcmp(last_data, text, strlen(text)),
	   "%s", what);
	count = 0;
	out[0] = 0;
}

static void check_kept(void)
{
	begin();
	gnutls(true, 0x1000, "abcdef", 6);
	gnutls(false, 0, "", 4);
	expect_data("abcd", "a repeated write without bytes has those of the refused one");
	gnutls(false, 0, "", 4);
	expect_data("", "they are for one write only");
	gnutls(true, 0x1000, "abcdef", 6);
	gnutls(false, 0x1000, "ABCDEF", 6);
	expect_data("ABCDEF", "a repeated write with bytes has its own");
	gnutls(true, 0x1000, "abcdef", 6);
	gnutls(true, 0x1000, "abcdef", 6);
	gnutls(false, 0, "", 7);
	expect_data("", "more than was refused is not known");
	gnutls(true, 0x1000, "abcdef", 6);
	end("", "what was refused and not repeated is not shown");
}

int main(void)
{
	check_nested();
	check_kept();
	check_lengths();
	check_writes();
	check_memory();
	check_keys();
	check_in_the_middle();
	check_reads();
	check_inner();
	check_close();
	check_dup();
	check_process();
	check_lost();
	check_parts();
	check_time();
	check_bounds();
	return tap_end();
}
