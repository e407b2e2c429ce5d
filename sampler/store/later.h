/*
 * later.h - stacks of code that has no unwind tables yet: copied aside, and walked by the server thread
 * when it has made them.
 *
 * That is how samples from before the first table, and from libraries that were just loaded, get whole
 * stacks all the same.  There is room for a few copies at a time; where there is none, the stack is kept as
 * far as it can be walked at once.
 */
#ifndef SAMPLER_LATER_H
#define SAMPLER_LATER_H

#include <stdbool.h>

#include "sampler/unwind/unwind.h"

/* As depot_walk_sigsafe(), of the calling thread; what comes back is for later_stack() only. 0: lost. */
uint32_t later_walk_sigsafe(const struct unwind_regs *regs);

/* The stack (depot.h) behind such a number, as well as it is known now. */
uint32_t later_stack(uint32_t number);

/* Copies that wait for later_walk_all(). */
bool later_any(void);

/* Walk what was copied, with the tables that there are now. Server thread only. */
void later_walk_all(void);

/* Stacks that found no room to be copied. */
uint64_t later_lost(void);

/* In a forked child: what another thread was copying is not to come. */
void later_after_fork(void);

#endif
