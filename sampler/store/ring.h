/*
 * ring.h - stacks on their way from signal handlers to the server thread.
 *
 * A bounded queue of fixed slots, many writers, one reader, no locks: a writer claims a slot, fills
 * it in place and commits it.  When all slots are taken the sample is counted as dropped.  The
 * memory is mapped once and never unmapped, since a signal may arrive late.
 */
#ifndef SAMPLER_RING_H
#define SAMPLER_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/unwind/unwind.h"

struct ring_sample {
	uint32_t tid;
	uint32_t weight; /* timer periods that this sample stands for */
	enum unwind_end end;
	size_t len;
	uintptr_t pcs[UNWIND_DEPTH_MAX];
};

/* Map the memory, at the first call. -1 without memory. */
int ring_open(void);

/* Claim a slot; NULL (and one more dropped) when there is none. Follow with ring_commit_sigsafe(). */
struct ring_sample *ring_claim_sigsafe(void);
void ring_commit_sigsafe(struct ring_sample *sample);

/* Copy the oldest sample out. False when there is none that is whole. Server thread only. */
bool ring_take(struct ring_sample *out);

/* Samples dropped since the last call. */
uint64_t ring_dropped(void);

/* In a forked child: forget what its parent had under way. */
void ring_after_fork(void);

#endif
