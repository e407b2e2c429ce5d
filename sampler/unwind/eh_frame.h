/*
 * eh_frame.h - from .eh_frame bytes to compact unwind rows.
 *
 * Source: Linux Standard Base Core 5.0, section 10.6; DWARF 5, section 6.4; System V ABI for
 * x86-64, section 3.7; DWARF for the Arm 64-bit Architecture, section 4.  Pure: bytes and addresses in, rows out.  Hostile bytes give wrong or fewer
 * rows, never a read outside of them.
 */
#ifndef SAMPLER_EH_FRAME_H
#define SAMPLER_EH_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/unwind/arch.h"

/*
 * One row holds from its pc to the next row's: how to get from a frame to its caller's.
 *
 *   CFA = reg + cfa * 8                    (by the row's form)
 *       = *(reg + cfa * 8) + 0, 8, 56, 64
 *       = *(sp + cfa * 8 + reg * 8) + 8
 *   return address = *(CFA + ra * 8)   (ra < 0; always -1 where calls push it)
 *                  = the link register (ra == 0)
 *                  = *(CFA + ra * 8 - 8), and the caller's stack pointer is CFA + ra * 8
 *                    (ra > 0: what the linkage table pushed before it went to the loader)
 *   caller's fp    = fp                (fp == 0)
 *                  = *(CFA + fp * 8)   (fp < 0)
 *                  = *(fp + (fp_rule - 1) * 8)  (0 < fp < ROW_FP_LOST)
 */
struct unwind_row {
	uint32_t pc;  /* offset from the module's base */
	int16_t cfa;  /* in units of 8 bytes */
	arch_slot fp; /* see above */
#if ARCH_HAS_LR
	arch_slot ra;
#endif
	uint8_t kind; /* a register (from ARCH_ROW_FIRST on) and a form, or a special kind */
};

static inline int row_ra(const struct unwind_row *row)
{
#if ARCH_HAS_LR
	return row->ra;
#else
	(void)row;
	return -1;
#endif
}

#define ROW_REG     0x0f
#define ROW_FORM    0x70
#define ROW_EH      0x80 /* with a form: in a function that goes to exception handlers */
#define ROW_PLAIN   0x00
#define ROW_DEREF   0x10
#define ROW_DEREF8  0x20
#define ROW_DEREF56 0x30
#define ROW_DEREF64 0x40
#define ROW_INDEXED 0x50

/* Special kinds. */
#define ROW_SPECIAL 0xf0
#define ROW_NONE    0xff /* nothing is known here */
#define ROW_END     0xfe /* the outermost frame */
#define ROW_SIGNAL  0xfd /* the kernel's signal frame lies at the stack pointer */
#define ROW_PLT     0xfc /* CFA = sp + 8, or + 16 when (pc & 15) >= cfa */
#define ROW_JUMP    0xfb /* return address in register number cfa, stack pointer as the caller's */
#define ROW_LANDING 0xfa /* return address at sp, to be gone to as it is: see below */

#define ROW_FP_LOST ARCH_SLOT_MAX

/*
 * An exception leaves the unwinding library by a jump to the handler's first instruction, which no
 * call stands before.  On x86-64, gcc's end of such a function: CFA = rcx + 8 (ROW_REG_EH), then the
 * one-byte instruction of ROW_LANDING, then ROW_JUMP.  All rows of such a function are marked: it
 * writes over its own return address before it gets there.
 */
#define ROW_REG_EH 2

struct row_list {
	struct unwind_row *rows;
	size_t len, max;
	bool full; /* there were more than max */
};

/* The bytes of a module that are needed, and where they lay in memory. */
struct eh_frame {
	const uint8_t *bytes; /* from .eh_frame's start, as much as there is */
	size_t len;
	uint64_t address;                /* of bytes[0] in the module's address space */
	uint64_t base;                   /* rows' pcs count from here */
	uint64_t text_start, text_limit; /* functions outside are left out */
};

/* The code that one entry is about. */
struct eh_frame_range {
	uint64_t start, limit;
};

/*
 * Compile the one entry (FDE) at `offset`, appending its rows and a ROW_NONE row at its end; rows
 * stay sorted. `range->start` comes in as the lowest address that is still wanted; the entry's own
 * range goes out. False when it is no FDE, broken, lower, or outside of the text: `out` is as
 * before then.
 */
bool eh_frame_compile_one(const struct eh_frame *frame, size_t offset, struct row_list *out,
	struct eh_frame_range *range);

#endif
