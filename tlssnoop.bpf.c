// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlssnoop.bpf.c - the kernel side: collects facts, decides nothing.
 *
 * In: probes on functions of TLS libraries (one program per calling shape), and
 * the end of every system call of a traced process.  Out: facts (tlssnoop.h) in
 * one ring buffer, in the order in which they happened, across threads.
 *
 * Rules that every program here keeps:
 *  - Less than 64 bytes of stack in every function, which after rounding means 48.
 *    Kernels from 6.13 on give a function with more a stack per CPU, and probe
 *    programs can be preempted: the next task's run would overwrite it, silently.
 *    So state goes into map elements or into the record that is being built, and
 *    what needs a temporary is a function of its own (__noinline).  For the same
 *    reason there is no per-CPU scratch map.
 *  - Nothing is ever written to the traced process.
 *  - What cannot be reported is counted (lost_*).
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "tlssnoop.h"

char LICENSE[] SEC("license") = "GPL";

/* set by the user side before loading */
const volatile bool have_cookie = true; /* bpf_get_attach_cookie: Linux 5.15 */
const volatile __u32 pidns = 0;		/* inode of our PID namespace, 0: the first */
const volatile __u32 snap[2] = {CHUNK_MAX, CHUNK_MAX}; /* bytes copied, by direction */
const volatile char comm_wanted[COMM_SIZE] = "";
const volatile __u32 uid_wanted = -1;
const volatile __u64 wakeup_at = 0; /* bytes in the ring that wake the reader */
const volatile __u32 own_tgid = 0;  /* of tlssnoop */

/* told at the end */
__u64 lost_chunks = 0;
__u64 lost_bytes = 0;
__u64 lost_facts = 0;
__u64 lost_processes = 0;

bool nobody_reads = false; /* tlssnoop ends or has been killed: we follow soon */

/*
 * The kernel's types, with the few members that are read.  Offsets are adjusted to
 * the running kernel (CO-RE), so this needs no vmlinux.h and fits any kernel.
 */
#define KERNEL_TYPE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} KERNEL_TYPE;

struct pid_namespace {
	struct ns_common ns;
} KERNEL_TYPE;

struct upid {
	int nr;
	struct pid_namespace *ns;
} KERNEL_TYPE;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} KERNEL_TYPE;

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
	struct super_block *i_sb;
} KERNEL_TYPE;

struct file {
	struct inode *f_inode;
	void *private_data;
} KERNEL_TYPE;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} KERNEL_TYPE;

struct files_struct {
	struct fdtable *fdt;
} KERNEL_TYPE;

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	unsigned int flags;
	struct pid *pids[3]; /* PIDTYPE_PGID is number 2 */
} KERNEL_TYPE;

struct mm_struct {
	struct file *exe_file;
} KERNEL_TYPE;

struct task_struct {
	unsigned int ptrace;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct files_struct *files;
	struct signal_struct *signal;
	char comm[COMM_SIZE];
} KERNEL_TYPE;

struct in6_addr {
	__u8 bytes[16];
};

struct sock_common {
	unsigned short skc_family;
	__u16 skc_num;
	__u16 skc_dport;
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} KERNEL_TYPE;

struct socket {
	struct sock_common *sk; /* a struct sock, which begins with it */
} KERNEL_TYPE;

/*
 * Registers: here and nowhere else.  A probe gets struct regs, whose layout is part
 * of the kernel's interface; a system call's registers are the kernel's struct pt_regs.
 * argN() counts a C function's arguments from 1; rust_argN() those of a Rust function
 * that returns its result through a hidden pointer: it comes first on x86-64 (rdi) and
 * in a register of its own on arm64 (x8).
 */
#if defined(__TARGET_ARCH_x86)

struct regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};

#define pt_regs regs /* one type; and to look for one in the kernel's takes libbpf 2 ms */

#define arg1(r)	       ((r)->di)
#define arg2(r)	       ((r)->si)
#define arg3(r)	       ((r)->dx)
#define arg4(r)	       ((r)->cx)
#define arg5(r)	       ((r)->r8)
#define rust_arg1(r)   arg2(r)
#define rust_arg2(r)   arg3(r)
#define rust_arg3(r)   arg4(r)
#define rust_result(r) arg1(r)
#define result(r)      ((r)->ax)
#define result2(r)     ((r)->dx)
#define address(r)     ((r)->ip)
#define stack(r)       ((r)->sp)
/* ret has taken the return address from the stack when a return probe runs */
#define stack_at_entry(r) ((r)->sp - 8)
#define sys_number(r)	  ((r)->orig_ax)
#define sys_arg1(r)	  ((r)->di)
#define sys_arg2(r)	  ((r)->si)
#define sys_arg3(r)	  ((r)->dx)
#define sys_arg4(r)	  ((r)->r10)

enum {
	SYS_READ = 0,
	SYS_WRITE = 1,
	SYS_CLOSE = 3,
	SYS_READV = 19,
	SYS_WRITEV = 20,
	SYS_DUP2 = 33,
	SYS_SENDFILE = 40,
	SYS_SENDTO = 44,
	SYS_RECVFROM = 45,
	SYS_SENDMSG = 46,
	SYS_RECVMSG = 47,
	SYS_SPLICE = 275,
	SYS_DUP3 = 292,
	SYS_RECVMMSG = 299,
	SYS_SENDMMSG = 307,
	SYS_CLOSE_RANGE = 436,
};

#elif defined(__TARGET_ARCH_arm64)

struct regs {
	unsigned long regs[31], sp, pc, pstate;
};

struct pt_regs {
	unsigned long regs[31];
	unsigned long orig_x0;
	int syscallno;
} KERNEL_TYPE;

#define arg1(r)		  ((r)->regs[0])
#define arg2(r)		  ((r)->regs[1])
#define arg3(r)		  ((r)->regs[2])
#define arg4(r)		  ((r)->regs[3])
#define arg5(r)		  ((r)->regs[4])
#define rust_arg1(r)	  arg1(r)
#define rust_arg2(r)	  arg2(r)
#define rust_arg3(r)	  arg3(r)
#define rust_result(r)	  ((r)->regs[8])
#define result(r)	  ((r)->regs[0])
#define result2(r)	  ((r)->regs[1])
#define address(r)	  ((r)->pc)
#define stack(r)	  ((r)->sp)
#define stack_at_entry(r) ((r)->sp)
#define sys_number(r)	  ((r)->syscallno)
#define sys_arg1(r)	  ((r)->orig_x0)
#define sys_arg2(r)	  ((r)->regs[1])
#define sys_arg3(r)	  ((r)->regs[2])
#define sys_arg4(r)	  ((r)->regs[3])

enum {
	SYS_DUP3 = 24,
	SYS_CLOSE = 57,
	SYS_READ = 63,
	SYS_WRITE = 64,
	SYS_READV = 65,
	SYS_WRITEV = 66,
	SYS_SENDFILE = 71,
	SYS_SPLICE = 76,
	SYS_SENDTO = 206,
	SYS_RECVFROM = 207,
	SYS_SENDMSG = 211,
	SYS_RECVMSG = 212,
	SYS_RECVMMSG = 243,
	SYS_SENDMMSG = 269,
	SYS_CLOSE_RANGE = 436,
	SYS_DUP2 = -1, /* arm64 has none */
};

#else
#error "tlssnoop knows the registers of x86-64 and arm64 only"
#endif

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1); /* set by the user side */
} facts SEC(".maps");

/* the traced processes; the user side adds those that it is told or finds, hooks of files
 * that are traced in whatever process runs them add theirs, a fork adds the child */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);   /* tgid, in our PID namespace */
	__type(value, __u32); /* PROCESS_... */
} processes SEC(".maps");

/* the row of a probe where the kernel has no attach cookies (before 5.15) */
struct place {
	__u64 address;
	__u64 tgid;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct place);
	__type(value, __u64);
} rows SEC(".maps");

/* a call of a library that a thread is in */
struct call {
	__u64 row;
	__u64 stack; /* pointer at entry: finds the call again at its return */
	__u64 key;
	__u64 buffer;
	__u64 count; /* the argument that says how many, see enum count */
	__u64 len;   /* that it took or gave, at its return */
	__u64 sock;
	__s32 fd;
	__u32 nested;
};

/* TLS inside TLS calls one library from within the other */
#define CALLS_MAX 4

/* plaintext of one record that lies in several slices */
struct slices {
	__u64 row;
	__u64 key;
	__u64 array; /* of {pointer, length}: the next one */
	__u64 skip;  /* bytes that belong to an earlier record */
	__u64 len;   /* of the record's plaintext */
	__u64 part;  /* bytes of it that are reported */
	__u64 slice[2];
};

/* a call of encrypt, which is known by its entry only */
struct encrypted {
	__u64 seq;
	__u64 bytes; /* address of the message's bytes, or of the array of its slices */
	__u64 len;
	__u64 key;
	__u64 function;
};

/* words of an encrypter that are looked at */
#define OBJECT_WORDS 8

struct thread {
	__u64 depth;
	struct call calls[CALLS_MAX];
	__u64 ends_of; /* the socket that ends describes */
	struct endpoints ends;
	struct slices slices;
	struct encrypted last;
	__u64 words[OBJECT_WORDS]; /* of what is looked at */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64); /* tgid and tid as the kernel's first namespace has them */
	__type(value, struct thread);
} threads SEC(".maps");

static const struct thread no_thread;

/* how far the TLS records on a socket have been followed */
struct stream {
	__u64 left[2]; /* bytes of the last record that are still to come, by direction */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64); /* inode number of a socket that carries TLS */
	__type(value, struct stream);
} streams SEC(".maps");

static const struct stream no_stream;

/* A number of size bytes in the kernel's memory, 0 if it cannot be read */
static __noinline __u64 kernel_read(const void *from, __u32 size)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, size, from);
	return value;
}

#define READ(pointer, member)                                                                      \
	((typeof((pointer)->member))kernel_read(&(pointer)->member, sizeof((pointer)->member)))

/* A task's number in our PID namespace, 0 if it has none */
static __noinline __u32 number_of(struct task_struct *task)
{
	struct pid *pid = READ(task, thread_pid);
	__u32 level = READ(pid, level), i;
	struct pid_namespace *ns;

	for (i = 0; i < 32 && i <= level; i++) { /* MAX_PID_NS_LEVEL */
		ns = READ(pid, numbers[0].ns);
		if (!pidns || READ(ns, ns.inum) == pidns) /* the first namespace comes first */
			return READ(pid, numbers[0].nr);
		/* so that number 0 is the next one */
		pid = (void *)pid + bpf_core_field_size(struct pid, numbers[0]);
	}
	return 0;
}

/* (tgid << 32 | tid) as tlssnoop's user would see them */
static __noinline __u64 current_id(void)
{
	struct task_struct *task;

	if (!pidns)
		return bpf_get_current_pid_tgid();
	task = (void *)bpf_get_current_task();
	return (__u64)number_of(READ(task, group_leader)) << 32 | number_of(task);
}

/*
 * A record that wakes the reader costs as much as both probes of a call.  A person does
 * not notice 20 ms: the reader looks by itself, and is woken only when the ring fills.
 */
static __always_inline __u64 wakeup_flags(void)
{
	if (bpf_ringbuf_query(&facts, BPF_RB_AVAIL_DATA) >= wakeup_at)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __noinline void fact_init(struct fact *f, __u32 type)
{
	__u64 id = current_id();

	f->time = bpf_ktime_get_ns();
	f->sock = 0;
	f->type = type;
	f->lost = lost_chunks + lost_facts;
	f->tgid = id >> 32;
	f->tid = id;
	f->fd = -1;
	f->unused = 0;
}

/* What the user side wants of the current process, or NULL: nothing */
static __noinline __u32 *current_process(void)
{
	__u32 tgid = current_id() >> 32;

	return bpf_map_lookup_elem(&processes, &tgid);
}

/* Adds a process; false: there is no room */
static __noinline bool add_process(__u32 tgid, __u32 flags)
{
	return !bpf_map_update_elem(&processes, &tgid, &flags, BPF_ANY);
}

/* Is the current process traced, as who it is now?  Some hooks add whoever runs into them. */
static __noinline bool traced(bool add)
{
	__u32 tgid;

	if (nobody_reads)
		return false;
	if (uid_wanted != (__u32)-1 && (__u32)bpf_get_current_uid_gid() != uid_wanted)
		return false;
	if (current_process())
		return true;
	tgid = current_id() >> 32;
	return add && tgid && add_process(tgid, PROCESS_FOUND);
}

static __always_inline bool is_comm_wanted(const char *comm)
{
	int i;

	for (i = 0; i < COMM_SIZE && comm[i] == comm_wanted[i]; i++)
		if (!comm[i])
			return true;
	return false;
}

/* -n: the name is that of the thread or of its process.  It says nothing of the system calls
 * of a process: another thread of it may send what this one wrote. */
static __noinline bool has_wanted_name(void)
{
	struct task_struct *task;
	char comm[COMM_SIZE];

	if (!comm_wanted[0])
		return true;
	bpf_get_current_comm(comm, sizeof(comm));
	if (is_comm_wanted(comm))
		return true;
	task = (void *)bpf_get_current_task();
	task = READ(task, group_leader);
	bpf_probe_read_kernel(comm, sizeof(comm), &task->comm);
	return is_comm_wanted(comm);
}

static __noinline __u64 row_at(__u64 address)
{
	struct place place = {.address = address, .tgid = current_id() >> 32};
	__u64 *row = bpf_map_lookup_elem(&rows, &place);

	return row ? *row : 0;
}

/* The row of the probe that was hit, 0 if the process is not to be traced */
static __always_inline __u64 row_of(struct regs *regs)
{
	__u64 row = have_cookie ? bpf_get_attach_cookie(regs) : row_at(address(regs));

	return traced(row & ROW_ANY_PROCESS) ? row : 0;
}

/*
 * The probe programs exist twice.  A sleepable one (Linux 6.0) reads a page that
 * is not resident, such as a file that was mapped and never touched; the other
 * cannot.
 */
static __always_inline long copy_in(bool sleepable, void *to, __u32 size, __u64 from)
{
	if (sleepable)
		return bpf_copy_from_user(to, size, (const void *)from);
	return bpf_probe_read_user(to, size, (const void *)from);
}

static __noinline void chunk_init(struct chunk *c, __u64 key, __u64 addr, __u64 len, __u64 row)
{
	fact_init(&c->fact, FACT_CHUNK);
	c->key = key;
	c->addr = addr;
	c->off = 0;
	c->len = len;
	c->part = 0;
	c->part_len = len;
	c->captured = 0;
	c->uid = bpf_get_current_uid_gid();
	c->lib = ROW_LIB(row);
	c->dir = ROW_DIR(row);
	c->nested = NESTED_NONE;
	c->hidden = !!(row & (ROW_HIDDEN | ROW_KEPT));
	c->kept = !!(row & ROW_KEPT);
	c->pieces = ROW_COUNT(row) == COUNT_RUSTLS || ROW_COUNT(row) == COUNT_IO_RESULT;
	__builtin_memset(c->unused, 0, sizeof(c->unused));
	bpf_get_current_comm(c->comm, sizeof(c->comm));
	c->ends.family = 0;
}

static __noinline int chunk_lost(__u64 len)
{
	__sync_fetch_and_add(&lost_chunks, (len + CHUNK_MAX - 1) / CHUNK_MAX);
	__sync_fetch_and_add(&lost_bytes, len);
	return 0;
}

/* How many of so many bytes are copied, if before so many of the chunk were already */
static __always_inline __u64 bytes_wanted(__u64 len, __u64 before, __u64 row)
{
	__u64 limit = snap[ROW_DIR(row) & 1];

	if (len > CHUNK_MAX || before >= limit || (row & ROW_HIDDEN))
		return 0;
	return len < limit - before ? len : limit - before;
}

/*
 * The ring wants a constant size, so there are size classes; the waste is at most
 * three quarters of a small record or half of a large one.
 */
#define FOR_EACH_SIZE(do_size)                                                                     \
	do_size(0) do_size(256) do_size(1024) do_size(4096) do_size(8192) do_size(CHUNK_MAX)

/*
 * The functions from here to the programs are not static where they may be called often:
 * the verifier looks at such a function once, and not once for each turn of a loop.
 * They take numbers only (as Linux 5.8 wants it), hence the state in struct thread.
 */

/* Plaintext of one TLS record, in one piece */
#define RECORD_SIZE(size)                                                                          \
	if (want <= (size)) {                                                                      \
		c = bpf_ringbuf_reserve(&facts, sizeof(*c) + (size), 0);                           \
		if (!c)                                                                            \
			return chunk_lost(len);                                                    \
		chunk_init(c, key, addr, len, row);                                                \
		if ((size) && !copy_in(sleepable, c->data, want, c->addr))                         \
			c->captured = want;                                                        \
		bpf_ringbuf_submit(c, wakeup_flags());                                             \
		return 0;                                                                          \
	}

static __always_inline int record(bool sleepable, __u64 key, __u64 addr, __u64 len, __u64 row)
{
	__u64 want = bytes_wanted(len, 0, row);
	struct chunk *c;

	barrier_var(want);
	FOR_EACH_SIZE(RECORD_SIZE)
	return 0;
}

__noinline int record_plain(__u64 key, __u64 addr, __u64 len, __u64 row)
{
	return record(false, key, addr, len, row);
}

__noinline int record_sleepable(__u64 key, __u64 addr, __u64 len, __u64 row)
{
	return record(true, key, addr, len, row);
}

static __always_inline int show_record(bool sleepable, __u64 key, __u64 addr, __u64 len, __u64 row)
{
	return sleepable ? record_sleepable(key, addr, len, row)
			 : record_plain(key, addr, len, row);
}

static __noinline struct thread *current_thread(void)
{
	__u64 id = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&threads, &id);
}

static __noinline struct thread *current_thread_or_new(void)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct thread *t = bpf_map_lookup_elem(&threads, &id);

	if (t)
		return t;
	bpf_map_update_elem(&threads, &id, &no_thread, BPF_ANY);
	return bpf_map_lookup_elem(&threads, &id);
}

/* Plaintext of one TLS record, in several slices: each comes as a part of the chunk */
#define PART_SIZE(size)                                                                            \
	if (want <= (size)) {                                                                      \
		c = bpf_ringbuf_reserve(&facts, sizeof(*c) + (size), 0);                           \
		if (!c)                                                                            \
			return chunk_lost(s->len - s->part);                                       \
		chunk_init(c, s->key, s->slice[0], s->len, s->row);                                \
		c->part = s->part;                                                                 \
		c->part_len = s->slice[1];                                                         \
		if ((size) && !copy_in(sleepable, c->data, want, c->addr))                         \
			c->captured = want;                                                        \
		bpf_ringbuf_submit(c, wakeup_flags());                                             \
		goto next;                                                                         \
	}

/* The next slice.  Returns 1 if there may be more of them. */
static __always_inline int slice(bool sleepable)
{
	struct thread *t = current_thread();
	struct slices *s;
	struct chunk *c;
	__u64 want;

	if (!t)
		return 0;
	s = &t->slices;
	if (copy_in(sleepable, s->slice, sizeof(s->slice), s->array))
		s->slice[1] = s->skip + s->len - s->part; /* bytes that cannot be shown */
	s->array += sizeof(s->slice);
	if (s->skip >= s->slice[1]) {
		s->skip -= s->slice[1];
		return 1;
	}
	s->slice[0] += s->skip;
	s->slice[1] -= s->skip;
	s->skip = 0;
	if (s->slice[1] > s->len - s->part)
		s->slice[1] = s->len - s->part;
	want = bytes_wanted(s->slice[1], s->part, s->row);
	barrier_var(want);
	FOR_EACH_SIZE(PART_SIZE)
next:
	s->part += s->slice[1];
	return s->part < s->len;
}

__noinline int slice_plain(void)
{
	return slice(false);
}

__noinline int slice_sleepable(void)
{
	return slice(true);
}

/* A loop within a loop, as the verifier follows every turn of one */
#define TURNS 64

__noinline int slices_plain(void)
{
	int i, more = 1;

	for (i = 0; i < TURNS && more; i++)
		more = slice_plain();
	return more;
}

__noinline int slices_sleepable(void)
{
	int i, more = 1;

	for (i = 0; i < TURNS && more; i++)
		more = slice_sleepable();
	return more;
}

#define PIECE_SIZE(size)                                                                           \
	if (want <= (size)) {                                                                      \
		c = bpf_ringbuf_reserve(&facts, sizeof(*c) + (size), 0);                           \
		if (!c)                                                                            \
			return chunk_lost(len);                                                    \
		chunk_init(c, call->key, call->buffer + off, len, call->row);                      \
		c->off = off;                                                                      \
		if (call->nested) {                                                                \
			c->nested = call->nested;                                                  \
			c->fact.fd = call->fd;                                                     \
			c->fact.sock = call->sock;                                                 \
			if (t->ends_of == call->sock)                                              \
				c->ends = t->ends;                                                 \
		}                                                                                  \
		if ((size) && !copy_in(sleepable, c->data, want, c->addr))                         \
			c->captured = want;                                                        \
		bpf_ringbuf_submit(c, wakeup_flags());                                             \
		return 0;                                                                          \
	}

static __always_inline struct call *innermost(struct thread *t)
{
	return &t->calls[(t->depth - 1) & (CALLS_MAX - 1)];
}

/* calls of up to 64 MiB are shown whole, the rest of a longer one by its length */
#define PIECES_MAX (TURNS * TURNS)

/* One chunk, by its number, of the call that the thread is in */
static __always_inline int piece(bool sleepable, __u64 number)
{
	__u64 off = number * CHUNK_MAX, len, want;
	struct thread *t = current_thread();
	struct call *call;
	struct chunk *c;

	if (!t || !t->depth)
		return 0;
	call = innermost(t);
	len = call->len - off;
	if (len > CHUNK_MAX && number < PIECES_MAX)
		len = CHUNK_MAX;
	want = bytes_wanted(len, 0, call->row);
	barrier_var(want);
	FOR_EACH_SIZE(PIECE_SIZE)
	return 0;
}

__noinline int piece_plain(__u64 number)
{
	return piece(false, number);
}

__noinline int piece_sleepable(__u64 number)
{
	return piece(true, number);
}

/*
 * SHAPE_CALL: remember the arguments at the entry, read the bytes at the return.
 * buffer: where the bytes are or will be, 0: that is not known at the entry.
 */
static __noinline struct call *enter_call(__u64 stack, __u64 key, __u64 buffer, __u64 row)
{
	struct thread *t = current_thread_or_new();
	struct call *call;
	__u64 i;

	if (!t) {
		chunk_lost(1);
		return NULL;
	}
	/*
	 * The stack grows down: a call that began at or below this one's stack
	 * pointer has ended without its return probe (longjmp, a thread that was
	 * cancelled).
	 */
	for (i = 0; i < CALLS_MAX && t->depth && innermost(t)->stack <= stack; i++)
		t->depth--;
	/*
	 * SSL_write_ex calls SSL_write_ex2 (OpenSSL 3.3), SSL_read_early_data calls
	 * SSL_read_ex, and LibreSSL's _ex forms call the plain ones: the outermost
	 * call of a connection counts.  (A call in the other direction is another one:
	 * node writes from a callback of SSL_read.)  So it does where one library wraps
	 * another and passes the buffer on (GnuTLS has an SSL_write that calls
	 * gnutls_record_send): TLS inside TLS gives the inner library a buffer of its own.
	 */
	for (i = 0; i < CALLS_MAX; i++)
		if (i < t->depth && ROW_DIR(t->calls[i].row) == ROW_DIR(row) &&
		    (t->calls[i].key == key || (buffer && t->calls[i].buffer == buffer)))
			return NULL;
	if (t->depth >= CALLS_MAX) {
		chunk_lost(1);
		return NULL;
	}
	t->depth++;
	call = innermost(t);
	call->row = row;
	call->stack = stack;
	call->key = key;
	call->buffer = buffer;
	call->sock = 0;
	call->fd = -1;
	call->nested = NESTED_NONE;
	return call;
}

/* At the entry, if this call is to be counted */
static __always_inline int enter_c_call(struct regs *regs, __u64 row)
{
	__u64 third, fourth, fifth;
	struct call *call;

	call = enter_call(stack(regs), arg1(regs), arg2(regs), row);
	if (!call)
		return 0;
	/* the verifier wants constant offsets into regs: no choice of one at run time */
	third = arg3(regs);
	barrier_var(third);
	fourth = arg4(regs);
	barrier_var(fourth);
	fifth = arg5(regs);
	barrier_var(fifth);
	if (ROW_COUNT(row) == COUNT_ARG4 || ROW_COUNT(row) == COUNT_UNLESS_PEEK ||
	    ROW_COUNT(row) == COUNT_RUSTLS)
		call->count = fourth;
	else
		call->count = ROW_COUNT(row) == COUNT_ARG5 ? fifth : third;
	return 0;
}

SEC("uprobe")
int call_entry(struct regs *regs)
{
	__u64 row = row_of(regs);

	return row ? enter_c_call(regs, row) : 0;
}

/* A word of the process's memory, 0 if it cannot be read */
static __noinline __u64 user_word(__u64 address)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)address);
	return word;
}

#define LAYERS_MAX	4
#define PR_DESC_LAYERED 4
#define LIBRARY_SIZE	(64ULL << 20) /* no library that holds NSS is as large */

/*
 * SHAPE_NSPR: is this a descriptor that NSS has put TLS on, or is there one below it?  NSPR
 * (prio.h): {methods, secret, lower descriptor, ...}; methods begin with a type (int), close
 * and read.  A descriptor at the bottom, a file or a socket, is of another type.  NSS
 * (sslimpl.h, alike in all of 3.x): secret begins with {the descriptor, its methods}, and both
 * sorts of methods are its own, so they are near each other.
 */
static __noinline bool is_tls(__u64 fd)
{
	__u64 methods, secret;
	int i;

	for (i = 0; i < LAYERS_MAX; i++) {
		methods = user_word(fd);
		if ((__u32)user_word(methods) != PR_DESC_LAYERED)
			return false;
		secret = user_word(fd + 8);
		if (secret && user_word(secret) == fd &&
		    user_word(user_word(secret + 8)) - user_word(methods + 16) + LIBRARY_SIZE <
			    2 * LIBRARY_SIZE)
			return true;
		fd = user_word(fd + 16);
	}
	return false;
}

SEC("uprobe")
int nspr_entry(struct regs *regs)
{
	__u64 row = row_of(regs);

	return row && is_tls(arg1(regs)) ? enter_c_call(regs, row) : 0;
}

/* The call that returns becomes the innermost one.  NULL: it was not counted at its entry. */
static __noinline struct call *find_call(struct thread *t, __u64 stack)
{
	__u64 i;

	/* calls that ended without a return lie deeper than this one */
	for (i = 0; i < CALLS_MAX && t->depth && innermost(t)->stack < stack; i++)
		t->depth--;
	if (!t->depth || innermost(t)->stack != stack)
		return NULL;
	return innermost(t);
}

/* The call that returns, and its thread.  NULL as above, or of the thread nothing is known. */
static __always_inline struct call *returning(struct regs *regs, struct thread **t)
{
	*t = current_thread();
	return *t ? find_call(*t, stack_at_entry(regs)) : NULL;
}

#define PR_MSG_PEEK 2

#define RUSTLS_RESULT_OK 7000 /* of rustls-ffi (rustls.h); the others are errors */

/* How many bytes a call has moved that returned this */
static __always_inline __u64 moved(bool sleepable, struct call *call, int result)
{
	__u64 len = 0;

	switch (ROW_COUNT(call->row)) {
	case COUNT_NONE:
		return 0;
	case COUNT_ALL:
		return result ? 0 : call->count;
	case COUNT_UNLESS_PEEK: /* what is only looked at comes again */
		if (call->count & PR_MSG_PEEK)
			return 0;
		/* fall through */
	case COUNT_RESULT:
	case COUNT_KEPT:
	case COUNT_VECTOR:
		return result > 0 ? result : 0;
	default:
		if (ROW_COUNT(call->row) == COUNT_RUSTLS ? result == RUSTLS_RESULT_OK : result > 0)
			copy_in(sleepable, &len, sizeof(len), call->count);
		return len;
	}
}

/* The next buffer of s->array, {address, length (int)}, of which there are s->len bytes left */
static __noinline void next_vector(struct slices *s, struct call *call)
{
	call->buffer = user_word(s->array);
	call->len = (__u32)user_word(s->array + 8);
	if (call->len > s->len)
		call->len = s->len;
	s->array += sizeof(s->slice);
	s->len -= call->len;
	s->part = 0;
}

static __always_inline void show_piece(bool sleepable, __u64 number)
{
	if (sleepable)
		piece_sleepable(number);
	else
		piece_plain(number);
}

/* The next pieces of the call that the thread is in, from number s->part of its buffer on.
 * Returns how many bytes are left after them. */
static __always_inline __u64 step(bool sleepable)
{
	struct thread *t = current_thread();
	struct slices *s;
	struct call *call;
	__u64 first, end;
	int i;

	if (!t || !t->depth)
		return 0;
	s = &t->slices;
	call = innermost(t);
	if (s->len && s->part * CHUNK_MAX >= call->len)
		next_vector(s, call);
	first = s->part;
	end = (call->len + CHUNK_MAX - 1) / CHUNK_MAX;
	if (end > PIECES_MAX + 1)
		end = PIECES_MAX + 1;
	for (i = 0; i < TURNS && first + i < end; i++)
		show_piece(sleepable, first + i);
	s->part = first + TURNS;
	return s->len + (s->part < end ? call->len - s->part * CHUNK_MAX : 0);
}

__noinline __u64 step_plain(void)
{
	return step(false);
}

__noinline __u64 step_sleepable(void)
{
	return step(true);
}

/* All pieces of the call that the thread is in.  Its buffer is one, or with COUNT_VECTOR 16 at
 * most (prio.h), each of which takes a step for each MiB. */
static __always_inline void all_pieces(bool sleepable, struct slices *s, struct call *call)
{
	__u64 left = 1;
	int i;

	s->array = call->buffer;
	s->len = s->part = 0;
	if (ROW_COUNT(call->row) == COUNT_VECTOR) {
		s->len = call->len;
		call->len = 0;
	}
	for (i = 0; i <= PIECES_MAX / TURNS && left; i++)
		left = sleepable ? step_sleepable() : step_plain();
	if (left)
		chunk_lost(left);
}

/*
 * gnutls_record_send(3): after these results the call is to be repeated, and then may be
 * without data, as GnuTLS has encrypted it already.
 */
#define GNUTLS_E_AGAIN	     -28
#define GNUTLS_E_INTERRUPTED -52

static __always_inline bool is_kept(const struct call *call, int result)
{
	return ROW_COUNT(call->row) == COUNT_KEPT && call->buffer &&
	       (result == GNUTLS_E_AGAIN || result == GNUTLS_E_INTERRUPTED);
}

static __always_inline int call_return(bool sleepable, struct regs *regs)
{
	struct thread *t;
	struct call *call = returning(regs, &t);

	if (!call)
		return 0;
	call->len = moved(sleepable, call, result(regs));
	if (is_kept(call, result(regs)) && has_wanted_name()) {
		call->row |= ROW_KEPT;
		call->len = call->count < CHUNK_MAX ? call->count : CHUNK_MAX;
		show_piece(sleepable, 0);
	} else if (!call->len && call->nested) {
		/* it took records in and gave nothing out: the next call may give what was in
		 * them, and go to no socket for it */
		call->row |= ROW_HIDDEN;
		show_piece(sleepable, 0);
	} else if (call->len && has_wanted_name()) {
		all_pieces(sleepable, &t->slices, call);
	}
	t->depth--;
	return 0;
}

SEC("uretprobe")
int call_return_plain(struct regs *regs)
{
	return call_return(false, regs);
}

SEC("uretprobe.s")
int call_return_sleepable(struct regs *regs)
{
	return call_return(true, regs);
}

/*
 * SHAPE_SLICES: rustls 0.23, CommonState::buffer_plaintext(&mut self, slices, buffer), which says
 * how many of their bytes it took.  They are what encrypt gets, see there, and belong to the
 * callee: they are looked at before it has changed them.
 */
#define IN_ARRAY     (1ULL << 63)
#define RECORD_TURNS 256 /* for 4 MiB, or less of very small slices */

SEC("uprobe")
int slices_entry(struct regs *regs)
{
	__u64 row = row_of(regs), slices = arg2(regs);
	struct call *call;

	if (!row)
		return 0;
	call = enter_call(stack(regs), arg1(regs), 0, row);
	if (!call)
		return 0;
	if (user_word(slices) == 1) /* the choice of old compilers */
		slices += 8;
	call->buffer = user_word(slices);
	call->count = IN_ARRAY | user_word(slices + 0x10);
	if (call->buffer)
		return 0;
	call->buffer = user_word(slices + 8);
	call->count = 0;
	return 0;
}

/* COUNT_SLICES, of an array: rustls makes records of all its bytes in a row */
static __always_inline void records(bool sleepable, struct slices *s, struct call *call)
{
	int i;

	s->row = call->row;
	s->key = call->key;
	s->len = s->part = 0;
	for (i = 0; i < RECORD_TURNS && call->len; i++) {
		if (s->part == s->len) {
			s->array = call->buffer;
			s->skip = call->count & ~IN_ARRAY;
			s->len = call->len < CHUNK_MAX ? call->len : CHUNK_MAX;
			s->part = 0;
		}
		if (sleepable)
			slices_sleepable();
		else
			slices_plain();
		if (s->part < s->len)
			continue;
		call->count += s->len;
		call->len -= s->len;
	}
	if (call->len)
		chunk_lost(call->len);
}

/*
 * SHAPE_IO: rustls, Read and Write of Reader and Writer, (&mut self, buffer, length) ->
 * io::Result<usize>.  It is {0: no error, count}, in two registers with rustc 1.85 and newer,
 * in memory with 1.63.  Both objects are made for the call, and begin with the address of what
 * they read from or write to.
 */
SEC("uprobe")
int io_entry(struct regs *regs)
{
	__u64 row = row_of(regs), self = arg1(regs), buffer = arg2(regs), len = arg3(regs), out = 0;
	struct call *call;

	if (!row)
		return 0;
	if (row & ROW_OLD_RUSTC) {
		self = rust_arg1(regs);
		buffer = rust_arg2(regs);
		len = rust_arg3(regs);
		out = rust_result(regs);
	}
	call = enter_call(stack(regs), user_word(self), buffer, row);
	if (!call)
		return 0;
	call->len = len;
	call->count = out;
	return 0;
}

static __noinline __u64 io_result(struct call *call, __u64 error, __u64 count)
{
	if (call->row & ROW_OLD_RUSTC) {
		error = user_word(call->count);
		count = user_word(call->count + 8);
	}
	return error || count > call->len ? 0 : count;
}

/* The return of both */
static __always_inline int method_return(bool sleepable, struct regs *regs)
{
	struct thread *t;
	struct call *call = returning(regs, &t);

	if (!call)
		return 0;
	if (ROW_COUNT(call->row) == COUNT_IO_RESULT)
		call->len = io_result(call, result(regs), result2(regs));
	else
		call->len = result(regs);
	if (call->len && has_wanted_name()) {
		if (ROW_COUNT(call->row) == COUNT_SLICES && call->count & IN_ARRAY)
			records(sleepable, &t->slices, call);
		else
			all_pieces(sleepable, &t->slices, call);
	}
	t->depth--;
	return 0;
}

SEC("uretprobe")
int method_return_plain(struct regs *regs)
{
	return method_return(false, regs);
}

SEC("uretprobe.s")
int method_return_sleepable(struct regs *regs)
{
	return method_return(true, regs);
}

/*
 * SHAPE_ENCRYPT: rustls, <... as MessageEncrypter>::encrypt(&mut self, message, seq).
 * One call is one record.  The message is, by version of rustls,
 *   0.16 to 0.22  {pointer, length, content type (u8), version (u16 at +2)}
 *                 with the places of the enums: type 3, version 4
 *   0.23          {slices (4 words), content type (u8), version (u16 at +2)}, same
 *   0.24          {slices (4 words), 0 (u8), version 0x0303 (u16 at +2), type 0x17 (u8)}
 * and with old compilers (rustc 1.63) {..., version (u16), content type (u8 at +4)},
 * where version is what the record says: TLS 1.2 for every encrypted one, but for a handshake
 * message of TLS 1.3 that version (place 5).  Bytes between these are what they were before.
 *
 * The slices (OutboundChunks, called OutboundPlain in 0.24): if word 0 is 0, one
 * {pointer, length} follows; else words 0 and 1 are an array of such, of whose bytes
 * those from word 2 to word 3 are meant.  Old compilers have the choice in a word of its own,
 * before all of these.
 *
 * Word 2 may look like an old version's type, beyond 256 KiB; what stands behind an old
 * version's message may look like a new version's type, but not also have 1 to 16384 bytes
 * from word 2 to word 3.
 */
enum { NO_MESSAGE, APPDATA, OTHER_MESSAGE, TLS13_HANDSHAKE };

/* What a word that may hold type and version says.  A type of 0, ChangeCipherSpec, is never
 * encrypted: such a word is a length. */
static __always_inline int kind_of(__u64 word)
{
	if ((word & 0xffff00fc) == 0x00040000 && word & 3)
		return (word & 3) == 3 ? APPDATA : OTHER_MESSAGE;
	if ((word & 0xfc0000ffff) == 4 && word >> 32 & 3)
		return (word >> 32 & 3) == 3 ? APPDATA : OTHER_MESSAGE;
	if ((word & 0xfcffff00ff) == 0x1403030000)
		return (word >> 32 & 0xff) == 0x17 ? APPDATA : OTHER_MESSAGE;
	if ((word & 0xffff00ff) == 0x00050002 || (word & 0xff0000ffff) == 0x0200000005 ||
	    (word & 0xffffff00ff) == 0x1603040000)
		return TLS13_HANDSHAKE;
	return NO_MESSAGE;
}

/* Reads the word at address into s->slice[0] and returns what kind_of() says */
static __always_inline int kind_at(bool sleepable, struct slices *s, __u64 address)
{
	return copy_in(sleepable, s->slice, sizeof(s->slice[0]), address) ? NO_MESSAGE
									  : kind_of(s->slice[0]);
}

/* Where the slices of a message are: in an array if s->array is not 0, else in s->slice.
 * False: these can be no slices. */
static __always_inline bool find_slices(bool sleepable, struct slices *s, __u64 message)
{
	if (copy_in(sleepable, s->slice, sizeof(s->slice), message + 0x10))
		return false;
	s->skip = s->slice[0];
	s->len = s->slice[1];
	if (copy_in(sleepable, s->slice, sizeof(s->slice), message))
		return false;
	s->array = s->slice[0];
	if (s->array) {
		s->len -= s->skip;
		s->part = 0;
		return s->len && s->len <= CHUNK_MAX;
	}
	s->slice[0] = s->slice[1];
	s->slice[1] = s->skip;
	s->len = s->skip;
	return true;
}

/* Finds out what message is.  If it is one, s says where its bytes are: see find_slices() */
static __always_inline int parse_message(bool sleepable, struct slices *s, __u64 message)
{
	int kind = kind_at(sleepable, s, message + 0x20);

	if (kind && find_slices(sleepable, s, message))
		return kind;
	kind = kind_at(sleepable, s, message + 0x10);
	if (kind) {
		if (copy_in(sleepable, s->slice, sizeof(s->slice), message))
			return NO_MESSAGE;
		s->array = 0;
		s->len = s->slice[1];
		return kind;
	}
	/* that of old compilers, whose first word is 0 or 1 */
	kind = kind_at(sleepable, s, message + 0x28);
	if (!kind || copy_in(sleepable, s->slice, sizeof(s->slice[0]), message) || s->slice[0] > 1)
		return NO_MESSAGE;
	return find_slices(sleepable, s, message + 8 * s->slice[0]) ? kind : NO_MESSAGE;
}

/*
 * An encrypter of a provider that wraps another one has the work done by that one's encrypt,
 * which is the same record once more.  Such a call has the sequence number and the bytes of
 * the thread's last one.  So may the next one of two connections that send the same bytes
 * in turn: what tells a wrapper is that its object holds the address of the other's object,
 * or begins with that object and has a function of its own.  Stack and return address tell
 * nothing: the call may be a jump.
 */
static __noinline bool is_wrapped(struct thread *t, __u64 seq, __u64 function)
{
	struct slices *s = &t->slices;
	struct encrypted *last = &t->last;
	__u64 bytes = s->array ? s->array : s->slice[0], outer = last->key;
	bool same = last->seq == seq && last->bytes == bytes && last->len == s->len;
	bool other = last->function != function;
	int i;

	last->seq = seq;
	last->bytes = bytes;
	last->len = s->len;
	last->key = s->key;
	last->function = function;
	if (!same)
		return false;
	if (outer == s->key)
		return other;
	if (bpf_probe_read_user(t->words, sizeof(t->words), (void *)outer))
		return false;
	for (i = 0; i < OBJECT_WORDS; i++)
		if (t->words[i] == s->key)
			return true;
	return false;
}

/* Of a handshake message, its first byte (RFC 8446, section 4) */
#define NEW_SESSION_TICKET 4

static __always_inline bool is_ticket(bool sleepable, struct slices *s)
{
	s->part = 0;
	return !s->array && !copy_in(sleepable, &s->part, 1, s->slice[0]) &&
	       s->part == NEW_SESSION_TICKET;
}

/*
 * A message that is no application data is reported without its bytes: its record is on
 * the socket like the others, and must not be taken for one of theirs.  Handshake messages of
 * TLS 1.3 have an encrypter of their own, whose address is soon another's; but a server's
 * tickets have that of the data, and tell its socket before there are any.
 */
static __always_inline int encrypt(bool sleepable, struct regs *regs)
{
	__u64 row = row_of(regs);
	struct thread *t;
	struct slices *s;
	int kind, i, more = 1;

	if (!row || !has_wanted_name())
		return 0;
	t = current_thread_or_new();
	if (!t)
		return chunk_lost(1);
	s = &t->slices;
	s->row = row;
	s->key = rust_arg1(regs);
	kind = parse_message(sleepable, s, rust_arg2(regs));
	if (kind == NO_MESSAGE || is_wrapped(t, rust_arg3(regs), address(regs)))
		return 0;
	switch (kind) {
	case TLS13_HANDSHAKE:
		if (!is_ticket(sleepable, s))
			return 0;
		/* fall through */
	case OTHER_MESSAGE:
		return show_record(sleepable, s->key, 0, s->len, row | ROW_HIDDEN);
	case APPDATA:
		if (!s->len)
			return 0;
		if (!s->array)
			return show_record(sleepable, s->key, s->slice[0], s->len, row);
		for (i = 0; i < TURNS && more; i++)
			more = sleepable ? slices_sleepable() : slices_plain();
	}
	return 0;
}

SEC("uprobe")
int encrypt_plain(struct regs *regs)
{
	return encrypt(false, regs);
}

SEC("uprobe.s")
int encrypt_sleepable(struct regs *regs)
{
	return encrypt(true, regs);
}

/*
 * SHAPE_HANDLE: rustls 0.16 to 0.23, <ExpectTraffic as State>::handle(self: Box<Self>,
 * context, message), and 0.24, handle(self: Box<Self>, input, output), whose input begins
 * with the message.  The message begins with the tag of its payload, whose variants
 * are told by a niche: top bit set, ApplicationData being number 5 in 0.23.14 and later
 * (4 with rustc 1.97 and newer), 4 in earlier 0.23, 3 in 0.20 to 0.22, 0x19 in 0.19.  The
 * variants in between never reach this state.  Its bytes: {capacity or niche, pointer,
 * length}.  What rustc 1.63 and older built has a tag of one byte instead, 3 in 0.20 to 0.23.0;
 * then {pointer, capacity, length}, in 0.23 {0, pointer, length}.
 */
static __always_inline bool is_appdata(__u64 tag)
{
	tag ^= 1ULL << 63;
	return (tag >= 3 && tag <= 5) || tag == 0x19;
}

/*
 * 0.16 to 0.19: the tag is 0x19 or 3, whatever stands above its lowest byte, and capacity and
 * pointer come in either order, by the compiler, which in programs that old is seldom known.
 */
static __always_inline bool find_opaque(bool sleepable, __u64 message, __u64 *word)
{
	__u64 capacity;

	if (copy_in(sleepable, word, sizeof(*word), message) ||
	    ((word[0] & 0xff) != 3 && (word[0] & 0xff) != 0x19) ||
	    copy_in(sleepable, word, 2 * sizeof(*word), message + 8))
		return false;
	capacity = word[1];
	if (word[0] < capacity) {
		capacity = word[0];
		word[0] = word[1];
	}
	return !copy_in(sleepable, &word[1], sizeof(*word), message + 0x18) && word[1] <= capacity;
}

/* Reads the plaintext's {pointer, length} into word.  False: there is none. */
static __always_inline bool find_appdata(bool sleepable, struct regs *regs, __u64 row, __u64 *word)
{
	__u64 message = rust_arg2(regs);

	if (ROW_COUNT(row) == COUNT_OPAQUE)
		return find_opaque(sleepable, rust_arg3(regs), word);
	/* before 0.24 this is the context, which begins with an address */
	if (copy_in(sleepable, word, sizeof(*word), message))
		return false;
	if (!is_appdata(word[0])) {
		message = rust_arg3(regs);
		if (copy_in(sleepable, word, sizeof(*word), message))
			return false;
	}
	if (!(row & ROW_OLD_RUSTC))
		return is_appdata(word[0]) &&
		       !copy_in(sleepable, word, 2 * sizeof(*word), message + 0x10);
	if ((word[0] & 0xff) != 3 || copy_in(sleepable, word, 2 * sizeof(*word), message + 8))
		return false;
	if (!word[0])
		word[0] = word[1];
	return !copy_in(sleepable, &word[1], sizeof(*word), message + 0x18);
}

static __always_inline int handle(bool sleepable, struct regs *regs)
{
	__u64 row = row_of(regs), word[2];

	if (!row || !has_wanted_name() || !find_appdata(sleepable, regs, row, word) || !word[1])
		return 0;
	return show_record(sleepable, rust_arg1(regs), word[0], word[1], row);
}

SEC("uprobe")
int handle_plain(struct regs *regs)
{
	return handle(false, regs);
}

SEC("uprobe.s")
int handle_sleepable(struct regs *regs)
{
	return handle(true, regs);
}

/*
 * SHAPE_DECRYPT: rustls, <... as MessageDecrypter>::decrypt(&mut self, message, seq).  The
 * plaintext is known at the return, from the result:
 *   0.20 to 0.22  {0, vector (3 words), version (u16), content type (u8 at +4)}
 *   0.23          {tag (u8), pointer, length, content type (u8), version (u16 at +2)}
 *   0.24          {tag (u8), pointer, length, 0 (u16), version (u16), type (u8 at +4)}
 * with the same numbers for type and version as in SHAPE_ENCRYPT, but here TLS 1.3 says
 * so.  A vector is {capacity, pointer, length}, with old compilers (rustc 1.63) {pointer,
 * capacity, length}; a capacity is always less than an address.  The tag of an error is
 * less than 0x14; then the rest is what lay there before.  From 0.23 on, plaintext lies
 * within the message, whose first words are its {pointer, length}.
 */
#define RESULT_WORDS 5

/* A decrypter that another one wraps, which is not done yet, has the same message: leave it
 * to that one.  Where the call is a jump, both return at once, and the last one counts. */
static __noinline void leave_wrapped(struct thread *t)
{
	struct call *inner, *outer;

	if (!t || t->depth < 2)
		return;
	inner = innermost(t);
	outer = &t->calls[(t->depth - 2) & (CALLS_MAX - 1)];
	if (outer->row == inner->row && outer->buffer == inner->buffer && outer->len == inner->len)
		t->depth--;
}

SEC("uprobe")
int decrypt_entry(struct regs *regs)
{
	__u64 row = row_of(regs);
	struct call *call;

	if (!row)
		return 0;
	call = enter_call(stack(regs), rust_arg1(regs), 0, row);
	if (!call)
		return 0;
	call->count = rust_result(regs);
	call->len = 0;
	bpf_probe_read_user(&call->buffer, 8, (void *)rust_arg2(regs));
	bpf_probe_read_user(&call->len, 8, (void *)(rust_arg2(regs) + 8));
	leave_wrapped(current_thread());
	return 0;
}

static __always_inline bool is_version(__u64 v)
{
	return v == 4 || v == 5 || v == 0x303 || v == 0x304;
}

/* Finds the plaintext in w: its address in w[1], its length in w[2].  False: none. */
static __noinline bool parse_result(struct call *call, __u64 *w)
{
	__u64 b = w[3] & 0xff, b_version = w[3] >> 16 & 0xffff, c = w[3] >> 32 & 0xff;

	if (!w[0] && is_version(w[4] & 0xffff) && (w[4] >> 32 & 0xff) == 3) {
		if (w[1] < w[2])
			w[1] = w[2];
		w[2] = w[3];
		return true;
	}
	return (w[0] & 0xff) >= 0x14 && is_version(b_version) && (b == 3 || (!b && c == 0x17)) &&
	       w[1] - call->buffer <= call->len && w[2] <= call->len;
}

static __always_inline int decrypt_return(bool sleepable, struct regs *regs)
{
	struct thread *t;
	struct call *call = returning(regs, &t);

	if (!call)
		return 0;
	t->depth--;
	if (!has_wanted_name() ||
	    copy_in(sleepable, t->words, RESULT_WORDS * sizeof(__u64), call->count) ||
	    !parse_result(call, t->words) || !t->words[2])
		return 0;
	return show_record(sleepable, call->key, t->words[1], t->words[2], call->row);
}

SEC("uretprobe")
int decrypt_return_plain(struct regs *regs)
{
	return decrypt_return(false, regs);
}

SEC("uretprobe.s")
int decrypt_return_sleepable(struct regs *regs)
{
	return decrypt_return(true, regs);
}

/* The file behind a descriptor of the current process */
static __noinline struct file *file_of(__u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct files_struct *files = READ(task, files);
	struct fdtable *table = READ(files, fdt);

	if (fd >= READ(table, max_fds))
		return NULL;
	return (void *)kernel_read(READ(table, fd) + fd, sizeof(void *));
}

/* The inode number of a file if it is a socket, else 0 */
static __noinline __u64 socket_inode(struct file *file)
{
	struct inode *inode;

	if (!file)
		return 0;
	inode = READ(file, f_inode);
	if ((READ(inode, i_mode) & 0170000) != 0140000) /* S_IFSOCK */
		return 0;
	return READ(inode, i_ino);
}

#define AF_INET	 2
#define AF_INET6 10

static __noinline void read_ends(struct endpoints *e, struct file *file)
{
	struct socket *socket = READ(file, private_data);
	struct sock_common *sc = READ(socket, sk);

	__builtin_memset(e, 0, sizeof(*e));
	e->family = READ(sc, skc_family);
	if (e->family == AF_INET) {
		bpf_probe_read_kernel(e->local, 4, &sc->skc_rcv_saddr);
		bpf_probe_read_kernel(e->remote, 4, &sc->skc_daddr);
	} else if (e->family == AF_INET6 && bpf_core_field_exists(sc->skc_v6_daddr)) {
		bpf_probe_read_kernel(e->local, 16, &sc->skc_v6_rcv_saddr);
		bpf_probe_read_kernel(e->remote, 16, &sc->skc_v6_daddr);
	}
	e->local_port = READ(sc, skc_num);
	e->remote_port = __builtin_bswap16(READ(sc, skc_dport));
}

enum buffers { BUF, VEC, MSG, MMSG, NO_IO };

/* How a system call on a socket passes its bytes */
static __always_inline enum buffers buffers_of(long nr)
{
	switch (nr) {
	case SYS_READ:
	case SYS_RECVFROM:
	case SYS_WRITE:
	case SYS_SENDTO:
		return BUF;
	case SYS_READV:
	case SYS_WRITEV:
		return VEC;
	case SYS_RECVMSG:
	case SYS_SENDMSG:
		return MSG;
	case SYS_RECVMMSG:
	case SYS_SENDMMSG:
		return MMSG;
	default:
		return NO_IO;
	}
}

static __always_inline enum direction direction_of(long nr)
{
	switch (nr) {
	case SYS_READ:
	case SYS_RECVFROM:
	case SYS_READV:
	case SYS_RECVMSG:
	case SYS_RECVMMSG:
		return DIR_READ;
	default:
		return DIR_WRITE;
	}
}

/* Finds the first buffer of a call, and the array that the others are in.  Returns 0. */
static __noinline int find_buffers(struct io *io, __u64 buffer, __u64 count, __u32 buffers)
{
	io->iov[0] = buffer;
	io->iov[1] = io->bytes;
	io->vector = buffer;
	io->nvec = 1;
	if (buffers == BUF)
		return 0;
	io->nvec = count;
	if (buffers == MSG) { /* struct msghdr: name, namelen, iov, iovlen */
		if (bpf_probe_read_user(io->iov, sizeof(io->iov), (void *)(buffer + 16)))
			return -1;
		io->vector = io->iov[0];
		io->nvec = io->iov[1];
	}
	return bpf_probe_read_user(io->iov, sizeof(io->iov), (void *)io->vector);
}

/*
 * Does a TLS record begin where we are?  Its header: content type 20 to 23, version 3.0 to
 * 3.7 (4 is the last one in use), length with the upper byte first and its top bit 0.
 * One comparison, as the verifier follows every branch of every step.
 */
#define HEADER_MASK 0x80f8fffcULL
#define HEADER_BITS 0x00000314ULL
#define HEADER_SIZE 5

static __noinline bool record_at(struct io *io)
{
	io->header = 0;
	bpf_probe_read_user(&io->header, HEADER_SIZE, (void *)io->iov[0]);
	return (io->header & HEADER_MASK) == HEADER_BITS;
}

/* What is left of the buffer that we are in */
static __always_inline __u64 in_buffer(const struct io *io)
{
	return io->iov[1] < io->to_walk ? io->iov[1] : io->to_walk;
}

/* Goes n bytes on; at the end of a buffer to the next one.  Returns what is left in it. */
static __noinline __u64 advance(struct io *io, __u64 n)
{
	io->iov[0] += n;
	io->iov[1] -= n;
	io->to_walk -= n;
	if (!io->iov[1] && io->nvec > 1) {
		io->nvec--;
		io->vector += sizeof(io->iov);
		if (bpf_probe_read_user(io->iov, sizeof(io->iov), (void *)io->vector))
			io->to_walk = 0;
	}
	return in_buffer(io);
}

/*
 * A step in following the TLS records through the buffers of a call: over what belongs
 * to the last record in this buffer, then over a header.  Where the chain breaks it is
 * taken up again at a later call's buffer that begins with a record.  Returns 1 if there
 * may be more.
 */
static __noinline int walk(struct io *io)
{
	__u64 here = in_buffer(io), n = io->nrecords;

	here = io->left < here ? io->left : here;
	io->left -= here;
	if (!advance(io, here))
		return 0;
	if (io->left)
		return 1;
	if (n >= RECORDS_MAX)
		return 0;
	if (!record_at(io)) {
		io->to_walk = 0;
		return 0;
	}
	n = n & (RECORDS_MAX - 1);
	io->length[n] = __builtin_bswap16(io->header >> 24);
	io->ctype[n] = io->header;
	io->nrecords++;
	io->left = io->length[n] + HEADER_SIZE;
	return 1;
}

/*
 * A socket call inside a call of a library that owns its socket: note the socket.  TLS
 * inside TLS is several such calls; all of them went over this socket.  Returns 1 if the
 * thread is in such a call in this direction: in the other one it may be what a callback
 * does (node sends what it wrote to memory from one of SSL_read).
 */
static __noinline int note_nested(struct io *io, bool is_record, struct file *file)
{
	struct thread *t = current_thread();
	__u32 nested = is_record ? NESTED_RECORD : NESTED_SOCKET;
	struct call *call;
	__u64 i, inside = 0;

	if (!t)
		return 0;
	for (i = 0; i < CALLS_MAX && i < t->depth; i++) {
		call = &t->calls[i];
		if (ROW_DIR(call->row) != io->dir)
			continue;
		inside = 1;
		if (nested < call->nested)
			continue;
		call->nested = nested;
		call->fd = io->fact.fd;
		call->sock = io->fact.sock;
	}
	if (inside && t->ends_of != io->fact.sock) {
		read_ends(&t->ends, file);
		t->ends_of = io->fact.sock;
	}
	return inside;
}

static __noinline struct stream *stream_of(__u64 sock, bool add)
{
	struct stream *stream = bpf_map_lookup_elem(&streams, &sock);

	if (stream || !add)
		return stream;
	bpf_map_update_elem(&streams, &sock, &no_stream, BPF_ANY);
	return bpf_map_lookup_elem(&streams, &sock);
}

static __always_inline void fact_lost(void)
{
	__sync_fetch_and_add(&lost_facts, 1);
}

static __noinline void emit_fact(__u32 type, int fd)
{
	struct fact *f = bpf_ringbuf_reserve(&facts, sizeof(*f), 0);

	if (!f) {
		fact_lost();
		return;
	}
	fact_init(f, type);
	f->fd = fd;
	if (type == FACT_CLOSE && fd >= 0) /* may be another file's number by now */
		f->sock = socket_inode(file_of(fd));
	bpf_ringbuf_submit(f, type == FACT_STOP ? BPF_RB_FORCE_WAKEUP : wakeup_flags());
}

/*
 * A system call on fd moved bytes, to or from count buffers at an address.  Not static,
 * so that the verifier looks at it once.
 */
#define HOW(buffers, dir) ((__u64)(buffers) | (__u64)(dir) << 32)
#define HOW_BUFFERS(how)  ((__u32)(how))
#define HOW_DIR(how)	  ((how) >> 32 & 1)
/* the call failed; bytes is what it would have liked to write */
#define HOW_REFUSED(how) ((how) >> 33 & 1)
#define REFUSED		 (2ULL << 32)

__noinline int io_done(__u64 fd, __u64 buffer, __u64 count, __u64 bytes, __u64 how)
{
	struct file *file = file_of(fd);
	__u64 sock = socket_inode(file);
	struct stream *stream;
	bool is_record;
	struct io *io;
	int i;

	if (!sock)
		return 0;
	io = bpf_ringbuf_reserve(&facts, sizeof(*io), 0);
	if (!io) {
		fact_lost();
		return 0;
	}
	fact_init(&io->fact, FACT_IO);
	io->fact.fd = fd;
	io->fact.sock = sock;
	io->bytes = bytes;
	io->dir = HOW_DIR(how);
	io->nrecords = 0;
	io->rest = 0;
	if (find_buffers(io, buffer, count, HOW_BUFFERS(how)))
		goto discard;
	io->addr = io->iov[0];
	/* of what is written, the header was offered whole though perhaps not taken */
	is_record = (bytes >= HEADER_SIZE ||
		     (HOW_BUFFERS(how) == BUF && io->dir == DIR_WRITE && count >= HEADER_SIZE)) &&
		    record_at(io);
	if (note_nested(io, is_record, file))
		goto discard;
	stream = stream_of(sock, is_record);
	if (!stream) { /* not TLS, or we came in the middle of a record */
		bpf_ringbuf_discard(io, BPF_RB_NO_WAKEUP);
		if (HOW_DIR(how) == DIR_READ)
			emit_fact(FACT_OTHER, fd);
		return 0;
	}
	read_ends(&io->ends, file);
	io->lead = io->left = stream->left[io->dir & 1];
	io->to_walk = bytes;
	advance(io, 0); /* should the first buffer be empty */
	for (i = 0; i <= RECORDS_MAX; i++)
		if (!walk(io))
			break;
	io->rest = io->to_walk;
	if (HOW_REFUSED(how))
		io->bytes = 0;
	else
		stream->left[io->dir & 1] = io->left;
	bpf_ringbuf_submit(io, wakeup_flags());
	return 0;
discard:
	bpf_ringbuf_discard(io, BPF_RB_NO_WAKEUP);
	return 0;
}

#define MSG_PEEK     0x2
#define MSG_ERRQUEUE 0x2000

/* sendmmsg, recvmmsg: an array of {struct msghdr, bytes (u32), padding} */
#define MMSGHDR_SIZE 64
#define MMSGHDR_LEN  56
#define MESSAGES_MAX 16

static __noinline int messages_done(__u32 fd, __u64 array, __u32 count, __u32 dir)
{
	__u32 bytes, i;

	for (i = 0; i < MESSAGES_MAX && i < count; i++) {
		if (bpf_probe_read_user(&bytes, sizeof(bytes), (void *)(array + MMSGHDR_LEN)))
			break;
		io_done(fd, array, 1, bytes, HOW(MSG, dir));
		array += MMSGHDR_SIZE;
	}
	return 0;
}

/*
 * Bytes went from or to a socket and through no buffer of the process: splice, sendfile.
 * Within a record they take the rest of it; behind its end nobody can say what they
 * are, and the chain is taken up again where a buffer begins with a record.
 */
static __noinline int pass_unseen(__u32 fd, __u32 dir, __u64 bytes)
{
	__u64 sock = socket_inode(file_of(fd));
	struct stream *stream = sock ? stream_of(sock, false) : NULL;
	__u64 *left;

	if (!stream)
		return 0;
	left = &stream->left[dir & 1];
	*left -= *left < bytes ? *left : bytes;
	return 0;
}

/*
 * The end of a system call.  Its arguments are still in the saved registers, so the entry,
 * which would cost every system call of the machine as much again, is not watched.
 * io_uring moves bytes without system calls, and its tracepoints are nothing to build on: none
 * has the buffer, a registered file shows no descriptor, and they change (what was submit_sqe
 * is submit_req in 6.18).
 */
SEC("tp_btf/sys_exit")
int sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	long ret = ctx[1], nr = sys_number(regs);
	enum buffers buffers = buffers_of(nr);
	__u64 dir = direction_of(nr);
	int closed;

	if (buffers == NO_IO) {
		if (ret < 0)
			return 0;
		if (nr == SYS_SPLICE || nr == SYS_SENDFILE) {
			if (ret && traced(false)) {
				if (nr == SYS_SPLICE)
					pass_unseen(sys_arg1(regs), DIR_READ, ret);
				pass_unseen(nr == SYS_SPLICE ? sys_arg3(regs) : sys_arg1(regs),
					    DIR_WRITE, ret);
			}
			return 0;
		}
		if (nr == SYS_CLOSE)
			closed = sys_arg1(regs);
		else if (nr == SYS_DUP2 || nr == SYS_DUP3)
			closed = ret;
		else if (nr == SYS_CLOSE_RANGE)
			closed = -1; /* any of them */
		else
			return 0;
		if (traced(false))
			emit_fact(FACT_CLOSE, closed);
		return 0;
	}
	if (!ret || (ret < 0 && dir == DIR_READ) || !traced(false))
		return 0;
	/* what is peeked at comes again, and an error queue is no data */
	if ((nr == SYS_RECVFROM && sys_arg4(regs) & (MSG_PEEK | MSG_ERRQUEUE)) ||
	    (nr == SYS_RECVMSG && sys_arg3(regs) & (MSG_PEEK | MSG_ERRQUEUE)))
		return 0;
	if (ret < 0) {
		/* what a full socket refuses still says whose the record is */
		if (buffers != MMSG)
			io_done((__u32)sys_arg1(regs), sys_arg2(regs), sys_arg3(regs),
				buffers == BUF ? sys_arg3(regs) : RECORDS_MAX * CHUNK_MAX,
				HOW(buffers, dir) | REFUSED);
	} else if (buffers == MMSG) {
		messages_done(sys_arg1(regs), sys_arg2(regs), ret, dir);
	} else {
		io_done((__u32)sys_arg1(regs), sys_arg2(regs), sys_arg3(regs), ret,
			HOW(buffers, dir));
	}
	return 0;
}

static __noinline void forget_thread(void)
{
	__u64 id = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&threads, &id);
}

static __noinline void forget_process(void)
{
	__u32 tgid = current_id() >> 32;

	bpf_map_delete_elem(&processes, &tgid);
}

/* programs that children of a COMMAND have executed */
struct program {
	__u64 ino;
	__u64 fs; /* address of its super block */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct program);
	__type(value, __u8);
} programs SEC(".maps");

/* Executes the current process a program for the first time?  Then it is noted. */
static __noinline bool is_new_program(struct task_struct *task)
{
	struct mm_struct *mm = READ(task, mm);
	struct file *file = READ(mm, exe_file);
	struct inode *inode = READ(file, f_inode);
	struct program program = {.ino = READ(inode, i_ino), .fs = (__u64)READ(inode, i_sb)};
	__u8 one = 1;

	/* fails if it is there */
	return !bpf_map_update_elem(&programs, &program, &one, BPF_NOEXIST);
}

#define SIGNAL_STOP_STOPPED 1

/*
 * Would nobody take notice if the process stopped?  A shell with job control would: there
 * each command is a process group of its own.  So would a debugger.  And if the parent is
 * stopped already, nobody could tell later whether it is to go on.
 */
static __noinline bool may_stop(struct task_struct *task)
{
	struct task_struct *parent = READ(task, real_parent);
	struct signal_struct *signal = READ(task, signal), *theirs = READ(parent, signal);

	return READ(signal, pids[2]) == READ(theirs, pids[2]) && !READ(task, ptrace) &&
	       !(READ(theirs, flags) & SIGNAL_STOP_STOPPED);
}

#define SIGSTOP 19

/* It stops before its next instruction; the user side lets it go on */
static __noinline void stop_process(__u32 where)
{
	__u32 *flags = current_process();

	if (!flags || nobody_reads || bpf_send_signal(SIGSTOP))
		return;
	*flags |= where;
	emit_fact(FACT_STOP, -1);
}

SEC("raw_tp/sched_process_exec")
int process_exec(void *ctx __attribute__((unused)))
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 *flags = current_process();

	forget_thread();
	if (!flags)
		return 0;
	emit_fact(FACT_EXEC, -1);
	if (*flags & PROCESS_FOUND) /* for what it ran until now */
		forget_process();
	else if (*flags & PROCESS_STOP ||
		 (*flags & PROCESS_MAY_STOP && may_stop(task) && is_new_program(task)))
		stop_process(PROCESS_STOP | PROCESS_AT_EXEC);
	return 0;
}

/* On a program's first instruction behind the loader: its libraries are mapped */
SEC("uprobe")
int entry_point(void *ctx __attribute__((unused)))
{
	__u32 *flags = current_process();

	if (flags && *flags & PROCESS_STOP)
		stop_process(PROCESS_AT_ENTRY);
	return 0;
}

/* For -f: a child is traced as its parent is, from its first instruction */
SEC("raw_tp/sched_process_fork")
int process_fork(__u64 *ctx)
{
	struct task_struct *child = (void *)ctx[1];
	__u32 *flags = current_process(), its;

	if (!flags || !(*flags & PROCESS_FOLLOW) || READ(child, group_leader) != child)
		return 0; /* or a thread */
	its = PROCESS_FOLLOW;
	if (*flags & (PROCESS_STOP | PROCESS_MAY_STOP))
		its |= PROCESS_MAY_STOP;
	if (!add_process(number_of(child), its))
		__sync_fetch_and_add(&lost_processes, 1);
	return 0;
}

/* runs for every thread; the last one takes the process with it */
SEC("raw_tp/sched_process_exit")
int process_exit(void *ctx __attribute__((unused)))
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct signal_struct *signal = READ(task, signal);

	forget_thread();
	if (READ(signal, live.counter))
		return 0;
	if (current_id() >> 32 == own_tgid)
		nobody_reads = true;
	if (current_process()) {
		emit_fact(FACT_EXIT, -1);
		forget_process();
	}
	return 0;
}
