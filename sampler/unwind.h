/*
 * unwind.h - from registers to a stack of program counters, at any instruction of the program.
 *
 * Tables are compiled from the .eh_frame of every loaded object, by the server thread, and
 * published through one atomic pointer.  Walking reads them without a lock, an allocation or the
 * loader, and reads the program's memory only where the walk was told the stack lies.
 */
#ifndef SAMPLER_UNWIND_H
#define SAMPLER_UNWIND_H

#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "base/err.h"

#define UNWIND_DEPTH_MAX 128

/* How a walk ended, kept with each stack so that incomplete ones can be counted and shown. */
enum unwind_end {
	UNWIND_COMPLETE = 0, /* at the thread's or the program's first frame */
	UNWIND_DEPTH,        /* more than UNWIND_DEPTH_MAX frames: the innermost were kept */
	UNWIND_NO_ROW,       /* an address that no table covers, and no frame pointer chain */
	UNWIND_BAD_STACK,    /* the next frame would lie outside the stack */
};

/* The general registers of the sampled thread, by their DWARF numbers on this architecture. */
struct unwind_regs {
	uintptr_t pc, sp;
	uintptr_t reg[17];
};

void unwind_regs_from_ucontext_sigsafe(const ucontext_t *context, struct unwind_regs *out);

/*
 * Walk the calling thread's own stack from `regs`. `pcs` gets the exact pc first, then return
 * addresses; at most `max`. Async-signal-safe: no lock, no allocation, errno untouched. Memory that
 * is not there ends the walk with UNWIND_BAD_STACK, it never faults.
 */
enum unwind_end unwind_walk_sigsafe(
	const struct unwind_regs *regs, uintptr_t *pcs, size_t max, size_t *len);

/* Compile tables for the objects loaded now and publish them. Server thread only. Called at
 * start and whenever the loader's counts have changed; cheap when nothing did. */
int unwind_refresh(struct err *err);

/* Rows and bytes of the published tables, for the index page and the benchmarks. */
void unwind_stats(size_t *rows, size_t *bytes);

#endif
