// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym_tables.c - where in an ELF file without symbols a TLS library's functions begin.
 *
 * What a library calls through a table cannot be inlined, and the table tells what it is
 * by its shape and by who mentions it.  The shapes are data: rustls's vtables of three
 * traits, OpenSSL's SSL_METHOD and BIO_METHOD.  A hit may be wrong in theory, if never seen so far:
 * whoever uses it must check what the function is called with.  Must never print.
 */
#include "elfsym.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "elfsym_image.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)	      (1U << (n))

#define HITS	     128   /* more than any file has */
#define CIPHERS	     4096  /* candidates: unoptimised programs have many like them */
#define CIPHER_USERS 64	   /* functions that mention one: more is too many to follow */
#define LEADS	     65536 /* to follow at a time */
#define DECRYPTERS   4	   /* that could belong to one encrypter */
#define STATES	     65536 /* candidates for a state */
#define FAMILIES     256   /* candidates for states that belong together */

struct hit {
	enum elfsym_role role;
	const char *name;
	uint64_t address;
};

/* A search through one file */
struct finder {
	struct image *im;
	uint64_t *tables; /* addresses of what could be a vtable */
	size_t ntables, tables_room;
	struct hit hits[HITS];
	size_t nhits;
};

static void add_hit(struct finder *f, enum elfsym_role role, const char *name, uint64_t address)
{
	size_t i;

	for (i = 0; i < f->nhits; i++)
		if (f->hits[i].role == role && f->hits[i].address == address)
			return;
	if (f->nhits < HITS)
		f->hits[f->nhits++] = (struct hit){role, name, address};
}

/* What rustc puts in its tables: {drop or 0, size, align, methods in the trait's order} */

#define METHODS 5      /* at most, that we look at */
#define LARGEST 0x4000 /* object that we look for */

struct vtable {
	uint64_t address, drop, size, align, method[METHODS];
};

/* Which vtables: with at least so many methods, a size from least to below most */
struct shape {
	unsigned int methods;
	uint64_t least, most;
	unsigned int aligns; /* a bit for each: its value */
};

static const struct shape any_vtable = {1, 0, LARGEST, 1 | 8 | 16 | 32 | 64};

/*
 * Old compilers (1.70 does, 1.75 does not) put a fourth word here if the trait has
 * supertraits: the address of a vtable of the same type for these.
 */
static bool is_vtable(const struct image *im, uint64_t address, const struct shape *shape,
		      struct vtable *t)
{
	uint64_t first = address + 24, super;
	unsigned int i;

	if (address % 8)
		return false;
	t->address = address;
	t->drop = word(im, address);
	t->size = word(im, address + 8);
	t->align = word(im, address + 16);
	if (t->size < shape->least || t->size >= shape->most || !(t->align & shape->aligns) ||
	    t->align & (t->align - 1) || t->size % t->align || (t->drop && !text_of(im, t->drop)))
		return false;
	super = word(im, first);
	if (super && super % 8 == 0 && !text_of(im, super) && word(im, super + 8) == t->size &&
	    word(im, super + 16) == t->align)
		first += 8;
	for (i = 0; i < shape->methods; i++) {
		t->method[i] = word(im, first + 8 * i);
		if (!text_of(im, t->method[i]))
			return false;
	}
	return true;
}

static void find_tables(struct finder *f)
{
	const struct image *im = f->im;
	struct vtable t;
	uint64_t address;
	const uint8_t *w;
	size_t i, k, n;

	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k + 4 <= n; k++) {
			/* cheaper than is_vtable(): most words end here */
			if (get64(w + 8 * k + 8) >= LARGEST ||
			    !(get64(w + 8 * k + 16) & any_vtable.aligns) ||
			    !is_vtable(im, address + 8 * k, &any_vtable, &t))
				continue;
			if (!MAKE_ROOM(f->im, f->tables, f->ntables, f->tables_room))
				return;
			f->tables[f->ntables++] = address + 8 * k;
		}
	}
}

/* The next table of a shape from number *i on; false: there is none */
static bool next_table(const struct finder *f, const struct shape *shape, size_t *i,
		       struct vtable *t)
{
	while (*i < f->ntables)
		if (is_vtable(f->im, f->tables[(*i)++], shape, t))
			return true;
	return false;
}

/* The tables of one shape that a function mentions */
struct mentioned {
	const struct image *im;
	const struct shape *shape;
	struct vtable v[16];
	size_t n;
};

static void table_mentioned(const struct mention *m, void *ctx)
{
	struct mentioned *tables = ctx;
	const struct image *im = tables->im;
	uint64_t what = m->what;
	struct vtable t;
	size_t i, k;

	/* its address may come from the GOT */
	for (i = 0; i < 2 && tables->n < ARRAY_SIZE(tables->v); i++, what = word(im, what)) {
		if (!is_vtable(im, what, tables->shape, &t))
			continue;
		for (k = 0; k < tables->n && tables->v[k].address != what; k++)
			;
		if (k == tables->n)
			tables->v[tables->n++] = t;
	}
}

static void find_mentioned(struct image *im, uint64_t function, struct mentioned *tables)
{
	tables->im = im;
	tables->n = 0;
	each_mention(im, function, function_end(im, function), table_mentioned, tables);
}

/*
 * rustls 0.22 and newer
 *
 * MessageEncrypter::encrypted_payload_len returns its argument + a number that tells the
 * cipher, in a function that all compilers make alike; it is the method after encrypt.
 * From there, the way to the decrypter: the cipher suite's trait object has the methods
 * encrypter and decrypter, which make the objects, and so mention their vtables.
 */
static const struct shape encrypter_shape = {2, 16, LARGEST, 8 | 16 | 32 | 64};
static const struct shape decrypter_shape = {1, 16, LARGEST, 8 | 16 | 32 | 64};
static const struct shape suite_shape = {2, 0, 0x100, 1 | 8};

static const struct {
	unsigned int adds;
	const char *name;
	bool common; /* others than rustls add so much as well */
} overheads[] = {
	{1 + 16, "tls13", false},     /* type, tag */
	{8 + 16, "tls12-gcm", false}, /* nonce, tag */
	{16, "tls12-chacha", true},   /* tag */
};

struct cipher {
	const char *name;
	bool certain; /* not only unoptimised code like it */
	bool common, believed;
	uint64_t tag; /* the function that says how long a tag is, if one is called */
	struct vtable encrypter;
	uint64_t decrypt[DECRYPTERS + 1];
	size_t ndecrypt;
	size_t users; /* functions that mention what leads to it */
};

/* An address that leads to a cipher: its vtable, or a function that mentions that */
struct lead {
	uint64_t address;
	struct cipher *cipher;
};

struct leads {
	struct lead *v;
	size_t n, room;
};

struct search {
	struct finder *f;
	struct image *im;
	struct cipher *ciphers;
	size_t nciphers, ciphers_room;
	struct leads leads, users;
	struct vtable suite; /* the one looked at */
};

static bool is_tls13(const struct cipher *c)
{
	return c->name == overheads[0].name;
}

/* True if the function looks like the encrypted_payload_len of a cipher: says of which */
static bool is_payload_len(struct image *im, uint64_t function, struct cipher *c)
{
	uint8_t code[128];
	struct added a;
	size_t i;

	a = im->machine->adds(code, read_code(im, function, code, sizeof(code)));
	for (i = 0; i < ARRAY_SIZE(overheads); i++) {
		if (a.n != overheads[i].adds)
			continue;
		c->name = overheads[i].name;
		c->common = overheads[i].common;
		c->certain = a.certain;
		c->tag = a.callee ? function + a.callee : 0;
		return true;
	}
	return false;
}

/*
 * True if all that a function adds is what another one returns.  Much that is not optimised does;
 * such a cipher is one only if this is the tag's length that a cipher of TLS 1.3 adds as well.
 */
static bool only_tag(const struct cipher *c)
{
	return c->tag && c->common;
}

static bool tls13_has_tag(const struct search *s, uint64_t tag)
{
	const struct cipher *c;

	for (c = s->ciphers; c < s->ciphers + s->nciphers; c++)
		if (c->believed && is_tls13(c) && c->tag == tag)
			return true;
	return false;
}

/* Adds what looks like an encrypter, with more than a tag or not; false: that is too much */
static bool add_encrypters(struct search *s, bool certain, bool tags)
{
	struct cipher c = {.believed = true};
	size_t i = 0;

	while (next_table(s->f, &encrypter_shape, &i, &c.encrypter)) {
		if (!is_payload_len(s->im, c.encrypter.method[1], &c) || c.certain < certain ||
		    only_tag(&c) != tags || (tags && !tls13_has_tag(s, c.tag)))
			continue;
		if (s->nciphers == CIPHERS ||
		    !MAKE_ROOM(s->im, s->ciphers, s->nciphers, s->ciphers_room))
			return false;
		s->ciphers[s->nciphers++] = c;
	}
	return true;
}

/* All that looks like an encrypter; true if that of TLS 1.3, which every rustls has, does */
static bool find_encrypters(struct search *s, bool certain)
{
	size_t i;

	s->nciphers = 0;
	if (!add_encrypters(s, certain, false) || (!certain && !add_encrypters(s, false, true)))
		return false;
	for (i = 0; i < s->nciphers; i++)
		if (is_tls13(&s->ciphers[i]))
			return true;
	return false;
}

static int by_address(const void *a, const void *b)
{
	const struct lead *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	return (x->cipher > y->cipher) - (x->cipher < y->cipher);
}

/* The first of sorted leads with this address, which may have several; NULL: none */
static const struct lead *first_lead(const struct leads *leads, uint64_t address)
{
	size_t from = 0, to = leads->n, mid;

	while (from < to) {
		mid = (from + to) / 2;
		if (leads->v[mid].address < address)
			from = mid + 1;
		else
			to = mid;
	}
	return from < leads->n && leads->v[from].address == address ? &leads->v[from] : NULL;
}

static const struct lead *next_lead(const struct leads *leads, const struct lead *l)
{
	return l + 1 < leads->v + leads->n && l[1].address == l->address ? l + 1 : NULL;
}

static void add_lead(struct image *im, struct leads *leads, uint64_t address, struct cipher *c)
{
	if (leads->n < LEADS && MAKE_ROOM(im, leads->v, leads->n, leads->room))
		leads->v[leads->n++] = (struct lead){address, c};
}

static void sort_leads(struct leads *leads)
{
	if (leads->n)
		qsort(leads->v, leads->n, sizeof(*leads->v), by_address);
}

/* Adds the words in the data that hold a lead's address (GOT) */
static void add_pointers(struct search *s)
{
	struct image *im = s->im;
	struct leads pointers = {0};
	const struct lead *l;
	uint64_t address;
	const uint8_t *w;
	size_t i, k, n;

	sort_leads(&s->leads);
	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k < n; k++)
			for (l = first_lead(&s->leads, get64(w + 8 * k)); l;
			     l = next_lead(&s->leads, l))
				add_lead(im, &pointers, address + 8 * k, l->cipher);
	}
	for (i = 0; i < pointers.n; i++)
		add_lead(im, &s->leads, pointers.v[i].address, pointers.v[i].cipher);
	sort_leads(&s->leads);
	free(pointers.v);
}

static bool is_encrypter(const struct search *s, uint64_t address)
{
	size_t i;

	for (i = 0; i < s->nciphers; i++)
		if (s->ciphers[i].encrypter.address == address)
			return true;
	return false;
}

/* Takes the decrypters that a function makes: if there are any, those of the encrypter's size */
static void take_decrypters(struct search *s, struct cipher *c, uint64_t function)
{
	struct mentioned m = {.shape = &decrypter_shape};
	bool same_size = false;
	size_t i, k;

	find_mentioned(s->im, function, &m);
	for (i = 0; i < m.n; i++)
		same_size |= m.v[i].size == c->encrypter.size && !is_encrypter(s, m.v[i].address);
	for (i = 0; i < m.n; i++) {
		uint64_t decrypt = m.v[i].method[0];

		if (is_encrypter(s, m.v[i].address) || decrypt == c->encrypter.method[0] ||
		    (same_size && m.v[i].size != c->encrypter.size))
			continue;
		for (k = 0; k < c->ndecrypt && c->decrypt[k] != decrypt; k++)
			;
		if (k == c->ndecrypt && k <= DECRYPTERS)
			c->decrypt[c->ndecrypt++] = decrypt;
	}
}

struct callees {
	const struct image *im;
	uint64_t caller, v[64];
	size_t n;
};

static void callee_mentioned(const struct mention *m, void *ctx)
{
	struct callees *c = ctx;
	uint64_t what = m->what;
	int i;

	/* not only calls: the last one may be a jump */
	for (i = 0; i < 2 && c->n < ARRAY_SIZE(c->v); i++, what = word(c->im, what))
		if (what != c->caller && function_begins(c->im, what))
			c->v[c->n++] = what;
}

/* The decrypters of a suite's method decrypter, which may have them made by another function */
static void find_made(struct search *s, struct cipher *c, uint64_t decrypter)
{
	struct callees callees = {.im = s->im, .caller = decrypter};
	size_t i;

	take_decrypters(s, c, decrypter);
	if (c->ndecrypt)
		return;
	each_mention(s->im, decrypter, function_end(s->im, decrypter), callee_mentioned, &callees);
	for (i = 0; i < callees.n; i++)
		take_decrypters(s, c, callees.v[i]);
}

/* If a suite's method encrypter mentions a lead, its method decrypter leads to the decrypter */
static void suite_mentions(const struct mention *m, void *ctx)
{
	struct search *s = ctx;
	const struct lead *l;

	for (l = first_lead(&s->leads, m->what); l; l = next_lead(&s->leads, l))
		find_made(s, l->cipher, s->suite.method[1]);
}

static void find_suites(struct search *s)
{
	struct image *im = s->im;
	uint64_t encrypter;
	size_t i;

	for (i = 0; next_table(s->f, &suite_shape, &i, &s->suite);) {
		encrypter = s->suite.method[0];
		each_mention(im, encrypter, function_end(im, encrypter), suite_mentions, s);
	}
}

static void note_user(const struct mention *m, void *ctx)
{
	struct search *s = ctx;
	struct image *im = s->im;
	const struct lead *l = first_lead(&s->leads, m->what);
	uint64_t function = l ? function_of(im, m->to) : 0;

	if (!function || function_of(im, m->from) != function)
		return;
	for (; l; l = next_lead(&s->leads, l))
		if (!l->cipher->ndecrypt && l->cipher->users < CIPHER_USERS) {
			add_lead(im, &s->users, function, l->cipher);
			l->cipher->users++;
		}
}

/* Replaces the leads by the functions that mention them, where these are few */
static void follow_leads(struct search *s)
{
	struct image *im = s->im;
	const struct lead *l;
	size_t i;

	for (i = 0; i < s->nciphers; i++)
		s->ciphers[i].users = 0;
	s->users.n = 0;
	for (i = 0; i < im->ntext; i++)
		each_mention(im, im->text[i].address, im->text[i].address + im->text[i].size,
			     note_user, s);
	sort_leads(&s->users);
	s->leads.n = 0;
	for (i = 0; i < s->users.n; i++) {
		l = &s->users.v[i];
		if (l->cipher->users < CIPHER_USERS && (!i || by_address(l, l - 1)))
			add_lead(im, &s->leads, l->address, l->cipher);
	}
}

static bool all_decrypters(const struct search *s)
{
	size_t i;

	for (i = 0; i < s->nciphers; i++)
		if (!s->ciphers[i].ndecrypt)
			return false;
	return true;
}

/*
 * A suite's method encrypter mentions the vtable, or a function that does, or one that
 * mentions such a function.  Only then all code must be looked at.
 */
static void find_decrypters(struct search *s)
{
	size_t hop, i;

	find_functions(s->im);
	for (i = 0; i < s->nciphers; i++)
		add_lead(s->im, &s->leads, s->ciphers[i].encrypter.address, &s->ciphers[i]);
	for (hop = 0; hop < 3; hop++) {
		add_pointers(s);
		find_suites(s);
		if (hop == 2 || all_decrypters(s))
			break;
		follow_leads(s);
	}
}

/* A program is optimised as a whole: what is uncertain counts where nothing is certain */
static bool find_rustls(struct finder *f)
{
	struct search s = {.f = f, .im = f->im};
	bool tls13 = false;
	struct cipher *c;
	size_t k;

	if (find_encrypters(&s, true) || find_encrypters(&s, false))
		find_decrypters(&s);
	else
		s.nciphers = 0;
	for (c = s.ciphers; c < s.ciphers + s.nciphers; c++) {
		if (c->ndecrypt > DECRYPTERS)
			c->ndecrypt = 0;
		c->believed = c->ndecrypt || (c->certain && !c->common);
		tls13 |= c->believed && is_tls13(c);
	}
	for (c = s.ciphers; c < s.ciphers + s.nciphers && tls13; c++) {
		if (only_tag(c) && !tls13_has_tag(&s, c->tag))
			continue;
		if (!c->believed) {
			if (only_tag(c))
				add_hit(f, ELFSYM_NO_ENCRYPT, c->name, c->encrypter.method[0]);
			continue;
		}
		add_hit(f, ELFSYM_ENCRYPT, c->name, c->encrypter.method[0]);
		for (k = 0; k < c->ndecrypt; k++)
			add_hit(f, ELFSYM_DECRYPT, c->name, c->decrypt[k]);
		if (!c->ndecrypt)
			add_hit(f, ELFSYM_NO_DECRYPT, c->name, c->encrypter.method[0]);
	}
	free(s.ciphers);
	free(s.leads.v);
	free(s.users.v);
	return tls13;
}

/*
 * rustls 0.20 and 0.21
 *
 * The suites of TLS 1.2 are two empty types whose trait has just two methods, decrypter
 * and encrypter, each making one object.  TLS 1.3 has no such trait: its two vtables are
 * those left of the same size and align, and the code tells which is which.
 */
static const struct shape old_suite_shape = {2, 0, 1, 1};
static const struct shape old_cipher_shape = {1, 0x28, 0x400, 8 | 16};
#define OLD_SUITES 2
#define OLD_SIZE   0x230 /* without TLS 1.2 there is nothing to compare with: ring's size */
#define OLD_ALIGN  16

/* The only vtable that a short function mentions */
static bool makes(struct image *im, uint64_t function, struct vtable *t)
{
	struct mentioned m = {.shape = &old_cipher_shape};

	find_functions(im);
	if (function_end(im, function) - function >= 0x400)
		return false;
	find_mentioned(im, function, &m);
	*t = m.v[0];
	return m.n == 1;
}

static int encrypts(struct image *im, uint64_t function)
{
	uint8_t code[0xc00];
	uint64_t size;

	find_functions(im);
	size = function_end(im, function) - function;
	size = read_code(im, function, code, size < sizeof(code) ? size : sizeof(code));
	return im->machine->encrypts(code, size);
}

static void find_old_rustls(struct finder *f)
{
	struct image *im = f->im;
	struct vtable suite, t, encrypter[OLD_SUITES + 1], decrypter[OLD_SUITES + 1], left[3];
	size_t i, k, n = 0, nleft = 0;
	int more;

	for (i = 0; n <= OLD_SUITES && next_table(f, &old_suite_shape, &i, &suite);)
		if (suite.method[0] != suite.method[1] &&
		    makes(im, suite.method[0], &decrypter[n]) &&
		    makes(im, suite.method[1], &encrypter[n]) &&
		    decrypter[n].address != encrypter[n].address)
			n++;
	/* in newer ones, optimised in an unusual way, one of their suites may be found twice */
	if (n && (n != OLD_SUITES || encrypter[0].method[0] == encrypter[1].method[0]))
		return;
	for (i = 0; nleft < 3 && next_table(f, &old_cipher_shape, &i, &t);) {
		bool like = !n && t.size == OLD_SIZE && t.align == OLD_ALIGN;

		for (k = 0; k < n; k++) {
			like |= t.size == encrypter[k].size && t.align == encrypter[k].align;
			if (t.address == encrypter[k].address || t.address == decrypter[k].address)
				break;
		}
		/* where drop comes twice, the next table begins */
		if (k == n && like && t.method[0] != t.drop)
			left[nleft++] = t;
	}
	for (i = 0; i < n; i++) {
		add_hit(f, ELFSYM_ENCRYPT, "tls12", encrypter[i].method[0]);
		add_hit(f, ELFSYM_DECRYPT, "tls12", decrypter[i].method[0]);
	}
	if (nleft != 2)
		return;
	more = encrypts(im, left[0].method[0]) - encrypts(im, left[1].method[0]);
	if (more) {
		add_hit(f, ELFSYM_ENCRYPT, "tls13", left[more < 0].method[0]);
		add_hit(f, ELFSYM_DECRYPT, "tls13", left[more > 0].method[0]);
	}
}

/*
 * rustls's states: the vtables of dyn State
 *
 * Most states leave some methods at the trait's defaults and have an empty
 * handle_decrypt_error, so they form a family; ExpectTraffic is what stands among them
 * and overrides defaults.  The compiler makes copies of a default, so its code is what
 * is compared.  Numbers are those of methods, handle is 0.
 */
#define FAMILY_LEAST 8	    /* different handles */
#define FAMILY_NEAR  0x1000 /* bytes that ExpectTraffic may be away from its family */
#define TRAFFIC_SIZE 0x60   /* of ExpectTraffic at least */

#define STATE_SHAPE(methods)                                                                       \
	{                                                                                          \
		methods, 8, 0x1000, 8                                                              \
	}

static const struct layout {
	const char *name;
	bool newer;		/* than 0.21 */
	unsigned int empty;	/* handle_decrypt_error */
	unsigned int defaults;	/* what most leave alone */
	unsigned int overrides; /* what ExpectTraffic does not */
	unsigned int yes;	/* of these, the one that only says that it is ExpectTraffic */
	bool wire;		/* it has message types as they are on the wire */
	struct shape shape;
} layouts[] = {
	/* 1 export_keying_material, 2 extract_secrets, 3 send_key_update_request */
	{"0.23.11+", true, 4, BIT(1) | BIT(2) | BIT(3), BIT(1) | BIT(2), 0, false, STATE_SHAPE(5)},
	/* the same without 3; also 0.21 with the feature secret_extraction */
	{"0.22-0.23.10", false, 3, BIT(1) | BIT(2), BIT(1) | BIT(2), 0, false, STATE_SHAPE(4)},
	/* 1 is_traffic, 3 into_external_state */
	{"0.24", true, 2, BIT(1) | BIT(3), BIT(1) | BIT(3), 1, true, STATE_SHAPE(4)},
	{"0.20-0.21", false, 2, BIT(1), BIT(1), 0, false, STATE_SHAPE(3)},
};

#define METHODS_COMPARED 4

/* What a function of some bytes does */
struct body {
	uint64_t hash;
	bool nothing; /* returns at once */
	bool yes;     /* returns true */
};

struct state {
	uint64_t address, size, handle;
	uint64_t defaults; /* hash of the bodies of the methods of layout.defaults */
	struct body body[METHODS_COMPARED];
};

static bool is_one_of(const struct bytes *list, size_t n, const uint8_t *code, size_t size)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (list[i].n && list[i].n == size && !memcmp(list[i].bytes, code, size))
			return true;
	return false;
}

static uint64_t hash(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n--)
		h = (h ^ *p++) * 0x100000001b3; /* FNV-1a */
	return h;
}

static struct body body_of(struct image *im, uint64_t function)
{
	const struct machine *m = im->machine;
	struct body body;
	uint8_t code[40];
	size_t n = read_code(im, function, code, sizeof(code));
	int64_t jump = m->jumps(code, n);

	/* what is optimised for size may be another one's */
	if (jump)
		n = read_code(im, function + jump, code, sizeof(code));
	n = m->essence(code, n);
	body.hash = hash(0, code, n);
	body.nothing = is_one_of(m->nothing, ARRAY_SIZE(m->nothing), code, n);
	body.yes = is_one_of(m->yes, ARRAY_SIZE(m->yes), code, n);
	return body;
}

/* Reads a vtable as that of a state; false if its handle_decrypt_error is not empty */
static bool read_state(struct image *im, const struct layout *l, const struct vtable *t,
		       struct state *s)
{
	size_t i;

	if (!body_of(im, t->method[l->empty]).nothing)
		return false;
	*s = (struct state){.address = t->address, .size = t->size, .handle = t->method[0]};
	for (i = 0; i < METHODS_COMPARED; i++) {
		if (!(l->defaults & BIT(i)))
			continue;
		s->body[i] = body_of(im, t->method[i]);
		s->defaults = hash(s->defaults, &s->body[i].hash, sizeof(s->body[i].hash));
	}
	return true;
}

static int by_family(const void *a, const void *b)
{
	const struct state *x = a, *y = b;

	if (x->defaults != y->defaults)
		return x->defaults < y->defaults ? -1 : 1;
	return (x->handle > y->handle) - (x->handle < y->handle);
}

static bool is_traffic(const struct layout *l, const struct state *s, const struct state *usual)
{
	size_t i;

	if (s->size < TRAFFIC_SIZE || (l->yes && !s->body[l->yes].yes))
		return false;
	for (i = 0; i < METHODS_COMPARED; i++)
		if (l->overrides & BIT(i) &&
		    (s->body[i].nothing || s->body[i].hash == usual->body[i].hash))
			return false;
	return true;
}

/*
 * ExpectEarlyData overrides no default, but says which messages it expects in place of another,
 * {ApplicationData, Handshake}: two ContentTypes of two bytes each, {variant, 0}, in its code
 * or mentioned by it.  The only states besides it that do are ExpectTraffic's.  In 0.24 these
 * are bytes of RFC 8446; it passes the addresses of both lists to the function that makes the
 * error, so that the one of handshake messages, {end_of_early_data}, is mentioned close by.
 */
#define EXPECTS_DATA	 0x00020003
#define WIRE_DATA	 0x1617 /* handshake, application_data */
#define WIRE_END_OF_DATA 5
#define WIRE_NEAR	 64 /* bytes between the instructions: there are four on arm64 */

struct expected {
	const struct image *im;
	uint64_t data, end; /* where they were mentioned last */
	bool wire, early;
};

static void expects(const struct mention *m, void *ctx)
{
	struct expected *e = ctx;
	uint64_t types = word(e->im, m->what);

	if (!e->wire) {
		e->early |= (uint32_t)types == EXPECTS_DATA;
		return;
	}
	if ((uint16_t)types == WIRE_DATA)
		e->data = m->to;
	else if ((uint8_t)types == WIRE_END_OF_DATA)
		e->end = m->to;
	else
		return;
	e->early |= e->data + WIRE_NEAR > e->end && e->end + WIRE_NEAR > e->data;
}

static bool expects_data(struct image *im, const struct layout *l, uint64_t handle)
{
	uint64_t end = function_end(im, handle);
	struct expected e = {.im = im, .wire = l->wire};
	uint8_t code[0x2000];
	size_t size = end - handle;

	each_mention(im, handle, end, expects, &e);
	if (e.early || l->wire)
		return e.early;
	size = read_code(im, handle, code, size < sizeof(code) ? size : sizeof(code));
	return im->machine->has_number(code, size, EXPECTS_DATA);
}

static bool is_near(const struct state *s, uint64_t from, uint64_t to)
{
	return s->address + FAMILY_NEAR > from && s->address < to + FAMILY_NEAR;
}

/* Finds ExpectTraffic and ExpectEarlyData near a group of states of the same defaults, if that is
 * a family; code that is optimised for size may have several kinds of the same default */
static void find_traffic(struct finder *f, const struct layout *l, const struct state *states,
			 size_t nstates, const struct state *group, size_t n)
{
	uint64_t from = UINT64_MAX, to = 0;
	size_t i, handles = 1, hits = f->nhits;

	for (i = 0; i < METHODS_COMPARED; i++)
		if (group->body[i].nothing || group->body[i].yes)
			return;
	for (i = 0; i < n; i++) {
		handles += i && group[i].handle != group[i - 1].handle;
		from = group[i].address < from ? group[i].address : from;
		to = group[i].address > to ? group[i].address : to;
	}
	if (handles < FAMILY_LEAST)
		return;
	for (i = 0; i < nstates; i++)
		if (is_near(&states[i], from, to) && is_traffic(l, &states[i], group))
			add_hit(f, ELFSYM_HANDLE, l->name, states[i].handle);
	if (f->nhits == hits)
		return;
	find_functions(f->im);
	for (i = 0; i < nstates; i++)
		if (is_near(&states[i], from, to) && !is_traffic(l, &states[i], group) &&
		    expects_data(f->im, l, states[i].handle))
			add_hit(f, ELFSYM_EARLY, l->name, states[i].handle);
}

/* True if there are states that only a newer rustls has */
static bool find_states(struct finder *f, const struct layout *l)
{
	size_t i, n = 0, room = 0, from, families = 0, hits = f->nhits;
	struct state *states = NULL;
	struct vtable t;

	for (i = 0; n < STATES && next_table(f, &l->shape, &i, &t);)
		if (MAKE_ROOM(f->im, states, n, room) && read_state(f->im, l, &t, &states[n]))
			n++;
	if (n)
		qsort(states, n, sizeof(*states), by_family);
	for (from = 0; from < n; from = i) {
		for (i = from + 1; i < n && states[i].defaults == states[from].defaults; i++)
			;
		if (i - from >= FAMILY_LEAST && families++ < FAMILIES)
			find_traffic(f, l, states, n, &states[from], i - from);
	}
	free(states);
	return l->newer && f->nhits > hits;
}

/*
 * OpenSSL's SSL_METHOD
 *
 * {version, flags, mask, functions, enc, ...}: TLS_method, its client and server variants, and
 * the same for one version each, all with the same read and write.  A linker may leave only
 * one of them.  It is confirmed by enc, which points to {functions, label, its length, ...}
 * with the label of the client's Finished message in TLS 1.2 (RFC 5246, 7.4.9).  Read and write are
 * those of SSL_read_ex and SSL_write_ex: (SSL *, buffer, length, size_t *done), 1 for success.
 * OpenSSL 1.1.0, whose are not, has its label elsewhere.
 */
static const struct method {
	unsigned int functions;
	unsigned int read;  /* peek and write come after it */
	unsigned int label; /* where enc has it */
} methods[] = {
	{22, 5, 6}, /* OpenSSL 1.1.1 to 3.1 */
	{25, 8, 4}, /* from 3.2 on */
};

#define TLS_ANY	    0x10000 /* the version of TLS_method */
#define TLS1	    0x301
#define TLS1_3	    0x304
#define METHOD_HEAD 16 /* bytes before the functions */

static const char finished_label[16] = "client finished";

static bool is_method(const struct image *im, const struct method *m, uint64_t functions)
{
	uint64_t enc = word(im, functions + 8 * m->functions);
	uint64_t label = word(im, enc + 8 * m->label);
	unsigned int i;

	for (i = 0; i < m->functions; i++)
		if (!text_of(im, word(im, functions + 8 * i)))
			return false;
	return word(im, enc + 8 * m->label + 8) == strlen(finished_label) &&
	       word(im, label) == get64((const uint8_t *)finished_label) &&
	       word(im, label + 8) == get64((const uint8_t *)finished_label + 8);
}

static void find_methods(struct finder *f, const struct method *m)
{
	const struct image *im = f->im;
	uint64_t address, functions;
	const uint8_t *w;
	uint32_t version;
	size_t i, k, n;

	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k < n; k++) {
			version = get64(w + 8 * k);
			functions = address + 8 * k + METHOD_HEAD;
			if ((version != TLS_ANY && (version < TLS1 || version > TLS1_3)) ||
			    !is_method(im, m, functions))
				continue;
			add_hit(f, ELFSYM_SSL_READ, "SSL_METHOD",
				word(im, functions + 8 * m->read));
			add_hit(f, ELFSYM_SSL_WRITE, "SSL_METHOD",
				word(im, functions + 8 * (m->read + 2)));
		}
	}
}

/*
 * OpenSSL's BIO_METHOD of BIO_f_ssl, through which BIO_write and BIO_read come to it
 *
 * {type (int), name, write, write as it was, read, read as it was, puts, ...}: from OpenSSL
 * 1.1.1 on, whose write and read call neither SSL_write nor SSL_read, but have the
 * arguments and the result of SSL_write_ex, with the BIO in the place of the SSL.  Before
 * (and in LibreSSL and BoringSSL) the table is {type, name, write, read, puts, ...}, and
 * these functions call the public ones.
 */
#define BIO_TYPE_SSL 0x207 /* a filter, number 7 */
#define NAME_SSL     0x6c7373UL

static void find_bio(struct finder *f)
{
	const struct image *im = f->im;
	uint64_t address, m[6];
	size_t i, j, k, n;
	const uint8_t *w;

	for (i = 0; i < im->ndata; i++) {
		w = words_of(&im->data[i], &n, &address);
		for (k = 0; k < n; k++) {
			if (get64(w + 8 * k) != BIO_TYPE_SSL ||
			    (word(im, word(im, address + 8 * k + 8)) & 0xffffffff) != NAME_SSL)
				continue;
			for (j = 0; j < ARRAY_SIZE(m); j++)
				m[j] = word(im, address + 8 * (k + 2 + j));
			if (m[1] || m[3] || m[5] || !text_of(im, m[0]) || !text_of(im, m[2]))
				continue;
			add_hit(f, ELFSYM_BIO_READ, "BIO_f_ssl", m[2]);
			add_hit(f, ELFSYM_BIO_WRITE, "BIO_f_ssl", m[0]);
		}
	}
}

static void find_all(struct finder *f)
{
	bool newer = false;
	size_t i;

	find_tables(f);
	for (i = 0; i < ARRAY_SIZE(layouts); i++)
		newer |= find_states(f, &layouts[i]);
	newer |= find_rustls(f);
	if (!newer)
		find_old_rustls(f);
	for (i = 0; i < ARRAY_SIZE(methods); i++)
		find_methods(f, &methods[i]);
	find_bio(f);
}

int elfsym_tables(int fd,
		  int (*fn)(const struct elfsym_func *func, enum elfsym_role role, void *ctx),
		  void *ctx)
{
	struct finder f = {0};
	size_t i;
	int ret;

	ret = image_open(fd, &f.im);
	if (!ret) {
		find_all(&f);
		ret = f.im->err;
	}
	for (i = 0; i < f.nhits && !ret; i++) {
		const struct hit *h = &f.hits[i];
		const struct range *r = text_of(f.im, h->address);
		struct elfsym_func func = {.name = h->name,
					   .source = "tables",
					   .offset = r->offset + (h->address - r->address),
					   .address = h->address};

		ret = fn(&func, h->role, ctx);
	}
	free(f.tables);
	image_close(f.im);
	return ret;
}
