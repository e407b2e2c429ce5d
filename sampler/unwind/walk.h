/*
 * walk.h - walking a copy of a stack. Private to the unwinder.
 */
#ifndef SAMPLER_WALK_H
#define SAMPLER_WALK_H

#include "sampler/unwind/unwind.h"

struct stack_copy {
	const void *bytes;
	size_t size;
	uintptr_t address; /* where the first of them lay */
};

struct walked {
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	size_t len;
	enum unwind_end end;
	bool outermost;          /* the last frame is known to be the first that there was */
	bool ran_out;            /* it ended for want of bytes that are not in the copy */
	struct unwind_regs regs; /* in the frame where it ended */
};

/* Walk from `regs`, whose stack pointer is in the copy. `stops`: with UNWIND_NO_ROW at the first frame that
 * needs the frame pointer when it is not known. */
void walk_copy(const struct unwind_regs *regs, const struct stack_copy *copy, bool stops,
	struct walked *out);

#endif
