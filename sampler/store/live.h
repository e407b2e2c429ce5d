/*
 * live.h - which sampled objects are still there: address → bucket.
 *
 * Every free() of the program asks first, and nearly always for an object that was not sampled: so a
 * filter comes before the table, a counter of one byte for each of 2^16 hashes of an address, and a
 * larger one behind it that is looked at only when the small one fills up.  Written from any thread
 * without a lock.  A full table refuses; nothing ever waits.
 */
#ifndef SAMPLER_LIVE_H
#define SAMPLER_LIVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIVE_SMALL_BITS 16
#define LIVE_LARGE_BITS 21

extern _Atomic uint8_t live_small[(size_t)1 << LIVE_SMALL_BITS];
extern _Atomic uint8_t live_large[(size_t)1 << LIVE_LARGE_BITS];

static inline uint64_t live_hash(const void *address)
{
	return ((uint64_t)(uintptr_t)address >> 4) * 0x9e3779b97f4a7c15U;
}

/* False: certainly not in the table. */
static inline bool live_may_hold_sigsafe(const void *address)
{
	uint64_t hash = live_hash(address);

	if (__builtin_expect(atomic_load_explicit(&live_small[hash >> (64 - LIVE_SMALL_BITS)],
				     memory_order_relaxed) == 0,
		    1))
		return false;
	return atomic_load_explicit(
		       &live_large[hash >> (64 - LIVE_LARGE_BITS)], memory_order_relaxed) != 0;
}

/* Make live_may_hold_sigsafe() say true of this address, for good. */
void live_mark_sigsafe(const void *address);

/* Keep an address with a number that is not 0. False when there is no room. */
bool live_put_sigsafe(const void *address, uint32_t bucket);

/* Take an address out; its bucket, or 0 when it is not there. Of two threads that take the same one, one
 * gets it. */
uint32_t live_take_sigsafe(const void *address);

/* How many there are. */
size_t live_len(void);

#endif
