/*
 * heap.h - what the program has allocated, and what of it is still there: sampled by bytes (poisson.h),
 * from the first allocation of the process on.
 *
 * A sampled object is the allocator's own; that it is sampled is in a table beside (live.h).  Samples of one
 * stack, size and rate are one bucket of counters, as in Go (half a million different ones; from then on
 * sizes of new ones are rounded), and what they stand for is worked out bucket by bucket when it is read.
 * The functions in _sigsafe are called by the hooks, with the object allocated already, or not freed yet.
 */
#ifndef SAMPLER_HEAP_H
#define SAMPLER_HEAP_H

#include "sampler/collect/collect.h"
#include "sampler/store/live.h"
#include "sampler/store/self.h"
#include "sampler/store/tally.h"
#include "sampler/unwind/unwind.h"

#define HEAP_RATE_UNDECIDED UINT64_MAX /* nobody has read the environment yet */

extern _Atomic uint64_t heap_rate;

/* Is this allocation none to look at? Nearly all are. Else call heap_allocated_sigsafe(). */
static inline bool heap_passes_sigsafe(size_t size)
{
	if (__builtin_expect(
		    self.heap_rate != atomic_load_explicit(&heap_rate, memory_order_relaxed),
		    0))
		return false;
	self.heap_left = (int64_t)((uint64_t)self.heap_left - size);
	return __builtin_expect(self.heap_left >= 0, 1);
}

/* An allocation that did not pass; NULL: it failed. `regs` are its caller's. */
void heap_allocated_sigsafe(const void *object, size_t size, const struct unwind_regs *regs);

/* To be called before an object's memory may be used again, when live_may_hold_sigsafe(): it is no longer
 * there. Returns what to pass on to one of the other two; 0: it was not sampled. */
uint32_t heap_take_sigsafe(const void *object);
void heap_freed_sigsafe(uint32_t id);
void heap_kept_sigsafe(const void *object, uint32_t bucket); /* realloc() has failed */

/* Bytes between two samples on average; 1: everything, 0: off. From any thread. */
void heap_set_rate(uint64_t rate);

/* Which profile is read; bits. */
enum heap_view {
	HEAP_NOW = 0,
	HEAP_PEAK = 1,  /* in use: when that was the most */
	HEAP_RAW = 2,   /* as counted, not what it stands for */
	HEAP_SINCE = 4, /* allocated: since it was last asked for so */
};

/* Add alloc_objects, alloc_space, inuse_objects, inuse_space of all stacks and sizes. -1 without memory.
 * Server thread only, as all that follows. */
int heap_tally(struct tally *out, int view);

/* The buckets, for the index page. */
size_t heap_buckets(void);

struct heap_state {
	uint64_t rate;          /* now */
	uint64_t last_rate;     /* that is not 0; what HEAP_RAW is counted with */
	int64_t blind_until_us; /* it was off until then, since 1970; 0: never */
	uint64_t samples;       /* allocations that were recorded */
	uint64_t lost;          /* and that were not: no room */
	uint64_t cut;           /* recorded without their whole stack: no room for a copy */
	int64_t inuse, peak, allocated; /* bytes, estimated */
	size_t live;                    /* sampled objects that are there */
};

void heap_read(struct heap_state *out);

extern const struct collector heap_collector;

#endif
