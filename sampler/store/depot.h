/*
 * depot.h - stacks, each kept once and named by a number: what records, buckets and tallies carry in
 * the place of a stack.
 *
 * All program counters are return addresses: the call before them is what counts, so names and lines
 * are looked up at pc - 1.  (Where a sample stopped at an exact instruction, that one plus 1 is kept.)
 */
#ifndef SAMPLER_DEPOT_H
#define SAMPLER_DEPOT_H

#include "sampler/unwind/unwind.h"

/* Copy a stack in. 0 when there is no room: then it is counted as lost. What is hidden is taken out of
 * `pcs`. */
uint32_t depot_put_sigsafe(uintptr_t *pcs, size_t len, enum unwind_end end);

/* Frames of this code are left out of all stacks: it stands between the program's own. */
void depot_hide(uintptr_t start, size_t size);

/* Walk the calling thread's own stack from `regs`, and keep what was found. 0 when there is no room. */
uint32_t depot_walk_sigsafe(const struct unwind_regs *regs);

/* The same for an interposed function that wants to be seen: `leaf`, its own address plus 1, goes below its
 * caller's frame, whose registers `regs` are. */
uint32_t depot_walk_below_sigsafe(uintptr_t leaf, const struct unwind_regs *regs);

struct depot_stack {
	size_t len;
	const uintptr_t *pcs; /* innermost first; stays valid */
	enum unwind_end end;
};

/* Of id 0, an empty stack. */
struct depot_stack depot_get(uint32_t id);

/* Stacks, bytes used for them, and stacks that found no room. */
void depot_stats(size_t *len, size_t *bytes, uint64_t *lost);

/* In a forked child: no walk of its parent's goes on there. */
void depot_after_fork(void);

#endif
