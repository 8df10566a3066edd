// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlssnoop.c - prints the plaintext that processes send and receive over TLS.
 *
 * Target (an ELF file in a process) -> hook (a row of hooks[]) -> event (a fact from
 * the kernel side, decided by correlate.c) -> printer.  In: options, /proc, ELF files,
 * the ring buffer.  Out: lines on stdout or in a file; all else on stderr.
 *
 * Must never write to a traced process, never leave a probe behind, never let captured
 * bytes reach a terminal unescaped, and never fail without saying what, on what and why.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <malloc.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <search.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "correlate.h"
#include "elfsym.h"
#include "tlssnoop.h"
#include "tlssnoop.skel.h"

#ifndef VERSION
#define VERSION "0.1"
#endif

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* How long the reader sleeps: a person does not notice it, and no record wakes it */
#define POLL_MS 20

#define RING_KIB_DEFAULT 16384

/*
 * The hooks: one row for each function through which plaintext passes.
 *
 * OpenSSL: the functions of its manual (SSL_read(3), SSL_write(3)); LibreSSL and
 * BoringSSL export the same.
 *
 * GnuTLS: those of gnutls_record_send(3) and its like.  gnutls_record_recv_packet is missing,
 * as only GnuTLS's own structures tell where its bytes are.
 *
 * NSS: NSPR's functions, for descriptors that NSS made.  NSS's own, which these call, are not
 * to be found in stripped libraries: it makes its table of them at run time (3.87).
 *
 * rustls: encrypt and ExpectTraffic::handle are called through tables of dyn traits, so
 * no compiler can inline them: they exist in every optimised build, where Reader::read
 * and Writer::write do not.  Both are complete at their entry, which matters: a Rust
 * panic that unwinds through a return probe aborts the process.  decrypt, which exists as
 * surely but must be read at its return, is for where handle is not found or not known.
 */
struct hook {
	enum library lib;
	enum direction dir;
	enum shape shape;
	const char *function;
	struct elfsym_pattern pattern;
	enum elfsym_role role; /* 0: found by name only */
	enum count count;
	unsigned int rank; /* for a direction, a file's hooks of the lowest rank are used */
	bool partial;	   /* it shows some of the bytes: for its rank, others must be there */
};

#define CALL(name_)	      .shape = SHAPE_CALL, .function = name_, .pattern = {.name = name_}
#define NSPR(name_)	      .shape = SHAPE_NSPR, .function = name_, .pattern = {.name = name_}
#define METHOD(shape_, name_) .shape = shape_, .function = name_

#define RANK_DECRYPT 1
#define RANK_UNKNOWN 2 /* handle of a compiler that is not known */
#define RANK_INNER   3 /* what encrypt is called by */
#define RANK_C_API   4
#define RANK_PUBLIC  5 /* what Rust programs call, if it is not inlined */
#define RANK_NONE    -1U

/* clang-format off */
static const struct hook hooks[] = {
	{LIB_OPENSSL, DIR_READ,  CALL("SSL_read")},
	{LIB_OPENSSL, DIR_READ,  CALL("SSL_read_ex"), .count = COUNT_ARG4},
	{LIB_OPENSSL, DIR_READ,  CALL("SSL_read_early_data"), .count = COUNT_ARG4},
	{LIB_OPENSSL, DIR_WRITE, CALL("SSL_write")},
	{LIB_OPENSSL, DIR_WRITE, CALL("SSL_write_ex"), .count = COUNT_ARG4},
	{LIB_OPENSSL, DIR_WRITE, CALL("SSL_write_ex2"), .count = COUNT_ARG5},
	{LIB_OPENSSL, DIR_WRITE, CALL("SSL_write_early_data"), .count = COUNT_ARG4},
	/* what these show is read later; they tell the socket that it was received on */
	{LIB_OPENSSL, DIR_READ,  CALL("SSL_peek"), .count = COUNT_NONE},
	{LIB_OPENSSL, DIR_READ,  CALL("SSL_peek_ex"), .count = COUNT_NONE},
	/* where OpenSSL has no symbols: what all of these call */
	{LIB_OPENSSL, DIR_READ,  METHOD(SHAPE_CALL, "ssl3_read"), .count = COUNT_ARG4,
	 .role = ELFSYM_SSL_READ},
	{LIB_OPENSSL, DIR_WRITE, METHOD(SHAPE_CALL, "ssl3_write"), .count = COUNT_ARG4,
	 .role = ELFSYM_SSL_WRITE},
	/* BIO_read and BIO_write on an SSL from 1.1.1 on, which call none of the above */
	{LIB_OPENSSL, DIR_READ,  METHOD(SHAPE_CALL, "BIO_f_ssl.read"), .count = COUNT_ARG4,
	 .role = ELFSYM_BIO_READ},
	{LIB_OPENSSL, DIR_WRITE, METHOD(SHAPE_CALL, "BIO_f_ssl.write"), .count = COUNT_ARG4,
	 .role = ELFSYM_BIO_WRITE},
	{LIB_GNUTLS,  DIR_READ,  CALL("gnutls_record_recv")},
	{LIB_GNUTLS,  DIR_READ,  CALL("gnutls_record_recv_seq")},
	{LIB_GNUTLS,  DIR_READ,  CALL("gnutls_record_recv_early_data")},
	{LIB_GNUTLS,  DIR_WRITE, CALL("gnutls_record_send"), .count = COUNT_KEPT},
	{LIB_GNUTLS,  DIR_WRITE, CALL("gnutls_record_send2"), .count = COUNT_KEPT},
	{LIB_GNUTLS,  DIR_WRITE, CALL("gnutls_record_send_range"), .count = COUNT_KEPT},
	{LIB_GNUTLS,  DIR_WRITE, CALL("gnutls_record_send_early_data"), .count = COUNT_ALL},
	/* these two send by gnutls_record_send what was given to one of the others before */
	{LIB_GNUTLS,  DIR_WRITE, CALL("gnutls_record_uncork"), .count = COUNT_NONE},
	{LIB_GNUTLS,  DIR_WRITE, CALL("gnutls_handshake"), .count = COUNT_NONE},
	{LIB_NSS,     DIR_READ,  NSPR("PR_Read")},
	{LIB_NSS,     DIR_READ,  NSPR("PR_Recv"), .count = COUNT_UNLESS_PEEK},
	{LIB_NSS,     DIR_WRITE, NSPR("PR_Write")},
	{LIB_NSS,     DIR_WRITE, NSPR("PR_Send")},
	{LIB_NSS,     DIR_WRITE, NSPR("PR_Writev"), .count = COUNT_VECTOR},
	/* 0.16 to 0.19, where decrypt gives another result */
	{LIB_RUSTLS,  DIR_READ,  METHOD(SHAPE_HANDLE, "ExpectTraffic::handle"), .count = COUNT_OPAQUE,
	 .pattern = {.legacy_tail = "..hs..State$GT$6handle", .legacy_has = "..ExpectTraffic$u20$as$u20$",
	  .v0_tail = "2hs5State6handle", .v0_has = {"13ExpectTraffic"}}},
	{LIB_RUSTLS,  DIR_READ,  METHOD(SHAPE_HANDLE, "ExpectTraffic::handle"),
	 .role = ELFSYM_HANDLE,
	 .pattern = {.legacy_tail = "$GT$6handle", .legacy_has = "..ExpectTraffic$u20$as$u20$",
	  .v0_tail = "6handle", .v0_has = {"13ExpectTraffic", "5State"}}},
	{LIB_RUSTLS,  DIR_READ,  METHOD(SHAPE_HANDLE, "ExpectEarlyData::handle"), .partial = true,
	 .role = ELFSYM_EARLY,
	 .pattern = {.legacy_tail = "$GT$6handle", .legacy_has = "..ExpectEarlyData$u20$as$u20$",
	  .v0_tail = "6handle", .v0_has = {"15ExpectEarlyData", "5State"}}},
	{LIB_RUSTLS,  DIR_READ,  METHOD(SHAPE_DECRYPT, "MessageDecrypter::decrypt"),
	 .role = ELFSYM_DECRYPT,
	 .pattern = {.legacy_tail = "MessageDecrypter$GT$7decrypt", .legacy_has = "rustls",
	  .v0_tail = "16MessageDecrypter7decrypt", .v0_has = {"6rustls"}, .lacks = "InvalidMessage"}, .rank = RANK_DECRYPT},
	{LIB_RUSTLS,  DIR_READ,  METHOD(SHAPE_DECRYPT, "RecordDecrypter::decrypt"), /* 0.24 */
	 .pattern = {.legacy_tail = "RecordDecrypter$GT$7decrypt", .legacy_has = "rustls",
	  .v0_tail = "15RecordDecrypter7decrypt", .v0_has = {"6rustls"}}, .rank = RANK_DECRYPT},
	{LIB_RUSTLS,  DIR_WRITE, METHOD(SHAPE_ENCRYPT, "MessageEncrypter::encrypt"),
	 .role = ELFSYM_ENCRYPT,
	 .pattern = {.legacy_tail = "MessageEncrypter$GT$7encrypt", .legacy_has = "rustls",
	  .v0_tail = "16MessageEncrypter7encrypt", .v0_has = {"6rustls"}, .lacks = "InvalidMessage"}},
	{LIB_RUSTLS,  DIR_WRITE, METHOD(SHAPE_ENCRYPT, "RecordEncrypter::encrypt"), /* 0.24 */
	 .pattern = {.legacy_tail = "RecordEncrypter$GT$7encrypt", .legacy_has = "rustls",
	  .v0_tail = "15RecordEncrypter7encrypt", .v0_has = {"6rustls"}}},
	/*
	 * 0.23.  What older ones have there instead, send_some_plaintext, send_plain and
	 * send_appdata_encrypt, is not used: with LTO, none of these and not even all of them get
	 * every call (of 16, 10; 0.20.8, 0.22.4), and what tells a repeat, an argument of the
	 * latter two, is left out of functions that are local to a unit.
	 */
	{LIB_RUSTLS,  DIR_WRITE, METHOD(SHAPE_SLICES, "CommonState::buffer_plaintext"),
	 .pattern = {.legacy_tail = "11CommonState16buffer_plaintext",
	  .v0_tail = "11CommonState16buffer_plaintext", .inherent = true},
	 .count = COUNT_SLICES, .rank = RANK_INNER},
	{LIB_RUSTLS,  DIR_WRITE, METHOD(SHAPE_CALL, "CommonState::send_early_plaintext"), .partial = true,
	 .pattern = {.legacy_tail = "11CommonState20send_early_plaintext",
	  .v0_tail = "11CommonState20send_early_plaintext", .inherent = true}, .rank = RANK_INNER},
	/* rustls-ffi */
	{LIB_RUSTLS,  DIR_READ,  CALL("rustls_connection_read"), .count = COUNT_RUSTLS, .rank = RANK_C_API},
	{LIB_RUSTLS,  DIR_READ,  CALL("rustls_connection_read_2"), .count = COUNT_RUSTLS, .rank = RANK_C_API},
	{LIB_RUSTLS,  DIR_WRITE, CALL("rustls_connection_write"), .count = COUNT_RUSTLS, .rank = RANK_C_API},
	{LIB_RUSTLS,  DIR_READ,  METHOD(SHAPE_IO, "Reader::read"),
	 .pattern = {.legacy_tail = "Reader$u20$as$u20$std..io..Read$GT$4read", .legacy_has = "rustls..conn..",
	  .v0_tail = "2io4Read4read", .v0_has = {"6rustls4conn", "6Reader"}},
	 .count = COUNT_IO_RESULT, .rank = RANK_PUBLIC},
	{LIB_RUSTLS,  DIR_WRITE, METHOD(SHAPE_IO, "Writer::write"),
	 .pattern = {.legacy_tail = "Writer$u20$as$u20$std..io..Write$GT$5write", .legacy_has = "rustls..conn..",
	  .v0_tail = "2io5Write5write", .v0_has = {"6rustls4conn", "6Writer"}},
	 .count = COUNT_IO_RESULT, .rank = RANK_PUBLIC},
};
/* clang-format on */

static const char *const library_names[LIB_COUNT] = {"openssl", "rustls", "gnutls", "nss"};
static const char *const direction_names[] = {"read", "write"};

/* what precedes a library's version in its data; NULL: nothing does */
static const char *const version_prefixes[LIB_COUNT] = {"OpenSSL ", "/rustls-", "Enabled GnuTLS ",
							NULL};

/* and that of Rust's compiler, in .comment */
#define RUSTC "rustc version "

enum format { FORMAT_ASCII, FORMAT_HEX, FORMAT_DUMP, FORMAT_TEXT, FORMAT_JSON };

/* What the user asked for */
static struct {
	pid_t *pids;
	size_t npids;
	const char **paths; /* -l */
	size_t npaths;
	const char *comm;
	const char *user;
	uid_t uid;
	int dir;	      /* -1: both */
	bool libs[LIB_COUNT]; /* -k; all false: all */
	enum format format;
	bool format_given;
	long snap; /* -1: not given */
	const char *output;
	long long count;    /* 0: no end */
	long long duration; /* seconds, 0: no end */
	long long buffer_kib;
	bool addresses;
	bool follow;	/* -f, or a COMMAND: children too */
	bool machine;	/* neither -p nor -l nor a COMMAND: all processes */
	char **command; /* COMMAND [ARG...], or NULL */
	bool list;
	bool quiet;
	int verbose;
} env = {.dir = -1, .uid = -1, .snap = -1, .buffer_kib = RING_KIB_DEFAULT};

/* Messages */

/* s with all that is not printable ASCII as \xNN: names come from others' files.  The
 * result is one of a few static buffers. */
static const char *safe(const char *s)
{
	static char bufs[4][512];
	static unsigned int next;
	char *buf = bufs[next++ % ARRAY_SIZE(bufs)], *p = buf;

	for (; *s && p < buf + sizeof(bufs[0]) - 5; s++) {
		if (isprint((unsigned char)*s))
			*p++ = *s;
		else
			p += sprintf(p, "\\x%02x", (unsigned char)*s);
	}
	*p = 0;
	return buf;
}

/* "tlssnoop: what: on what: why" */
static void complain(const char *what, const char *on, const char *why, ...)
{
	va_list args;

	fprintf(stderr, "tlssnoop: %s: %s: ", what, on);
	va_start(args, why);
	vfprintf(stderr, why, args);
	va_end(args);
	fputc('\n', stderr);
}

static void hint(const char *text, ...)
{
	va_list args;

	if (env.quiet)
		return;
	fputs("tlssnoop: hint: ", stderr);
	va_start(args, text);
	vfprintf(stderr, text, args);
	va_end(args);
	fputc('\n', stderr);
}

static int print_libbpf(enum libbpf_print_level level, const char *text, va_list args)
{
	if (env.verbose > (level == LIBBPF_DEBUG))
		return vfprintf(stderr, text, args);
	return 0;
}

/* Grows an array of n elements by one, zeroed; ends the program without memory */
static void *grow(void *array, size_t *n, size_t size)
{
	array = reallocarray(array, *n + 1, size);
	if (!array) {
		complain("cannot go on", "memory", "%s", strerror(ENOMEM));
		exit(EXIT_FAILURE);
	}
	memset((char *)array + *n * size, 0, size);
	++*n;
	return array;
}

#define GROW(array, n) ((array) = grow(array, &(n), sizeof(*(array))), &(array)[-1 + (n)])

/* Options */

enum { GROUP_WHAT = 1, GROUP_HOW, GROUP_WHEN, GROUP_OTHER };

enum { KEY_USAGE = 0x100 };

static const struct argp_option options[] = {
	{NULL, 0, NULL, 0, "What to trace:", GROUP_WHAT},
	{"pid", 'p', "PID[,PID...]", 0, "These processes; ends when all have exited", 0},
	{"follow", 'f', NULL, 0, "Their children too, and the children's", 0},
	{"lib", 'l', "PATH", 0, "This library or executable, whoever runs it", 0},
	{"kind", 'k', "LIST", 0, "Only these: openssl, rustls, gnutls, nss", 0},
	{"comm", 'n', "NAME", 0, "Only threads or processes of this name", 0},
	{"uid", 'u', "USER", 0, "Only this user, by number or name", 0},
	{"direction", 'Q', "read|write", 0, "Only this direction", 0},
	{"list", 'L', NULL, 0, "Print what would be traced, then exit", 0},
	{NULL, 0, NULL, 0, "What to print:", GROUP_HOW},
	{"hex", 'x', NULL, 0, "Data as hex digits", 0},
	{"dump", 'X', NULL, 0, "Data as a hex and ASCII dump below the line", 0},
	{"text", 'A', NULL, 0, "Data as text below the line", 0},
	{"json", 'j', NULL, 0, "One JSON object per line", 0},
	{"addr", 'a', NULL, 0, "Two more columns: local and remote address", 0},
	{"snap", 's', "BYTES", 0, "At most so many bytes of each chunk; 0: no data", 0},
	{"output", 'o', "FILE", 0, "Lines to FILE (created with mode 0600)", 0},
	{NULL, 0, NULL, 0, "When to end:", GROUP_WHEN},
	{"count", 'c', "N", 0, "After N lines", 0},
	{"duration", 'd', "SECONDS", 0, "After so many seconds", 0},
	{NULL, 0, NULL, 0, "Other:", GROUP_OTHER},
	{"buffer", 'B', "KIB", 0, "Size of the ring buffer (16384)", 0},
	{"quiet", 'q', NULL, 0, "No header line, no hints", 0},
	{"verbose", 'v', NULL, 0, "Say what is attached; twice: libbpf's messages too", 0},
	{"version", 'V', NULL, 0, "Print the version", 0},
	{"help", 'h', NULL, 0, "Print this help", 0},
	{"usage", KEY_USAGE, NULL, 0, "Print the options in short", 0}, /* argp's errors name it */
	{0},
};

static const char args_doc[] = "\n-p PID[,PID...]\n-l PATH\n-- COMMAND [ARG...]";
static const char doc[] =
	"Print what processes send and receive over TLS: one line per chunk of plaintext. "
	"Without -p, -l and COMMAND: all processes, and those that start later.\v"
	"Examples:\n"
	"  tlssnoop                         what the whole machine says over TLS\n"
	"  tlssnoop -- curl -s https://example.com    one command, from its first byte\n"
	"  tlssnoop -p 4127                 what process 4127 says over TLS\n"
	"  tlssnoop -x -p 4127,4128         two processes, bytes in hex\n"
	"  tlssnoop -p 4127 -Q read -s 0    sizes of what comes in, no data\n"
	"  tlssnoop -j -p 4127 | jq .data   for other programs\n"
	"  tlssnoop -L -p 4127              what would be traced, and why\n";

/* A number from min to max, the whole text; else wrong use */
static long long number(const char *text, long long min, long long max, struct argp_state *state,
			const char *what)
{
	long long n;
	char *end;

	errno = 0;
	n = strtoll(text, &end, 10);
	if (end == text || *end || errno || n < min || n > max)
		argp_error(state, "%s: '%s' is not a number from %lld to %lld", what, safe(text),
			   min, max);
	return n;
}

static void parse_pids(const char *text, struct argp_state *state)
{
	char *list = strdup(text), *rest = list, *item;
	size_t i;
	pid_t pid;

	while ((item = strsep(&rest, ","))) {
		pid = number(item, 1, INT32_MAX, state, "-p");
		for (i = 0; i < env.npids && env.pids[i] != pid; i++)
			;
		if (i == env.npids)
			*GROW(env.pids, env.npids) = pid;
	}
	free(list);
}

static void parse_kinds(const char *text, struct argp_state *state)
{
	char *list = strdup(text), *rest = list, *item;
	size_t i;

	while ((item = strsep(&rest, ","))) {
		for (i = 0; i < LIB_COUNT && strcmp(item, library_names[i]); i++)
			;
		if (i == LIB_COUNT)
			argp_error(
				state,
				"-k: '%s' is not a library that tlssnoop knows: openssl, rustls, "
				"gnutls, nss",
				safe(item));
		else
			env.libs[i] = true;
	}
	free(list);
}

static void parse_user(const char *text, struct argp_state *state)
{
	struct passwd *pw = getpwnam(text);

	env.user = text;
	env.uid = pw ? pw->pw_uid : number(text, 0, UINT32_MAX - 1, state, "-u");
}

static void set_format(enum format format, struct argp_state *state)
{
	if (env.format_given && env.format != format)
		argp_error(state, "-x, -X, -A and -j exclude each other");
	env.format = format;
	env.format_given = true;
}

static error_t parse_arg(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'p':
		parse_pids(arg, state);
		break;
	case 'l':
		*GROW(env.paths, env.npaths) = arg;
		break;
	case 'k':
		parse_kinds(arg, state);
		break;
	case 'n':
		if (!*arg || strlen(arg) >= COMM_SIZE)
			argp_error(state, "-n: '%s' is not a name of 1 to %d bytes", safe(arg),
				   COMM_SIZE - 1);
		env.comm = arg;
		break;
	case 'u':
		parse_user(arg, state);
		break;
	case 'f':
		env.follow = true;
		break;
	case 'Q':
		if (!strcmp(arg, "read"))
			env.dir = DIR_READ;
		else if (!strcmp(arg, "write"))
			env.dir = DIR_WRITE;
		else
			argp_error(state, "-Q: '%s' is neither read nor write", safe(arg));
		break;
	case 'L':
		env.list = true;
		break;
	case 'x':
		set_format(FORMAT_HEX, state);
		break;
	case 'X':
		set_format(FORMAT_DUMP, state);
		break;
	case 'A':
		set_format(FORMAT_TEXT, state);
		break;
	case 'j':
		set_format(FORMAT_JSON, state);
		break;
	case 'a':
		env.addresses = true;
		break;
	case 's':
		env.snap = number(arg, 0, INT32_MAX, state, "-s");
		break;
	case 'o':
		env.output = arg;
		break;
	case 'c':
		env.count = number(arg, 1, INT64_MAX, state, "-c");
		break;
	case 'd':
		env.duration = number(arg, 1, INT32_MAX, state, "-d");
		break;
	case 'B':
		env.buffer_kib = number(arg, 64, 1 << 20, state, "-B");
		break;
	case 'q':
		env.quiet = true;
		break;
	case 'v':
		env.verbose++;
		break;
	case 'V':
		puts("tlssnoop " VERSION);
		exit(0);
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		break;
	case KEY_USAGE:
		argp_state_help(state, stdout, ARGP_HELP_USAGE | ARGP_HELP_EXIT_OK);
		break;
	case ARGP_KEY_ARG:
		if (!state->quoted)
			argp_error(state,
				   "'%s': no such argument; processes are named by -p, "
				   "a command by --",
				   safe(arg));
		env.command = &state->argv[state->next - 1];
		state->next = state->argc;
		break;
	case ARGP_KEY_END:
		if (state->quoted && !env.command)
			argp_error(state, "no COMMAND after --");
		if (env.command && (env.npids || env.list))
			argp_error(state, "a COMMAND and %s exclude each other",
				   env.list ? "-L" : "-p");
		if (env.follow && !env.npids && !env.command)
			argp_error(state, "-f follows the processes of -p, and there is none");
		env.machine = !env.npids && !env.npaths && !env.command;
		env.follow |= env.command != NULL;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse_arg,
	.args_doc = args_doc,
	.doc = doc,
};

/* The end: asked for by a signal, by -c and -d, or forced by an error */

static volatile sig_atomic_t interrupted; /* by this signal */
static bool done;			  /* enough was printed, or nothing is left to trace */
static int status;			  /* of the program */
static bool broken;			  /* the output takes no more */
static bool silent;			  /* end without a word */

static volatile sig_atomic_t command_pid;    /* of the COMMAND while it runs, else 0 */
static volatile sig_atomic_t command_warned; /* a signal was passed on to it */

/* The second signal kills.  A COMMAND gets what the terminal sends as we do, and what is
 * sent to us alone from us; we end with it. */
static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (command_pid && info->si_code > 0)
		return;
	if (command_pid && !command_warned) {
		command_warned = 1;
		kill(command_pid, sig);
		return;
	}
	interrupted = sig;
	signal(sig, SIG_DFL);
}

static void on_child(int sig)
{
	(void)sig; /* interrupts poll() */
}

static volatile sig_atomic_t lease_broken;

static void on_lease(int sig)
{
	(void)sig;
	lease_broken = 1;
}

static struct {
	int sig;
	struct sigaction inherited;
} signals[] = {{.sig = SIGINT},	 {.sig = SIGTERM}, {.sig = SIGHUP},
	       {.sig = SIGPIPE}, {.sig = SIGCHLD}, {.sig = SIGIO}};

/*
 * glibc's own, which its sigaction() refuses: the first pthread_create() sets a handler, of
 * which exec() would leave the default.
 */
#define SIGSETXID 33

/* the kernel's struct sigaction */
static struct {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	unsigned long mask;
} setxid;

/* A shell starts a background job with SIGINT ignored: the handler is set regardless */
static void catch_signals(void)
{
	struct sigaction end = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct sigaction child = {.sa_handler = on_child};
	struct sigaction lease = {.sa_handler = on_lease};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i].sig,
			  signals[i].sig == SIGPIPE   ? &ignore
			  : signals[i].sig == SIGCHLD ? &child
			  : signals[i].sig == SIGIO   ? &lease
						      : &end,
			  &signals[i].inherited);
	syscall(SYS_rt_sigaction, SIGSETXID, NULL, &setxid, sizeof(setxid.mask));
}

static struct rlimit descriptors; /* that we may have open, as inherited */

/* Each file that is traced takes some */
static void raise_descriptors(void)
{
	struct rlimit most;

	getrlimit(RLIMIT_NOFILE, &descriptors);
	most = descriptors;
	most.rlim_cur = most.rlim_max;
	setrlimit(RLIMIT_NOFILE, &most);
}

/* As whoever called us has it */
static void restore_inherited(void)
{
	size_t i;

	setrlimit(RLIMIT_NOFILE, &descriptors);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i].sig, &signals[i].inherited, NULL);
	if (setxid.handler == SIG_IGN)
		syscall(SYS_rt_sigaction, SIGSETXID, &setxid, NULL, sizeof(setxid.mask));
}

/* Printer: chunks with their verdicts become lines */

static FILE *out;
static bool out_is_terminal;
static long long nlines;
static unsigned long long nbytes;
static unsigned long long nunwritten; /* chunks that came when the output was broken */

/* longest line: JSON, where a byte may take six */
static char line[6 * CHUNK_MAX + 4096];

static __s64 clock_offset; /* of CLOCK_REALTIME to the clock of the facts, ns */

static __u64 clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * In a time namespace our CLOCK_MONOTONIC is ahead of the kernel's own, which facts have.
 * Returns by how much, in ns; 0 where there are no such namespaces (before Linux 5.6).
 */
static __s64 monotonic_ahead(void)
{
	FILE *f = fopen("/proc/self/timens_offsets", "re");
	long long seconds = 0, ns = 0;

	if (!f)
		return 0;
	if (fscanf(f, "monotonic %lld %lld", &seconds, &ns) != 2)
		seconds = ns = 0;
	fclose(f);
	return seconds * 1000000000LL + ns;
}

/* The time on the clock of the facts, ns */
static __u64 now(void)
{
	static __s64 ahead = -1;

	if (ahead == -1)
		ahead = monotonic_ahead();
	return clock_ns(CLOCK_MONOTONIC) - ahead;
}

static __u64 deadline = -1ULL; /* of -d */

static bool is_end(void)
{
	return done || interrupted || now() >= deadline;
}

/* Nothing can be written any more: what still comes is only counted */
static void output_failed(void)
{
	int err = errno;

	if (done || broken)
		return;
	done = broken = true;
	if (err == EPIPE) { /* the reader had enough */
		silent = true;
	} else if (err != EINTR) { /* a signal while the reader did not read: that is its end */
		complain("cannot write", env.output ? safe(env.output) : "standard output", "%s",
			 strerror(err));
		status = EXIT_FAILURE;
	}
}

static void flush_output(void)
{
	if (!broken && fflush(out))
		output_failed();
}

static char hex_digit(unsigned int n)
{
	return "0123456789abcdef"[n & 15];
}

/* Bytes as they stand in DATA: at most four characters each */
static char *put_escaped(char *p, const __u8 *data, size_t n)
{
	static char table[256][4];
	static __u8 length[256];
	int c;

	if (!length[0]) {
		for (c = 0; c < 256; c++) {
			const char *at = strchr("\\\\\rr\nn\tt", c);
			bool named = c == '\\' || c == '\r' || c == '\n' || c == '\t';

			table[c][0] = '\\';
			table[c][1] = 'x';
			table[c][2] = hex_digit(c >> 4);
			table[c][3] = hex_digit(c);
			length[c] = 4;
			if (named) {
				table[c][1] = at[1];
				length[c] = 2;
			} else if (c >= ' ' && c < 0x7f) {
				table[c][0] = c;
				length[c] = 1;
			}
		}
	}
	for (; n; n--, data++) {
		memcpy(p, table[*data], 4);
		p += length[*data];
	}
	return p;
}

static char *put_hex(char *p, const __u8 *data, size_t n)
{
	for (; n; n--, data++) {
		*p++ = hex_digit(*data >> 4);
		*p++ = hex_digit(*data);
	}
	return p;
}

/* "  0010  47 45 54 20 2f ...  GET / ..." for each 16 bytes */
static char *put_dump(char *p, const __u8 *data, size_t n)
{
	size_t at, i;

	for (at = 0; at < n; at += 16) {
		p += sprintf(p, "  %04zx  ", at);
		for (i = at; i < at + 16; i++) {
			if (i < n)
				p = put_hex(p, data + i, 1);
			else
				p = stpcpy(p, "  ");
			p = stpcpy(p, i == at + 7 ? "  " : " ");
		}
		*p++ = ' ';
		for (i = at; i < at + 16 && i < n; i++)
			*p++ = data[i] >= ' ' && data[i] < 0x7f ? data[i] : '.';
		*p++ = '\n';
	}
	return p;
}

/*
 * The length of the UTF-8 character at data, and the character; 0 if it is none.
 * (Unicode 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF.)
 */
static size_t utf8(const __u8 *data, size_t n, __u32 *c)
{
	static const __u32 least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len, i;

	*c = data[0];
	if (*c < 0x80)
		return 1;
	len = *c >= 0xf0 ? 4 : *c >= 0xe0 ? 3 : 2;
	if (*c < 0xc2 || *c > 0xf4 || len > n)
		return 0;
	*c &= 0xff >> (len + 1);
	for (i = 1; i < len; i++) {
		if ((data[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (data[i] & 0x3f);
	}
	if (*c < least[len] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000))
		return 0;
	return len;
}

/* Does a terminal act on this character: control codes of both sets, and those that turn
 * the direction of text or are not seen? */
static bool is_control(__u32 c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || (c >= 0x200b && c <= 0x200f) ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
	       (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe0fff);
}

/* Text for reading: new lines and tabs as they are, what is no visible UTF-8 as '.' */
static char *put_text(char *p, const __u8 *data, size_t n)
{
	const __u8 *begin = data, *end = data + n;
	size_t len;
	__u32 c;

	while (data < end) {
		len = utf8(data, end - data, &c);
		if (*data == '\r' && data + 1 < end && data[1] == '\n') {
			data++;
			continue;
		}
		if (!len || (is_control(c) && c != '\n' && c != '\t')) {
			*p++ = '.';
			data += len ? len : 1;
			continue;
		}
		p = mempcpy(p, data, len);
		data += len;
	}
	if (n && begin[n - 1] != '\n')
		*p++ = '\n';
	return p;
}

static bool is_utf8(const __u8 *data, size_t n)
{
	const __u8 *end = data + n;
	size_t len;
	__u32 c;

	for (; data < end; data += len) {
		len = utf8(data, end - data, &c);
		if (!len)
			return false;
	}
	return true;
}

/* A JSON string of valid UTF-8; what a terminal acts on is escaped */
static char *put_json_string(char *p, const __u8 *data, size_t n)
{
	const __u8 *end = data + n;
	size_t len;
	__u32 c;

	*p++ = '"';
	for (; data < end; data += len) {
		len = utf8(data, end - data, &c);
		if (c == '"' || c == '\\')
			p += sprintf(p, "\\%c", c);
		else if (!is_control(c))
			p = mempcpy(p, data, len);
		else if (c < 0x10000)
			p += sprintf(p, "\\u%04x", c);
		else
			p += sprintf(p, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
				     0xdc00 + (c & 0x3ff));
	}
	*p++ = '"';
	return p;
}

static char *put_base64(char *p, const __u8 *data, size_t n)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t i, have;
	__u32 v;

	*p++ = '"';
	for (i = 0; i < n; i += 3) {
		have = n - i;
		v = data[i] << 16 | (have > 1 ? data[i + 1] << 8 : 0) |
		    (have > 2 ? data[i + 2] : 0);
		*p++ = digits[v >> 18];
		*p++ = digits[v >> 12 & 63];
		*p++ = have > 1 ? digits[v >> 6 & 63] : '=';
		*p++ = have > 2 ? digits[v & 63] : '=';
	}
	*p++ = '"';
	return p;
}

/* The second of a fact as the last one asked for it: most lines share it */
static const struct tm *broken_down(__u64 time, bool utc, unsigned int *usec)
{
	static time_t last = -1;
	static struct tm tm;
	__u64 ns = time + clock_offset;
	time_t seconds = ns / 1000000000;

	*usec = ns % 1000000000 / 1000;
	if (seconds != last) {
		last = seconds;
		if (utc)
			gmtime_r(&seconds, &tm);
		else
			localtime_r(&seconds, &tm);
	}
	return &tm;
}

/* "address:port", an IPv6 address in brackets; "unix"; or unknown if it is not known */
static char *put_address(char *p, const struct endpoints *e, const __u8 *address, __u16 port,
			 const char *unknown)
{
	char text[INET6_ADDRSTRLEN];

	if (e->family == AF_UNIX)
		return stpcpy(p, "unix");
	if (e->family != AF_INET && e->family != AF_INET6)
		return stpcpy(p, unknown);
	inet_ntop(e->family, address, text, sizeof(text));
	return p + sprintf(p, e->family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, port);
}

static char *put_json_address(char *p, const char *key, const struct endpoints *e,
			      const __u8 *address, __u16 port)
{
	char text[INET6_ADDRSTRLEN + 16], *end;

	end = put_address(text, e, address, port, "");
	return p + sprintf(p, end == text ? ",\"%s\":null" : ",\"%s\":\"%s\"", key, text);
}

/* The name of a thread as a column, terminated: no blank in it, nor what is not printable */
static void put_comm(char *p, const char *comm)
{
	size_t i;

	for (i = 0; i < COMM_SIZE && comm[i]; i++) {
		if (isgraph((unsigned char)comm[i]) && comm[i] != '\\')
			*p++ = comm[i];
		else
			p += sprintf(p, "\\x%02x", (unsigned char)comm[i]);
	}
	*p = 0;
}

static char *put_json(char *p, const struct chunk *c, const struct verdict *v, size_t n)
{
	const struct fact *f = &c->fact;
	const struct tm *tm;
	char comm[COMM_SIZE * 4 + 1];
	unsigned int usec;

	tm = broken_down(f->time, true, &usec);
	put_comm(comm, c->comm);
	p += sprintf(p, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%06uZ\"", tm->tm_year + 1900,
		     tm->tm_mon + 1, tm->tm_mday, tm->tm_hour, tm->tm_min, tm->tm_sec, usec);
	p += sprintf(p, ",\"pid\":%u,\"tid\":%u,\"uid\":%u,\"comm\":", f->tgid, f->tid, c->uid);
	if (is_utf8((const __u8 *)c->comm, strnlen(c->comm, COMM_SIZE)))
		p = put_json_string(p, (const __u8 *)c->comm, strnlen(c->comm, COMM_SIZE));
	else
		p = put_json_string(p, (const __u8 *)comm, strlen(comm));
	p += sprintf(p, ",\"lib\":\"%s\",\"fd\":", library_names[c->lib]);
	p = v->fd < 0 ? stpcpy(p, "null") : p + sprintf(p, "%d", v->fd);
	p += sprintf(p, ",\"dir\":\"%s\",\"len\":%llu,\"off\":%llu,\"conn\":\"%u-%llu\"",
		     direction_names[c->dir], c->len, c->off, f->tgid, v->conn);
	p = put_json_address(p, "local", v->ends, v->ends->local, v->ends->local_port);
	p = put_json_address(p, "remote", v->ends, v->ends->remote, v->ends->remote_port);
	p += sprintf(p, ",\"truncated\":%s,", n < c->len ? "true" : "false");
	if (is_utf8(c->data, n)) {
		p = stpcpy(p, "\"data\":");
		p = put_json_string(p, c->data, n);
	} else {
		p = stpcpy(p, "\"data_base64\":");
		p = put_base64(p, c->data, n);
	}
	*p++ = '}';
	return p;
}

static bool data_in_line(void)
{
	return env.snap && (env.format == FORMAT_ASCII || env.format == FORMAT_HEX);
}

/* TIME PID COMM FD DIR LEN, as the header names them */
static char *put_columns(char *p, const struct chunk *c, const struct verdict *v)
{
	const struct tm *tm;
	char comm[COMM_SIZE * 4 + 1]; /* an address is no longer */
	unsigned int usec;

	put_comm(comm, c->comm);
	tm = broken_down(c->fact.time, false, &usec);
	p += sprintf(p, "%02d:%02d:%02d.%06u %-7u %-16s ", tm->tm_hour, tm->tm_min, tm->tm_sec,
		     usec, c->fact.tgid, comm);
	if (v->fd < 0)
		p = stpcpy(p, "-    ");
	else
		p += sprintf(p, "%-4d ", v->fd);
	p += sprintf(p, "%-5s %4llu", direction_names[c->dir], c->len);
	if (env.addresses) {
		put_address(comm, v->ends, v->ends->local, v->ends->local_port, "-");
		p += sprintf(p, " %-21s", comm);
		put_address(comm, v->ends, v->ends->remote, v->ends->remote_port, "-");
		p += sprintf(p, data_in_line() ? " %-21s" : " %s", comm);
	}
	return p;
}

static bool started; /* lines may come */

static void print_header(void)
{
	started = true;
	if (env.quiet || env.format == FORMAT_JSON)
		return;
	fprintf(out, "%-15s %-7s %-16s %-4s %-5s %4s", "TIME", "PID", "COMM", "FD", "DIR", "LEN");
	if (env.addresses)
		fprintf(out, data_in_line() ? " %-21s %-21s" : " %-21s %s", "LOCAL", "REMOTE");
	fputs(data_in_line() ? " DATA\n" : "\n", out);
	flush_output();
}

/* The window's width, or 0 if lines are not to be cut */
static size_t line_limit(void)
{
	struct winsize size;

	if (!out_is_terminal || env.snap >= 0 || ioctl(fileno(out), TIOCGWINSZ, &size))
		return 0;
	return size.ws_col;
}

static void print_line(const struct chunk *c, const struct verdict *v, size_t n)
{
	bool cut = n < c->len;
	size_t limit;
	char *p = line;

	if (env.format == FORMAT_JSON) {
		p = put_json(p, c, v, n);
		*p++ = '\n';
		fwrite(line, 1, p - line, out);
		return;
	}
	p = put_columns(p, c, v);
	if (data_in_line()) {
		*p++ = ' ';
		if (env.format == FORMAT_HEX)
			p = put_hex(p, c->data, n);
		else
			p = put_escaped(p, c->data, n);
		limit = line_limit();
		if (limit > 4 && (size_t)(p - line) + 4 * cut > limit) {
			p = line + limit - 4;
			cut = true;
		}
		if (cut)
			p = stpcpy(p, " ...");
	}
	*p++ = '\n';
	if (env.snap && !data_in_line()) {
		if (env.format == FORMAT_DUMP)
			p = put_dump(p, c->data, n);
		else
			p = put_text(p, c->data, n);
		if (cut)
			p = stpcpy(p, "  ...\n");
	}
	fwrite(line, 1, p - line, out);
}

static void print_chunk(const struct chunk *c, const struct verdict *v, void *ctx)
{
	struct chunk rest;

	(void)ctx;
	if (env.dir >= 0 && c->dir != env.dir)
		return;
	if (c->len > CHUNK_MAX) { /* the rest of a huge call, without its bytes */
		rest = *c;
		while (rest.off < c->off + c->len) {
			rest.len = MIN(c->off + c->len - rest.off, CHUNK_MAX);
			print_chunk(&rest, v, ctx);
			rest.off += rest.len;
		}
		return;
	}
	if (done) {
		nunwritten += broken;
		return;
	}
	print_line(c, v, c->captured);
	if (ferror(out))
		output_failed();
	nlines++;
	nbytes += c->len;
	if (env.count && nlines >= env.count)
		done = true;
}

/* Targets: processes, the files that they have mapped, and what was found in those */

struct site {
	const struct hook *hook;
	const char *source;
	__u64 offset;
};

/* What becomes another one when a file is written to */
struct state {
	off_t size;
	struct timespec changed;
};

struct file {
	dev_t dev;
	ino_t ino;
	struct state state; /* in which it was read */
	int fd;		    /* -1: closed, as there is nothing in it */
	char *path;	    /* as the process sees it, for people */
	struct site *sites;
	size_t nsites;
	char rustc[32];	 /* version, if it is made of Rust and that was asked for */
	char rustls[32]; /* version, if no symbol of it was found and it was asked for */
	char versions[LIB_COUNT][32]; /* of its libraries, "" or for -L */
	char no_decrypt[64];	      /* ciphers of rustls whose function was not found, or "" */
	char no_encrypt[64];	      /* likewise; these are not decrypted either */
	bool symbols;		      /* it has a .symtab */
	bool old_states;	 /* those of rustls were found by its tables, but maybe not all */
	int error;		 /* 0, or why nothing could be found in it */
	bool told;		 /* the user knows that */
	bool named;		 /* by -l: traced in whatever process runs it */
	bool usual;		 /* found where libraries usually lie: the same */
	bool everywhere;	 /* its probes are in all processes */
	struct leaving *leaving; /* its probes, as it is to be written to */
};

struct process {
	pid_t pid;
	char comm[COMM_SIZE];
	int pidfd;
	bool gone;
	bool execed;		 /* it runs another program than it did */
	struct leaving *leaving; /* the probes of that one */
	bool stale;		 /* it has mapped something new */
	size_t *attached;	 /* numbers of files */
	size_t nattached;
};

/* a probe, or several in one link */
struct attachment {
	int fd; /* of a multi-uprobe link, else -1 */
	struct bpf_link *link;
	pid_t pid; /* 0: of all processes */
	int file;  /* number in files[], -1: of none */
};

static struct file *files;
static size_t nfiles;
static struct process *processes;
static size_t nprocesses;
static struct process command; /* COMMAND, if there is one */
static struct attachment *attachments;
static size_t nattachments;

/* What the kernel has */
static struct {
	bool cookie;	/* probes carry a number: 5.15 */
	bool sleepable; /* programs that may wait for a page: 6.0 */
	bool multi;	/* many probes in one link: 6.6; of single processes: 6.10 */
} have;

#define DETACH_THREADS 64

static void detach(const struct attachment *a)
{
	if (a->link)
		bpf_link__destroy(a->link);
	else
		close(a->fd);
}

static void *detach_thread(void *attachment)
{
	detach(attachment);
	return NULL;
}

/* The kernel takes tens of ms for each, most of which it waits: a thread waits for each */
static void detach_from(size_t first)
{
	pthread_t threads[DETACH_THREADS];
	size_t n;

	while (nattachments > first) {
		for (n = 0; n < DETACH_THREADS && nattachments > first; n++)
			if (pthread_create(&threads[n], NULL, detach_thread,
					   &attachments[nattachments - 1]))
				break;
			else
				nattachments--;
		if (!n)
			detach(&attachments[--nattachments]);
		while (n)
			pthread_join(threads[--n], NULL);
	}
}

/* Attachments that a thread detaches */
struct leaving {
	pthread_t thread;
	struct attachment *list;
	size_t n;
	bool over;
};

static size_t nleaving; /* there are so many of these */

static void *leave_thread(void *ctx)
{
	struct leaving *l = ctx;

	while (l->n)
		detach(&l->list[--l->n]);
	__atomic_store_n(&l->over, true, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * Detaches what is in one process (or pid 0) and in one file (or -1): at once, which returns
 * NULL, or, where the kernel takes seconds for it, while we go on.
 */
static struct leaving *detach_some(pid_t pid, int file)
{
	struct leaving some = {0}, *l;
	size_t i, kept = 0;

	for (i = 0; i < nattachments; i++) {
		struct attachment *a = &attachments[i];

		if ((pid && a->pid != pid) || (file >= 0 && a->file != file))
			attachments[kept++] = *a;
		else
			*GROW(some.list, some.n) = *a;
	}
	nattachments = kept;
	l = have.multi || !some.n ? NULL : malloc(sizeof(*l));
	if (l) {
		*l = some;
		if (!pthread_create(&l->thread, NULL, leave_thread, l)) {
			nleaving++;
			return l;
		}
		free(l);
	}
	leave_thread(&some);
	free(some.list);
	return NULL;
}

/* Waits for the end of that */
static void wait_for(struct leaving **l)
{
	if (!*l)
		return;
	pthread_join((*l)->thread, NULL);
	free((*l)->list);
	free(*l);
	*l = NULL;
	nleaving--;
}

static bool is_over(struct leaving **l)
{
	if (*l && !__atomic_load_n(&(*l)->over, __ATOMIC_ACQUIRE))
		return false;
	wait_for(l);
	return true;
}

/* Returns 0 or -errno: ENOENT if there is no such process */
static int read_comm(struct process *p)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", p->pid);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	if (fgets(p->comm, sizeof(p->comm), file))
		p->comm[strcspn(p->comm, "\n")] = 0;
	fclose(file);
	return 0;
}

/* For messages.  Of a process that only they need the name of it is read now. */
static const char *process_name(const struct process *p)
{
	static char name[64];
	struct process named = *p;

	if (named.comm[0] || !read_comm(&named))
		snprintf(name, sizeof(name), "pid %d (%s)", p->pid, safe(named.comm));
	else
		snprintf(name, sizeof(name), "pid %d", p->pid);
	return name;
}

/* The kernel side knows which processes count, the probes are in all of them */
static bool in_all_processes(void)
{
	return env.machine || env.follow;
}

/* Is a probe set in each process by itself? */
static bool of_single_processes(void)
{
	return env.npids && !in_all_processes();
}

/* Was -k given? */
static bool any_kind(void)
{
	size_t i;

	for (i = 0; i < LIB_COUNT; i++)
		if (env.libs[i])
			return true;
	return false;
}

static bool wanted_library(enum library lib)
{
	return env.libs[lib] || !any_kind();
}

static void add_site(struct file *f, const struct hook *hook, const struct elfsym_func *func)
{
	struct site *site;
	size_t i;

	/* the same function in another table, or under another name */
	for (i = 0; i < f->nsites; i++)
		if (f->sites[i].offset == func->offset)
			return;
	site = GROW(f->sites, f->nsites);
	site->hook = hook;
	site->source = func->source;
	site->offset = func->offset;
}

static int add_named(const struct elfsym_func *func, void *ctx)
{
	struct elfsym_name name = elfsym_name(func->name);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		if (wanted_library(hooks[i].lib) && elfsym_matches(&name, &hooks[i].pattern))
			add_site(ctx, &hooks[i], func);
	return 0;
}

static bool has_site(const struct file *f, enum library lib, enum direction dir)
{
	size_t i;

	for (i = 0; i < f->nsites; i++)
		if (f->sites[i].hook->lib == lib && f->sites[i].hook->dir == dir)
			return true;
	return false;
}

/* Has it a function for that which gets everything, and which the tables did not tell of? */
static bool has_good_named(const struct file *f, enum library lib, enum direction dir,
			   const char *tables)
{
	size_t i;

	for (i = 0; i < f->nsites; i++)
		if (f->sites[i].hook->lib == lib && f->sites[i].hook->dir == dir &&
		    f->sites[i].hook->rank < RANK_INNER && strcmp(f->sites[i].source, tables))
			return true;
	return false;
}

/* Adds a word to a list with commas, unless it is there or there is no room */
static void add_word(char *list, size_t size, const char *word)
{
	size_t n = strlen(word), used = strlen(list);
	const char *at = list;

	while ((at = strstr(at, word))) {
		if ((at == list || at[-1] == ',') && (!at[n] || at[n] == ','))
			return;
		at += n;
	}
	if (used + 1 + n < size)
		sprintf(list + used, "%s%s", used ? "," : "", word);
}

/* Is there one of this shape that was found by a symbol, and not by the tables? */
static bool has_named(const struct file *f, enum shape shape, const char *tables)
{
	size_t i;

	for (i = 0; i < f->nsites; i++)
		if (f->sites[i].hook->shape == shape && strcmp(f->sites[i].source, tables))
			return true;
	return false;
}

/*
 * A function found by the tables that it is called through, of which a symbol may have told.
 * Of rustls all count, as a symbol table may have been stripped of some; the symbols of
 * BIO_f_ssl, if any, could be anybody's; OpenSSL's others are those that the named ones call.
 */
static int add_unnamed(const struct elfsym_func *func, enum elfsym_role role, void *ctx)
{
	struct file *f = ctx;
	bool bio = role == ELFSYM_BIO_READ || role == ELFSYM_BIO_WRITE;
	bool state = role == ELFSYM_HANDLE || role == ELFSYM_EARLY;
	const struct hook *h;
	size_t i;

	if (role == ELFSYM_NO_DECRYPT && !has_good_named(f, LIB_RUSTLS, DIR_READ, func->source))
		add_word(f->no_decrypt, sizeof(f->no_decrypt), func->name);
	if (role == ELFSYM_NO_ENCRYPT && !has_good_named(f, LIB_RUSTLS, DIR_WRITE, func->source)) {
		add_word(f->no_decrypt, sizeof(f->no_decrypt), func->name);
		add_word(f->no_encrypt, sizeof(f->no_encrypt), func->name);
	}
	if (state && !strcmp(func->name, "0.20-0.21")) {
		if (has_good_named(f, LIB_RUSTLS, DIR_READ, func->source))
			return 0;
		f->old_states = true;
	}
	/* decrypt is sure to have all */
	if (state && has_named(f, SHAPE_DECRYPT, func->source) &&
	    !has_named(f, SHAPE_HANDLE, func->source))
		return 0;
	/* ExpectQuicTraffic looks alike there, and never has data; symbols know it */
	if (state && !strcmp(func->name, "0.24") &&
	    has_good_named(f, LIB_RUSTLS, DIR_READ, func->source))
		return 0;
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		h = &hooks[i];
		if (h->role == role && wanted_library(h->lib) &&
		    (bio || h->lib == LIB_RUSTLS ||
		     !has_good_named(f, h->lib, h->dir, func->source)))
			add_site(f, h, func);
	}
	return 0;
}

/* .comment tells the compiler since about rustc 1.74; Debian's tell it by their own path */
static void find_rustc(struct elfsym *elf, struct file *f)
{
	if (elfsym_version(elf, RUSTC, f->rustc, sizeof(f->rustc)))
		elfsym_version(elf, "/rustc-", f->rustc, sizeof(f->rustc));
}

/* Of the rustc that built a file: the x of 1.x, or 0 if that is not known */
static unsigned long rustc_minor(const struct file *f)
{
	return strncmp(f->rustc, "1.", 2) ? 0 : strtoul(f->rustc + 2, NULL, 10);
}

/*
 * Where handle finds its message depends on the compiler: rustc 1.63 and older is known, and
 * 1.77 and newer; between, and where it is not known, decrypt is sure.  Where only some of the
 * states are found, it is of no use.
 */
static unsigned int rank_of(const struct file *f, const struct hook *h)
{
	unsigned long minor = rustc_minor(f);

	if (h->shape == SHAPE_HANDLE && h->count != COUNT_OPAQUE) {
		if (f->old_states)
			return RANK_NONE;
		if (!minor || (minor >= 64 && minor < 77))
			return RANK_UNKNOWN;
	}
	/* how these return: known of 1.63, and from 1.85 on */
	if (h->shape == SHAPE_IO && minor != 63 && minor < 85)
		return RANK_NONE;
	return h->rank;
}

/* Drops what a hook of a lower rank makes needless: both would show the same bytes */
static void drop_outranked(struct file *f)
{
	unsigned int lowest[LIB_COUNT][2];
	const struct hook *h;
	size_t i, kept = 0;

	memset(lowest, -1, sizeof(lowest));
	for (i = 0; i < f->nsites; i++) {
		h = f->sites[i].hook;
		if (!h->partial)
			lowest[h->lib][h->dir] = MIN(lowest[h->lib][h->dir], rank_of(f, h));
	}
	for (i = 0; i < f->nsites; i++) {
		h = f->sites[i].hook;
		if (rank_of(f, h) != RANK_NONE && rank_of(f, h) == lowest[h->lib][h->dir])
			f->sites[kept++] = f->sites[i];
	}
	f->nsites = kept;
}

/* Nothing is wrong with the file, but it is not for us */
static bool is_foreign(int err)
{
	return err == -ENOEXEC || err == -EOPNOTSUPP;
}

/* The ciphers that would be decrypted unseen, "" if there is none */
static const char *undecrypted(const struct file *f)
{
	size_t i;

	for (i = 0; i < f->nsites; i++)
		if (f->sites[i].hook->shape == SHAPE_DECRYPT)
			return f->no_decrypt;
	return "";
}

static const char *elf_error(int err)
{
	switch (err) {
	case -ENOEXEC:
		return "not an ELF file";
	case -EBADMSG:
		return "the ELF file is damaged";
	case -EOPNOTSUPP:
		return "a program of 32 bits or for another machine, which tlssnoop does not trace";
	case -E2BIG:
		return "looking through it would take too long";
	case -ETIMEDOUT:
		return "its file system does not answer";
	default:
		return strerror(-err);
	}
}

/* Does a child of ours end within so many ms, whatever signals come meanwhile? */
static bool ends_within(pid_t pid, unsigned int ms)
{
	__u64 time, end = now() + ms * 1000000ULL;
	struct pollfd pfd = {.fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	bool ended;

	do {
		ended = waitpid(pid, NULL, WNOHANG) != 0;
		time = now();
		if (!ended && time < end)
			poll(&pfd, 1, (end - time) / 1000000 + 1);
	} while (!ended && time < end);
	close(pfd.fd);
	return ended;
}

/*
 * Closes descriptors, but for one: those that we opened; or those that we were given, as who
 * waits for the end of a pipe is not to wait for a child of ours.
 */
static void close_descriptors(bool ours, int but)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	bool own;
	int fd;

	while (dir && (entry = readdir(dir))) {
		fd = atoi(entry->d_name);
		own = fcntl(fd, F_GETFD) & FD_CLOEXEC; /* ours have it */
		if (own == ours && fd != but && fd != dirfd(dir))
			close(fd);
	}
	if (dir)
		closedir(dir);
}

/*
 * A child that may wait for a server for ever, out of the reach of signals: it has none of our
 * descriptors but one, as those of probes would keep them in place.
 */
static pid_t fork_reader(int but)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();	 /* what the terminal sends is not for it */
		started = false; /* nor are facts */
		close_descriptors(true, but);
		close_descriptors(false, STDERR_FILENO);
	}
	return pid;
}

/* a line of /proc/PID/maps */
struct mapping {
	unsigned long start, end, offset;
	unsigned int dev_major, dev_minor;
	unsigned long ino;
	bool executable;
	char path[PATH_MAX];
};

/*
 * Files of a server that does not answer hold up whoever touches them, beyond the reach
 * of signals: a child tries it first.  Returns false if it does not come back.
 */
#define SERVER_MS 2000

static void go_on_printing(void);

static bool answers(const char *path)
{
	pid_t pid = fork_reader(-1);
	__u64 end = now() + SERVER_MS * 1000000ULL;
	struct stat st;
	char byte;
	bool yes;
	int fd;

	if (!pid) {
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		_exit(fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
		      pread(fd, &byte, 1, 0) < 0);
	}
	yes = pid < 0;
	while (!yes && !is_end() && now() < end) {
		yes = ends_within(pid, POLL_MS);
		go_on_printing();
	}
	if (!yes)
		kill(pid, SIGKILL);
	return yes;
}

static const char *const servers[] = {"nfs", "nfs4", "cifs", "smb3",   "ceph",	"afs",
				      "9p",  "fuse", "gfs2", "lustre", "ocfs2", "autofs"};

/* a line of /proc/PID/mountinfo */
struct mount {
	unsigned int dev_major, dev_minor;
	char point[512]; /* the beginning, if it is longer */
};

/* proc_pid_mountinfo(5): "36 35 98:0 / /mnt rw,noatime master:1 - ext3 ...".  Is it a server's? */
static bool parse_server(const char *text, struct mount *m)
{
	const char *end = strstr(text, " - ");
	char type[32];
	size_t i;

	if (!end || sscanf(end, " - %31[^. ]", type) != 1)
		return false;
	for (i = 0; i < ARRAY_SIZE(servers) && strcmp(type, servers[i]); i++)
		;
	return i < ARRAY_SIZE(servers) &&
	       sscanf(text, "%*u %*u %u:%u %*s %511s", &m->dev_major, &m->dev_minor, m->point) == 3;
}

/* Reads the mounts of servers that a process sees.  Returns their number, -1: it does not tell */
static int read_servers(pid_t pid, struct mount **list)
{
	char path[64], *text = NULL;
	struct mount m;
	size_t size = 0, n = 0;
	FILE *f;

	*list = NULL;
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (getline(&text, &size, f) > 0)
		if (parse_server(text, &m))
			*GROW(*list, n) = m;
	free(text);
	fclose(f);
	return n;
}

#define MOUNTS_MS 100 /* they are asked for with each file that is read */

/* Is fn true of any mount of a server that a process sees?  -1: it does not tell */
static int any_server(pid_t pid, bool (*fn)(const struct mount *m, const void *ctx),
		      const void *ctx)
{
	static struct {
		pid_t pid;
		__u64 until;
		struct mount *list;
		int n;
	} last[2], *l; /* of another process, and of ours */
	int i;

	l = &last[pid == getpid()];
	if (l->pid != pid || now() >= l->until) {
		free(l->list);
		l->n = read_servers(pid, &l->list);
		l->pid = pid;
		l->until = now() + MOUNTS_MS * 1000000ULL;
	}
	for (i = 0; i < l->n && !fn(&l->list[i], ctx); i++)
		;
	return l->n < 0 ? l->n : i < l->n;
}

static bool is_server_of(const struct mount *m, const void *ctx)
{
	const struct mapping *mapping = ctx;

	return m->dev_major == mapping->dev_major && m->dev_minor == mapping->dev_minor;
}

/* Is the file of a mapping on a file system that a server (or a program) stands behind? */
static bool on_server(pid_t pid, const struct mapping *m)
{
	static unsigned int dev_major = -1, dev_minor;
	static bool yes; /* of the device that was asked for last */
	int any;

	if (m->dev_major == dev_major && m->dev_minor == dev_minor)
		return yes;
	any = any_server(pid, is_server_of, m);
	if (any < 0)
		return false;
	dev_major = m->dev_major;
	dev_minor = m->dev_minor;
	yes = any;
	return yes;
}

#define DIRS 2 /* where debug files may lie, and where libraries do */

/* Do directories lie on such a file system?  Or maybe on one: that is no harm */
static bool is_server_on(const struct mount *m, const void *ctx)
{
	const char *const *dirs = ctx;
	size_t i;

	for (i = 0; i < DIRS; i++)
		if (dirs[i][0] != '/' || !strncmp(dirs[i], m->point, strlen(m->point)))
			return true;
	return false;
}

/*
 * May files be looked for in directories, as a process sees them?  Not if that would hold us
 * up.  (That of a link from there to a server that is not there is not foreseen.)
 */
static bool may_search(pid_t pid, const char *const *dirs)
{
	static bool lost; /* once is enough: each time takes seconds */
	char path[PATH_MAX];
	size_t i;

	if (any_server(pid, is_server_on, dirs) <= 0)
		return true;
	for (i = 0; i < DIRS && !lost; i++) {
		snprintf(path, sizeof(path), "/proc/%d/root%s", pid, dirs[i]);
		lost = !answers(path);
		if (lost)
			complain("no files are looked for", safe(path),
				 "its file system does not answer");
	}
	return !lost;
}

/* Is the root directory of a process ours, with the same mounted on it? */
static bool shares_root(pid_t pid)
{
	static const char *const names[] = {"ns/mnt", "root/"};
	struct stat its, ours;
	char path[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, names[i]);
		if (stat(path, &its))
			return false;
		snprintf(path, sizeof(path), "/proc/self/%s", names[i]);
		if (stat(path, &ours) || its.st_dev != ours.st_dev || its.st_ino != ours.st_ino)
			return false;
	}
	return true;
}

/*
 * Finds the symbols of a file that was stripped of them.  Its debug file lies where the
 * package of the program put it: in the root of the process (pid, 0: of none) if that is
 * another one, as in a container; or in ours, as containers seldom have any.
 */
static void find_debug(struct elfsym *elf, const char *path, pid_t pid)
{
	const pid_t whose[] = {pid && !shares_root(pid) ? pid : 0, getpid()};
	char dir[PATH_MAX], root[32];
	const char *const dirs[DIRS] = {"/usr/lib/debug/.build-id", dir};
	int roots[2];
	size_t n = 0, i;
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	for (i = 0; i < ARRAY_SIZE(roots); i++) {
		if (!whose[i] || !may_search(whose[i], dirs))
			continue;
		snprintf(root, sizeof(root), "/proc/%d/root", whose[i]);
		roots[n] = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		n += roots[n] >= 0;
	}
	elfsym_find_debug(elf, path[0] == '/' ? dir : NULL, roots, n);
	while (n)
		close(roots[--n]);
}

static struct state state_of(const struct stat *st)
{
	return (struct state){.size = st->st_size, .changed = st->st_mtim};
}

static bool unchanged(const struct state *state, const struct stat *st)
{
	return state->size == st->st_size && state->changed.tv_sec == st->st_mtim.tv_sec &&
	       state->changed.tv_nsec == st->st_mtim.tv_nsec;
}

/* Is rustls in a file?  By its functions, or else its own paths, which are in its messages */
static bool has_rustls(struct file *f, struct elfsym *elf)
{
	return wanted_library(LIB_RUSTLS) &&
	       (has_site(f, LIB_RUSTLS, DIR_READ) || has_site(f, LIB_RUSTLS, DIR_WRITE) ||
		!elfsym_version(elf, version_prefixes[LIB_RUSTLS], f->rustls, sizeof(f->rustls)));
}

/* Where 0.20 and 0.21 look alike: the tables have all the states of the latter */
static bool is_rustls_0_21(struct elfsym *elf)
{
	char version[32];

	return !elfsym_version(elf, version_prefixes[LIB_RUSTLS], version, sizeof(version)) &&
	       !strncmp(version, "0.21.", 5);
}

/* For -L.  OpenSSL's stands in its other library. */
static void find_versions(struct elfsym *elf, struct file *f)
{
	size_t i;

	for (i = 0; i < LIB_COUNT; i++)
		if (version_prefixes[i] && (has_site(f, i, DIR_READ) || has_site(f, i, DIR_WRITE) ||
					    (i == LIB_OPENSSL && strstr(f->path, "crypto"))))
			elfsym_version(elf, version_prefixes[i], f->versions[i],
				       sizeof(f->versions[i]));
	if (f->nsites && !f->rustc[0])
		elfsym_version(elf, RUSTC, f->rustc, sizeof(f->rustc));
}

/*
 * Enough for probes: who closes a file of a server after more than that waits for its answer,
 * and no signal ends that (fuse_flush()).  To set a probe takes the page that it is for, which
 * is to be in memory by then.
 */
static void keep_path(struct file *f)
{
	char path[32], code[16];
	size_t i;
	int fd;

	for (i = 0; i < f->nsites; i++)
		if (pread(f->fd, code, sizeof(code), f->sites[i].offset) < 0)
			break; /* setting it will fail as well, and tell why */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return;
	close(f->fd);
	f->fd = fd;
}

/*
 * Finds the hooks in an open file, unless that was done before.  Takes fd over.  path is
 * how the process pid has it, or, with 0, how we do.  Returns the file's number in files[],
 * or -errno; what is wrong with its contents is in .error.
 */
static int add_file(int fd, const char *path, pid_t pid)
{
	char whole[PATH_MAX];
	struct mapping place;
	struct elfsym *elf;
	struct stat st;
	struct file *f;
	size_t i;
	int err;

	if (fstat(fd, &st)) {
		err = -errno;
		close(fd);
		return err;
	}
	for (i = 0; i < nfiles; i++) {
		if (files[i].dev == st.st_dev && files[i].ino == st.st_ino) {
			close(fd);
			return i;
		}
	}
	f = GROW(files, nfiles);
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->state = state_of(&st);
	f->fd = -1;
	f->path = strdup(path);
	f->error = S_ISREG(st.st_mode) ? elfsym_open(fd, &elf) : -ENOEXEC;
	if (!f->error) {
		find_debug(elf, pid ? path : realpath(path, whole) ?: "", pid);
		f->symbols = elfsym_has_symtab(elf);
		f->error = elfsym_each(elf, add_named, f);
		if (!f->error &&
		    (!f->symbols || has_site(f, LIB_OPENSSL, DIR_READ) || has_rustls(f, elf))) {
			err = elfsym_tables(fd, add_unnamed, f);
			if (err)
				complain("not all is found", safe(path), "%s", elf_error(err));
			f->old_states = f->old_states && !is_rustls_0_21(elf);
		}
		if (!f->nsites || has_site(f, LIB_RUSTLS, DIR_READ) ||
		    has_site(f, LIB_RUSTLS, DIR_WRITE))
			find_rustc(elf, f);
		drop_outranked(f);
		if (!f->nsites && f->rustc[0])
			elfsym_version(elf, version_prefixes[LIB_RUSTLS], f->rustls,
				       sizeof(f->rustls));
		if (env.list)
			find_versions(elf, f);
		elfsym_close(elf);
	}
	if (f->nsites) /* for the probes */
		f->fd = fd;
	else
		close(fd);
	place = (struct mapping){.dev_major = major(st.st_dev), .dev_minor = minor(st.st_dev)};
	if (f->nsites && on_server(pid ?: getpid(), &place))
		keep_path(f);
	return nfiles - 1;
}

static bool parse_mapping(const char *text, struct mapping *m)
{
	char perms[5];
	int n = 0;

	if (sscanf(text, "%lx-%lx %4s %lx %x:%x %lu %n", &m->start, &m->end, perms, &m->offset,
		   &m->dev_major, &m->dev_minor, &m->ino, &n) < 7)
		return false;
	m->executable = perms[2] == 'x';
	snprintf(m->path, sizeof(m->path), "%s", text + n);
	m->path[strcspn(m->path, "\n")] = 0;
	return true;
}

/*
 * Opens the file of a mapping, whatever its path names by now: through the mapping
 * itself, or, where that is not allowed, through the process's root directory if the
 * path still leads to the same inode there.  With pid 0, the file of a path as we have it.
 * Returns -1 with errno.
 */
static int open_mapping(pid_t pid, const struct mapping *m)
{
	char path[PATH_MAX + 64];
	struct stat st;
	int fd;

	if (!pid)
		return open(m->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a fifo waits */
	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, m->start, m->end);
	if (!stat(path, &st)) {
		if (!S_ISREG(st.st_mode)) { /* opening a device might do something */
			errno = EINVAL;
			return -1;
		}
		return open(path, O_RDONLY | O_CLOEXEC);
	}
	snprintf(path, sizeof(path), "/proc/%d/root%s", pid, m->path);
	if (stat(path, &st))
		return -1;
	if (!S_ISREG(st.st_mode) || st.st_ino != m->ino) {
		errno = ESTALE;
		return -1;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd;
}

static int may_not_look(const struct process *p, int err)
{
	static bool told;

	if (env.machine && told) /* it is the same with the others */
		return err;
	told = true;
	complain("cannot look into", process_name(p), "%s", strerror(-err));
	hint("CAP_SYS_PTRACE is needed to look into processes of others");
	return err;
}

/*
 * The files that mappings were of, by what /proc/PID/maps says of them: each is opened and
 * read once, unless it has changed.
 */
struct seen {
	unsigned int dev_major, dev_minor;
	unsigned long ino;
	struct state state;
	int file; /* number in files[], or NOTHING_IN_IT */
};

#define NOTHING_IN_IT (-ENODATA)
#define SEEN_MAX      65536

static void *seen; /* a tree, tsearch(3) */

static int compare_seen(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->dev_minor != y->dev_minor)
		return x->dev_minor < y->dev_minor ? -1 : 1;
	return (x->dev_major > y->dev_major) - (x->dev_major < y->dev_major);
}

/* Opens and reads the file of a mapping.  Returns its number in files[], or -errno. */
static int read_mapping(pid_t pid, const struct mapping *m)
{
	int fd = open_mapping(pid, m);
	int n = fd < 0 ? -errno : add_file(fd, m->path, pid);

	/* of all files of a machine those are kept in which there is something */
	if (env.machine && !env.list && n >= 0 && (size_t)n == nfiles - 1 && !files[n].nsites &&
	    (!files[n].error || is_foreign(files[n].error))) {
		free(files[--nfiles].path);
		return NOTHING_IN_IT;
	}
	return n;
}

/*
 * Files that take long: large ones, and those of a server, which may cease to answer at any time.
 * A child reads them, and we go on with the lines.
 */
#define LARGE	(32 << 20) /* bytes, which take tens of ms */
#define READ_MS 10000	   /* for a server's */

/* What the child says of a file; its sites follow */
struct finding {
	int n;		  /* what read_mapping() returned: the others are for a new one */
	int path_only;	  /* O_PATH, if that is enough */
	struct file file; /* .fd is the child's */
};

/* in the child */
static void tell_finding(int to, pid_t pid, const struct mapping *m)
{
	size_t before = nfiles;
	struct finding it = {.n = read_mapping(pid, m)};
	ssize_t told;

	if (it.n >= 0 && (size_t)it.n == before)
		it.file = files[before];
	it.path_only = fcntl(it.file.fd, F_GETFL) & O_PATH;
	told = write(to, &it, sizeof(it));
	if (told > 0 && it.file.nsites)
		told = write(to, it.file.sites, it.file.nsites * sizeof(*it.file.sites));
	while (told > 0)
		pause(); /* its descriptor is still to be had */
	_exit(EXIT_FAILURE);
}

/* Takes over what a child has found.  Returns the file's number, or -errno. */
static int take_finding(FILE *from, pid_t child, const char *path)
{
	struct finding it;
	struct site *sites;
	char link[64];

	if (fread(&it, sizeof(it), 1, from) != 1)
		return -EIO;
	if (it.n < 0 || (size_t)it.n < nfiles)
		return it.n;
	sites = calloc(it.file.nsites + 1, sizeof(*sites));
	if (!sites || fread(sites, sizeof(*sites), it.file.nsites, from) != it.file.nsites) {
		free(sites);
		return -EIO;
	}
	it.file.sites = sites;
	it.file.path = strdup(path);
	if (it.file.fd >= 0) {
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", child, it.file.fd);
		it.file.fd = open(link, it.path_only | O_RDONLY | O_CLOEXEC);
	}
	*GROW(files, nfiles) = it.file;
	return nfiles - 1;
}

/* As read_mapping(); -ETIMEDOUT: the server does not answer */
static int read_apart(pid_t pid, const struct mapping *m, bool served)
{
	__u64 end = served ? now() + READ_MS * 1000000ULL : -1ULL;
	int ends[2], n = -ETIMEDOUT;
	struct pollfd pfd;
	pid_t child;
	FILE *from;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	from = fdopen(ends[0], "r");
	child = from ? fork_reader(ends[1]) : -1;
	if (!child)
		tell_finding(ends[1], pid, m);
	close(ends[1]);
	pfd = (struct pollfd){.fd = ends[0], .events = POLLIN};
	while (child > 0 && !is_end() && now() < end && poll(&pfd, 1, POLL_MS) <= 0)
		go_on_printing();
	if (child < 0)
		n = -ENOMEM;
	else if (is_end())
		n = -EINTR;
	else if (poll(&pfd, 1, 0) > 0)
		n = take_finding(from, child, m->path);
	if (child > 0)
		kill(child, SIGKILL);
	if (child > 0 && n != -ETIMEDOUT && n != -EINTR)
		waitpid(child, NULL, 0);
	if (from)
		fclose(from);
	else
		close(ends[0]);
	return n;
}

/* Who waits to write to it goes on.  A child of ours may have the descriptor, too: closing it
 * is not enough. */
static void release(struct file *f)
{
	if (f->fd < 0)
		return;
	fcntl(f->fd, F_SETLEASE, F_UNLCK);
	close(f->fd);
	f->fd = -1;
}

static void release_all(void)
{
	size_t i;

	for (i = 0; i < nfiles; i++)
		release(&files[i]);
}

/* A file that has no probes any more is another one although its inode is the same */
static void drop_file(struct file *f)
{
	release(f);
	f->nsites = 0;
	f->ino = 0;
}

/* Probes do not fit any more */
static void forget_file(size_t n)
{
	if (!files[n].leaving)
		files[n].leaving = detach_some(0, n);
	wait_for(&files[n].leaving);
	drop_file(&files[n]);
}

static bool queue_processes(void);

/*
 * Somebody wants to write to a file that has probes.  The kernel would set them into
 * whatever stands there next, and execute what stood there before (uprobes keep a copy of
 * the instruction), so they go.  The lease keeps the writer waiting until then.
 */
static void let_write(void)
{
	struct file *f;

	if (!lease_broken && !nleaving)
		return;
	lease_broken = 0;
	for (f = files; f < files + nfiles; f++) {
		if (f->leaving) {
			if (!is_over(&f->leaving))
				continue;
			drop_file(f);
			if (in_all_processes()) /* who has begun to run it meanwhile? */
				queue_processes();
			continue;
		}
		if (!f->everywhere || f->fd < 0 || fcntl(f->fd, F_GETLEASE) == F_RDLCK)
			continue;
		if (f->named)
			complain("no longer traced", safe(f->path), "it is written to");
		f->leaving = detach_some(0, f - files);
		if (!f->leaving)
			drop_file(f);
	}
}

static void remember(const struct seen *key)
{
	struct seen *s = malloc(sizeof(*s)), **node;
	static unsigned int n;

	if (!s) /* the file is read again when it comes again */
		return;
	if (n++ == SEEN_MAX) { /* new files every day: all are read again */
		tdestroy(seen, free);
		seen = NULL;
		n = 0;
	}
	*s = *key;
	node = tsearch(s, &seen, compare_seen);
	if (node && *node != s) {
		**node = *key;
		free(s);
	}
}

/* Reads a file that a path leads to.  Returns its number, or -errno. */
static int read_path(const char *path)
{
	const char *const paths[DIRS] = {path, path};
	struct mapping m = {0};

	snprintf(m.path, sizeof(m.path), "%s", path);
	if (any_server(getpid(), is_server_on, paths) <= 0)
		return read_mapping(0, &m);
	return answers(path) ? read_apart(0, &m, true) : -ETIMEDOUT;
}

/* For so long it is not asked again for another file: a machine may run many of one server */
#define SILENT_MS 60000

static bool left_out; /* a file of a server was */

/* As read_mapping(), but a file of a server that does not answer is left out; path leads to it */
static int read_served(pid_t pid, const struct mapping *m, const char *path)
{
	static unsigned int dev_major, dev_minor; /* of the server that did not answer */
	static __u64 until;
	int n;

	if (m->dev_major != dev_major || m->dev_minor != dev_minor || now() >= until) {
		n = answers(path) ? read_apart(pid, m, true) : -ETIMEDOUT;
		if (n != -ETIMEDOUT)
			return n;
		if (is_end())
			return -EINTR;
		dev_major = m->dev_major;
		dev_minor = m->dev_minor;
		until = now() + SILENT_MS * 1000000ULL;
	}
	complain("not looked at", safe(m->path), "%s", elf_error(-ETIMEDOUT));
	if (!left_out)
		hint("start tlssnoop again when it does, to see what such processes say");
	left_out = true;
	return NOTHING_IN_IT;
}

/* The number in files[] of what a process has mapped, or -errno */
static int file_of(const struct process *p, const struct mapping *m)
{
	struct seen key = {.dev_major = m->dev_major, .dev_minor = m->dev_minor, .ino = m->ino};
	struct seen **found = tfind(&key, &seen, compare_seen);
	bool served = on_server(p->pid, m), forgotten, gone;
	struct stat st = {0};
	char path[96];
	int n;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", p->pid, m->start, m->end);
	if (served) { /* to ask it whether the file has changed might take for ever */
		n = found ? (*found)->file : read_served(p->pid, m, path);
	} else {
		/* a process that is gone does not tell */
		gone = stat(path, &st);
		forgotten = found && (*found)->file >= 0 && !files[(*found)->file].ino;
		if (found && (gone || (unchanged(&(*found)->state, &st) && !forgotten)))
			return (*found)->file;
		if (found && (*found)->file >= 0)
			forget_file((*found)->file);
		n = started && st.st_size >= LARGE ? read_apart(p->pid, m, false)
						   : read_mapping(p->pid, m);
	}
	if (n < 0 && n != NOTHING_IN_IT)
		return n;
	if (served && found)
		return n;
	key.state = state_of(&st);
	key.file = n;
	remember(&key);
	return n;
}

/* Or is it only a file of its that we may not read? */
static bool may_look(pid_t pid)
{
	char path[64], root[8];

	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	return readlink(path, root, sizeof(root)) >= 0;
}

/* Says once what is wrong with a file.  What is no ELF file is data to us; of 32 bits,
 * explain_nothing() says it. */
static void tell_error(struct file *f)
{
	if (f->error && !is_foreign(f->error) && !f->told) {
		complain("cannot trace", safe(f->path), "%s", elf_error(f->error));
		f->told = true;
	}
}

typedef void mapping_fn(struct process *p, size_t file, const struct mapping *m);

/* Calls fn for a mapping's file, unless there is nothing in it.  Returns 0, -EACCES or
 * -EPERM. */
static int look_at(struct process *p, const struct mapping *m, mapping_fn *fn)
{
	int n = file_of(p, m);

	if (!fn)
		return 0;
	if ((n == -EACCES || n == -EPERM) && !may_look(p->pid))
		return n;
	if (n < 0) {
		/* no file but a device, or unmapped meanwhile; or the user has enough */
		if (n != -EINVAL && n != -ENOENT && n != NOTHING_IN_IT && n != -EINTR)
			complain("cannot open", safe(m->path), "mapped by %s: %s", process_name(p),
				 strerror(-n));
		return 0;
	}
	tell_error(&files[n]);
	fn(p, n, m);
	return 0;
}

/*
 * Calls fn for each file that the process has mapped for execution, with its number in
 * files[].  Returns 0 (a process that is gone has none), or -errno if we may not look at
 * it, which is said.  Without fn it only reads the files, and leaves it to the next look to
 * say what is wrong.
 */
static int each_file(struct process *p, mapping_fn *fn)
{
	struct mapping m, before = {0};
	char *text = NULL, path[64];
	size_t size = 0;
	FILE *maps;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", p->pid);
	maps = fopen(path, "re");
	if (!maps)
		return !fn || errno == ENOENT || errno == ESRCH ? 0 : may_not_look(p, -errno);
	while (getline(&text, &size, maps) > 0) {
		if (!parse_mapping(text, &m) || !m.executable || !m.ino)
			continue;
		if (m.ino == before.ino && m.dev_major == before.dev_major &&
		    m.dev_minor == before.dev_minor)
			continue;
		before = m;
		n = look_at(p, &m, fn);
		if (n)
			break;
	}
	fclose(maps);
	free(text);
	return n ? may_not_look(p, n) : 0;
}

/* A process that is gone has none, nor has a zombie or a kernel thread */
static bool has_no_memory(pid_t pid)
{
	char path[64], exe[8];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	return readlink(path, exe, sizeof(exe)) < 0 && (errno == ENOENT || errno == ESRCH);
}

/* Why there is nothing to trace in a process, from the files seen in it */
struct reason {
	size_t nfiles;
	size_t nsites;
	const struct file *rust;
	const struct file *foreign;
};

static struct reason reason;

static void note_reason(struct process *p, size_t n, const struct mapping *m)
{
	(void)p;
	(void)m;
	reason.nfiles++;
	reason.nsites += files[n].nsites;
	if (files[n].error == -EOPNOTSUPP)
		reason.foreign = &files[n];
	if (files[n].rustc[0] && (!reason.rust || files[n].rustls[0]))
		reason.rust = &files[n];
}

static void explain_nothing(struct process *p)
{
	const struct file *f;
	int err;

	reason = (struct reason){0};
	err = each_file(p, note_reason);
	f = reason.rust;
	if (err || reason.nsites)
		return; /* it is said: no right to look, or to attach */
	if (reason.foreign)
		complain("cannot trace", process_name(p), "%s: %s", safe(reason.foreign->path),
			 elf_error(-EOPNOTSUPP));
	else if (!reason.nfiles && has_no_memory(p->pid))
		complain("nothing to trace", process_name(p),
			 "a kernel thread, or no longer running");
	else if (f && f->rustls[0] && !f->symbols)
		complain("nothing to trace", process_name(p),
			 "rustls %s is in %s, but its symbols are stripped", f->rustls,
			 safe(f->path));
	else if (f && f->rustls[0])
		complain("nothing to trace", process_name(p),
			 "rustls %s is in %s, but none of its functions that tlssnoop knows",
			 f->rustls, safe(f->path));
	else if (f)
		complain("nothing to trace", process_name(p),
			 "no TLS library mapped; %s is made of Rust "
			 "(rustc %s) without rustls",
			 safe(f->path), f->rustc);
	else if (reason.nfiles)
		complain("nothing to trace", process_name(p), "no TLS library mapped%s%s",
			 any_kind() ? " that -k names" : "",
			 left_out ? " in what was looked at" : "");
}

static int add_process(pid_t pid)
{
	struct process *p = GROW(processes, nprocesses);
	char name[32];
	int err;

	snprintf(name, sizeof(name), "pid %d", pid);
	p->pid = pid;
	err = read_comm(p);
	if (err) {
		complain("cannot trace", name, "%s",
			 err == -ENOENT ? "no such process" : strerror(-err));
		return -1;
	}
	p->pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (p->pidfd < 0) {
		/* it has a directory in /proc: EINVAL, since Linux 6.9 ENOENT, is for a thread */
		complain("cannot trace", name, "%s",
			 errno == EINVAL || errno == ENOENT ? "this is a thread, not a process"
							    : strerror(errno));
		return -1;
	}
	return 0;
}

/* Has it ended?  Its pid may be another's then. */
static bool is_gone(struct process *p)
{
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

	if (!p->gone && poll(&pfd, 1, 0) > 0)
		p->gone = true;
	return p->gone;
}

static struct process *find_process(pid_t pid)
{
	size_t i;

	for (i = 0; i < nprocesses; i++)
		if (processes[i].pid == pid && !processes[i].gone)
			return &processes[i];
	return NULL;
}

#define PF_EXITING 4 /* of a thread: set before sched_process_exit (do_exit()) */

/* All processes of the machine that are still to be looked at, the busiest last */
struct candidate {
	pid_t pid, parent;
	char state;
	bool ending;		  /* its first thread is */
	unsigned long long ticks; /* of processor time that it has used */
};

static struct candidate *queue;
static size_t nqueue;

static int by_business(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if ((x->state == 'R') != (y->state == 'R'))
		return x->state == 'R' ? 1 : -1;
	return (x->ticks > y->ticks) - (x->ticks < y->ticks);
}

/* proc_pid_stat(5).  False: it is gone. */
static bool read_stat(pid_t pid, struct candidate *c)
{
	unsigned long long user, system;
	char path[64], text[512], *p;
	unsigned int flags;
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	p = fgets(text, sizeof(text), f) ? strrchr(text, ')') : NULL; /* a name may hold any */
	ok = p && sscanf(p, ") %c %d %*d %*d %*d %*d %u %*u %*u %*u %*u %llu %llu", &c->state,
			 &c->parent, &flags, &user, &system) == 5;
	fclose(f);
	if (!ok)
		return false;
	c->pid = pid;
	c->ending = flags & PF_EXITING;
	c->ticks = user + system;
	return true;
}

/* Has it ended, or is the kernel side about to hear that it does, if it has not yet? */
static bool is_ending(pid_t pid)
{
	struct candidate c;

	return !read_stat(pid, &c) || c.ending;
}

/* Fills the queue anew.  False: it was not empty. */
static bool queue_processes(void)
{
	struct dirent *entry;
	struct candidate c;
	bool began = !nqueue;
	DIR *dir;
	pid_t pid;

	nqueue = 0;
	dir = opendir("/proc");
	while (dir && (entry = readdir(dir))) {
		pid = atoi(entry->d_name);
		if (pid > 0 && pid != getpid() && read_stat(pid, &c))
			*GROW(queue, nqueue) = c;
	}
	if (dir)
		closedir(dir);
	if (nqueue)
		qsort(queue, nqueue, sizeof(*queue), by_business);
	return began;
}

/* With -f: the children that there are, and theirs.  Those to come the kernel side adds. */
static void add_descendants(void)
{
	size_t before, i;

	queue_processes();
	do {
		before = nprocesses;
		for (i = 0; i < nqueue; i++)
			if (find_process(queue[i].parent) && !find_process(queue[i].pid))
				add_process(queue[i].pid);
	} while (nprocesses > before);
	nqueue = 0;
}

/* -L */

/* What stands there of a file */
struct listed {
	const char *whose;
	const struct file *f;
	const char *version[LIB_COUNT];
};

static const char *or_dash(const char *s)
{
	return s[0] ? s : "-";
}

/* "# PID LIBRARY VERSION rustc VERSION DIR GROUP SOURCE: why: FILE" */
static void list_remark(const struct listed *l, enum library lib, enum direction dir,
			const char *group, const char *source, const char *why, const char *what)
{
	fprintf(out, "# %s %s %s rustc %s %s %s %s: %s%s: %s\n", l->whose, library_names[lib],
		or_dash(l->version[lib]), or_dash(l->f->rustc), direction_names[dir],
		or_dash(group), or_dash(source), why, what, safe(l->f->path));
}

/* Which group of hooks was chosen for a direction of a library, and why */
static void list_group(const struct listed *l, enum library lib, enum direction dir)
{
	char group[64] = "", source[64] = "", better[64] = "";
	const struct hook *h, *used = NULL;
	const char *method;
	size_t i;

	for (i = 0; i < l->f->nsites; i++) {
		h = l->f->sites[i].hook;
		if (h->lib != lib || h->dir != dir)
			continue;
		method = strstr(h->function, "::");
		add_word(group, sizeof(group), method ? method + 2 : h->function);
		add_word(source, sizeof(source), l->f->sites[i].source);
		used = h;
	}
	for (h = hooks; used && h < hooks + ARRAY_SIZE(hooks); h++)
		if (h->lib == lib && h->dir == dir && h->rank < used->rank)
			add_word(better, sizeof(better), h->function);
	if (!used)
		list_remark(l, lib, dir, "", "", "no function found", "");
	else if (l->f->rustc[0])
		list_remark(l, lib, dir, group, source,
			    better[0] ? "there is no " : "the first choice", better);
	if (lib == LIB_RUSTLS && dir == DIR_READ && undecrypted(l->f)[0])
		list_remark(l, lib, dir, "", "", "no function found that decrypts ",
			    undecrypted(l->f));
	if (lib == LIB_RUSTLS && dir == DIR_WRITE && l->f->no_encrypt[0])
		list_remark(l, lib, dir, "", "", "no function found that encrypts ",
			    l->f->no_encrypt);
}

static void list_file(const char *whose, const struct file *f, const char *crypto_version)
{
	struct listed l = {.whose = whose, .f = f};
	bool seen[LIB_COUNT] = {false};
	size_t i;

	for (i = 0; i < f->nsites; i++)
		seen[f->sites[i].hook->lib] = true;
	for (i = 0; i < LIB_COUNT; i++)
		l.version[i] = f->versions[i];
	if (!l.version[LIB_OPENSSL][0])
		l.version[LIB_OPENSSL] = crypto_version;
	for (i = 0; i < f->nsites; i++) {
		const struct hook *h = f->sites[i].hook;

		fprintf(out, "%-7s %-8s %-10s %-5s %-9s 0x%08" PRIx64 " %-26s %s\n", whose,
			library_names[h->lib], or_dash(l.version[h->lib]), direction_names[h->dir],
			f->sites[i].source, (uint64_t)f->sites[i].offset, h->function,
			safe(f->path));
	}
	for (i = 0; i < LIB_COUNT; i++) {
		if (!seen[i])
			continue;
		list_group(&l, i, DIR_READ);
		list_group(&l, i, DIR_WRITE);
	}
}

/* OpenSSL's version stands in its other library, which a process has mapped as well */
static char crypto_version[32];

static void find_crypto_version(struct process *p, size_t n, const struct mapping *m)
{
	(void)p;
	if (!crypto_version[0] && strstr(m->path, "crypto"))
		strcpy(crypto_version, files[n].versions[LIB_OPENSSL]);
}

static void list_mapped(struct process *p, size_t n, const struct mapping *m)
{
	char pid[16];

	(void)m;
	snprintf(pid, sizeof(pid), "%d", p->pid);
	list_file(pid, &files[n], crypto_version);
	p->nattached += files[n].nsites;
}

/* Returns 0, or an error if we may not look, which is said */
static int list_process(struct process *p)
{
	crypto_version[0] = 0;
	return each_file(p, find_crypto_version) ?: each_file(p, list_mapped);
}

static void list(void)
{
	size_t i, n = 0;

	fprintf(out, "%-7s %-8s %-10s %-5s %-9s %-10s %-26s %s\n", "PID", "LIBRARY", "VERSION",
		"DIR", "SOURCE", "OFFSET", "FUNCTION", "FILE");
	for (i = 0; i < nfiles; i++) { /* so far: those of -l */
		list_file("-", &files[i], "");
		n += files[i].nsites;
	}
	for (i = 0; i < nprocesses; i++) {
		if (!list_process(&processes[i]) && !processes[i].nattached)
			explain_nothing(&processes[i]);
		n += processes[i].nattached;
	}
	if (env.machine)
		queue_processes();
	while (nqueue) {
		struct process p = {.pid = queue[--nqueue].pid};

		list_process(&p);
		n += p.nattached;
	}
	if (env.machine && !n)
		complain("nothing to trace", "this machine", "no process has a TLS library mapped");
	if (!n)
		status = EXIT_FAILURE;
	flush_output();
}

/* The kernel: what it has, and what it is asked to do */

/* Newer than some of the headers that we build with: values of the kernel's interface */
#define TRACE_UPROBE_MULTI  48	      /* BPF_TRACE_UPROBE_MULTI */
#define UPROBE_MULTI_RETURN (1U << 0) /* BPF_F_UPROBE_MULTI_RETURN */

/* union bpf_attr for BPF_LINK_CREATE of a multi-uprobe link (Linux 6.6) */
struct multi_uprobe_attr {
	__u32 prog_fd;
	__u32 target_fd;
	__u32 attach_type;
	__u32 flags;
	__aligned_u64 path;
	__aligned_u64 offsets;
	__aligned_u64 ref_ctr_offsets;
	__aligned_u64 cookies;
	__u32 cnt;
	__u32 multi_flags;
	__u32 pid;
	__u32 unused;
};

static struct tlssnoop_bpf *skel;
/* the same with the programs of rare shapes, once one is needed: the verifier takes its time */
static struct tlssnoop_bpf *rare;
static struct ring_buffer *ring;

/* TLSSNOOP_WITHOUT names features to do without, as an older kernel would */
static bool masked(const char *feature)
{
	const char *without = getenv("TLSSNOOP_WITHOUT");

	return without && strstr(without, feature);
}

/* the smallest program: return 0 */
static int load_nothing(__u32 prog_flags, enum bpf_attach_type attach_type)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = prog_flags,
		    .expected_attach_type = attach_type);

	return bpf_prog_load(BPF_PROG_TYPE_KPROBE, "nothing", "GPL", insns, ARRAY_SIZE(insns),
			     &opts);
}

static int link_multi(int prog, const char *path, const struct site *const *sites, size_t n,
		      bool at_return, pid_t pid, __u64 flags);

/*
 * The link is refused, so nothing stays of this: a directory cannot be probed (EBADF,
 * where older kernels say EINVAL), and a negative pid is seen at once (EINVAL) by those
 * kernels whose filter compares processes and not threads (46ba0e49b642, 6.10).  That
 * of others is no use for -p; a COMMAND's entry point is executed by its first thread.
 */
static bool have_multi(void)
{
	static const struct site nowhere = {.offset = 1, .hook = &hooks[0]};
	const struct site *sites[] = {&nowhere};
	int prog = load_nothing(0, (enum bpf_attach_type)TRACE_UPROBE_MULTI);
	bool yes = false;

	if (prog >= 0) {
		yes = link_multi(prog, "/", sites, 1, false, 0, 0) == -EBADF;
		if (of_single_processes())
			yes &= !masked("pidfilter") &&
			       link_multi(prog, "/", sites, 1, false, -1, 0) == -EINVAL;
		close(prog);
	}
	return yes;
}

static int ask_kernel(void)
{
	int prog;

	have.cookie =
		!masked("cookie") && libbpf_probe_bpf_helper(BPF_PROG_TYPE_KPROBE,
							     BPF_FUNC_get_attach_cookie, NULL) == 1;
	prog = masked("sleepable") ? -1 : load_nothing(BPF_F_SLEEPABLE, 0);
	have.sleepable = prog >= 0;
	if (prog >= 0)
		close(prog);
	have.multi = have.cookie && !masked("multi") && have_multi();
	if (env.verbose)
		fprintf(stderr,
			"tlssnoop: this kernel has: attach cookies %s, sleepable probes %s, "
			"multi-uprobe links %s\n",
			have.cookie ? "yes" : "no", have.sleepable ? "yes" : "no",
			have.multi ? "yes" : "no");
	if (!have.cookie && (env.npaths || in_all_processes())) {
		complain(
			"cannot trace", env.npaths ? safe(env.paths[0]) : "all processes",
			"this needs attach cookies, which came with Linux 5.15; -p alone does not");
		return -1;
	}
	return 0;
}

static bool has_capability(int cap)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data))
		return true; /* the kernel will say no by itself */
	return data[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap);
}

/* What a refused load or attach can mean, for those who may do so in principle */
static void hint_refused(int err)
{
	char lockdown[128] = "";
	FILE *f;

	if (err != -EPERM && err != -EACCES)
		return;
	f = fopen("/sys/kernel/security/lockdown", "re");
	if (f) {
		if (fgets(lockdown, sizeof(lockdown), f) && strstr(lockdown, "[confidentiality]"))
			hint("the kernel is locked down (confidentiality): it lets nobody read memory "
			     "of other processes; see kernel_lockdown(7)");
		fclose(f);
	}
	hint("capabilities count only in the first user namespace, not in a container's own");
}

/* Says what is missing before anything is tried.  Returns 0 or -1. */
static int check_kernel(void)
{
	int map;

	if (env.list) /* needs no more than the right to look at those processes */
		return 0;
	if (!has_capability(CAP_SYS_ADMIN) &&
	    !(has_capability(CAP_BPF) && has_capability(CAP_PERFMON))) {
		complain("not permitted", "tracing",
			 "it needs CAP_SYS_ADMIN, or CAP_BPF and "
			 "CAP_PERFMON where the kernel has multi-uprobe links (Linux %s)",
			 of_single_processes() ? "6.10" : "6.6");
		hint("run tlssnoop as root (sudo); processes of others need CAP_SYS_PTRACE as well");
		return -1;
	}
	if (access("/sys/kernel/btf/vmlinux", R_OK)) {
		complain("cannot trace", "/sys/kernel/btf/vmlinux", "%s", strerror(errno));
		hint("the kernel has no type information (BTF), which tlssnoop needs: "
		     "CONFIG_DEBUG_INFO_BTF=y");
		return -1;
	}
	map = masked("ringbuf") ? -EINVAL
				: bpf_map_create(BPF_MAP_TYPE_RINGBUF, NULL, 0, 0, 4096, NULL);
	if (map >= 0) {
		close(map);
		return 0;
	}
	if (map == -EINVAL) {
		complain("cannot trace", "BPF ring buffer",
			 "this kernel has none: it came with Linux 5.8");
	} else {
		complain("cannot trace", "BPF ring buffer", "%s", strerror(-map));
		hint_refused(map);
	}
	return -1;
}

static bool is_rare(enum shape shape)
{
	return shape >= SHAPE_NSPR;
}

/* The program for a shape; NULL: it needs none there, or it is not loaded */
static struct bpf_program *program_of(enum shape shape, bool at_return)
{
	const struct tlssnoop_bpf *bpf = is_rare(shape) ? rare : skel;
	bool s = have.sleepable;

	if (!bpf)
		return NULL;
	switch (shape) {
	case SHAPE_CALL:
	case SHAPE_NSPR:
		if (!at_return)
			return shape == SHAPE_CALL ? bpf->progs.call_entry : bpf->progs.nspr_entry;
		return s ? bpf->progs.call_return_sleepable : bpf->progs.call_return_plain;
	case SHAPE_ENCRYPT:
		if (!at_return)
			return s ? bpf->progs.encrypt_sleepable : bpf->progs.encrypt_plain;
		return NULL;
	case SHAPE_HANDLE:
		if (!at_return)
			return s ? bpf->progs.handle_sleepable : bpf->progs.handle_plain;
		return NULL;
	case SHAPE_DECRYPT:
		if (!at_return)
			return bpf->progs.decrypt_entry;
		return s ? bpf->progs.decrypt_return_sleepable : bpf->progs.decrypt_return_plain;
	case SHAPE_SLICES:
	case SHAPE_IO:
		if (!at_return)
			return shape == SHAPE_SLICES ? bpf->progs.slices_entry
						     : bpf->progs.io_entry;
		return s ? bpf->progs.method_return_sleepable : bpf->progs.method_return_plain;
	default:
		return NULL;
	}
}

/*
 * Libraries that a program may load: where they usually lie.  A program that starts later
 * and ends soon is then seen from its first byte.
 */
static const char usual_libraries[] =
	"{/usr,/usr/local,}/lib{,64,/*-linux-gnu}/lib{ssl.so.*,gnutls.so.*,nspr4.so}";

static void find_usual(void)
{
	static const char *const dirs[DIRS] = {"/usr/lib", "/usr/local/lib"};
	const char *path;
	glob_t found;
	size_t i;
	int n;

	if (!may_search(getpid(), dirs) || glob(usual_libraries, GLOB_BRACE, NULL, &found))
		return;
	for (i = 0; i < found.gl_pathc; i++) {
		path = found.gl_pathv[i];
		n = read_path(path);
		if (n >= 0) {
			tell_error(&files[n]);
			files[n].usual = files[n].nsites;
		} else if (n != -ENOENT &&
			   n != NOTHING_IN_IT) { /* or a link that was left behind */
			complain("cannot open", safe(path), "%s", elf_error(n));
		}
	}
	globfree(&found);
}

/* Reads the files that there are to trace by now; attach() finds what is mapped later */
static void look_ahead(void)
{
	size_t i;

	for (i = 0; i < nprocesses; i++)
		each_file(&processes[i], NULL);
	if (in_all_processes())
		find_usual();
}

static __u64 inode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : st.st_ino;
}

/* The inode of the first PID namespace, PROC_PID_INIT_INO of the kernel */
#define FIRST_PIDNS 0xeffffffcU

static void load_uprobe(struct bpf_program *prog)
{
	bpf_program__set_autoload(prog, true);
	if (have.multi)
		bpf_program__set_expected_attach_type(prog,
						      (enum bpf_attach_type)TRACE_UPROBE_MULTI);
}

static struct tlssnoop_bpf *open_programs(void)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .kernel_log_level = env.verbose > 1 ? 4 : 0);
	struct tlssnoop_bpf *bpf = tlssnoop_bpf__open_opts(&opts);

	if (!bpf)
		complain("cannot open", "BPF object", "%s", strerror(errno));
	return bpf;
}

static int load_rare(void)
{
	struct bpf_program *prog;
	struct bpf_map *map;
	int err = 0, shape;

	rare = open_programs();
	if (!rare)
		return -ENOMEM;
	bpf_object__for_each_program(prog, rare->obj)
		bpf_program__set_autoload(prog, false);
	for (map = bpf_object__next_map(rare->obj, NULL); map && !err;
	     map = bpf_object__next_map(rare->obj, map))
		err = bpf_map__reuse_fd(
			map, bpf_object__find_map_fd_by_name(skel->obj, bpf_map__name(map)));
	for (shape = 0; shape < SHAPE_COUNT; shape++) {
		if (is_rare(shape)) {
			load_uprobe(program_of(shape, false));
			load_uprobe(program_of(shape, true));
		}
	}
	err = err ?: tlssnoop_bpf__load(rare);
	if (err) {
		tlssnoop_bpf__destroy(rare);
		rare = NULL;
	}
	return err;
}

static void *load_thread(void *err)
{
	*(int *)err = tlssnoop_bpf__load(skel);
	return NULL;
}

/* The kernel checks the programs while we read files: each takes tens of ms */
static int load(void)
{
	struct bpf_program *prog;
	__u64 ring_size = 4096, pidns;
	const struct hook *h;
	int err, at_return;
	pthread_t thread;
	bool threaded;

	skel = open_programs();
	if (!skel)
		return -1;
	while (ring_size < env.buffer_kib * 1024ULL)
		ring_size *= 2;
	bpf_map__set_max_entries(skel->maps.facts, ring_size);
	skel->rodata->wakeup_at = ring_size / 4;
	skel->rodata->have_cookie = have.cookie;
	skel->rodata->own_tgid = getpid();
	pidns = inode_of("/proc/self/ns/pid");
	skel->rodata->pidns = pidns == FIRST_PIDNS ? 0 : pidns;
	if (env.snap >= 0)
		skel->rodata->snap[DIR_READ] = skel->rodata->snap[DIR_WRITE] =
			MIN(env.snap, CHUNK_MAX);
	if (env.dir >= 0) /* the other one still tells which socket is whose */
		skel->rodata->snap[!env.dir] = 0;
	if (env.comm)
		strncpy((char *)skel->rodata->comm_wanted, env.comm, COMM_SIZE - 1);
	if (env.user)
		skel->rodata->uid_wanted = env.uid;
	bpf_object__for_each_program(prog, skel->obj)
		if (bpf_program__type(prog) == BPF_PROG_TYPE_KPROBE)
			bpf_program__set_autoload(prog, false);
	for (h = hooks; h < hooks + ARRAY_SIZE(hooks); h++) {
		for (at_return = 0; at_return < 2; at_return++) {
			prog = program_of(h->shape, at_return);
			if (prog && wanted_library(h->lib))
				load_uprobe(prog);
		}
	}
	if (env.command)
		load_uprobe(skel->progs.entry_point);
	bpf_program__set_autoload(skel->progs.process_fork, env.follow);
	/* what nobody will use is only to be there */
	if (have.cookie)
		bpf_map__set_max_entries(skel->maps.rows, 1);
	if (!env.command)
		bpf_map__set_max_entries(skel->maps.programs, 1);
	threaded = !pthread_create(&thread, NULL, load_thread, &err);
	look_ahead();
	if (threaded)
		pthread_join(thread, NULL);
	else
		load_thread(&err);
	if (err) {
		complain("cannot load", "BPF programs", "%s", strerror(-err));
		if (err == -EPERM)
			hint_refused(err);
		else if (!env.verbose)
			hint("-v shows what the kernel's verifier says");
		return -1;
	}
	return 0;
}

static int attach_link(struct bpf_link *link, const char *what)
{
	long err = libbpf_get_error(link);

	if (err) {
		complain("cannot attach", what, "%s", strerror(-err));
		hint_refused(err);
		return -1;
	}
	*GROW(attachments, nattachments) = (struct attachment){.fd = -1, .link = link, .file = -1};
	return 0;
}

/* System calls, exec and exit: what happens to sockets and processes */
static int attach_tracepoints(void)
{
	if (attach_link(bpf_program__attach(skel->progs.process_exec), "sched_process_exec") ||
	    attach_link(bpf_program__attach(skel->progs.process_exit), "sched_process_exit") ||
	    attach_link(bpf_program__attach(skel->progs.sys_exit), "sys_exit") ||
	    (env.follow &&
	     attach_link(bpf_program__attach(skel->progs.process_fork), "sched_process_fork")))
		return -1;
	return 0;
}

static __u64 row_of(const struct hook *h)
{
	return ROW(h->lib, h->dir, h->count) | ROW_VALID;
}

/* What the rows of all hooks in a file have in common */
static __u64 flags_of(const struct file *f)
{
	unsigned long minor = rustc_minor(f);

	return minor && minor < 64 ? ROW_OLD_RUSTC : 0;
}

/* Returns the link's descriptor or -errno */
static int link_multi(int prog, const char *path, const struct site *const *sites, size_t n,
		      bool at_return, pid_t pid, __u64 flags)
{
	__u64 offsets[n], cookies[n];
	struct multi_uprobe_attr attr = {
		.prog_fd = prog,
		.attach_type = TRACE_UPROBE_MULTI,
		.path = (uintptr_t)path,
		.offsets = (uintptr_t)offsets,
		.cookies = (uintptr_t)cookies,
		.cnt = n,
		.multi_flags = at_return ? UPROBE_MULTI_RETURN : 0,
		.pid = pid,
	};
	size_t i;
	int fd;

	for (i = 0; i < n; i++) {
		offsets[i] = sites[i]->offset;
		cookies[i] = row_of(sites[i]->hook) | flags;
	}
	fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
	return fd < 0 ? -errno : fd;
}

/* One probe for each site.  What was attached when one fails is detached by the caller. */
static int attach_each(struct bpf_program *prog, const char *path, int file,
		       const struct site *const *sites, size_t n, bool at_return, pid_t pid,
		       __u64 flags)
{
	struct bpf_link *link;
	size_t i;

	for (i = 0; i < n; i++) {
		LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = at_return,
			    .bpf_cookie = have.cookie ? row_of(sites[i]->hook) | flags : 0);

		link = bpf_program__attach_uprobe_opts(prog, pid ? pid : -1, path, sites[i]->offset,
						       &opts);
		if (libbpf_get_error(link))
			return libbpf_get_error(link);
		*GROW(attachments, nattachments) =
			(struct attachment){.fd = -1, .link = link, .pid = pid, .file = file};
	}
	return 0;
}

static int attach_program(const struct file *f, enum shape shape, bool at_return, pid_t pid,
			  __u64 flags)
{
	const struct site *sites[f->nsites];
	struct bpf_program *prog;
	char path[32];
	size_t i, n = 0;
	int fd;

	for (i = 0; i < f->nsites; i++)
		if (f->sites[i].hook->shape == shape)
			sites[n++] = &f->sites[i];
	if (n && !rare && is_rare(shape)) {
		fd = load_rare();
		if (fd < 0)
			return fd;
	}
	prog = program_of(shape, at_return);
	if (!n || !prog)
		return 0;
	/* the file that is open, whatever its path leads to now */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	if (!have.multi)
		return attach_each(prog, path, f - files, sites, n, at_return, pid, flags);
	fd = link_multi(bpf_program__fd(prog), path, sites, n, at_return, pid, flags);
	if (fd < 0)
		return fd;
	*GROW(attachments, nattachments) =
		(struct attachment){.fd = fd, .pid = pid, .file = f - files};
	return 0;
}

/* The kernel's own, not for users: of an instruction that no probe can stand on */
#define ENOTSUPP 524

/* All of a file's probes, or none.  pid 0: in all processes. */
static int attach_file(const struct file *f, pid_t pid)
{
	__u64 flags = flags_of(f) | (f->named || env.machine ? ROW_ANY_PROCESS : 0);
	size_t first = nattachments, i;
	int shape, at_return, err = 0;

	/* returns before entries: a call that was entered and is not seen to return would pass
	 * for the one that the thread is in */
	for (at_return = 1; at_return >= 0 && !err; at_return--)
		for (shape = 0; shape < SHAPE_COUNT && !err; shape++)
			err = attach_program(f, shape, at_return, pid, flags);
	if (err) {
		detach_from(first);
		if (err == -ESRCH)
			return err;
		complain("cannot attach", safe(f->path), "%s",
			 err == -ENOTSUPP
				 ? "the kernel puts no probe on how a function in it begins"
				 : strerror(-err));
		hint_refused(err);
		if (err == -EINVAL)
			hint("another tracer may hold these functions with a reference counter "
			     "(bcc's sslsniff does)");
		return err;
	}
	if (env.verbose)
		for (i = 0; i < f->nsites; i++)
			fprintf(stderr, "tlssnoop: attached: %s: %s at 0x%" PRIx64 " (%s)\n",
				safe(f->path), f->sites[i].hook->function,
				(uint64_t)f->sites[i].offset, f->sites[i].source);
	return 0;
}

/* Where the kernel has no cookies, a probe is known by process and address */
static int add_rows(pid_t pid, const struct file *f, const struct mapping *m)
{
	size_t i;

	for (i = 0; i < f->nsites; i++) {
		const struct site *s = &f->sites[i];
		__u64 row = row_of(s->hook) | flags_of(f);
		struct {
			__u64 address, tgid;
		} place = {m->start - m->offset + s->offset, pid};

		if (bpf_map_update_elem(bpf_map__fd(skel->maps.rows), &place, &row, BPF_ANY))
			return -errno;
	}
	return 0;
}

/* Half a connection must not pass for a whole one */
static void warn_half(const struct file *f)
{
	bool seen[LIB_COUNT][2] = {{false}};
	size_t i;

	for (i = 0; i < f->nsites; i++)
		seen[f->sites[i].hook->lib][f->sites[i].hook->dir] = true;
	for (i = 0; i < f->nsites; i++) {
		const struct hook *h = f->sites[i].hook;

		if ((h->rank == RANK_INNER && !h->partial) || h->rank == RANK_PUBLIC)
			hint("%s: rustls: in place of what was not found, %s: it may not get all "
			     "that is %s, and a panic below it ends the process",
			     safe(f->path), h->function, h->dir == DIR_READ ? "read" : "written");
	}
	if (undecrypted(f)[0])
		complain("not all is seen", safe(f->path),
			 "rustls: no function found that decrypts %s", undecrypted(f));
	if (f->no_encrypt[0])
		complain("not all is seen", safe(f->path),
			 "rustls: no function found that encrypts %s", f->no_encrypt);
	for (i = 0; i < LIB_COUNT; i++)
		if (seen[i][DIR_READ] != seen[i][DIR_WRITE])
			complain("only one direction", safe(f->path),
				 "%s: no function found through which it %ss", library_names[i],
				 direction_names[seen[i][DIR_READ]]);
}

/* Once for each file.  Returns 0 or -errno, which is said. */
static int attach_everywhere(struct file *f)
{
	struct stat st;
	bool leased, served;
	int err;

	if (f->everywhere)
		return 0;
	f->everywhere = true;
	/* for let_write(); a library of the system is replaced, but a program may be written to */
	leased = !fcntl(f->fd, F_SETLEASE, F_RDLCK);
	served = fcntl(f->fd, F_GETFL) & O_PATH; /* and not asked again */
	if (!served && (fstat(f->fd, &st) || !unchanged(&f->state, &st))) {
		complain("cannot trace", safe(f->path), "it is written to");
		err = -ESTALE;
	} else {
		err = attach_file(f, 0);
	}
	if (err || !leased)
		release(f);
	if (err)
		f->nsites = 0;
	else
		warn_half(f);
	return err;
}

/* What the kernel side is told of a process.  False: nothing, it is not traced. */
static bool is_wanted(__u32 tgid, __u32 *flags)
{
	return !bpf_map_lookup_elem(bpf_map__fd(skel->maps.processes), &tgid, flags);
}

static void forget_process(pid_t pid)
{
	__u32 tgid = pid;

	bpf_map_delete_elem(bpf_map__fd(skel->maps.processes), &tgid);
}

/* Tells the kernel side that a process is traced.  Returns 0, or -errno, which is said. */
static int want_process(const struct process *p, __u32 flags)
{
	__u32 tgid = p->pid, old;
	int map = bpf_map__fd(skel->maps.processes), err;

	if (is_wanted(tgid, &old) && (old & flags) == flags)
		return 0;
	err = bpf_map_update_elem(map, &tgid, &flags, BPF_ANY);
	if (err)
		complain("cannot trace", process_name(p), "%s", strerror(-err));
	return err;
}

static void attach_mapped(struct process *p, size_t n, const struct mapping *m)
{
	struct file *f = &files[n];
	size_t i;

	if (!f->nsites)
		return;
	for (i = 0; i < p->nattached; i++)
		if (p->attached[i] == n)
			return;
	if (!have.cookie && add_rows(p->pid, f, m)) {
		complain("cannot trace", process_name(p), "%s", strerror(errno));
		return;
	}
	if (env.machine && want_process(p, PROCESS_FOUND))
		return;
	/* the kernel side may have heard of its end before it was told of it */
	if (env.machine && is_ending(p->pid))
		forget_process(p->pid);
	if (in_all_processes() && attach_everywhere(f))
		return;
	if (!f->everywhere && attach_file(f, p->pid))
		return;
	*GROW(p->attached, p->nattached) = n;
	if (!f->everywhere)
		warn_half(f);
}

/* Attaches what the process has mapped since the last look.  Returns 0, or an error if we
 * may not look, which is said. */
static int attach_process(struct process *p)
{
	int err;

	p->stale = false;
	if (want_process(p, env.follow ? PROCESS_FOLLOW : 0))
		return -1;
	err = each_file(p, attach_mapped);
	if (is_gone(p)) /* who was that? */
		forget_process(p->pid);
	return err;
}

/* The process runs another program: what was attached to the old one goes */
static void forget_attachments(struct process *p)
{
	p->leaving = detach_some(p->pid, -1);
	p->nattached = 0;
	p->execed = false;
	p->stale = true;
}

/* New executable mappings, on any processor: libraries that are loaded while we trace */

struct watch {
	int fd;
	struct perf_event_mmap_page *page; /* the ring's first page, its data behind it */
};

/* pages of data: powers of two, of each processor, and of all of them together */
#define WATCH_PAGES	128
#define WATCH_PAGES_ALL 4096

static struct watch *watches;
static size_t nwatches;

/* Looks at the next processes for a short time */
static void look_at_queue(void)
{
	__u64 began = now();
	__u32 flags;

	while (nqueue && now() - began < POLL_MS * 1000000ULL) {
		struct process p = {.pid = queue[--nqueue].pid};

		if (!env.machine && !is_wanted(p.pid, &flags))
			continue;
		each_file(&p, attach_mapped);
		free(p.attached);
		if (!nqueue) /* large files have left much behind */
			malloc_trim(0);
	}
}

static void watch_mappings(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
		.mmap = 1,
		.mmap2 = 1,
		.watermark = 1,
		.wakeup_watermark = 1,
	};
	int cpu, ncpus = libbpf_num_possible_cpus(), pages = WATCH_PAGES;
	long page = sysconf(_SC_PAGESIZE);

	while (pages > 1 && pages * ncpus > WATCH_PAGES_ALL)
		pages /= 2;

	for (cpu = 0; cpu < ncpus; cpu++) {
		int fd = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
		struct watch *w;
		void *ring;

		if (fd < 0 && errno == ENODEV) /* this processor is off */
			continue;
		ring = fd < 0 ? MAP_FAILED
			      : mmap(NULL, (1 + pages) * page, PROT_READ | PROT_WRITE, MAP_SHARED,
				     fd, 0);
		if (ring == MAP_FAILED) {
			complain("cannot watch", "new mappings",
				 "%s: libraries that are loaded from now "
				 "on are not traced",
				 strerror(errno));
			if (fd >= 0)
				close(fd);
			return;
		}
		w = GROW(watches, nwatches);
		w->fd = fd;
		w->page = ring;
	}
}

/* The beginning of a PERF_RECORD_MMAP2 record (perf_event_open(2)) */
struct mmap2 {
	struct perf_event_header header;
	__u32 pid, tid;
	__u64 addr, len, pgoff;
	__u32 maj, min;
	__u64 ino;
	__u64 generation;
	__u32 prot, flags;
	char path[PATH_MAX]; /* terminated, and padded */
};

/* Copies from a ring of size bytes, a power of two, around its end */
static void copy_around(void *to, const char *ring, __u64 size, __u64 at, size_t n)
{
	size_t first = MIN(n, size - at % size);

	memcpy(to, ring + at % size, first);
	memcpy((char *)to + first, ring, n - first);
}

/* A process that counts has mapped a file */
static void note_mapping(const struct mmap2 *r)
{
	struct process *p, other = {.pid = r->pid};
	struct mapping m = {
		.start = r->addr,
		.end = r->addr + r->len,
		.offset = r->pgoff,
		.dev_major = r->maj,
		.dev_minor = r->min,
		.ino = r->ino,
		.executable = true,
	};
	size_t before = nattachments;
	__u32 flags = 0;
	int err;

	if (!in_all_processes()) {
		p = find_process(r->pid);
		if (p)
			p->stale = true;
		return;
	}
	if (other.pid == getpid() || (!env.machine && !is_wanted(r->pid, &flags)))
		return;
	snprintf(m.path, sizeof(m.path), "%s", r->path);
	err = look_at(&other, &m, attach_mapped);
	if (err)
		may_not_look(&other, err);
	/* what is to stop at its exec does so after this mapping, before it has begun */
	if (nattachments > before && !env.machine)
		is_wanted(r->pid, &flags);
	if (nattachments > before && !(flags & PROCESS_STOP))
		hint("%s: not seen before now; what %s said until now is not shown", safe(m.path),
		     process_name(&other));
	free(other.attached);
}

/* Everything is to be looked at again */
static void notices_lost(void)
{
	size_t i;

	for (i = 0; i < nprocesses; i++)
		processes[i].stale = true;
	if (in_all_processes() && queue_processes())
		hint("too many new mappings at once: looking at all processes again");
}

static void read_watch(struct watch *w)
{
	const char *data = (const char *)w->page + w->page->data_offset;
	__u64 size = w->page->data_size, tail = w->page->data_tail;
	__u64 head = __atomic_load_n(&w->page->data_head, __ATOMIC_ACQUIRE);
	bool lost = false;

	while (tail < head) {
		static struct mmap2 m;

		copy_around(&m.header, data, size, tail, sizeof(m.header));
		copy_around(&m, data, size, tail, MIN(m.header.size, sizeof(m)));
		m.path[sizeof(m.path) - 1] = 0;
		tail += m.header.size;
		/* there is room again before we look, which takes longer */
		__atomic_store_n(&w->page->data_tail, tail, __ATOMIC_RELEASE);
		if (m.header.type == PERF_RECORD_MMAP2 && m.ino)
			note_mapping(&m);
		lost |= m.header.type == PERF_RECORD_LOST;
	}
	if (lost)
		notices_lost();
}

static void attach_new(void)
{
	struct process *p;
	size_t i;

	for (i = 0; i < nwatches; i++)
		read_watch(&watches[i]);
	for (p = processes; p < processes + nprocesses; p++) {
		if (p->execed && is_over(&p->leaving))
			forget_attachments(p);
		/* while they are there, new ones would report everything twice */
		if (p->stale && !p->gone && is_over(&p->leaving))
			attach_process(p);
	}
}

/*
 * COMMAND: it stops twice for each program that it executes: before the loader runs, so
 * that a probe can be set on the program's first instruction, and there, behind the loader,
 * so that its libraries can be probed before they are used.  Its children do so for a
 * program that is executed for the first time, unless their parent would take notice.
 */

static int command_status; /* as wait(2) has it */
static bool command_began;

/* A parent that stops because its child did (sudo and su may) goes on as well */
static pid_t disturbed;
static __u64 disturbed_until;

#define DISTURBED_MS 500

/* The address of a program's first instruction behind the loader, 0: not known */
static unsigned long entry_address(pid_t pid)
{
	unsigned long word[2], address = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	f = fopen(path, "re");
	while (f && fread(word, sizeof(word), 1, f))
		if (word[0] == AT_ENTRY)
			address = word[1];
	if (f)
		fclose(f);
	return address;
}

/* As a mapping_fn: sets the probe if the entry point lies in this mapping */
static void attach_entry(struct process *p, size_t n, const struct mapping *m)
{
	unsigned long address = entry_address(p->pid);
	struct site site = {.hook = &hooks[0], .offset = address - m->start + m->offset};
	const struct site *sites[] = {&site};
	struct attachment a = {.fd = -1, .pid = p->pid, .file = -1};
	char path[96];

	(void)n;
	if (address < m->start || address >= m->end)
		return;
	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", p->pid, m->start, m->end);
	if (have.multi)
		a.fd = link_multi(bpf_program__fd(skel->progs.entry_point), path, sites, 1, false,
				  p->pid, 0);
	else
		a.link = bpf_program__attach_uprobe(skel->progs.entry_point, false, p->pid, path,
						    site.offset);
	if (a.fd >= 0 || !libbpf_get_error(a.link))
		*GROW(attachments, nattachments) = a;
}

static void go_on(pid_t pid)
{
	struct candidate c;

	if (pid != command.pid && read_stat(pid, &c)) {
		disturbed = c.parent;
		disturbed_until = now() + DISTURBED_MS * 1000000ULL;
	}
	kill(pid, SIGCONT);
}

static pid_t *stops; /* that wait for us */
static size_t nstops;

/* The kernel side has stopped the COMMAND, or a child of it */
static void see_to(pid_t pid)
{
	struct process p = {.pid = pid};
	int map = bpf_map__fd(skel->maps.processes);
	__u32 flags, tgid = pid;

	if (!is_wanted(tgid, &flags))
		return; /* gone */
	if (pid == command.pid)
		read_comm(&command);
	if (flags & PROCESS_AT_EXEC) {
		each_file(&p, attach_entry);
		flags = PROCESS_FOLLOW | PROCESS_STOP;
	} else {
		each_file(&p, attach_mapped);
		flags = PROCESS_FOLLOW | (pid == command.pid ? PROCESS_STOP : PROCESS_MAY_STOP);
		command_began = true;
	}
	free(p.attached);
	bpf_map_update_elem(map, &tgid, &flags, BPF_EXIST);
	go_on(pid);
}

static void see_to_stopped(void)
{
	size_t i;

	for (i = 0; i < nstops; i++)
		see_to(stops[i]);
	nstops = 0;
}

/* Takes notice of what became of the COMMAND */
static void tend_command(void)
{
	struct candidate c;
	int st;

	if (command_pid && waitpid(command_pid, &st, WNOHANG) > 0) {
		command_status = st;
		command_pid = 0;
	}
	if (disturbed && now() > disturbed_until)
		disturbed = 0;
	if (disturbed && read_stat(disturbed, &c) && c.state == 'T')
		kill(disturbed, SIGCONT);
}

/* in the child */
static void execute(int go, int failed)
{
	char byte;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGCONT); /* should we be killed while it is stopped */
	restore_inherited();
	if (read(go, &byte, 1) != 1)
		_exit(EXIT_FAILURE);
	execvp(env.command[0], env.command);
	err = errno;
	if (write(failed, &err, sizeof(err)) < 0)
		_exit(EXIT_FAILURE);
	_exit(127);
}

/* Returns when the COMMAND is about to execute its first instruction.  Returns 0 or -1. */
static int start_command(void)
{
	int go[2], failed[2], err;

	if (pipe2(go, O_CLOEXEC) || pipe2(failed, O_CLOEXEC)) {
		complain("cannot run", safe(env.command[0]), "%s", strerror(errno));
		return -1;
	}
	command.pid = fork();
	if (!command.pid)
		execute(go[0], failed[1]);
	close(go[0]);
	close(failed[1]);
	if (command.pid < 0) {
		complain("cannot run", safe(env.command[0]), "%s", strerror(errno));
		return -1;
	}
	command_pid = command.pid;
	read_comm(&command);
	err = want_process(&command, PROCESS_FOLLOW | PROCESS_STOP);
	if (!err && write(go[1], "", 1) != 1)
		err = -errno;
	close(go[1]);
	if (!err && read(failed[0], &err, sizeof(err)) == sizeof(err))
		complain("cannot run", safe(env.command[0]), "%s", strerror(err));
	close(failed[0]);
	if (err) {
		/* as a shell says it */
		status = err == ENOENT ? 127 : 126;
		return -1;
	}
	while (command_pid && !command_began && !interrupted) {
		ring_buffer__poll(ring, POLL_MS);
		see_to_stopped();
		let_write();
		tend_command();
	}
	return 0;
}

/* Without probes, to its end, for its status.  Who stopped meanwhile goes on. */
static void end_command(void)
{
	int map = bpf_map__fd(skel->maps.processes);
	__u32 tgid, flags, *key = NULL;

	while (!bpf_map_get_next_key(map, key, &tgid)) {
		if (is_wanted(tgid, &flags) && flags & (PROCESS_AT_EXEC | PROCESS_AT_ENTRY))
			kill(tgid, SIGCONT);
		key = &tgid;
	}
	while (command_pid && !interrupted)
		if (waitpid(command_pid, &command_status, 0) > 0)
			command_pid = 0;
	if (command_pid && interrupted)
		status = 128 + interrupted;
	else if (WIFSIGNALED(command_status))
		status = 128 + WTERMSIG(command_status);
	else if (WIFEXITED(command_status) && !status)
		status = WEXITSTATUS(command_status);
}

/* Running */

static struct correlator *correlator;
static __u64 batch_began;
static __u64 last_fact; /* its time */

static int on_fact(void *ctx, void *data, size_t size)
{
	const struct fact *f = data;
	struct process *p;

	(void)ctx;
	(void)size;
	/* what is to be done about it is done when no file is being read */
	if (f->type == FACT_EXEC && (p = find_process(f->tgid)))
		p->execed = true;
	if (f->type == FACT_STOP)
		*GROW(stops, nstops) = f->tgid;
	correlate_fact(correlator, f);
	last_fact = f->time;
	/* the ring may never be empty: let the lines out, and look at the time */
	if ((done && !broken) || now() - batch_began > POLL_MS * 1000000ULL)
		return -EAGAIN;
	return 0;
}

/* Reads what the ring holds; true: there is more */
static bool consume(void)
{
	int n;

	batch_began = now();
	clock_offset = clock_ns(CLOCK_REALTIME) - batch_began;
	n = ring_buffer__consume(ring);
	/* not the time now: the evidence that a chunk waits for may have come meanwhile */
	correlate_tick(correlator, n == -EAGAIN ? last_fact : batch_began);
	flush_output();
	return n == -EAGAIN;
}

/* Where something takes long */
static void go_on_printing(void)
{
	if (!started)
		return;
	let_write();
	consume();
}

/* Is any process left?  A process that is gone takes its probes with it. */
static bool any_left(void)
{
	size_t i, left = 0;
	__u32 tgid;

	if (env.command)
		return command_pid;
	if (env.follow && !env.npaths)
		return !bpf_map_get_next_key(bpf_map__fd(skel->maps.processes), NULL, &tgid);

	for (i = 0; i < nprocesses; i++)
		left += !is_gone(&processes[i]);
	return left || env.npaths || env.machine;
}

static void run(void)
{
	struct pollfd fds[1 + nwatches];
	bool more = false, left = true;
	size_t i;

	fds[0].fd = ring_buffer__epoll_fd(ring);
	for (i = 0; i < nwatches; i++)
		fds[1 + i].fd = watches[i].fd;
	for (i = 0; i < 1 + nwatches; i++)
		fds[i].events = POLLIN;
	if (env.duration)
		deadline = now() + env.duration * 1000000000ULL;
	while (!is_end() && left) {
		if (!more && !nqueue)
			poll(fds, 1 + nwatches, POLL_MS);
		let_write();
		tend_command();
		left = any_left(); /* before the last look at what they said */
		more = consume();
		see_to_stopped();
		attach_new();
		look_at_queue();
	}
}

#define DETACH_MS 500

/*
 * At the end.  A perf event takes the kernel about 100 ms, as it waits for several grace
 * periods, and the next one has to wait for a lock (perf_uprobe_destroy(), 6.18): those of a
 * whole machine take seconds.  So a child gets them, as the last one that has them open, and
 * we go on if it needs long.  What is written to a file waits for the child, too.
 */
static void detach_all(void)
{
	int go[2];
	pid_t pid = -1;
	char byte;
	size_t i;

	if (skel && skel->bss)
		skel->bss->nobody_reads = true;
	for (i = 0; i < nfiles; i++) /* who writes to it waits for that */
		if (files[i].leaving)
			forget_file(i);
	if ((nattachments || nleaving) && !have.multi && !pipe2(go, O_CLOEXEC))
		pid = fork();
	nleaving = 0; /* the child has those as well */
	if (!pid) {
		setsid(); /* what the terminal sends is not for it */
		close_descriptors(false, -1);
		close(fileno(out));
		close(go[1]);
		if (read(go[0], &byte, 1) < 0) /* until all is closed but here */
			_exit(EXIT_FAILURE);
	}
	detach_from(0);
	if (pid <= 0)
		release_all();
	if (!pid)
		_exit(EXIT_SUCCESS);
	if (pid > 0) {
		close(go[0]);
		close(go[1]);
		if (!ends_within(pid, DETACH_MS) && !silent)
			hint("the probes report nothing any more; this kernel needs some seconds "
			     "to remove them all");
	}
}

/* No more facts come: what is left in the ring is the end */
static void drain(void)
{
	while ((!done || broken) && !silent && consume())
		;
	correlate_flush(correlator);
	flush_output();
}

static void print_summary(void)
{
	unsigned long long lost = skel->bss->lost_chunks;

	if (silent)
		return;
	fprintf(stderr, "tlssnoop: %lld chunks, %llu bytes, %llu lost", nlines, nbytes, lost);
	if (lost)
		fprintf(stderr, " (%llu bytes)", (unsigned long long)skel->bss->lost_bytes);
	if (nunwritten)
		fprintf(stderr, ", %llu not written", nunwritten);
	if (skel->bss->lost_facts)
		fprintf(stderr, ", %llu system calls unseen",
			(unsigned long long)skel->bss->lost_facts);
	if (skel->bss->lost_processes)
		fprintf(stderr, ", %llu processes not followed",
			(unsigned long long)skel->bss->lost_processes);
	fputc('\n', stderr);
	if (lost || skel->bss->lost_facts)
		hint("a larger ring (-B) or fewer bytes of each chunk (-s) loses less");
}

static void print_start(void)
{
	bool libs[LIB_COUNT] = {false};
	size_t i, k, nfunctions = 0, nused = 0;

	for (i = 0; i < nfiles; i++) {
		nfunctions += files[i].nsites;
		nused += files[i].nsites > 0;
		for (k = 0; k < files[i].nsites; k++)
			libs[files[i].sites[k].hook->lib] = true;
	}
	fputs("Tracing ", stderr);
	if (env.machine)
		fputs("all processes", stderr);
	else if (env.command)
		fputs(process_name(&command), stderr);
	else if (nprocesses == 1)
		fputs(process_name(&processes[0]), stderr);
	else if (nprocesses)
		fprintf(stderr, "%zu processes", nprocesses);
	if (env.npaths)
		fprintf(stderr, "%swhatever runs %s%s", nprocesses || env.command ? " and " : "",
			safe(env.paths[0]), env.npaths > 1 ? ", ..." : "");
	fprintf(stderr, "%s:", env.follow && !env.command ? " and children" : "");
	for (i = 0; i < LIB_COUNT; i++)
		if (libs[i])
			fprintf(stderr, " %s,", library_names[i]);
	fprintf(stderr, " %zu functions in %zu file%s%s.%s\n", nfunctions, nused,
		nused == 1 ? "" : "s", in_all_processes() ? " so far" : "",
		env.command ? "" : " Ctrl-C ends.");
}

/* What is opened later must not be taken for one of the first three */
static int check_descriptors(void)
{
	bool closed = fcntl(STDOUT_FILENO, F_GETFD) < 0;
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	close(fd);
	if (closed && !env.output) {
		complain("cannot write", "standard output", "%s", strerror(EBADF));
		return -1;
	}
	return 0;
}

static int open_output(void)
{
	int fd;

	out = stdout;
	if (env.output) {
		fd = open(env.output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		out = fd < 0 ? NULL : fdopen(fd, "w");
		if (!out) {
			complain("cannot write", safe(env.output), "%s", strerror(errno));
			return -1;
		}
	}
	/* whole batches; flush_output() ends each */
	setvbuf(out, NULL, _IOFBF, 1 << 16);
	out_is_terminal = isatty(fileno(out));
	return 0;
}

/* Finds the targets, in any order of privilege; 0 if there is at least one */
static int find_targets(void)
{
	size_t i;
	int n;

	for (i = 0; i < env.npaths; i++) {
		n = read_path(env.paths[i]);
		if (n >= 0 && files[n].error)
			n = files[n].error;
		if (n < 0) {
			complain("cannot trace", safe(env.paths[i]), "%s", elf_error(n));
			return -1;
		}
		if (!files[n].nsites) {
			complain("nothing to trace", safe(env.paths[i]),
				 "it defines no function of a TLS library that tlssnoop knows");
			return -1;
		}
		files[n].named = true;
	}
	for (i = 0; i < env.npids; i++)
		if (add_process(env.pids[i]))
			return -1;
	if (env.follow)
		add_descendants();
	return 0;
}

/* Looks at every process there is, while the lines of those that are attached come out */
static void look_at_machine(void)
{
	__u64 began = now();
	size_t total;
	bool told = false;

	queue_processes();
	total = nqueue;
	while (nqueue && !is_end()) {
		let_write();
		look_at_queue();
		consume();
		total = MAX(total, nqueue); /* they may have been listed again */
		if (isatty(STDERR_FILENO) && !env.quiet && now() - began > 1000000000ULL) {
			fprintf(stderr, "\rtlssnoop: looked at %zu of %zu processes",
				total - nqueue, total);
			fflush(stderr);
			told = true;
		}
	}
	if (told)
		fputs("\r\033[K", stderr);
}

/* Attaches everything; 0 if there is something to see, or may be later */
static int attach(void)
{
	size_t i, n = 0;

	if (attach_tracepoints())
		return -1;
	watch_mappings();
	for (i = 0; i < nfiles; i++) {
		if ((files[i].named || files[i].usual) && attach_everywhere(&files[i]) &&
		    files[i].named)
			return -1;
		n += files[i].named;
	}
	if (env.machine)
		look_at_machine();
	for (i = 0; i < nprocesses; i++) {
		if (!attach_process(&processes[i]) && !processes[i].nattached && !env.follow)
			explain_nothing(&processes[i]); /* else a child may have something */
		n += processes[i].nattached;
		/* who was born between the first look and this one */
		if (env.follow && i == nprocesses - 1)
			add_descendants();
	}
	return n || in_all_processes() ? 0 : -1;
}

/* Everything between the options and the summary.  Returns 0 or -1. */
static int trace(void)
{
	if (ask_kernel() || load())
		return -1;
	correlator = correlate_new(print_chunk, NULL);
	ring = ring_buffer__new(bpf_map__fd(skel->maps.facts), on_fact, NULL, NULL);
	if (!correlator || !ring) {
		complain("cannot trace", "ring buffer", "%s", strerror(errno));
		return -1;
	}
	if (env.machine) /* the first lines come while it is still looked at */
		print_header();
	if (attach() || (env.command && start_command()))
		return -1;
	print_start();
	if (!env.machine)
		print_header();
	run();
	detach_all();
	drain();
	print_summary();
	if (env.command)
		end_command();
	return 0;
}

int main(int argc, char **argv)
{
	int err;

	argv[0] = program_invocation_short_name; /* which getopt's messages begin with */
	setvbuf(stderr, NULL, _IOLBF, 0);
	argp_parse(&argp, argc, argv, ARGP_NO_HELP | ARGP_IN_ORDER, NULL, NULL);
	libbpf_set_print(print_libbpf);
	catch_signals();
	raise_descriptors();
	err = check_descriptors() || check_kernel() || find_targets() || open_output();
	if (!err && env.list)
		list();
	else if (!err)
		err = trace();
	detach_all();
	correlate_free(correlator);
	ring_buffer__free(ring);
	tlssnoop_bpf__destroy(rare);
	tlssnoop_bpf__destroy(skel);
	return err && !status ? EXIT_FAILURE : status;
}
