// SPDX-License-Identifier: GPL-2.0-only
/*
 * schedules_test.c - correlate.c under the facts of simulated programs.
 *
 * In: a first seed and a number of schedules (or one seed to look at, with -v all its
 * facts).  Out: TAP.  Each schedule is some processes with threads and connections whose
 * system calls and TLS calls happen in an order drawn from its seed, and of which the
 * true socket of each chunk is known.  The kernel side's rules (which call becomes a
 * fact) are followed here as well.  Demanded of each schedule: no chunk has another
 * socket than its own, nor a connection's number that another connection has; each
 * comes out once, in order, no later than it may.  "-" is allowed, and counted.
 * Needs no kernel and no privilege.  Must never depend on anything but the seed.
 *
 * What the programs do is what real ones were seen to do:
 *   NESTED      OpenSSL on sockets; handshakes are calls that nobody hooks
 *   MEMORY_BIO  OpenSSL on memory buffers in an event loop (node, Python's asyncio)
 *   IN_PLACE    rustls 0.23: decrypts in a buffer that it receives into, which moves
 *   COPIED      rustls up to 0.22: each record's plaintext in memory of its own
 *   OWN_BUFFER  the program receives into a buffer of its own (ureq)
 * with writes of several records, partial writes, EAGAIN and a later flush by whichever
 * thread, encryption now and sending in a later turn (sqlx), equal lengths, memory and
 * descriptors that are reused at once, sockets that are closed before or after the
 * object that used them is freed, connections older than the tracing, lost facts.
 *
 * Left out, because no evidence could tell:
 *  - A connection of which nothing was ever seen on a socket has no end that is seen
 *    either.  When its object's address is used again, both have one number (fd "-").
 *  - An object that is freed while its socket stays open, and whose address goes to
 *    another connection meanwhile.  Programs that free the object before they close
 *    its socket do one right after the other; another thread would have to open a
 *    connection, shake hands and read within these microseconds.
 *  - Connections that are in the middle of a record when the tracing begins (UNALIGNED):
 *    the kernel side does not report their receives until one begins with a record, so
 *    another connection's may seem to be the last one.
 *  - Cipher suites with CBC, which nobody asks for any more: their records fit
 *    plaintext of so many lengths that chance is enough.
 *  - A connection that is not read from for a while (PAUSED) before anything was read
 *    from it at all: only the order of calls could tell whose plaintext it is.
 *  - The alert by which a connection of OpenSSL's ends, in a program that uses rustls, if
 *    that is all that it ever sends: nothing says that there is OpenSSL.
 *  - Plaintext that OpenSSL on memory buffers has decrypted before the tracing began.
 *  - Equal lengths together with LATE_FLUSH: of two messages of one length that are both
 *    encrypted and both not sent, a record does not tell which it is.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "correlate.h"
#include "tap.h"

#define US 1000ULL
#define MS (1000 * US)

#define PROCESSES   3
#define THREADS	    4 /* of a process */
#define CONNS	    8 /* of a process, at a time */
#define FDS	    24
#define QUEUE	    12	 /* records on their way, of one direction of a connection */
#define OPS	    96	 /* of a thread's turn */
#define BLOCKS	    512	 /* of a process's heap */
#define CHUNKS	    8192 /* of a schedule */
#define IO_RECORDS  QUEUE
#define LATEST_TICK (131 * MS) /* evidence for 100 ms, then 30 for its turn, and a tick */

/* What may happen in a schedule; each is drawn once */
enum feature {
	OLDER = 1 << 0,	      /* connections that were there before the tracing */
	UNALIGNED = 1 << 1,   /* ... in the middle of a record: only if asked for */
	CONGESTED = 1 << 2,   /* EAGAIN and partial writes */
	LATE_FLUSH = 1 << 3,  /* what is encrypted is sent in another turn */
	STALLS = 1 << 4,      /* of more than the time that a chunk waits */
	SEND_FAILS = 1 << 5,  /* connections whose peer has gone: chunks never sent */
	PAUSED = 1 << 6,      /* what was received is decrypted in another turn */
	SMALL_READS = 1 << 7, /* a record is read in several steps */
	LOST = 1 << 8,	      /* facts */
	EXITS = 1 << 9,	      /* of processes */
	FEATURES = 10,
};

static const char *const feature_names[FEATURES] = {
	"older",      "unaligned", "congested",	  "late-flush", "stalls",
	"send-fails", "paused",	   "small-reads", "lost",	"exits",
};

enum model { NESTED, MEMORY_BIO, IN_PLACE, COPIED, OWN_BUFFER, MODELS };

static const char *const model_names[MODELS] = {
	"nested", "memory-bio", "in-place", "copied", "own-buffer",
};

enum op_type { OP_CHUNK, OP_IO, OP_OTHER, OP_FREE_FD, OP_CLOSE, OP_FREE, OP_EXIT, OP_END };

/* One step of a thread's turn: a fact, or a change of the world at its place among them */
struct op {
	enum op_type type;
	enum direction dir;
	int nested;
	int nrecords;
	__u64 hidden; /* key, if it is no application data */
	__u64 lead;   /* bytes of a record that began before */
	__u64 addr;
	__u64 len;
	__u16 length[IO_RECORDS];
	__u8 ctype[IO_RECORDS];
};

struct record {
	__u32 plain; /* 0: no application data */
	__u32 wire;  /* after the header */
	__u8 ctype;
};

struct queue {
	struct record records[QUEUE];
	int n;
	__u32 done; /* bytes of the first that are sent or received */
};

struct conn {
	bool live, busy, closing;
	enum model model;
	bool to_front; /* what is left of the buffer moves after each record */
	int overhead;  /* of a record: TLS 1.3, or 1.2 with GCM or ChaCha20 */
	int owner;     /* the thread that has it, or -1: any */
	int fd;
	__u64 inode;
	int uid;
	int seq[2];
	__u64 object[2]; /* by direction */
	struct queue in, out;
	/* received, not decrypted yet: records of which all has come, bytes of the next */
	__u64 buffer;
	__u32 size, used;
	__u32 unread; /* MEMORY_BIO, NESTED: plaintext that the library holds */
	/* the kernel side's */
	bool stream;
	__u32 left;    /* of the record that is being sent */
	__u32 left_in; /* ... received */
};

struct block {
	__u64 start, size;
	bool used;
};

struct thread {
	struct conn *conn; /* of this turn */
	struct op ops[OPS];
	int nops, next;
};

struct process {
	struct thread threads[THREADS];
	struct conn conns[CONNS];
	__u64 fds[FDS]; /* inode, 0: free */
	struct block blocks[BLOCKS];
	int nblocks;
	int nthreads;
	enum model model;
	__u32 tgid;
};

struct truth {
	int uid, seq;
	int fd;
	__u64 inode;
	__u64 time;
	enum direction dir;
	bool out;
};

/* A connection as its chunks came out */
struct seen {
	__u64 conn; /* number in the verdicts that name its socket, 0: none yet */
	int last[2];
};

static struct world {
	struct process processes[PROCESSES];
	int nprocesses;
	unsigned int features;
	__u32 lengths[4];
	int nlengths;
	struct truth truth[CHUNKS];
	struct seen seen[CHUNKS];
	int owner_of_number[CHUNKS]; /* uid, by connection number */
	int nchunks;
	int nuids;
	int losing; /* so many facts more */
	__u32 lost;
	__u64 now, last_tick, last_inode;
	const char *wrong;
} w;

static struct correlator *correlator;
static __u64 random_state;
static bool verbose;

/* what the totals say */
static struct {
	unsigned long long facts;
	unsigned long long model_chunks[MODELS], model_unknown[MODELS];
} total;
static enum model model_of_chunk[CHUNKS];

static __u64 random64(void) /* splitmix64 */
{
	__u64 z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static __u32 below(__u32 n)
{
	return (random64() >> 32) * n >> 32;
}

static bool chance(int percent)
{
	return below(100) < (__u32)percent;
}

static bool has(unsigned int feature)
{
	return w.features & feature;
}

static void wrong(const char *what)
{
	if (!w.wrong)
		w.wrong = what;
	if (verbose)
		printf("#   WRONG: %s\n", what);
}

/* A heap: first fit, neighbours merge, so memory is used again soon and in other sizes */

static __u64 get_memory(struct process *p, __u32 size)
{
	struct block *b;
	int i;

	size = (size + 31) & ~15U; /* with malloc's own words */
	for (i = 0; i < p->nblocks; i++) {
		b = &p->blocks[i];
		if (b->used || b->size < size)
			continue;
		if (b->size > size && p->nblocks < BLOCKS) {
			memmove(b + 1, b, (p->nblocks++ - i) * sizeof(*b));
			b[1].start += size;
			b[1].size -= size;
			b->size = size;
		}
		b->used = true;
		return b->start;
	}
	abort(); /* the world is too small */
}

static void free_memory(struct process *p, __u64 start)
{
	struct block *b, *end = p->blocks + p->nblocks;

	for (b = p->blocks; b < end && b->start != start; b++)
		;
	if (b == end || !b->used)
		abort();
	b->used = false;
	if (b + 1 < end && !b[1].used) {
		b->size += b[1].size;
		memmove(b + 1, b + 2, (end - b - 2) * sizeof(*b));
		end = p->blocks + --p->nblocks;
	}
	if (b > p->blocks && !b[-1].used) {
		b[-1].size += b->size;
		memmove(b, b + 1, (end - b - 1) * sizeof(*b));
		p->nblocks--;
	}
}

/* Facts */

static void set_ends(struct endpoints *e, __u64 inode)
{
	e->family = 2;
	memcpy(e->remote, &inode, sizeof(inode)); /* tells sockets with one number apart */
}

static void give(struct fact *f, struct process *p, struct thread *t, __u32 type)
{
	f->type = type;
	f->time = w.now;
	f->lost = w.lost;
	f->tgid = p->tgid;
	f->tid = p->tgid + (t - p->threads);
	total.facts++;
	correlate_fact(correlator, f);
}

static void give_chunk(struct process *p, struct thread *t, const struct op *op)
{
	struct conn *conn = t->conn;
	struct chunk c = {
		.key = conn->object[op->dir],
		.addr = op->addr,
		.len = op->len,
		.part_len = op->len,
		.lib = conn->model <= MEMORY_BIO ? LIB_OPENSSL : LIB_RUSTLS,
		.dir = op->dir,
		.nested = op->nested,
	};
	struct truth *truth;

	c.fact.fd = -1;
	if (op->nested) {
		c.fact.fd = conn->fd;
		c.fact.sock = conn->inode;
		set_ends(&c.ends, conn->inode);
	}
	if (op->hidden) {
		c.key = op->hidden;
		c.hidden = 1;
		give(&c.fact, p, t, FACT_CHUNK);
		return;
	}
	if (w.nchunks == CHUNKS)
		return;
	model_of_chunk[w.nchunks] = conn->model;
	c.off = w.nchunks; /* passes through, so it may carry the chunk's number */
	truth = &w.truth[w.nchunks++];
	*truth = (struct truth){
		.uid = conn->uid,
		.seq = ++conn->seq[op->dir],
		.fd = conn->fd,
		.inode = conn->inode,
		.time = w.now,
		.dir = op->dir,
	};
	give(&c.fact, p, t, FACT_CHUNK);
}

static void give_io(struct process *p, struct thread *t, const struct op *op)
{
	struct conn *conn = t->conn;
	struct io io = {
		.fact = {.fd = conn->fd, .sock = conn->inode},
		.addr = op->addr,
		.bytes = op->len,
		.dir = op->dir,
		.nrecords = op->nrecords,
		.lead = op->lead,
	};

	memcpy(io.length, op->length, sizeof(op->length));
	memcpy(io.ctype, op->ctype, sizeof(op->ctype));
	set_ends(&io.ends, conn->inode);
	give(&io.fact, p, t, FACT_IO);
}

static void show_op(const struct process *p, const struct thread *t, const struct op *op)
{
	static const char *const names[] = {
		"chunk", "io", "other", "free-fd", "close", "free", "exit", "end",
	};
	const struct conn *c = t->conn;
	int i;

	printf("# %8.3f p%d t%d %-7s", w.now / 1e6, (int)(p - w.processes), (int)(t - p->threads),
	       names[op->type]);
	if (c)
		printf(" conn %d %s fd %d inode %d", c->uid, model_names[c->model], c->fd,
		       (int)c->inode);
	if (op->type == OP_CHUNK)
		printf(" key %llx #%d nested %d", (unsigned long long)c->object[op->dir], w.nchunks,
		       op->nested);
	if (op->hidden)
		printf(" hidden");
	if (op->type <= OP_IO)
		printf(" %s addr %llx len %d", op->dir == DIR_READ ? "read" : "write",
		       (unsigned long long)op->addr, (int)op->len);
	for (i = 0; op->type == OP_IO && i < op->nrecords; i++)
		printf(" %d:%d", op->ctype[i], op->length[i]);
	if (op->type == OP_FREE)
		printf(" %llx", (unsigned long long)op->addr);
	puts(w.losing ? " LOST" : "");
}

/* The thread takes the next step of its turn */
static void step(struct process *p, struct thread *t)
{
	struct op *op = &t->ops[t->next++];
	struct conn *conn = t->conn;
	struct fact f = {.fd = -1};
	bool lost = w.losing > 0;

	if (verbose)
		show_op(p, t, op);
	if (lost && (op->type <= OP_OTHER || op->type == OP_CLOSE || op->type == OP_EXIT)) {
		w.losing--;
		w.lost++;
	}
	switch (op->type) {
	case OP_CHUNK:
		if (!lost)
			give_chunk(p, t, op);
		break;
	case OP_IO:
		if (!lost)
			give_io(p, t, op);
		break;
	case OP_OTHER:
		if (!lost)
			give(&f, p, t, FACT_OTHER);
		break;
	case OP_FREE_FD:
		p->fds[conn->fd] = 0;
		break;
	case OP_CLOSE:
		f.fd = conn->fd;
		f.sock = p->fds[conn->fd]; /* another thread may have opened it anew */
		if (!lost)
			give(&f, p, t, FACT_CLOSE);
		break;
	case OP_FREE:
		free_memory(p, op->addr);
		break;
	case OP_EXIT:
		if (!lost)
			give(&f, p, t, FACT_EXIT);
		break;
	case OP_END:
		if (conn) {
			conn->busy = false;
			conn->live = !conn->closing;
		}
		t->conn = NULL;
		break;
	}
}

/* The verdicts */

static void on_chunk(const struct chunk *chunk, const struct verdict *v, void *ctx)
{
	struct truth *truth = &w.truth[chunk->off];
	struct seen *seen = &w.seen[truth->uid];
	__u64 inode;

	(void)ctx;
	if (verbose)
		printf("#   => #%d conn %d fd %d, number %d\n", (int)chunk->off, truth->uid, v->fd,
		       (int)v->conn);
	if (truth->out)
		wrong("a chunk came out twice");
	truth->out = true;
	if (truth->seq <= seen->last[truth->dir])
		wrong("the order of a connection's chunks changed");
	seen->last[truth->dir] = truth->seq;
	total.model_chunks[model_of_chunk[chunk->off]]++;
	if (v->fd < 0) {
		total.model_unknown[model_of_chunk[chunk->off]]++;
		return;
	}
	memcpy(&inode, v->ends->remote, sizeof(inode));
	if (inode != truth->inode)
		wrong("a chunk has another connection's socket");
	if (v->fd != truth->fd)
		wrong("a chunk has a wrong fd");
	if (v->conn >= CHUNKS ||
	    (w.owner_of_number[v->conn] && w.owner_of_number[v->conn] != truth->uid))
		wrong("two connections have one number");
	else
		w.owner_of_number[v->conn] = truth->uid;
	/* what was lost may be the end of it */
	if (seen->conn && seen->conn != v->conn && !w.lost)
		wrong("one connection has two numbers");
	seen->conn = v->conn;
}

/* Turns: what a thread does next */

static struct op *add_op(struct thread *t, enum op_type type)
{
	struct op *op = &t->ops[t->nops++];

	if (t->nops > OPS)
		abort();
	op->type = type;
	op->nrecords = 0;
	op->hidden = op->lead = 0;
	op->nested = NESTED_NONE;
	return op;
}

static void add_free(struct thread *t, __u64 addr)
{
	add_op(t, OP_FREE)->addr = addr;
}

static void add_chunk(struct thread *t, enum direction dir, __u64 addr, __u64 len, int nested)
{
	struct op *op = add_op(t, OP_CHUNK);

	op->dir = dir;
	op->addr = addr;
	op->len = len;
	op->nested = nested;
}

/*
 * A receive of so many bytes, which go on in q behind its done.  The kernel side reports
 * them if it knows that there is TLS, and follows the records in them as long as it
 * has come along with them from the beginning of one.
 */
static void add_receive(struct thread *t, __u64 addr, __u32 bytes, const struct queue *q)
{
	const struct record *r = q->records, *end = q->records + q->n;
	struct conn *c = t->conn;
	__u32 at = 0, begin = q->done;
	struct op *op;
	bool follows;

	while (r < end && at + r->wire + 5 <= begin)
		at += (r++)->wire + 5;
	/* r is the record that the first byte belongs to, at its beginning */
	c->stream |= at == begin && bytes >= 5;
	if (!c->stream) {
		add_op(t, OP_OTHER);
		return;
	}
	op = add_op(t, OP_IO);
	op->dir = DIR_READ;
	op->addr = addr;
	op->len = bytes;
	op->lead = c->left_in;
	follows = c->left_in == (at == begin || r == end ? 0 : at + r->wire + 5 - begin);
	if (at < begin && r < end)
		at += (r++)->wire + 5;
	for (; follows && r < end && at < begin + bytes; at += (r++)->wire + 5) {
		op->length[op->nrecords] = r->wire;
		op->ctype[op->nrecords++] = r->ctype;
	}
	c->left_in = follows && at > begin + bytes ? at - begin - bytes : 0;
}

/* Sends so many bytes of the queue, as the kernel side sees it */
static void add_send(struct thread *t, __u32 bytes)
{
	struct conn *c = t->conn;
	struct queue *q = &c->out;
	bool is_record = !q->done; /* it is offered whole */
	bool follows = c->left == (q->done ? q->records[0].wire + 5 - q->done : 0);
	struct op *op = NULL;
	__u32 n;

	if (is_record)
		c->stream = true;
	if (c->stream) {
		op = add_op(t, OP_IO);
		op->dir = DIR_WRITE;
		op->addr = 16; /* of no use to anybody */
		op->len = bytes;
	}
	while (bytes) {
		if (op && !q->done && follows) {
			op->length[op->nrecords] = q->records[0].wire;
			op->ctype[op->nrecords++] = q->records[0].ctype;
		}
		n = q->records[0].wire + 5 - q->done;
		if (n > bytes) {
			q->done += bytes;
			if (c->stream)
				c->left = follows ? n - bytes : 0;
			return;
		}
		bytes -= n;
		q->done = 0;
		memmove(q->records, q->records + 1, --q->n * sizeof(q->records[0]));
	}
	c->left = 0;
}

/* Tries to send the queue in vain: the kernel side sees what was offered */
static void add_refused(struct thread *t)
{
	struct conn *c = t->conn;
	struct queue *q = &c->out;
	struct op *op;
	int i;

	if (!q->n || (q->done && !c->stream))
		return;
	c->stream = true;
	op = add_op(t, OP_IO);
	op->dir = DIR_WRITE;
	op->addr = 16;
	op->len = 0;
	if (c->left != (q->done ? q->records[0].wire + 5 - q->done : 0))
		return;
	for (i = q->done ? 1 : 0; i < q->n; i++) {
		op->length[op->nrecords] = q->records[i].wire;
		op->ctype[op->nrecords++] = q->records[i].ctype;
	}
}

static void push(struct queue *q, __u32 plain, __u32 wire, __u8 ctype)
{
	if (q->n < QUEUE)
		q->records[q->n++] = (struct record){plain, wire, ctype};
}

static __u32 bytes_in(const struct queue *q)
{
	__u32 bytes = 0;
	int i;

	for (i = 0; i < q->n; i++)
		bytes += q->records[i].wire + 5;
	return bytes - q->done;
}

static __u32 length(void)
{
	return w.nlengths ? w.lengths[below(w.nlengths)] : 1 + below(chance(90) ? 300 : 16384);
}

/* Tries to send what is queued: all, a part, or nothing */
static void flush(struct thread *t)
{
	__u32 bytes = bytes_in(&t->conn->out);

	if (!bytes)
		return;
	if (has(CONGESTED) && chance(30))
		bytes = chance(50) ? 0 : 1 + below(bytes);
	if (bytes)
		add_send(t, bytes);
	else
		add_refused(t);
}

/* Queues an encrypted record that is no application data; rustls encrypts it like any other */
static void push_hidden(struct thread *t, __u32 wire, __u8 ctype, __u64 key)
{
	struct conn *c = t->conn;

	if (c->model > MEMORY_BIO && c->out.n < QUEUE) {
		add_chunk(t, DIR_WRITE, 4096, wire - c->overhead, NESTED_NONE);
		t->ops[t->nops - 1].hidden = key;
	}
	push(&c->out, 0, wire, ctype);
}

static void turn_write(struct thread *t)
{
	struct conn *c = t->conn;
	int i, n = 1 + (chance(30) ? below(4) : 0);
	__u32 plain;

	for (i = 0; i < n && c->out.n < QUEUE - 1; i++) {
		plain = length();
		push(&c->out, plain, plain + c->overhead, 23);
		if (c->model == NESTED) {
			/* blocking, or tried again until all is sent */
			c->out.n = 0;
			add_chunk(t, DIR_WRITE, 4096, plain,
				  has(CONGESTED) && chance(20) ? NESTED_SOCKET : NESTED_RECORD);
		} else {
			add_chunk(t, DIR_WRITE, 4096, plain, NESTED_NONE);
			if (chance(30))
				flush(t);
		}
	}
	if (!has(LATE_FLUSH) || chance(50))
		flush(t);
}

/* Plaintext of a record that OpenSSL gives to the program */
static void add_openssl_reads(struct thread *t, __u32 plain, int nested)
{
	struct conn *c = t->conn;
	__u32 n;

	if (has(SMALL_READS) && chance(50)) {
		n = 1 + below(plain);
		add_chunk(t, DIR_READ, 8192, n, nested);
		plain -= n;
		nested = NESTED_NONE;
		if (plain && chance(30)) { /* the program comes for it later */
			c->unread = plain;
			return;
		}
	}
	if (plain)
		add_chunk(t, DIR_READ, 8192, plain, nested);
}

static void finish_reading(struct thread *t)
{
	struct conn *c = t->conn;

	if (c->unread) {
		add_chunk(t, DIR_READ, 8192, c->unread, NESTED_NONE);
		c->unread = 0;
	}
}

/* OpenSSL receives by itself */
static void turn_read_nested(struct thread *t)
{
	struct queue *q = &t->conn->in;

	finish_reading(t);
	while (q->n) {
		add_openssl_reads(t, q->records[0].plain, q->done ? NESTED_SOCKET : NESTED_RECORD);
		q->done = 0;
		memmove(q->records, q->records + 1, --q->n * sizeof(q->records[0]));
		if (t->conn->unread)
			return;
	}
}

/* Hands out what the buffer holds of whole records; what is left moves to its front */
static void decrypt(struct process *p, struct thread *t)
{
	struct conn *c = t->conn;
	struct queue *q = &c->in;
	__u64 copy, at = c->buffer;

	while (q->n && !c->unread && c->used >= q->records[0].wire + 5) {
		__u32 plain = q->records[0].plain, wire = q->records[0].wire;

		switch (c->model) {
		case IN_PLACE:
		case OWN_BUFFER:
			add_chunk(t, DIR_READ, (c->to_front ? c->buffer : at) + 5, plain,
				  NESTED_NONE);
			break;
		case COPIED:
			copy = get_memory(p, plain);
			add_chunk(t, DIR_READ, copy, plain, NESTED_NONE);
			add_free(t, copy);
			break;
		default:
			add_openssl_reads(t, plain, NESTED_NONE);
		}
		at += wire + 5;
		c->used -= wire + 5;
		q->done -= wire + 5;
		memmove(q->records, q->records + 1, --q->n * sizeof(q->records[0]));
	}
}

/* So much of it is there; a header comes whole, in some segment */
static __u32 arrived(__u32 bytes)
{
	return bytes > 5 && chance(20) ? 5 + below(bytes - 5) : bytes;
}

static void turn_read(struct process *p, struct thread *t)
{
	struct conn *c = t->conn;
	struct queue *q = &c->in; /* its done: bytes that were received, of all records */
	__u64 buffer, own;
	__u32 bytes;

	if (c->model == NESTED) {
		turn_read_nested(t);
		return;
	}
	finish_reading(t);
	decrypt(p, t);
	while (bytes_in(q) && !c->unread && t->nops < OPS / 2) {
		bytes = bytes_in(q);
		if (c->model == MEMORY_BIO || c->model == OWN_BUFFER) {
			bytes = arrived(bytes);
			own = get_memory(p, bytes);
			add_receive(t, own, bytes, q);
			add_free(t, own);
		}
		if (c->size - c->used < bytes && c->model == OWN_BUFFER) {
			buffer = get_memory(p, c->used + bytes);
			add_free(t, c->buffer);
			c->buffer = buffer;
			c->size = c->used + bytes;
		}
		if (c->model == IN_PLACE || c->model == COPIED) {
			if (c->used == c->size) {
				buffer = get_memory(p, c->size *= 2);
				add_free(t, c->buffer);
				c->buffer = buffer;
			}
			if (bytes > c->size - c->used)
				bytes = c->size - c->used;
			bytes = arrived(bytes);
			add_receive(t, c->buffer + c->used, bytes, q);
		}
		c->used += bytes;
		q->done += bytes;
		if (has(PAUSED) && c->seq[DIR_READ] &&
		    (c->model == MEMORY_BIO || c->model == OWN_BUFFER) && chance(20))
			return; /* the program is not ready for more: decrypted in a later turn */
		decrypt(p, t);
		if ((c->model == IN_PLACE || c->model == COPIED) && !c->used && c->size > 4096) {
			add_free(t, c->buffer);
			c->buffer = get_memory(p, c->size = 4096);
		}
		if (chance(10))
			return;
	}
}

/* The peer sends something */
static void arrive(struct conn *c)
{
	int i, n = 1 + (chance(30) ? below(4) : 0);
	__u32 plain;

	for (i = 0; i < n; i++) {
		plain = length();
		push(&c->in, plain, plain + c->overhead, 23);
	}
}

static int free_fd(const struct process *p)
{
	int fd = 3;

	while (p->fds[fd])
		fd++;
	return fd;
}

static bool owns_socket(const struct conn *c)
{
	return c->model == NESTED;
}

static struct conn *new_conn(struct process *p, struct thread *t)
{
	static const int overheads[] = {17, 17, 24, 16};
	struct conn *c = p->conns;

	while (c < p->conns + CONNS && c->live)
		c++;
	if (c == p->conns + CONNS || w.nuids == CHUNKS - 1)
		return NULL;
	*c = (struct conn){.live = true, .uid = ++w.nuids, .inode = ++w.last_inode, .owner = -1};
	c->model = chance(90) ? p->model : (enum model)below(MODELS);
	c->overhead = overheads[below(4)];
	c->to_front = chance(50);
	/* event loops have one thread, blocking code keeps its thread */
	if (c->model == MEMORY_BIO)
		c->owner = 0;
	else if (c->model == OWN_BUFFER || (c->model == NESTED && chance(50)))
		c->owner = t - p->threads;
	c->fd = free_fd(p);
	p->fds[c->fd] = c->inode;
	c->object[DIR_READ] = get_memory(p, 300);
	c->object[DIR_WRITE] = c->model <= MEMORY_BIO ? c->object[DIR_READ] : get_memory(p, 64);
	c->buffer = get_memory(p, c->size = 4096);
	return c;
}

/* The handshake: calls that nobody hooks; in TLS 1.3 some of it looks like data */
static void turn_open(struct process *p, struct thread *t)
{
	struct queue hello = {{{0, 200 + below(300), 22}}, .n = 1};
	struct queue finished = {.n = 0};
	struct conn *c = new_conn(p, t);
	__u32 mac = chance(50) ? 36 : 52; /* Finished, by the digest, in TLS 1.3 */

	if (!c)
		return;
	c->busy = true;
	t->conn = c;
	if (c->owner >= 0 && c->owner != t - p->threads)
		c->owner = t - p->threads;
	add_receive(t, c->buffer, 5 + hello.records[0].wire, &hello);
	push(&c->out, 0, 122, 22);
	push(&c->out, 0, 1, 20);
	if (c->overhead == 17) {
		/* under the handshake's keys, which nobody tells of */
		push(&c->out, 0, 700 + below(100), 23);
		push(&c->out, 0, mac + 17, 23);
		push(&finished, 0, 1, 20);
		push(&finished, 0, mac + 17, 23);
	} else {
		push_hidden(t, 16 + c->overhead, 22, c->object[DIR_WRITE]);
		push(&finished, 0, 66, 22);
		push(&finished, 0, 1, 20);
		push(&finished, 0, 16 + c->overhead, 22);
	}
	add_send(t, bytes_in(&c->out));
	add_receive(t, c->buffer, bytes_in(&finished), &finished);
	if (c->overhead == 17 && chance(50)) {
		/* a server's tickets are under those of the data */
		push_hidden(t, 100 + below(200), 23, c->object[DIR_WRITE]);
		add_send(t, bytes_in(&c->out));
	}
}

static void turn_close(const struct process *p, struct thread *t)
{
	struct conn *c = t->conn;
	bool seen = c->model > MEMORY_BIO || p->model <= MEMORY_BIO || c->seq[0] || c->seq[1];
	bool objects_first = chance(50);
	int i;

	finish_reading(t);
	if (seen && (!has(SEND_FAILS) || chance(70))) {
		/* the end is said in TLS too, and looks like data in TLS 1.3 */
		push_hidden(t, 2 + c->overhead, c->overhead == 17 ? 23 : 21, c->object[DIR_WRITE]);
		add_send(t, bytes_in(&c->out));
	} else if (chance(70)) {
		add_refused(t);
	}
	for (i = 0; i < 2; i++) {
		if (i == objects_first) {
			add_op(t, OP_FREE_FD);
			add_op(t, OP_CLOSE);
		} else {
			add_free(t, c->object[DIR_READ]);
			if (c->object[DIR_WRITE] != c->object[DIR_READ])
				add_free(t, c->object[DIR_WRITE]);
			add_free(t, c->buffer);
		}
	}
	c->closing = true;
}

static void new_process(struct process *p, int i)
{
	static const __u64 heap = 1 << 20; /* the same addresses in each */

	memset(p->conns, 0, sizeof(p->conns));
	memset(p->fds, 0, sizeof(p->fds));
	p->nblocks = 1;
	p->blocks[0] = (struct block){.start = heap, .size = 4 * heap};
	if (i < 0) /* again */
		return;
	p->tgid = 1000 + 100 * i;
	p->model = below(MODELS);
	p->nthreads = chance(40) ? 1 : 1 + below(THREADS);
	for (i = 0; i < THREADS; i++) {
		p->threads[i].nops = p->threads[i].next = 0;
		p->threads[i].conn = NULL;
	}
}

static void turn_exit(struct process *p, struct thread *t)
{
	int i;

	for (i = 0; i < p->nthreads; i++)
		if (p->threads[i].next < p->threads[i].nops)
			return; /* a moment later */
	add_op(t, OP_EXIT);
	new_process(p, -1);
}

static void begin_turn(struct process *p, struct thread *t)
{
	struct conn *c;
	__u32 what = below(100);

	t->nops = t->next = 0;
	t->conn = NULL;
	if (what < 12) {
		turn_open(p, t);
	} else if (what == 12 && has(EXITS) && chance(20)) {
		turn_exit(p, t);
	} else {
		c = &p->conns[below(CONNS)];
		if (!c->live || c->busy || (c->owner >= 0 && c->owner != t - p->threads))
			return;
		c->busy = true;
		t->conn = c;
		if (what < 45) {
			turn_write(t);
		} else if (what < 80) {
			if (chance(80))
				arrive(c);
			turn_read(p, t);
		} else if (what < 92) {
			flush(t);
		} else {
			turn_close(p, t);
		}
	}
	add_op(t, OP_END);
}

/* Connections that have been there for a while when the tracing begins */
static void older_conns(struct process *p)
{
	int i, n = 1 + below(CONNS - 2);
	struct conn *c;
	__u32 plain;

	for (i = 0; i < n; i++) {
		c = new_conn(p, &p->threads[below(p->nthreads)]);
		c->live = true;
		if (c->model != NESTED && has(CONGESTED) && chance(50)) {
			plain = length();
			push(&c->out, 0, plain + c->overhead, 23);
			if (has(UNALIGNED))
				c->out.done = below(plain + c->overhead + 5);
		}
		if (has(UNALIGNED) && chance(50)) {
			plain = length();
			push(&c->in, plain, plain + c->overhead, 23);
			c->in.done = 1 + below(plain + c->overhead + 4);
			if (!owns_socket(c)) {
				c->used = c->in.done;
				while (c->size <= c->used)
					c->size *= 2;
				free_memory(p, c->buffer);
				c->buffer = get_memory(p, c->size);
			}
		}
		if (c->model == NESTED && has(SMALL_READS) && chance(20))
			c->unread = 1 + below(100);
	}
}

static void new_world(__u64 seed, int features)
{
	int i;

	random_state = seed * 0x2545f4914f6cdd1d + 1;
	memset(w.seen, 0, (w.nuids + 1) * sizeof(w.seen[0]));
	memset(w.owner_of_number, 0, sizeof(w.owner_of_number));
	w.nchunks = w.nuids = w.losing = w.lost = 0;
	w.wrong = NULL;
	w.last_inode = 100;
	w.now = w.last_tick = 1000 * MS;
	w.features = random64() & random64() & ~UNALIGNED;
	if (features >= 0)
		w.features = features;
	w.nlengths = has(LATE_FLUSH) ? 0 : below(4);
	for (i = 0; i < w.nlengths; i++)
		w.lengths[i] = 1 + below(chance(80) ? 100 : 16384);
	w.nprocesses = 1 + (chance(20) ? below(PROCESSES) : 0);
	for (i = 0; i < w.nprocesses; i++) {
		new_process(&w.processes[i], i);
		if (has(OLDER))
			older_conns(&w.processes[i]);
	}
}

/* Time goes on, and is looked at every 20 ms */
static void pass(__u64 ns)
{
	while (w.now + ns - w.last_tick >= 20 * MS) {
		ns -= w.last_tick + 20 * MS - w.now;
		w.last_tick += 20 * MS;
		w.now = w.last_tick;
		correlate_tick(correlator, w.now);
	}
	w.now += ns;
}

/* Is the thread between an object's end and its socket's? (see above) */
static bool ending(const struct thread *t)
{
	int i;

	if (!t->next || !t->conn || !t->conn->closing || t->ops[t->next - 1].type < OP_FREE_FD)
		return false;
	for (i = t->next; i < t->nops; i++)
		if (t->ops[i].type == OP_CLOSE)
			return true;
	return false;
}

static void schedule(__u64 seed, int features)
{
	int turns, i, k;

	new_world(seed, features);
	correlator = correlate_new(on_chunk, NULL);
	if (!correlator)
		abort();
	turns = chance(1) ? 1000 : 20 + below(130);
	while (turns-- && !w.wrong) {
		struct process *p = &w.processes[below(w.nprocesses)];
		struct thread *t = &p->threads[below(p->nthreads)];

		if (t->next == t->nops)
			begin_turn(p, t);
		for (i = 1 + below(8); t->next < t->nops && (i > 0 || ending(t)); i--) {
			pass(below(40) * US);
			step(p, t);
		}
		if (has(STALLS) && chance(3))
			pass(below(200) * MS);
		if (has(LOST) && !w.losing && chance(2))
			w.losing = 1 + below(10);
	}
	for (i = 0; i < w.nprocesses; i++)
		for (k = 0; k < THREADS; k++)
			while (w.processes[i].threads[k].next < w.processes[i].threads[k].nops)
				step(&w.processes[i], &w.processes[i].threads[k]);
	correlate_flush(correlator);
	for (i = 0; i < w.nchunks; i++)
		if (!w.truth[i].out)
			wrong("a chunk did not come out");
	correlate_free(correlator);
}

static void show_features(void)
{
	int i;

	for (i = 0; i < FEATURES; i++)
		if (w.features & 1 << i)
			printf(" %s", feature_names[i]);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	unsigned long long first = 1, count = 100000, seed, nwrong = 0;
	int features = -1, i;
	double began = seconds();
	int opt;

	while ((opt = getopt(argc, argv, "n:f:v")) != -1) {
		if (opt == 'n') {
			count = strtoull(optarg, NULL, 0);
		} else if (opt == 'f') {
			features = strtol(optarg, NULL, 0);
		} else if (opt == 'v') {
			verbose = true;
		} else {
			fputs("usage: schedules_test [-v] [-n COUNT] [-f FEATURES] [FIRST_SEED]\n",
			      stderr);
			return 64;
		}
	}
	if (optind < argc)
		first = strtoull(argv[optind], NULL, 0);
	for (seed = first; seed < first + count; seed++) {
		schedule(seed, features);
		if (w.wrong && nwrong++ < 100) {
			printf("# seed %llu: %s;", seed, w.wrong);
			show_features();
			putchar('\n');
		}
	}
	ok(!nwrong, "schedules from seed %llu to %llu", first, seed - 1);
	note("%llu of %llu schedules went wrong", nwrong, count);
	for (i = 0; i < MODELS; i++)
		note("%-10s %9llu chunks, %5.2f %% without fd", model_names[i],
		     total.model_chunks[i],
		     100.0 * total.model_unknown[i] /
			     (total.model_chunks[i] + !total.model_chunks[i]));
	note("%llu facts, %.2f s", total.facts, seconds() - began);
	return tap_end();
}
