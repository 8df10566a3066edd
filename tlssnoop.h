/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlssnoop.h - what the kernel side tells the user side.
 *
 * The kernel side (tlssnoop.bpf.c) reports facts, in order, through one ring
 * buffer; the user side (correlate.c) decides from them which socket a chunk of
 * plaintext belongs to.  Everything here is plain data of fixed layout: no
 * pointer in it may ever be followed by the reader.
 */
#ifndef TLSSNOOP_H
#define TLSSNOOP_H

#include <linux/types.h>

/* No record of TLS carries more plaintext (RFC 8446, 5.1), nor does a line */
#define CHUNK_MAX 16384

/* TLS records reported of one system call; of what follows them only the bytes are told */
#define RECORDS_MAX 16

/* TASK_COMM_LEN of the kernel */
#define COMM_SIZE 16

enum fact_type {
	FACT_CHUNK, /* struct chunk: plaintext passed a TLS library */
	FACT_IO,    /* struct io: TLS records passed a socket, or were refused by it */
	FACT_OTHER, /* the thread received on fd, a socket not known to carry TLS */
	FACT_CLOSE, /* fd was closed or replaced; sock: what it names now, or 0 */
	FACT_EXEC,  /* the process executes another program */
	FACT_EXIT,  /* the process is gone */
	FACT_STOP,  /* the process stops, as it was to: see PROCESS_STOP */
};

enum direction { DIR_READ, DIR_WRITE };

enum library { LIB_OPENSSL, LIB_RUSTLS, LIB_GNUTLS, LIB_NSS, LIB_COUNT };

/*
 * How to read a call: which program serves it.  SHAPE_CALL is a C function that
 * takes (connection, buffer, ...) and says at its return how many bytes it took
 * or gave; it needs probes on entry and return.  SHAPE_NSPR is the same for a function
 * that takes any descriptor of NSPR, of which those that NSS made for TLS are meant;
 * SHAPE_SLICES for a method of rustls that takes slices, SHAPE_IO for one of std::io's traits.
 * The others are methods of rustls:
 * encrypt and handle are complete at their entry, decrypt at its return.
 */
enum shape {
	SHAPE_CALL,
	SHAPE_ENCRYPT,
	SHAPE_HANDLE,
	SHAPE_NSPR, /* the first one that few processes need */
	SHAPE_DECRYPT,
	SHAPE_SLICES,
	SHAPE_IO,
	SHAPE_COUNT,
};

/* Where the count of bytes is that a call has moved */
enum count {
	COUNT_RESULT,	   /* the return value, if positive */
	COUNT_KEPT,	   /* the same; refused, the library may keep the bytes (gnutls) */
	COUNT_UNLESS_PEEK, /* the same, unless the fourth argument, flags of NSPR, says peek */
	COUNT_VECTOR,	   /* the same, of the buffers that the second argument is an array of */
	COUNT_ALL,	   /* the third argument, if the return value is 0 */
	COUNT_NONE, /* nowhere: the bytes were shown when they were buffered, and now are sent */
	COUNT_ARG4, /* where this argument points to, a size_t, if the return value is positive */
	COUNT_ARG5,
	COUNT_RUSTLS,	 /* where the fourth argument points to, if the return value is
			    RUSTLS_RESULT_OK */
	COUNT_IO_RESULT, /* in an io::Result<usize> of Rust, if it is one */
	COUNT_OPAQUE,	 /* in the message, as rustls 0.16 to 0.19 has it */
	COUNT_SLICES,	 /* the return value, of the slices of rustls that the second argument is */
};

/*
 * What a probe knows of its hook: the row's number travels with the probe
 * (attach cookie) and these are its fields.
 * count: how the call says how many bytes it moved, an enum count.
 */
#define ROW(lib, dir, count) ((__u64)(lib) | (__u64)(dir) << 8 | (__u64)(count) << 16)
#define ROW_LIB(row)	     ((__u8)(row))
#define ROW_DIR(row)	     ((__u8)((row) >> 8))
#define ROW_COUNT(row)	     ((__u8)((row) >> 16))
#define ROW_VALID	     (1ULL << 24)
/* the file is traced in whatever process runs it (-l) */
#define ROW_ANY_PROCESS (1ULL << 25)
/* the file was built by rustc 1.63 or older, which lays out enums in another way */
#define ROW_OLD_RUSTC (1ULL << 28)
/* within the kernel side: hidden and kept of struct chunk */
#define ROW_HIDDEN (1ULL << 26)
#define ROW_KEPT   (1ULL << 27)

/* What is wanted of a traced process */
#define PROCESS_FOLLOW (1U << 0) /* its children are traced as well */
#define PROCESS_FOUND  (1U << 1) /* it runs a traced file: until it executes another */
#define PROCESS_STOP   (1U << 2) /* it stops when it executes a program */
/* it does so if the program is new, and nobody else takes notice */
#define PROCESS_MAY_STOP (1U << 3)
/* and where it stands */
#define PROCESS_AT_EXEC	 (1U << 4) /* stopped before the loader runs */
#define PROCESS_AT_ENTRY (1U << 5) /* stopped behind it */

/* Addresses of a socket; ports in host order; family 0: not known */
struct endpoints {
	__u16 family;
	__u16 local_port;
	__u16 remote_port;
	__u16 unused;
	__u8 local[16];
	__u8 remote[16];
};

struct fact {
	__u64 time; /* ns, CLOCK_MONOTONIC */
	__u64 sock; /* inode number of the socket behind fd, 0: none */
	__u32 type; /* enum fact_type */
	__u32 lost; /* facts lost so far: what came before may be incomplete */
	__u32 tgid; /* process and thread, in tlssnoop's PID namespace */
	__u32 tid;
	__s32 fd;
	__u32 unused;
};

/* How a chunk's own system call, if it had one, names its fd */
enum nested {
	NESTED_NONE,   /* no socket call inside the library's call */
	NESTED_SOCKET, /* a socket call whose bytes begin inside a record */
	NESTED_RECORD, /* a socket call whose bytes begin with a TLS record */
};

struct chunk {
	struct fact fact; /* fd, sock: of the nested system call */
	__u64 key;	  /* address of the library's connection object */
	__u64 addr;	  /* of the plaintext in the process */
	__u64 off;	  /* of this chunk within its call */
	__u64 len;	  /* plaintext bytes; beyond CHUNK_MAX only if captured is 0 */
	__u64 part;	  /* plaintext in several places comes in parts: where this one */
	__u64 part_len;	  /* begins in the chunk, and its length; 0 and len: a whole chunk */
	__u32 captured;	  /* bytes of it in data[] */
	__u32 uid;
	__u8 lib;    /* enum library */
	__u8 dir;    /* enum direction */
	__u8 nested; /* enum nested */
	__u8 hidden; /* no application data: a message of rustls's that became a record, or a
		      * call that gave nothing out and tells its socket */
	__u8 kept;   /* not sent yet, in a call that may be repeated without the bytes; hidden */
	__u8 pieces; /* of rustls: not a record, but what a caller gave or got of some */
	__u8 unused[2];
	char comm[COMM_SIZE]; /* of the thread */
	struct endpoints ends;
	__u8 data[];
};

struct io {
	struct fact fact;
	__u64 addr;  /* of the first buffer in the process */
	__u64 bytes; /* that the call moved; 0: the socket took none, but was offered them */
	__u8 dir;    /* enum direction */
	__u8 nrecords;
	__u8 unused[6];
	struct endpoints ends;
	/* of the records whose header was in the buffers, in order */
	__u16 length[RECORDS_MAX]; /* bytes after the header */
	__u8 ctype[RECORDS_MAX];   /* content type: 23 is application data */
	__u64 rest;		   /* bytes behind those records that hold further ones */
	__u64 lead;		   /* bytes that were missing of a record that began before */
	/* the kernel side's own, while it walks through the buffers */
	__u64 iov[2];  /* the buffer that it is in: address, length */
	__u64 vector;  /* address of its struct iovec */
	__u64 nvec;    /* of those from here on */
	__u64 to_walk; /* bytes of the call not walked yet */
	__u64 left;    /* bytes that still belong to the last record */
	__u64 header;  /* a record's first five bytes */
};

_Static_assert(sizeof(struct endpoints) == 40, "layout shared with the kernel side");
_Static_assert(sizeof(struct fact) == 40, "layout shared with the kernel side");
_Static_assert(sizeof(struct chunk) == 160, "layout shared with the kernel side");
_Static_assert(sizeof(struct io) == 224, "layout shared with the kernel side");

#endif
