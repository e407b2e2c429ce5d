/*
 * unwind.h - from registers to a stack of program counters, at any instruction of the program.
 *
 * Tables are compiled from the .eh_frame of every loaded object, by the server thread, and
 * published through one atomic pointer.  Walking reads them without a lock, an allocation or the
 * loader.  It never faults, and needs no handler for SIGSEGV: of the thread's own stack it remembers
 * how far that was seen to be there, every other page is asked for with a harmless system call before
 * its first word is read (see unwind.c); and each frame must lie above the one before.
 */
#ifndef SAMPLER_UNWIND_H
#define SAMPLER_UNWIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "base/err.h"
#include "sampler/unwind/arch.h"

#define UNWIND_DEPTH_MAX 128

/* How a walk ended, kept with each stack so that incomplete ones can be counted and shown. */
enum unwind_end {
	UNWIND_COMPLETE = 0, /* at the thread's or the program's first frame */
	UNWIND_DEPTH,        /* there are more frames: the innermost were kept */
	UNWIND_NO_ROW,       /* an address that no table covers, and no frame pointer chain */
	UNWIND_BAD_STACK,    /* the next frame would lie outside the stack */
};

/* The general registers of the sampled thread, by their DWARF numbers on this architecture. */
struct unwind_regs {
	uintptr_t pc;
	uintptr_t reg[ARCH_REGS]; /* ARCH_SP and ARCH_FP among them */
	uint32_t valid;           /* bits: which of reg[] are known */
	bool pc_is_return;        /* a return address: the call before it is what counts */
};

void unwind_regs_from_ucontext_sigsafe(const ucontext_t *context, struct unwind_regs *out);

/* In an interposed function: the registers as they are in its caller after the call. A macro, since it is
 * this very function's frame that counts. */
#define UNWIND_REGS_OF_CALLER(out)                                                  \
	unwind_regs_of_frame_sigsafe((out), (uintptr_t)__builtin_return_address(0), \
		(uintptr_t)__builtin_dwarf_cfa(),                                   \
		(const uintptr_t *)__builtin_frame_address(0))

/* `frame` is where the frame pointer points to, with the caller's own at [0]. */
void unwind_regs_of_frame_sigsafe(
	struct unwind_regs *out, uintptr_t pc, uintptr_t cfa, const uintptr_t *frame);

/*
 * Walk the calling thread's own stack from `regs`. `pcs` gets regs->pc first, then return
 * addresses; at most `max`. Async-signal-safe: no lock, no allocation, errno untouched.
 */
enum unwind_end unwind_walk_sigsafe(
	const struct unwind_regs *regs, uintptr_t *pcs, size_t max, size_t *len);

/*
 * Walk a copy of another thread's stack: `bytes` were copied from [address, address + size), where
 * `address` is its stack pointer. Registers may be missing in regs->valid. Where the frame pointer is, and
 * the walk needs it, it is looked for (sleeper.c); where it cannot be told for certain, or another
 * register is missing, the walk ends with UNWIND_NO_ROW. Server thread only.
 */
enum unwind_end unwind_walk_copy(const struct unwind_regs *regs, const void *bytes, size_t size,
	uintptr_t *pcs, size_t max, size_t *len);

struct unwind_part {
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	size_t len;
	/* Where the walk left the bytes: the registers of the last of these frames, which needs more of them;
	 * rest.valid is 0 when it did not. */
	struct unwind_regs rest;
};

/*
 * The same; a signal handler's stack leads to another one, say. To go on, walk what is at the stack pointer of
 * `rest`, in the place of that last frame.
 */
enum unwind_end unwind_walk_part(const struct unwind_regs *regs, const void *bytes, size_t size,
	struct unwind_part *out);

/* Copy the calling thread's own stack from where `regs` stand, as much as is there, at most `max` bytes;
 * returns how many. For unwind_walk_copy(), when there are tables. */
size_t unwind_copy_stack_sigsafe(const struct unwind_regs *regs, void *to, size_t max);

/* How many bytes the calling thread's own stack has from there on, if `regs` stand on it; else SIZE_MAX. */
size_t unwind_stack_bytes_sigsafe(const struct unwind_regs *regs);

/* Are there any tables yet? */
bool unwind_has_tables_sigsafe(void);

/* Compile tables for what is mapped now and publish them. Server thread only. What was compiled
 * before is kept; what was unmapped is dropped, once no walk can be reading it. */
int unwind_refresh(struct err *err);

/* Give the tables' memory back. Walks do without until the next refresh. Server thread only. */
void unwind_forget(void);

/* Did a walk since the last refresh meet code without a table? Then something was loaded. */
bool unwind_is_stale(void);

/* In a forked child: no walk of its parent's goes on there. */
void unwind_after_fork(void);

/* Rows and bytes of the published tables, for the index page and the benchmarks. */
void unwind_stats(size_t *rows, size_t *bytes);

#endif
