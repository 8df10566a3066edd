// SPDX-License-Identifier: GPL-2.0-only
/*
 * elfsym_code.c - what can be told from machine code without disassembling it.
 *
 * An instruction is known by its bytes, wherever they are: on x86-64 they may as well be
 * the middle of another one, so a mention may be none.  That does not matter where the
 * addresses sought are few.  Must never look behind the size given.
 */
#include "elfsym_code.h"

#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* clang-format off */
#define BYTES(s) {sizeof(s) - 1, s}
/* clang-format on */

static int64_t sign_extend(uint64_t v, unsigned int bits)
{
	return (int64_t)(v << (64 - bits)) >> (64 - bits);
}

static bool starts_with(const uint8_t *p, const uint8_t *end, const struct bytes *b)
{
	return (size_t)(end - p) >= b->n && !memcmp(p, b->bytes, b->n);
}

/* Steps over bytes that may be there */
static const uint8_t *past(const uint8_t *p, const uint8_t *end, const struct bytes *b)
{
	return starts_with(p, end, b) ? p + b->n : p;
}

/* What an unoptimised function adds: in how many steps, with how many jumps on overflow */
struct sum {
	unsigned int adds[2], n, jumps;
	int64_t callee; /* and what this one returns: maybe a tag's length, 16; 0: none */
};

static void add_step(struct sum *s, unsigned int step)
{
	if (s->n < ARRAY_SIZE(s->adds))
		s->adds[s->n] = step;
	s->n++;
}

static struct added sum_of(const struct sum *s)
{
	static const struct {
		unsigned int n, adds[2], sum;
	} sums[] = {{1, {17}, 17},    {2, {1, 16}, 17}, {1, {24}, 24},
		    {2, {8, 16}, 24}, {2, {8, 24}, 24}, {1, {16}, 16}};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sums) && s->jumps; i++)
		if (s->n == sums[i].n && !memcmp(s->adds, sums[i].adds, sizeof(s->adds)))
			return (struct added){.n = sums[i].sum};
	if (s->callee && s->jumps > s->n &&
	    (!s->n || (s->n == 1 && (s->adds[0] == 1 || s->adds[0] == 8))))
		return (struct added){.n = s->adds[0] + 16, .callee = s->callee};
	return (struct added){0};
}

/* x86-64 */

static const struct bytes x86_endbr = BYTES("\xf3\x0f\x1e\xfa");

/*
 * An address is four bytes, relative to what follows them, behind the opcode of call or
 * jmp, or a ModRM byte that says so: that covers lea, mov and indirect calls as well.
 */
static size_t x86_mentions(struct scan *s)
{
	struct mention m;
	size_t i;

	for (i = 0; i + 5 <= s->size; i++) {
		const uint8_t *p = s->code + i;
		bool relative = (p[0] & 0xc7) == 0x05 || (p[0] & 0xfe) == 0xe8;

		if (!relative && !s->extent)
			continue;
		m.from = m.to = s->address + i;
		m.call = p[0] == 0xe8;
		m.what = m.from + 5 + (int32_t)get32(p + 1);
		if (relative)
			s->fn(&m, s->ctx);
		m.call = false;
		m.what = get32(p + 1);
		if (m.what - s->lowest < s->extent)
			s->fn(&m, s->ctx);
	}
	return i;
}

/* The length of add r64, imm8, or lea r64, [r64 + imm8], not of rsp, or inc r64; else 0 */
static size_t x86_add(const uint8_t *p, const uint8_t *end, struct sum *sum)
{
	if (end - p < 4 || p[0] != 0x48)
		return 0;
	if (p[1] == 0xff && (p[2] & 0xf8) == 0xc0) {
		add_step(sum, 1);
		return 3;
	}
	if (((p[1] == 0x83 && (p[2] & 0xf8) == 0xc0) || (p[1] == 0x8d && (p[2] & 0xc0) == 0x40)) &&
	    (p[2] & 7) != 4 && p[3] && p[3] < 0x80) {
		add_step(sum, p[3]);
		return 4;
	}
	return 0;
}

/* The length of a jump on carry, zero or above, or of setb; else 0 */
static size_t x86_jump(const uint8_t *p, const uint8_t *end)
{
	if (end - p >= 2 && (p[0] == 0x72 || p[0] == 0x73 || p[0] == 0x74 || p[0] == 0x77))
		return 2;
	if (end - p >= 6 && p[0] == 0x0f && !p[4] && !p[5] &&
	    (p[1] == 0x82 || p[1] == 0x83 || p[1] == 0x84 || p[1] == 0x87))
		return 6;
	return end - p >= 2 && p[0] == 0x0f && p[1] == 0x92 ? 2 : 0;
}

/*
 * Which function's result add r64, r64 at p adds, if it is just behind a call, which may go
 * through the GOT: there that word stands for the function.  What follows a call has REX.W.
 */
static int64_t x86_callee(const uint8_t *code, const uint8_t *p, const uint8_t *end)
{
	const uint8_t *call;

	if (p - code < 9 || end - p < 3 || p[0] != 0x48 || p[1] != 0x01 || p[2] < 0xc0)
		return 0;
	for (call = p - 8; call > code && p - call <= 25; call--)
		if ((call[0] == 0xe8 || (call[-1] == 0xff && call[0] == 0x15)) && call[5] == 0x48)
			return call + 5 - code + (int32_t)get32(call + 1);
	return 0;
}

static struct added x86_adds(const uint8_t *code, size_t size)
{
	static const struct bytes frame = BYTES("\x55\x48\x89\xe5"), unframe = BYTES("\x5d"),
				  adds[] = {BYTES("\x48\x8d\x46"), /* lea rax, [rsi + n] */
					    BYTES("\x48\x89\xf0\x48\x83\xc0")}; /* mov, add */
	const uint8_t *end = code + size, *p = past(past(code, end, &x86_endbr), end, &frame), *n;
	struct sum sum = {0};
	int64_t callee;
	size_t i, step;

	for (i = 0; i < ARRAY_SIZE(adds); i++) {
		n = past(p, end, &adds[i]);
		if (n > p && end - n > 2 && *past(n + 1, end, &unframe) == 0xc3)
			return (struct added){.n = *n, .certain = true};
	}
	end = memchr(code, 0xc3, size);
	for (p = code; end && p < end; p += step) {
		callee = x86_callee(code, p, end);
		if (callee)
			sum.callee = callee;
		step = x86_add(p, end, &sum);
		if (!step) {
			step = x86_jump(p, end);
			sum.jumps += !!step;
		}
		step += !step;
	}
	return end ? sum_of(&sum) : (struct added){0};
}

static int64_t x86_jumps(const uint8_t *code, size_t size)
{
	const uint8_t *p = past(code, code + size, &x86_endbr);

	return code + size - p >= 5 && *p == 0xe9 ? p + 5 - code + (int32_t)get32(p + 1) : 0;
}

/* Calls and jumps lead elsewhere in each copy, so all but their opcode is left out */
static size_t x86_essence(uint8_t *code, size_t size)
{
	size_t skip = past(code, code + size, &x86_endbr) - code, i;

	size = size - skip < 32 ? size - skip : 32;
	memmove(code, code + skip, size);
	for (i = 0; i < size; i++)
		if (code[i] == 0xc3 || (code[i] & 0xfe) == 0xe8)
			return i + 1;
	return size;
}

static int x86_encrypts(const uint8_t *code, size_t size)
{
	const uint8_t *p;
	int n = 0;

	for (p = code; p + 5 <= code + size; p++) {
		/* add or lea r64 with 17; maybe with a byte more where the base is rsp or r12 */
		if ((p[0] & 0xf8) == 0x48 &&
		    ((p[1] == 0x83 && (p[2] & 0xf8) == 0xc0 && p[3] == 17) ||
		     (p[1] == 0x8d && (p[2] & 0xc0) == 0x40 && p[3 + (p[3] == 0x24)] == 17)))
			n++;
		/* the numbers 0x4000, 0x4001, 0x4002 */
		if (p[0] <= 2 && p[1] == 0x40 && !p[2] && !p[3])
			n--;
	}
	return n;
}

static bool x86_has_number(const uint8_t *code, size_t size, uint32_t number)
{
	size_t i;

	for (i = 0; i + 4 <= size; i++)
		if (get32(code + i) == number)
			return true;
	return false;
}

/* arm64 */

#define ARM_RET	   0xd65f03c0
#define ARM_BTI_C  0xd503245f
#define ARM_FRAME1 0xa9bf7bfd /* stp x29, x30, [sp, #-16]! */
#define ARM_FRAME2 0x910003fd /* mov x29, sp */
#define ARM_UNDO   0xa8c17bfd /* ldp x29, x30, [sp], #16 */

static bool arm_is_bl(uint32_t w)
{
	return w >> 26 == 0x25;
}

static bool arm_is_branch(uint32_t w)
{
	return w >> 26 == 0x05 || arm_is_bl(w);
}

/* Where b and bl lead, in bytes from them */
static int64_t arm_offset(uint32_t w)
{
	return sign_extend(w & 0x3ffffff, 26) * 4;
}

/* Not code of the function itself: hints for the processor, the set-up of a frame */
static bool arm_is_decor(uint32_t w)
{
	return w == ARM_BTI_C || w == ARM_FRAME1 || w == ARM_FRAME2 || w == ARM_UNDO ||
	       w == 0xd503233f /* paciasp */ || w == 0xd50323bf /* autiasp */;
}

static bool arm_is_adrp(uint32_t w)
{
	return (w & 0x9f000000) == 0x90000000;
}

/* An address is adrp's page and what a later add or ldr adds to it; adr, b, bl say it */
static size_t arm_mentions(struct scan *s)
{
	struct mention m;
	int64_t adr;
	uint32_t w;
	size_t i;

	for (i = 0; i + 4 <= s->size; i += 4) {
		w = get32(s->code + i);
		m.from = m.to = s->address + i;
		adr = sign_extend((w >> 5 & 0x7ffff) << 2 | (w >> 29 & 3), 21);
		if (arm_is_adrp(w)) {
			s->adrp[w & 31].at = m.to;
			s->adrp[w & 31].page = (m.to & ~4095ULL) + adr * 4096;
			continue;
		}
		if (arm_is_branch(w)) {
			m.what = m.to + arm_offset(w);
		} else if ((w & 0x9f000000) == 0x10000000) {
			m.what = m.to + adr;
		} else if ((w & 0xffc00000) == 0x91000000 || (w & 0xffc00000) == 0xf9400000) {
			m.from = s->adrp[w >> 5 & 31].at;
			m.what = s->adrp[w >> 5 & 31].page +
				 (w >> 10 & 0xfff) * (w >> 24 == 0xf9 ? 8 : 1);
		} else {
			continue;
		}
		m.call = arm_is_bl(w);
		s->fn(&m, s->ctx);
	}
	return i;
}

static struct added arm_adds(const uint8_t *code, size_t size)
{
	uint32_t essence[2] = {0}, w, last = 0;
	struct sum sum = {0};
	int64_t callee = 0;
	size_t i, n = 0;

	for (i = 0; i + 4 <= size; i += 4) {
		w = get32(code + i);
		if (!arm_is_decor(w)) {
			if (n < ARRAY_SIZE(essence))
				essence[n] = w;
			n++;
		}
		if (w == ARM_RET)
			break;
		/* add, adds x, x, #n; not of the stack, nor what belongs to adrp */
		if ((w & 0xdfc00000) == 0x91000000 && (w & 31) < 29 && (w >> 5 & 31) < 29 &&
		    !(arm_is_adrp(last) && (last & 31) == (w >> 5 & 31)))
			add_step(&sum, w >> 10 & 0xfff);
		/* b.cs, b.cc, b.eq, b.hi */
		sum.jumps += (w & 0xff00000e) == 0x54000002 || (w & 0xff00000f) == 0x54000000 ||
			     (w & 0xff00000f) == 0x54000008;
		if (arm_is_bl(w))
			callee = (int64_t)i + arm_offset(w);
		/* add, adds x, x, x */
		if ((w & 0xdfe00000) == 0x8b000000)
			sum.callee = callee;
		last = w;
	}
	if (i + 4 > size)
		return (struct added){0};
	if (n == 2 && (essence[0] & 0xffc003ff) == 0x91000020) /* add x0, x1, #n */
		return (struct added){.n = essence[0] >> 10 & 0xfff, .certain = true};
	return sum_of(&sum);
}

static int64_t arm_jumps(const uint8_t *code, size_t size)
{
	size_t i = size >= 8 && get32(code) == ARM_BTI_C ? 4 : 0;
	uint32_t w = size >= i + 4 ? get32(code + i) : 0;

	return arm_is_branch(w) && !arm_is_bl(w) ? (int64_t)i + arm_offset(w) : 0;
}

static size_t arm_essence(uint8_t *code, size_t size)
{
	size_t i, n = 0;
	uint32_t w;

	for (i = 0; i + 4 <= size; i += 4) {
		w = get32(code + i);
		if (arm_is_decor(w))
			continue;
		if (arm_is_branch(w))
			w = 0x14000000;
		memcpy(code + n, &w, 4);
		n += 4;
		if (w == ARM_RET || w == 0x14000000)
			break;
	}
	return n;
}

static int arm_encrypts(const uint8_t *code, size_t size)
{
	size_t i;
	int n = 0;

	for (i = 0; i + 4 <= size; i += 4) {
		uint32_t w = get32(code + i), number = w >> 5 & 0xffff;

		if ((w & 0xdfc00000) == 0x91000000 && (w >> 10 & 0xfff) == 17)
			n++;
		/* mov of 0x4000, 0x4001, 0x4002; cmp, subs with 0x4000 */
		if (((w & 0x7f800000) == 0x52800000 && number >= 0x4000 && number <= 0x4002) ||
		    (w & 0x7ffffc00) == 0x71401000)
			n--;
	}
	return n;
}

/* mov of the lower half, and soon, as the compiler mixes it with others, movk of the upper one */
static bool arm_has_number(const uint8_t *code, size_t size, uint32_t number)
{
	uint32_t mov = 0x52800000 | (number & 0xffff) << 5, movk = 0x72a00000 | number >> 16 << 5;
	size_t i, until[32] = {0};

	for (i = 0; i + 4 <= size; i += 4) {
		uint32_t w = get32(code + i), reg = w & 31;

		if ((w & 0x7f800000) == 0x52800000)
			until[reg] = w == (mov | reg) ? i + 32 : 0;
		else if (w == (movk | reg) && i <= until[reg])
			return true;
	}
	return false;
}

static const struct machine machines[] = {
	{
		.elf = EM_X86_64,
		.relative = R_X86_64_RELATIVE,
		.unit = 1,
		.mentions = x86_mentions,
		.adds = x86_adds,
		.jumps = x86_jumps,
		.essence = x86_essence,
		.encrypts = x86_encrypts,
		.has_number = x86_has_number,
		.nothing = {BYTES("\xc3"), BYTES("\x55\x48\x89\xe5\x5d\xc3"),
			    BYTES("\x48\x89\x7c\x24\xf8\xc3")},
		.yes = {BYTES("\xb0\x01\xc3"), BYTES("\xb8\x01\0\0\0\xc3"),
			BYTES("\x55\x48\x89\xe5\xb0\x01\x5d\xc3"), BYTES("\xb0\x01\x24\x01\xc3")},
	},
	{
		.elf = EM_AARCH64,
		.relative = R_AARCH64_RELATIVE,
		.unit = 4,
		.mentions = arm_mentions,
		.adds = arm_adds,
		.jumps = arm_jumps,
		.essence = arm_essence,
		.encrypts = arm_encrypts,
		.has_number = arm_has_number,
		.nothing = {BYTES("\xc0\x03\x5f\xd6"),
			    BYTES("\xff\x43\0\xd1\xe0\x07\0\xf9\xff\x43\0\x91\xc0\x03\x5f\xd6")},
		.yes = {BYTES("\x20\0\x80\x52\xc0\x03\x5f\xd6"),
			BYTES("\x28\0\x80\x52\0\x01\0\x12\xc0\x03\x5f\xd6")},
	},
};

const struct machine *machine_of(const Elf64_Ehdr *eh)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(machines); i++)
		if (eh->e_ident[EI_CLASS] == ELFCLASS64 && eh->e_ident[EI_DATA] == ELFDATA2LSB &&
		    eh->e_machine == machines[i].elf)
			return &machines[i];
	return NULL;
}
