// SPDX-License-Identifier: GPL-2.0-only
/*
 * correlate.c - which socket does a chunk of plaintext belong to?
 *
 * In: facts, in the order in which the kernel saw them.  Out: chunks with a verdict.
 * Never a guess by nearness alone: the same thread serves many connections, writes to
 * its log between two of them, and may encrypt now and send later.  The evidence,
 * strongest first:
 *
 *  nested   the library called the socket itself, inside the call that took or gave
 *           the plaintext (OpenSSL on a socket).
 *  sent     a system call sent, or was refused, a TLS record whose length follows from
 *           that of a chunk that waits (rustls; OpenSSL on memory buffers).  Which of
 *           several connections it is: see object_of().
 *  received this thread's last receive brought a record of the length of what is read.
 *           If that lies where it was received (rustls 0.23 decrypts in place), this is
 *           sure; else it is a weak binding, which better evidence undoes, and no other
 *           connection may have such a record that nobody has read.
 *  binding  what one of these said of the same connection object before.
 *
 * A written chunk waits for its record for a while.  An object is known by its address,
 * which is given to the next connection when it is freed, so a binding ends with its
 * socket.
 */
#define _GNU_SOURCE
#include "correlate.h"

#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/queue.h>

#define MS 1000000ULL

/* evidence that did not come in this time does not come any more */
#define WAIT_MAX (100 * MS)
/* a chunk that is decided lets those before it go first, for so long */
#define ORDER_MAX (30 * MS)
/* Bounds of memory.  What was not used for longest is forgotten. */
#define OBJECTS_MAX	  65536
#define SOCKETS_MAX	  65536
#define THREADS_MAX	  16384
#define WAITING_BYTES_MAX (8 << 20)
#define KEPT_BYTES_MAX	  (8 << 20)
#define OUT_MAX		  1024 /* chunks that came out, and whose records may still be sent */

#define PLACES	     512		   /* where records ended that were received, per process */
#define PLACES_KEPT  (2 + 2 * RECORDS_MAX) /* of one receive, per thread */
#define CLOSED	     64			   /* sockets that are remembered, per process */
#define RECORDS_KEPT 32			   /* of what a socket received */

#define ALERT_SIZE	    2
#define FINISHED_SHA256	    (4 + 32 + 17) /* a record of TLS 1.3, with header and tag */
#define FINISHED_SHA384	    (4 + 48 + 17)
#define CTYPE_CHANGE_CIPHER 20
#define CTYPE_HANDSHAKE	    22
#define CTYPE_APPDATA	    23

#define HEADER_SIZE 5
/* bytes by which a record is longer than its plaintext, at least: header and tag */
#define TAG_SIZE    16
#define RECORD_MORE (HEADER_SIZE + TAG_SIZE)

/* a TLS record on a socket, as its header says */
struct record {
	__u8 ctype;
	bool inner;   /* it is plaintext of another one */
	bool partial; /* its end has not been received */
	__u8 cipher;  /* of its connection, then: enum cipher */
	__u16 length;
};

/* What a connection encrypts with, as far as lengths tell: how much is added */
enum cipher {
	CIPHER_UNKNOWN, /* one of those below: CBC fits too many lengths to be taken for granted */
	CIPHER_CBC,
	CIPHER_CHACHA = 16, /* tag */
	CIPHER_TLS13 = 17,  /* content type and tag */
	CIPHER_GCM = 24,    /* explicit nonce and tag */
};

/* a record ended at this address when it was received, or within so many bytes from it on */
struct place {
	__u64 addr;
	__u64 bytes;
	__u64 sock;
};

/* the first member of all that lives in a tree is the number that it is found by */

struct socket {
	__u64 inode;
	struct process *process;
	TAILQ_ENTRY(socket) used;
	LIST_HEAD(, object) objects; /* that are bound to it */
	struct endpoints ends;
	__u64 conn;
	__u64 since; /* when it was connected; 0: it was before we looked */
	/* records of application data that were received and not read as plaintext yet */
	struct record records[RECORDS_KEPT];
	size_t nrecords;
	__u8 cipher;	 /* enum cipher */
	bool accepted;	 /* it is a server's: its first message came in */
	bool changed[2]; /* the last record, by direction, was: from now on encrypted */
	__u64 half[2];	 /* plaintext that may be left of the one read last, by its inner */
	__u64 unknown;	 /* bytes behind those that were not looked at */
	size_t offered;	 /* records at the head of its next write that it refused before */
	int fd[2];	 /* used last, by direction; -1: none */
};

/* a descriptor of a socket that was seen in use */
struct descriptor {
	__u64 fd;
	struct socket *socket;
};

/* a connection object of a library; rustls has one for each direction */
struct object {
	__u64 key;
	struct process *process;
	TAILQ_ENTRY(object) used;
	struct socket *socket; /* it is bound to, or NULL */
	LIST_ENTRY(object) bound;
	TAILQ_HEAD(, waiting) waiting; /* its undecided chunks, in order */
	struct chunk *kept;	       /* what its next write may be without, or NULL */
	__u64 conn;
	__u64 decided;	    /* when a chunk was last */
	__u64 pieces_after; /* what was received at that time these bytes of a record were read: */
	__u64 pieces;
	__u64 before_loss;   /* inode of the socket that it was bound to, 0: none */
	__u64 candidate;     /* ... that what was read last seems to have come on */
	__u64 inner_left[2]; /* bytes of an inner TLS record that its next chunks hold */
	bool owner;	     /* of its socket: evidence is nested */
	bool weak;	     /* bound by order alone */
	bool is_rustls;
	bool reads; /* something was read from it */
	bool inner; /* its records are another object's plaintext */
};

struct thread {
	__u64 tid;
	__u64 received_on;	/* inode of the socket, 0: none */
	__u64 received_at;	/* when */
	__u64 encrypted_for;	/* key of the object, 0: none */
	__u64 encrypted_before; /* the one before, if it was another */
	__u64 last_io;		/* when it last sent or received */
	bool adjacent;		/* it has done nothing else since it encrypted */
	bool seen;		/* a chunk of it */
	bool early; /* its last receive was before that: what it reads first may be older */
	struct place places[PLACES_KEPT]; /* a ring */
	size_t nplaces;
};

/* a socket whose last known descriptor was closed: it may have another */
struct closed {
	__u64 sock;
	__u64 conn;
};

/* a chunk of which not all parts have come: they come from its thread, in order */
struct partial {
	LIST_ENTRY(partial) others;
	struct process *process;
	struct chunk chunk;
};

struct process {
	__u64 tgid;
	struct correlator *correlator;
	void *objects; /* trees */
	void *sockets;
	void *descriptors;
	void *threads;
	size_t nthreads;
	struct place places[PLACES]; /* a ring */
	size_t nplaces;
	struct closed closed[CLOSED]; /* a ring as well */
	size_t nclosed;
	bool has_openssl;
	bool seen; /* a chunk of it */
};

/* a chunk that is not printed yet */
struct waiting {
	TAILQ_ENTRY(waiting) queue;
	TAILQ_ENTRY(waiting) same; /* of this object; while undecided */
	struct object *object;	   /* NULL once decided */
	__u64 since;		   /* it waits for its evidence, or since that came for its turn */
	bool doubtful;		   /* a record was this one's or another's: it may be sent */
	bool out;		   /* it came out, and its record may still be sent */
	struct verdict verdict;
	struct endpoints ends;
	struct chunk chunk; /* with its data, hence last */
};

TAILQ_HEAD(waiting_queue, waiting);

struct correlator {
	correlate_fn fn;
	void *ctx;
	void *processes;
	TAILQ_HEAD(, object) objects; /* the one unused for longest first */
	TAILQ_HEAD(, socket) sockets;
	struct waiting_queue queue; /* in order of the facts */
	struct waiting_queue out;   /* what came out already and waits for its record */
	size_t nout;
	LIST_HEAD(, partial) partials;
	size_t nobjects;
	size_t nsockets;
	size_t waiting_bytes;
	size_t kept_bytes;
	__u64 last_conn;
	__u32 lost; /* as the last fact said */
};

static int by_number(const void *a, const void *b)
{
	__u64 x = *(const __u64 *)a, y = *(const __u64 *)b;

	return x < y ? -1 : x > y;
}

static void *find(void *const *tree, __u64 number)
{
	void *node = tfind(&number, tree, by_number);

	return node ? *(void **)node : NULL;
}

/* What the tree has at number, else a new zeroed thing of size bytes; NULL: no memory */
static void *find_or_add(void **tree, __u64 number, size_t size, bool *added)
{
	__u64 *thing = find(tree, number);

	*added = false;
	if (thing)
		return thing;
	thing = calloc(1, size);
	if (!thing)
		return NULL;
	*thing = number;
	if (!tsearch(thing, tree, by_number)) {
		free(thing);
		return NULL;
	}
	*added = true;
	return thing;
}

static size_t size_of(const struct waiting *w)
{
	return sizeof(*w) + w->chunk.captured;
}

/* Chunks and their way out */

/* What o is bound to now; not a socket that was connected after the chunk was there: then
 * the chunk is of an earlier object at the same address, and was never sent */
static void set_verdict(struct verdict *v, struct correlator *c, struct object *o,
			const struct chunk *chunk)
{
	struct socket *s = o ? o->socket : NULL;

	v->fd = -1;
	v->ends = NULL;
	if (!o || (s && chunk->fact.time < s->since)) {
		v->conn = ++c->last_conn;
		return;
	}
	if (!o->conn)
		o->conn = s && s->conn ? s->conn : ++c->last_conn;
	v->conn = o->conn;
	if (!s)
		return;
	if (!s->conn)
		s->conn = o->conn;
	v->fd = s->fd[chunk->dir] >= 0 ? s->fd[chunk->dir] : s->fd[!chunk->dir];
	v->ends = &s->ends;
}

static void hand_out(struct correlator *c, const struct chunk *chunk, struct verdict *v)
{
	static const struct endpoints unknown;

	if (!v->ends)
		v->ends = &unknown;
	if (!chunk->hidden)
		c->fn(chunk, v, c->ctx);
}

static void let_go(struct correlator *c, struct waiting *w)
{
	TAILQ_REMOVE(&c->queue, w, queue);
	c->waiting_bytes -= size_of(w);
	hand_out(c, &w->chunk, &w->verdict);
	free(w);
}

/* The verdict on a chunk that waits is what its object is bound to now */
static void decide(struct correlator *c, struct waiting *w, __u64 now)
{
	struct object *o = w->object;

	if (w->out) { /* has had its verdict: it is not waited for any more */
		TAILQ_REMOVE(&c->out, w, queue);
		TAILQ_REMOVE(&o->waiting, w, same);
		c->nout--;
		free(w);
		return;
	}
	set_verdict(&w->verdict, c, o, &w->chunk);
	if (w->verdict.ends) { /* the socket may be gone before the chunk is printed */
		w->ends = *w->verdict.ends;
		w->verdict.ends = &w->ends;
	}
	TAILQ_REMOVE(&o->waiting, w, same);
	w->object = NULL;
	/* not before those of its object that were decided before it */
	w->since = o->decided = MAX(o->decided, now);
}

/*
 * It has waited for too long.  What was encrypted may be sent still, and its record is
 * nobody else's then.
 */
static void give_up(struct correlator *c, struct waiting *w, __u64 now)
{
	struct object *o = w->object;
	struct waiting *record = NULL;

	if (w->chunk.dir == DIR_WRITE && !o->owner)
		record = malloc(sizeof(*record));
	if (record) {
		*record = *w;
		record->chunk.captured = 0;
		record->out = true;
		TAILQ_INSERT_BEFORE(w, record, same);
		TAILQ_INSERT_TAIL(&c->out, record, queue);
		if (++c->nout > OUT_MAX)
			decide(c, TAILQ_FIRST(&c->out), now);
	}
	decide(c, w, now);
}

static void decide_all(struct correlator *c, struct object *o, __u64 now)
{
	while (!TAILQ_EMPTY(&o->waiting))
		decide(c, TAILQ_FIRST(&o->waiting), now);
}

/* What is decided and has nothing undecided before it comes out */
static void let_go_in_order(struct correlator *c)
{
	struct waiting *w;

	while ((w = TAILQ_FIRST(&c->queue)) && !w->object)
		let_go(c, w);
}

/* Takes the chunk in.  object: it is undecided and waits for o's evidence */
static void enqueue(struct correlator *c, const struct chunk *chunk, struct object *o,
		    bool undecided)
{
	struct waiting *oldest, *w = NULL;
	struct verdict v;

	while (c->waiting_bytes > WAITING_BYTES_MAX) { /* the oldest goes as it is */
		oldest = TAILQ_FIRST(&c->queue);
		if (oldest->object)
			give_up(c, oldest, chunk->fact.time);
		let_go(c, oldest);
	}
	if (undecided || !TAILQ_EMPTY(&c->queue))
		w = malloc(sizeof(*w) + chunk->captured);
	if (!w) {
		set_verdict(&v, c, o, chunk);
		hand_out(c, chunk, &v);
		return;
	}
	memcpy(&w->chunk, chunk, sizeof(*chunk) + chunk->captured);
	w->object = o;
	w->doubtful = w->out = false;
	w->since = chunk->fact.time;
	c->waiting_bytes += size_of(w);
	TAILQ_INSERT_TAIL(&c->queue, w, queue);
	if (o)
		TAILQ_INSERT_TAIL(&o->waiting, w, same);
	if (o && !undecided)
		decide(c, w, chunk->fact.time);
	if (!o)
		set_verdict(&w->verdict, c, NULL, chunk);
}

/* Objects, sockets, processes: found, made, forgotten */

static void forget_kept(struct object *o)
{
	if (o->kept)
		o->process->correlator->kept_bytes -= o->kept->captured;
	free(o->kept);
	o->kept = NULL;
}

static void unbind(struct object *o)
{
	if (o->socket)
		LIST_REMOVE(o, bound);
	o->socket = NULL;
	o->owner = o->inner = o->weak = o->reads = false;
	o->conn = 0;
}

static void free_object(void *object)
{
	struct object *o = object;
	struct correlator *c = o->process->correlator;

	TAILQ_REMOVE(&c->objects, o, used);
	c->nobjects--;
	unbind(o);
	forget_kept(o);
	while (!TAILQ_EMPTY(&o->waiting)) /* of those that did not come out there is none */
		decide(c, TAILQ_FIRST(&o->waiting), 0);
	free(o);
}

static void drop_object(struct object *o, __u64 now)
{
	decide_all(o->process->correlator, o, now);
	tdelete(o, &o->process->objects, by_number);
	free_object(o);
}

static void drop_descriptor(struct process *p, __u64 fd)
{
	struct descriptor *d = find(&p->descriptors, fd);

	if (!d)
		return;
	tdelete(d, &p->descriptors, by_number);
	free(d);
}

static void free_socket(void *socket)
{
	struct socket *s = socket;
	struct correlator *c = s->process->correlator;

	TAILQ_REMOVE(&c->sockets, s, used);
	c->nsockets--;
	free(s);
}

static void drop_socket(struct socket *s, __u64 now)
{
	struct process *p = s->process;
	struct object *o;
	size_t i;

	while ((o = LIST_FIRST(&s->objects))) {
		decide_all(p->correlator, o, now);
		unbind(o);
	}
	p->closed[p->nclosed++ % CLOSED] = (struct closed){s->inode, s->conn};
	for (i = 0; i < PLACES; i++)
		if (p->places[i].sock == s->inode)
			p->places[i].sock = 0;
	for (i = 0; i < 2; i++)
		if (s->fd[i] >= 0)
			drop_descriptor(p, s->fd[i]);
	tdelete(s, &p->sockets, by_number);
	free_socket(s);
}

static void feed_chunk(struct process *p, const struct chunk *chunk);

static void complete(struct partial *partial)
{
	LIST_REMOVE(partial, others);
	feed_chunk(partial->process, &partial->chunk);
	free(partial);
}

static void complete_all(struct process *p)
{
	struct partial *partial, *next;

	for (partial = LIST_FIRST(&p->correlator->partials); partial; partial = next) {
		next = LIST_NEXT(partial, others);
		if (partial->process == p) /* the rest was lost: it stays cut */
			complete(partial);
	}
}

static void drop_process(struct process *p, __u64 now)
{
	struct correlator *c = p->correlator;
	struct waiting *w;

	complete_all(p);
	TAILQ_FOREACH(w, &c->queue, queue)
		if (w->object && w->object->process == p)
			decide(c, w, now);
	tdestroy(p->objects, free_object);
	tdestroy(p->sockets, free_socket);
	tdestroy(p->descriptors, free);
	tdestroy(p->threads, free);
	tdelete(p, &c->processes, by_number);
	free(p);
}

static void drop_all(struct correlator *c, __u64 now)
{
	while (c->processes)
		drop_process(*(struct process **)c->processes, now);
}

static void forget_threads(struct process *p)
{
	tdestroy(p->threads, free);
	p->threads = NULL;
	p->nthreads = 0;
}

static void doubt_process(const void *node, VISIT which, void *unused)
{
	struct process *p = *(struct process *const *)node;

	(void)unused;
	if (which != postorder && which != leaf)
		return;
	complete_all(p);
	forget_threads(p);
}

/*
 * Facts were lost, perhaps that a socket was closed.  So nothing is known any more; but
 * what was known is worth as much as a first piece of evidence.
 */
static void doubt_all(struct correlator *c, __u64 now)
{
	struct waiting *w;
	struct object *o;

	twalk_r(c->processes, doubt_process, NULL);
	TAILQ_FOREACH(w, &c->queue, queue)
		if (w->object)
			decide(c, w, now);
	TAILQ_FOREACH(o, &c->objects, used)
		if (o->socket)
			o->before_loss = o->socket->inode;
	while (!TAILQ_EMPTY(&c->sockets))
		drop_socket(TAILQ_FIRST(&c->sockets), now);
}

static struct process *get_process(struct correlator *c, __u32 tgid)
{
	bool added;
	struct process *p = find_or_add(&c->processes, tgid, sizeof(*p), &added);

	if (p)
		p->correlator = c;
	return p;
}

static struct object *get_object(struct process *p, __u64 key, __u64 now)
{
	struct correlator *c = p->correlator;
	bool added;
	struct object *o;

	if (c->nobjects >= OBJECTS_MAX)
		drop_object(TAILQ_FIRST(&c->objects), now);
	o = find_or_add(&p->objects, key, sizeof(*o), &added);
	if (!o)
		return NULL;
	if (added) {
		o->process = p;
		TAILQ_INIT(&o->waiting);
		c->nobjects++;
	} else {
		TAILQ_REMOVE(&c->objects, o, used);
	}
	TAILQ_INSERT_TAIL(&c->objects, o, used);
	return o;
}

/* A descriptor no longer names the socket that it did */
static void descriptor_gone(struct process *p, int fd, __u64 now)
{
	struct descriptor *d = find(&p->descriptors, fd);
	struct socket *s;
	int i;

	if (!d)
		return;
	s = d->socket;
	if ((s->fd[0] < 0 || s->fd[0] == fd) && (s->fd[1] < 0 || s->fd[1] == fd)) {
		drop_socket(s, now);
		return;
	}
	for (i = 0; i < 2; i++)
		if (s->fd[i] == fd)
			s->fd[i] = -1;
	drop_descriptor(p, fd);
}

/* The socket with this inode, in use through fd in this direction */
static struct socket *get_socket(struct process *p, __u64 inode, int fd, int dir,
				 const struct endpoints *ends, __u64 now)
{
	struct correlator *c = p->correlator;
	struct descriptor *d = find(&p->descriptors, fd);
	struct socket *s;
	size_t i;
	bool added;

	if (d && d->socket->inode != inode)
		descriptor_gone(p, fd, now);
	if (c->nsockets >= SOCKETS_MAX)
		drop_socket(TAILQ_FIRST(&c->sockets), now);
	s = find_or_add(&p->sockets, inode, sizeof(*s), &added);
	if (!s)
		return NULL;
	if (added) {
		s->process = p;
		s->fd[0] = s->fd[1] = -1;
		for (i = 0; i < CLOSED; i++)
			if (p->closed[i].sock == inode)
				s->conn = p->closed[i].conn;
		c->nsockets++;
	} else {
		TAILQ_REMOVE(&c->sockets, s, used);
	}
	TAILQ_INSERT_TAIL(&c->sockets, s, used);
	s->ends = *ends;
	if (s->fd[dir] != fd) {
		if (s->fd[dir] >= 0 && s->fd[dir] != s->fd[!dir])
			drop_descriptor(p, s->fd[dir]);
		s->fd[dir] = fd;
		d = find_or_add(&p->descriptors, fd, sizeof(*d), &added);
		if (d)
			d->socket = s;
	}
	return s;
}

static struct thread *get_thread(struct process *p, __u32 tid)
{
	struct thread *t;
	bool added;

	if (p->nthreads >= THREADS_MAX && !find(&p->threads, tid)) {
		/* only order evidence is forgotten with them */
		forget_threads(p);
	}
	t = find_or_add(&p->threads, tid, sizeof(*t), &added);
	p->nthreads += added;
	return t;
}

static void bind(struct object *o, struct socket *s, __u64 now)
{
	struct correlator *c = o->process->correlator;
	struct waiting *w, *next;

	o->weak = false;
	if (o->socket == s)
		return;
	if (o->socket)
		unbind(o);
	o->socket = s;
	o->before_loss = 0;
	LIST_INSERT_HEAD(&s->objects, o, bound);
	/* a number that is printed already stays as long as it can */
	if (s->conn)
		o->conn = s->conn;
	else
		s->conn = o->conn;
	/* what was written waits for its record; what was read waited for this */
	for (w = TAILQ_FIRST(&o->waiting); w; w = next) {
		next = TAILQ_NEXT(w, same);
		if (w->chunk.dir == DIR_READ)
			decide(c, w, now);
	}
}

/* Evidence */

/* CBC: initial vector of 16, a digest of 20 to 48, padding up to a multiple of 16, with the
 * digest within that or behind it (encrypt-then-MAC) */
static bool fits_cbc(__u64 len, __u16 record)
{
	static const unsigned int digests[] = {20, 32, 48};
	size_t i;

	for (i = 0; i < sizeof(digests) / sizeof(*digests); i++)
		if (record == 16 + ((len + digests[i]) / 16 + 1) * 16 ||
		    record == 16 + (len / 16 + 1) * 16 + digests[i])
			return true;
	return false;
}

/*
 * Can the record hold this plaintext?  TLS 1.3 says of all that is encrypted that it is
 * application data, TLS 1.2 tells what is not.
 */
static bool fits(const struct chunk *c, struct record r)
{
	bool appdata = r.ctype == CTYPE_APPDATA;
	__u64 more = r.length - c->len;

	if (r.length <= c->len || (!appdata && !c->hidden))
		return false;
	if (more == CIPHER_TLS13 ? !appdata : c->hidden && appdata)
		return false;
	if (r.cipher == CIPHER_CBC)
		return fits_cbc(c->len, r.length);
	if (r.cipher != CIPHER_UNKNOWN)
		return more == r.cipher;
	return more == CIPHER_TLS13 || more == CIPHER_GCM || more == CIPHER_CHACHA;
}

/*
 * The record after the change of cipher tells which one it is: in TLS 1.3 all looks like
 * application data; in TLS 1.2 it is Finished, 16 bytes.  (After a HelloRetryRequest it
 * is another hello, which is longer.)
 */
static void learn_cipher(struct socket *s, int dir, __u8 ctype, __u16 length)
{
	if (s->changed[dir] && ctype == CTYPE_APPDATA)
		s->cipher = CIPHER_TLS13;
	else if (s->changed[dir] && ctype == CTYPE_HANDSHAKE && length == 16 + CIPHER_GCM)
		s->cipher = CIPHER_GCM;
	else if (s->changed[dir] && ctype == CTYPE_HANDSHAKE && length == 16 + CIPHER_CHACHA)
		s->cipher = CIPHER_CHACHA;
	else if (s->changed[dir] && ctype == CTYPE_HANDSHAKE && fits_cbc(16, length))
		s->cipher = CIPHER_CBC;
	s->changed[dir] = ctype == CTYPE_CHANGE_CIPHER;
}

/* The first chunk of o that waits for such a record on s: none from before it was connected */
static struct waiting *fitting(struct object *o, struct socket *s, struct record r)
{
	struct waiting *w, *out = NULL;

	TAILQ_FOREACH(w, &o->waiting, same) {
		if (w->chunk.dir != DIR_WRITE || w->chunk.fact.time < s->since ||
		    !fits(&w->chunk, r))
			continue;
		if (!w->out)
			return w;
		if (!out)
			out = w;
	}
	return out;
}

/* The object of s that has waited for such a record for longest: rustls has one for each key, and
 * what the last one wrote goes before.  What came out already goes behind what did not. */
static struct object *bound_fitting(struct socket *s, struct record r)
{
	struct object *o, *found = NULL;
	struct waiting *w, *first = NULL;

	LIST_FOREACH(o, &s->objects, bound) {
		w = fitting(o, s, r);
		if (!w ||
		    (first && (first->out == w->out ? first->chunk.fact.time <= w->chunk.fact.time
						    : w->out)))
			continue;
		first = w;
		found = o;
	}
	return found;
}

/* May this object, whose socket is not known for sure, have written the record? */
static bool unbound(struct object *o, struct socket *s, struct record r)
{
	return o && (!o->socket || o->weak) && fitting(o, s, r);
}

/* Does the socket belong to another object?  OpenSSL has one for both directions, while
 * rustls makes one for each direction and each key. */
static bool is_taken(struct socket *s, struct object *by)
{
	struct object *o;

	LIST_FOREACH(o, &s->objects, bound)
		if (o != by && !o->inner && (!o->is_rustls || !by->is_rustls))
			return true;
	return false;
}

static struct record record_of(const struct socket *s, const struct io *io, size_t i)
{
	return (struct record){
		.ctype = io->ctype[i],
		.cipher = s->cipher,
		.length = io->length[i],
	};
}

/* Do o's chunks explain all that was sent from the record with this number on? */
static bool explains(struct object *o, struct socket *s, const struct io *io, size_t i)
{
	struct waiting *w = fitting(o, s, record_of(s, io, i));

	while (w && ++i < io->nrecords) {
		if (io->ctype[i] != CTYPE_APPDATA && !o->is_rustls)
			continue; /* OpenSSL's other messages are not seen */
		do
			w = TAILQ_NEXT(w, same);
		while (w && w->chunk.dir != DIR_WRITE);
		if (w && !fits(&w->chunk, record_of(s, io, i)))
			return false;
	}
	return w;
}

/*
 * The object whose plaintext this record on s holds, or NULL.  One that is bound to s goes
 * first, then one that was before facts were lost.  Else it is one for which this thread encrypted
 * something that fits: the only one of the process, or, if it encrypted just now and for no other,
 * that one though other threads may be about to send the like; and it must explain all that was
 * sent in this call.  What might be meant and was not chosen is in doubt from then on, and says
 * nothing about a later record.
 *
 * OpenSSL's handshake is not seen, and may have sent a record of that length itself, so
 * there it must be the object of the thread's last call; nor are its alerts, which end
 * most connections.
 */
static struct object *object_of(struct process *p, struct socket *s, struct thread *t,
				const struct io *io, size_t i, bool stranger, bool *nobody)
{
	struct record r = record_of(s, io, i);
	struct object *o, *ours = NULL;
	size_t theirs = 0, n = 0;
	struct waiting *w;
	bool fresh = false, out = false;

	o = bound_fitting(s, r);
	if (o)
		return o;
	TAILQ_FOREACH(w, &p->correlator->queue, queue) {
		o = w->object;
		if (!o || o->process != p || w->chunk.dir != DIR_WRITE || !fits(&w->chunk, r) ||
		    w->chunk.fact.time < s->since || (o->socket && !o->weak))
			continue;
		if (p->has_openssl && !w->chunk.hidden && r.length == ALERT_SIZE + CIPHER_TLS13)
			continue;
		if ((o->before_loss == s->inode || o->candidate == s->inode) && !is_taken(s, o))
			return o;
		if (!t || w->chunk.fact.tid != t->tid) {
			theirs++;
			continue;
		}
		n += o != ours;
		ours = o;
		fresh |= !w->doubtful;
	}
	*nobody = !n && !theirs;
	TAILQ_FOREACH(w, &p->correlator->out, queue)
		out |= w->object->process == p && w->object != ours && fits(&w->chunk, r) &&
		       w->chunk.fact.time >= s->since && (!w->object->socket || w->object->weak);
	if (ours && is_taken(s, ours))
		ours = NULL;
	/* a record before it was nobody's: unless it was OpenSSL's last of the handshake, sent
	 * together with this one just now, whose is this one then? */
	if (ours && stranger && (ours->is_rustls || !t->adjacent || !s->since))
		ours = NULL;
	if (ours && n == 1 && !out && fresh && (ours->key == t->encrypted_for || ours->is_rustls) &&
	    ((!theirs && s->since) || (t->adjacent && ours->key == t->encrypted_for)) &&
	    explains(ours, s, io, i))
		return ours;
	TAILQ_FOREACH(w, &p->correlator->queue, queue)
		if ((n || stranger || theirs > 1) && w->object && w->object->process == p &&
		    fits(&w->chunk, r))
			w->doubtful = true;
	return NULL;
}

/* o went over s in a record of this length.  Returns the chunk that the record held, NULL if
 * that came out already. */
static struct waiting *sent(struct object *o, struct socket *s, struct record r, __u64 now)
{
	struct correlator *c = o->process->correlator;
	struct waiting *last = fitting(o, s, r), *next;
	struct object *other;
	bool out = last->out;

	/* what was never sent to an earlier socket, by an object at the same address */
	while ((next = TAILQ_FIRST(&o->waiting)) != last && next->chunk.fact.time < s->since)
		decide(c, next, now);
	bind(o, s, now);
	/* those before it went by unseen: before we looked, or in a call we lost; of rustls, what
	 * was written with other keys as well */
	LIST_FOREACH(other, &s->objects, bound)
		while (other != o && other->is_rustls && o->is_rustls && other->inner == o->inner &&
		       (next = TAILQ_FIRST(&other->waiting)) && next->chunk.dir == DIR_WRITE &&
		       next->chunk.fact.time < last->chunk.fact.time)
			decide(c, next, now);
	do {
		next = TAILQ_FIRST(&o->waiting);
		decide(c, next, now);
	} while (next != last);
	return out ? NULL : last; /* in the queue until let_go_in_order() */
}

/*
 * TLS inside TLS, as through an HTTPS proxy: what the outer session takes as plaintext is
 * records of the inner one, which so go over the same socket.  Plaintext that looks like a
 * record may be anybody's, so this is for an object only that is known to be inner, or
 * for which this thread encrypted just before and that no socket is known of.
 */
static struct object *inner_of(struct process *p, struct object *outer, struct thread *t,
			       struct record r)
{
	struct object *o;

	LIST_FOREACH(o, &outer->socket->objects, bound)
		if (o->inner && o != outer && fitting(o, outer->socket, r))
			return o;
	o = t && t->encrypted_before ? find(&p->objects, t->encrypted_before) : NULL;
	return o != outer && unbound(o, outer->socket, r) ? o : NULL;
}

static void drop_record(struct socket *s, struct record *r)
{
	s->nrecords--;
	memmove(r, r + 1, (s->records + s->nrecords - r) * sizeof(*r));
}

/* A record came in.  If nobody reads them the oldest are not told apart any more. */
static void push_record(struct socket *s, struct record r)
{
	if (r.ctype != CTYPE_APPDATA)
		return;
	if (s->nrecords == RECORDS_KEPT) {
		s->unknown += HEADER_SIZE + s->records[0].length;
		drop_record(s, s->records);
	}
	s->records[s->nrecords++] = r;
}

/* The record that came in last, of the one session or the other of TLS inside TLS, if its
 * end was still to come; else NULL */
static struct record *unfinished(struct socket *s, bool inner)
{
	size_t i = s->nrecords;

	while (i-- > 0)
		if (s->records[i].inner == inner)
			return s->records[i].partial ? &s->records[i] : NULL;
	return NULL;
}

/* The record with this number was read; those before it held no application data, unless
 * they are of the other session of TLS inside TLS */
static void pop_record(struct socket *s, size_t number)
{
	bool inner = s->records[number].inner;
	size_t i, kept = 0;

	for (i = 0; i < s->nrecords; i++)
		if (i > number || s->records[i].inner != inner)
			s->records[kept++] = s->records[i];
	s->nrecords = kept;
}

static void look_inside(struct process *p, struct object *outer, struct thread *t,
			const struct chunk *c, __u64 now)
{
	__u64 at = outer->inner_left[c->dir];
	struct record r, *before;
	struct object *o;
	const __u8 *h;

	outer->inner_left[c->dir] = 0;
	if (!outer->socket)
		return;
	before = c->dir == DIR_READ ? unfinished(outer->socket, true) : NULL;
	if (before && at <= c->len)
		before->partial = false;
	while (at + HEADER_SIZE <= c->captured) {
		h = c->data + at;
		if (h[0] < 20 || h[0] > CTYPE_APPDATA || h[1] != 3 || h[2] > 4)
			return;
		r = (struct record){
			.ctype = h[0],
			.inner = true,
			.length = h[3] << 8 | h[4],
		};
		r.partial = at + HEADER_SIZE + r.length > c->len;
		if (c->dir == DIR_READ)
			push_record(outer->socket, r);
		o = c->dir == DIR_WRITE ? inner_of(p, outer, t, r) : NULL;
		if (o) {
			sent(o, outer->socket, r, now);
			o->inner = true;
		}
		at += HEADER_SIZE + r.length;
	}
	if (at > c->len)
		outer->inner_left[c->dir] = at - c->len;
}

static void written(struct process *p, struct socket *s, struct thread *t, const struct io *io)
{
	__u64 now = io->fact.time, rest = io->rest;
	struct object *o, *last = NULL;
	bool nobody, stranger = false;
	struct waiting *w;
	struct record r;
	size_t i;

	for (i = s->offered; i < io->nrecords && i < RECORDS_MAX; i++) {
		learn_cipher(s, DIR_WRITE, io->ctype[i], io->length[i]);
		r = record_of(s, io, i);
		o = object_of(p, s, t, io, i, stranger, &nobody);
		if (!o) {
			stranger |= nobody && r.ctype == CTYPE_APPDATA;
			continue;
		}
		w = sent(o, s, r, now);
		if (w)
			look_inside(p, o, t, &w->chunk, now);
		last = o;
	}
	/* what was refused is offered again, and has been looked at then */
	if (!io->bytes)
		s->offered = MAX(s->offered, io->nrecords);
	else
		s->offered -= MIN(s->offered, io->nrecords);
	/* one call is one connection's: what went on behind those records is its next chunks */
	while (last && (w = TAILQ_FIRST(&last->waiting)) && rest >= w->chunk.len + RECORD_MORE) {
		rest -= w->chunk.len + RECORD_MORE;
		nobody = w->out;
		decide(p->correlator, w, now);
		if (!nobody)
			look_inside(p, last, t, &w->chunk, now);
	}
}

static void push_place(struct socket *s, struct thread *t, __u64 addr, __u64 bytes)
{
	struct process *p = s->process;
	struct place place = {addr, bytes, s->inode};

	p->places[p->nplaces++ % PLACES] = place;
	if (t)
		t->places[t->nplaces++ % PLACES_KEPT] = place;
}

/*
 * Is the record, the first one behind the change of cipher, of the handshake and no data?  At a
 * client always; at a server it is Finished, unless it has said nothing yet or the length is
 * another one: early data.
 */
static bool ends_handshake(const struct socket *s, __u16 length)
{
	return s->changed[DIR_READ] && s->fd[DIR_WRITE] >= 0 &&
	       (!s->accepted || length == FINISHED_SHA256 || length == FINISHED_SHA384);
}

/*
 * Follows the records through the bytes that were received.  Several of them are decrypted
 * where they are, or one after the other at the front, to which rustls 0.23 moves what
 * is left.
 */
static void received(struct socket *s, struct thread *t, const struct io *io)
{
	__u64 at = io->lead, front = io->addr;
	struct record r, *before = unfinished(s, false);
	bool data;
	size_t i;

	if (before) {
		front += at - HEADER_SIZE - before->length;
		if (at <= io->bytes)
			before->partial = false;
		if (!at) /* its end went by splice() */
			drop_record(s, before);
	}
	if (at && at <= io->bytes)
		push_place(s, t, io->addr + at, 0);
	for (i = 0; i < io->nrecords && i < RECORDS_MAX; i++) {
		data = !ends_handshake(s, io->length[i]);
		learn_cipher(s, DIR_READ, io->ctype[i], io->length[i]);
		r = record_of(s, io, i);
		at += HEADER_SIZE + r.length;
		r.partial = at > io->bytes;
		if (!r.partial) {
			push_place(s, t, io->addr + at, 0);
			push_place(s, t, front + HEADER_SIZE + r.length, 0);
		}
		if (data)
			push_record(s, r);
	}
	if (at < io->bytes) /* the chain broke, or there was more than is told */
		push_place(s, t, io->addr + at, io->bytes - at);
	s->unknown += io->rest;
	if (t) {
		t->received_on = s->inode;
		t->received_at = io->fact.time;
		t->early = !t->seen && !s->since;
	}
}

/* Is it not a whole record of a connection's, but as much of some as the caller liked? */
static bool in_pieces(const struct chunk *c)
{
	return c->lib != LIB_RUSTLS || c->pieces;
}

/*
 * Did s receive records that hold this plaintext?  For what a program reads through rustls's
 * public functions, as much as it likes at a time.  If take, they are read with that.
 */
static bool came_in_stream(struct socket *s, const struct chunk *c, bool inner, bool take)
{
	__u64 left = s->half[inner];
	size_t i, n = 0;

	for (i = 0; i < s->nrecords && left < c->len; i++) {
		struct record r = s->records[i];
		__u64 more = MAX(r.cipher, TAG_SIZE);

		if (r.partial || r.inner != inner || r.length < more)
			continue;
		left += r.length - more;
		n = i + 1;
	}
	if (left < c->len)
		return false;
	if (take)
		s->half[inner] = left - c->len;
	if (take && n)
		pop_record(s, n - 1);
	return true;
}

/* The same for one record; OpenSSL gives it in any number of pieces */
static bool came_in_record(struct socket *s, const struct chunk *c, bool inner, bool take)
{
	bool whole = c->lib == LIB_RUSTLS;
	size_t i;

	if (!whole && s->half[inner] >= c->len) {
		s->half[inner] -= take ? c->len : 0;
		return true;
	}
	for (i = 0; i < s->nrecords; i++) {
		struct record r = s->records[i];

		if (r.partial || r.inner != inner ||
		    (whole ? !fits(c, r) : r.length < c->len + TAG_SIZE))
			continue;
		if (take) {
			s->half[inner] = whole ? 0 : r.length - TAG_SIZE - c->len;
			pop_record(s, i);
		}
		return true;
	}
	return false;
}

/*
 * Did s receive this plaintext?  If take, it is read with that; records before it held no
 * application data.  inner: of the inner session of TLS inside TLS.
 */
static bool came_on(struct socket *s, const struct chunk *c, bool inner, bool take)
{
	if (c->pieces ? came_in_stream(s, c, inner, take) : came_in_record(s, c, inner, take))
		return true;
	if (s->unknown < c->len + RECORD_MORE)
		return false;
	s->unknown -= take ? c->len + RECORD_MORE : 0;
	return true;
}

static void feed_io(struct process *p, const struct io *io)
{
	struct thread *t = get_thread(p, io->fact.tid);
	bool known = find(&p->sockets, io->fact.sock);
	struct socket *s =
		get_socket(p, io->fact.sock, io->fact.fd, io->dir & 1, &io->ends, io->fact.time);

	if (!s)
		return;
	/* a client may have encrypted early data before it sends its first message */
	if (!known && io->nrecords && io->ctype[0] == CTYPE_HANDSHAKE) {
		s->accepted = io->dir == DIR_READ;
		s->since = s->accepted ? io->fact.time : t ? MAX(t->last_io, 1) : 0;
	}
	if (t)
		t->last_io = io->fact.time;
	if (io->dir == DIR_WRITE)
		written(p, s, t, io);
	else
		received(s, t, io);
	if (t)
		t->adjacent = false;
}

/* The newest of the last so many places, in a ring of that size, at which the chunk's record may
 * have ended, or NULL */
static const struct place *find_place(const struct place *places, size_t n, size_t size,
				      const struct chunk *chunk)
{
	static const unsigned int more[] = {CIPHER_CHACHA, CIPHER_TLS13, CIPHER_GCM};
	__u64 end = chunk->addr + chunk->len;
	size_t i, k;

	for (i = 1; i <= MIN(n, size); i++) {
		const struct place *place = &places[(n - i) % size];

		for (k = 0; k < sizeof(more) / sizeof(*more); k++)
			if (end + more[k] - place->addr <= place->bytes)
				return place;
	}
	return NULL;
}

/*
 * The socket that a record decrypted in place came from.  It is the record's end that
 * counts: that arrived last, just before it was decrypted, and is where it was received,
 * while the beginning may have been moved when its buffer grew, to where another
 * connection's used to be.  rustls 0.23 leaves the plaintext at the front, also where an
 * explicit nonce was before it.  If none of the process's last places is it, the thread may
 * have had to wait since it received, while others received a lot.
 */
static struct socket *received_in_place(struct process *p, struct thread *t,
					const struct chunk *chunk)
{
	const struct place *place = find_place(p->places, p->nplaces, PLACES, chunk);

	if (!place && t)
		place = find_place(t->places, t->nplaces, PLACES_KEPT, chunk);
	return place ? find(&p->sockets, place->sock) : NULL;
}

/* Did s receive, in a row, whole records of together so much plaintext? */
static bool has_records(struct socket *s, __u64 len, bool inner)
{
	size_t from, i;
	__u64 sum;

	for (from = 0; from < s->nrecords; from++) {
		for (i = from, sum = 0; i < s->nrecords && sum < len; i++) {
			struct record r = s->records[i];

			if (r.inner != inner)
				continue;
			if (r.partial || r.cipher < TAG_SIZE || r.length < r.cipher)
				break;
			sum += r.length - r.cipher;
		}
		if (sum == len)
			return true;
	}
	return false;
}

/* Did s receive a whole record of exactly this plaintext that nobody has read yet? */
static bool has_record(struct socket *s, const struct chunk *like, bool inner)
{
	size_t i;

	if (like->pieces)
		return has_records(s, like->len, inner);
	for (i = 0; i < s->nrecords; i++)
		if (s->records[i].inner == inner && !s->records[i].partial &&
		    fits(like, s->records[i]))
			return true;
	return false;
}

/* Is it known whose the records are that s receives, and not o's?  weak: or supposed */
static bool has_reader(struct socket *s, struct object *o, bool inner, bool weak)
{
	struct object *other;

	LIST_FOREACH(other, &s->objects, bound)
		if (other != o && (weak || !other->weak) && other->inner == inner &&
		    (other->reads || !other->is_rustls))
			return true;
	return false;
}

/* Has s a record of this length that may be o's, as no other object reads it?  weak: none that
 * is supposed to */
static bool has_unread(struct socket *s, struct object *o, const struct chunk *like, bool inner,
		       bool weak)
{
	return has_record(s, like, inner) && !has_reader(s, o, inner, weak);
}

/*
 * Order alone: was it on s, on which this thread received last, that this plaintext came?
 * Then a whole record of its length did, and none on another socket that waits to be read.
 * Who gives records in any number of pieces must have made them whole.  Sets *inner
 * if it is the inner session's of TLS inside TLS.
 */
static bool came_last_on(struct process *p, struct object *o, struct socket *s, struct thread *t,
			 const struct chunk *chunk, bool *inner)
{
	struct chunk like = *chunk;
	struct socket *other;

	if (in_pieces(chunk)) {
		if (o->pieces_after != t->received_at)
			o->pieces = 0;
		o->pieces_after = t->received_at;
		like.len = o->pieces += chunk->len;
	}
	*inner = has_unread(s, o, &like, true, false);
	if (!*inner && !has_unread(s, o, &like, false, false))
		return false;
	TAILQ_FOREACH(other, &p->correlator->sockets, used)
		if (other->process == p && other != s &&
		    (has_unread(other, o, &like, true, true) ||
		     has_unread(other, o, &like, false, true)))
			return false;
	return true;
}

/* Finds the evidence for what was read; false: later evidence may help */
static bool decide_read(struct process *p, struct object *o, struct thread *t,
			const struct chunk *chunk)
{
	struct socket *last = t && t->received_on ? find(&p->sockets, t->received_on) : NULL;
	/* an object of rustls that reads never writes; but none overtakes what waits already */
	bool may_come =
		in_pieces(chunk) || o->candidate || o->before_loss || !TAILQ_EMPTY(&o->waiting);
	struct socket *s = NULL;
	bool inner;

	if (o->weak && !came_on(o->socket, chunk, o->inner, false))
		unbind(o);
	if (!in_pieces(chunk) && (!o->socket || (o->weak && !o->inner)))
		s = received_in_place(p, t, chunk);
	/*
	 * The place is sure if such a record came in; if it speaks against the order it
	 * may be chance, as rustls up to 0.22 copies: then it is better not to say.
	 */
	if (s && s == last && came_on(s, chunk, false, false)) {
		bind(o, s, chunk->fact.time);
	} else if ((!s || s == last) && !o->socket && last && !t->early &&
		   came_last_on(p, o, last, t, chunk, &inner)) {
		/*
		 * Plaintext of a connection that is older than the tracing, or than a
		 * loss, may have been received before: then once is chance, twice is not.
		 */
		if (last->since || last->inode == o->candidate || last->inode == o->before_loss) {
			bind(o, last, chunk->fact.time);
			o->weak = true;
			o->inner = inner;
		}
		may_come = true;
		o->candidate = last->inode;
		o->pieces = 0;
	}
	if (o->socket) {
		o->reads = true;
		came_on(o->socket, chunk, o->inner, true);
	} else if (last && (!in_pieces(chunk) || has_record(last, chunk, false))) {
		/* most likely, and nobody shall wait for it */
		came_on(last, chunk, has_record(last, chunk, true), true);
	}
	return o->socket || !may_come;
}

/*
 * GnuTLS takes a write that it could not send yet, and says so by a later call's result,
 * which need not be given the bytes again.  Remembers them in the first case, and returns
 * them as the bytes of the chunk in the second; else the chunk itself.
 */
static const struct chunk *with_kept(struct correlator *c, struct object *o,
				     const struct chunk *chunk)
{
	struct chunk *kept = o->kept;

	if (chunk->dir != DIR_WRITE || (chunk->hidden && !chunk->kept))
		return chunk;
	if (!chunk->kept && kept && !chunk->addr && chunk->len <= kept->len) {
		__u32 captured = MIN(kept->captured, chunk->len);

		c->kept_bytes -= kept->captured - captured;
		memcpy(kept, chunk, sizeof(*chunk));
		kept->captured = captured;
		return kept;
	}
	forget_kept(o);
	if (!chunk->kept || c->kept_bytes + chunk->captured > KEPT_BYTES_MAX)
		return chunk;
	o->kept = malloc(sizeof(*chunk) + chunk->captured);
	if (o->kept) {
		memcpy(o->kept, chunk, sizeof(*chunk) + chunk->captured);
		c->kept_bytes += chunk->captured;
	}
	return chunk;
}

/*
 * The first chunk of a process: what older connections received before, while nothing was seen
 * of its library, has been read by now; but what came last may be what is read first.
 */
static void forget_records(struct process *p, struct thread *t)
{
	struct socket *s;

	TAILQ_FOREACH(s, &p->correlator->sockets, used)
		if (s->process == p && !s->since && !(t && t->received_on == s->inode))
			s->nrecords = s->unknown = 0;
}

static void feed_chunk(struct process *p, const struct chunk *chunk)
{
	struct correlator *c = p->correlator;
	__u64 now = chunk->fact.time;
	struct object *o = get_object(p, chunk->key, now);
	struct thread *t = get_thread(p, chunk->fact.tid);
	struct socket *s;
	bool decided = false;

	if (!o) {
		enqueue(c, chunk, NULL, false);
		return;
	}
	if (!p->seen)
		forget_records(p, t);
	chunk = with_kept(c, o, chunk);
	if (chunk->nested == NESTED_RECORD || (chunk->nested == NESTED_SOCKET && !o->socket)) {
		s = get_socket(p, chunk->fact.sock, chunk->fact.fd, chunk->dir & 1, &chunk->ends,
			       now);
		if (s) {
			bind(o, s, now);
			o->owner = true;
		}
	}
	if (chunk->kept)
		return;
	/* its receive was not the one before */
	if (t && chunk->nested && chunk->dir == DIR_READ)
		t->received_on = 0;
	if (o->owner) {
		decide_all(c, o, now);
		look_inside(p, o, t, chunk, now);
		decided = true;
	} else if (chunk->dir == DIR_READ) {
		decided = decide_read(p, o, t, chunk);
		look_inside(p, o, t, chunk, now);
	} else if (t) {
		if (t->encrypted_for != o->key)
			t->encrypted_before = t->encrypted_for;
		t->encrypted_for = o->key;
		t->adjacent = true;
	}
	o->is_rustls = chunk->lib == LIB_RUSTLS;
	p->has_openssl |= !o->is_rustls;
	p->seen = true;
	if (t)
		t->seen = true;
	enqueue(c, chunk, o, !decided);
	if (chunk == o->kept)
		forget_kept(o);
}

/* Adds a part to its chunk, which goes on when it is complete */
static void feed_part(struct process *p, const struct chunk *part)
{
	struct partial *whole;
	struct chunk *c;

	LIST_FOREACH(whole, &p->correlator->partials, others)
		if (whole->process == p && whole->chunk.fact.tid == part->fact.tid)
			break;
	if (whole && !part->part) {
		complete(whole);
		whole = NULL;
	}
	if (!whole) {
		if (part->part) /* its beginning is lost, and it was counted then */
			return;
		whole = malloc(sizeof(*whole) + part->len);
		if (!whole) {
			feed_chunk(p, part);
			return;
		}
		LIST_INSERT_HEAD(&p->correlator->partials, whole, others);
		whole->process = p;
		memcpy(&whole->chunk, part, sizeof(*part));
		whole->chunk.captured = 0;
	}
	c = &whole->chunk;
	/* behind a part that could not be read, or was not wanted, there is nothing */
	if (c->captured == part->part && part->part + part->captured <= c->len) {
		memcpy(c->data + part->part, part->data, part->captured);
		c->captured += part->captured;
	}
	if (part->part + part->part_len >= c->len)
		complete(whole);
}

void correlate_fact(struct correlator *c, const struct fact *f)
{
	const struct chunk *chunk;
	struct process *p;
	struct thread *t;

	if (f->lost != c->lost) {
		doubt_all(c, f->time);
		c->lost = f->lost;
	}
	p = get_process(c, f->tgid);
	if (!p) {
		if (f->type == FACT_CHUNK)
			enqueue(c, (const struct chunk *)f, NULL, false);
		return;
	}
	switch (f->type) {
	case FACT_CHUNK:
		chunk = (const struct chunk *)f;
		if (chunk->part_len == chunk->len)
			feed_chunk(p, chunk);
		else
			feed_part(p, chunk);
		break;
	case FACT_IO:
		feed_io(p, (const struct io *)f);
		break;
	case FACT_OTHER:
		t = get_thread(p, f->tid);
		if (t) {
			t->received_on = 0;
			t->adjacent = false;
		}
		break;
	case FACT_CLOSE:
		if (f->fd < 0) {
			drop_process(p, f->time);
		} else {
			struct descriptor *d = find(&p->descriptors, f->fd);

			if (d && d->socket->inode != f->sock)
				descriptor_gone(p, f->fd, f->time);
		}
		break;
	case FACT_EXEC:
	case FACT_EXIT:
		drop_process(p, f->time);
		break;
	}
	let_go_in_order(c);
}

void correlate_tick(struct correlator *c, __u64 now)
{
	struct waiting *w, *next;
	struct object *o;

	for (w = TAILQ_FIRST(&c->queue); w; w = next) {
		next = TAILQ_NEXT(w, queue);
		o = w->object;
		if (o && w->since + WAIT_MAX <= now)
			give_up(c, w, w->since);
		/* undecided ones before it are of other connections, or would be its object's */
		if (!w->object && w->since + ORDER_MAX <= now)
			let_go(c, w);
	}
	let_go_in_order(c);
}

void correlate_flush(struct correlator *c)
{
	struct waiting *w;

	while (!LIST_EMPTY(&c->partials))
		complete(LIST_FIRST(&c->partials));
	while ((w = TAILQ_FIRST(&c->queue))) {
		if (w->object)
			decide(c, w, w->since);
		let_go(c, w);
	}
}

struct correlator *correlate_new(correlate_fn fn, void *ctx)
{
	struct correlator *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fn = fn;
	c->ctx = ctx;
	TAILQ_INIT(&c->objects);
	TAILQ_INIT(&c->sockets);
	TAILQ_INIT(&c->queue);
	TAILQ_INIT(&c->out);
	return c;
}

void correlate_free(struct correlator *c)
{
	if (!c)
		return;
	correlate_flush(c);
	drop_all(c, 0);
	free(c);
}
