/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * facts.h - facts as text: what record.c writes and replay_test.c reads.
 *
 * Each line begins with a letter, one of FACT_LETTERS in the order of enum fact_type, or
 * TICK_LETTER, then microseconds since the line before.  Of a tick that is all.  Others:
 *   TGID TID FD SOCK LOST, of the fact
 *   ADDR BYTES DIR REST LEAD CTYPE:LENGTH..., of FACT_IO
 *   KEY ADDR LEN PART PART_LEN LIB DIR NESTED HIDDEN DATA, of FACT_CHUNK; KEY and ADDR in
 * hex.  DATA are the bytes in hex, or "-" if there are none; in a recording that is kept,
 * the true fd stands there instead, or "-" where it is not known, and then PLACE:BYTE, in hex,
 * for each byte that is of the header of an inner record of TLS inside TLS.
 */
#ifndef FACTS_H
#define FACTS_H

#define FACT_LETTERS "cioxeq"
#define TICK_LETTER  't'

#endif
