#include "sampler/store/live.h"

#include <sys/mman.h>

/*
 * As in intern.c, an address has a window of slots in each level, and may stand in any of them: so
 * a look-up reads whole windows, and a slot that was emptied is just free.  A level that nobody ever
 * came to is not looked at.
 */
#define LEVELS  4
#define WINDOW  8
#define CLAIMED 1 /* no object lies there */

struct slot {
	atomic_uintptr_t address; /* 0: free */
	_Atomic uint32_t bucket;
};

_Atomic uint8_t live_small[(size_t)1 << LIVE_SMALL_BITS];
_Atomic uint8_t live_large[(size_t)1 << LIVE_LARGE_BITS];

static const unsigned level_bits[LEVELS] = { 12, 15, 18, 20 };
static _Atomic(struct slot *) table;
static atomic_bool level_used[LEVELS];
static atomic_size_t len;

static size_t slots_before(unsigned level)
{
	size_t slots = 0;

	for (unsigned i = 0; i < level; i++)
		slots += (size_t)1 << level_bits[i];
	return slots;
}

/* Several threads may come here first: one of them wins, the others give their memory back. */
static struct slot *open_sigsafe(void)
{
	size_t bytes = slots_before(LEVELS) * sizeof(struct slot);
	struct slot *none = NULL;
	void *fresh = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (fresh == MAP_FAILED)
		return NULL;
	if (atomic_compare_exchange_strong(&table, &none, fresh))
		return fresh;
	(void)munmap(fresh, bytes);
	return none;
}

static struct slot *window_of(struct slot *slots, unsigned level, uint64_t hash)
{
	size_t mask = ((size_t)1 << level_bits[level]) - 1;

	return slots + slots_before(level) + ((hash >> 24) & mask & ~(size_t)(WINDOW - 1));
}

/* A counter that was once full stays so. */
static void count_sigsafe(_Atomic uint8_t *counter, int by)
{
	uint8_t before = atomic_load_explicit(counter, memory_order_relaxed);

	while (before != UINT8_MAX &&
		!atomic_compare_exchange_weak_explicit(counter, &before, (uint8_t)(before + by),
			memory_order_relaxed, memory_order_relaxed))
		continue;
}

static void filter_sigsafe(uint64_t hash, int by)
{
	count_sigsafe(&live_small[hash >> (64 - LIVE_SMALL_BITS)], by);
	count_sigsafe(&live_large[hash >> (64 - LIVE_LARGE_BITS)], by);
}

void live_mark_sigsafe(const void *address)
{
	filter_sigsafe(live_hash(address), 1);
}

bool live_put_sigsafe(const void *address, uint32_t bucket)
{
	struct slot *slots = atomic_load_explicit(&table, memory_order_acquire);
	uint64_t hash = live_hash(address);

	if (!slots && !(slots = open_sigsafe()))
		return false;
	for (unsigned level = 0; level < LEVELS; level++) {
		struct slot *window = window_of(slots, level, hash);

		for (unsigned i = 0; i < WINDOW; i++) {
			uintptr_t none = 0;

			if (atomic_load_explicit(&window[i].address, memory_order_relaxed) ||
				!atomic_compare_exchange_strong(
					&window[i].address, &none, CLAIMED))
				continue;
			atomic_store_explicit(&window[i].bucket, bucket, memory_order_relaxed);
			atomic_store_explicit(&level_used[level], true, memory_order_relaxed);
			filter_sigsafe(hash, 1);
			atomic_fetch_add_explicit(&len, 1, memory_order_relaxed);
			atomic_store_explicit(
				&window[i].address, (uintptr_t)address, memory_order_release);
			return true;
		}
	}
	return false;
}

uint32_t live_take_sigsafe(const void *address)
{
	struct slot *slots = atomic_load_explicit(&table, memory_order_acquire);
	uint64_t hash = live_hash(address);

	if (!slots || !address)
		return 0;
	for (unsigned level = 0; level < LEVELS; level++) {
		struct slot *window = window_of(slots, level, hash);

		if (!atomic_load_explicit(&level_used[level], memory_order_relaxed))
			continue;
		for (unsigned i = 0; i < WINDOW; i++) {
			uintptr_t seen =
				atomic_load_explicit(&window[i].address, memory_order_acquire);
			uint32_t bucket;

			if (seen != (uintptr_t)address)
				continue;
			bucket = atomic_load_explicit(&window[i].bucket, memory_order_relaxed);
			if (!atomic_compare_exchange_strong(&window[i].address, &seen, 0))
				continue;
			filter_sigsafe(hash, -1);
			atomic_fetch_sub_explicit(&len, 1, memory_order_relaxed);
			return bucket;
		}
	}
	return 0;
}

size_t live_len(void)
{
	return atomic_load_explicit(&len, memory_order_relaxed);
}
