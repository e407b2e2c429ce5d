#include "sampler/store/later.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include "sampler/store/depot.h"

/* Most stacks are small: a thread's begins a few frames above. */
#define SMALL       1024
#define SMALL_BYTES ((size_t)8 << 10)
#define LARGE       64
#define LARGE_BYTES ((size_t)64 << 10)
#define COPIES      (SMALL + LARGE)
#define NUMBERS_MAX ((uint32_t)1 << 16) /* such stacks in the life of a process */
#define LATER       ((uint32_t)1 << 31) /* marks their numbers; those of the depot are smaller */

enum copy_state {
	COPY_FREE = 0,
	COPY_CLAIMED,
	COPY_WAITS,
};

struct copy {
	_Atomic enum copy_state state;
	uint32_t number;
	uint32_t walked; /* how far the thread itself came; 0: it did not try */
	struct unwind_regs regs;
	size_t size;
};

static struct copy copies[COPIES]; /* the small ones first */
static char small[SMALL][SMALL_BYTES] __attribute__((aligned(4096)));
static char large[LARGE][LARGE_BYTES] __attribute__((aligned(4096)));
static atomic_uint turn;                    /* where to look for a free one */
static _Atomic uint32_t found[NUMBERS_MAX]; /* by number: in the depot */
static _Atomic uint32_t numbers;
static atomic_uint waiting;
static atomic_ulong lost;

static char *bytes_of(const struct copy *copy)
{
	size_t at = (size_t)(copy - copies);

	return at < SMALL ? small[at] : large[at - SMALL];
}

static struct copy *claim_sigsafe(size_t from, size_t len)
{
	size_t first = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);

	for (size_t i = 0; i < len; i++) {
		struct copy *copy = &copies[from + (first + i) % len];
		enum copy_state expected = COPY_FREE;

		if (atomic_load_explicit(&copy->state, memory_order_relaxed) == COPY_FREE &&
			atomic_compare_exchange_strong(&copy->state, &expected, COPY_CLAIMED))
			return copy;
	}
	return NULL;
}

static struct copy *claim_for_sigsafe(const struct unwind_regs *regs, size_t *max)
{
	struct copy *copy = NULL;

	*max = unwind_stack_bytes_sigsafe(regs);
	if (*max <= SMALL_BYTES)
		copy = claim_sigsafe(0, SMALL);
	if (!copy && (copy = claim_sigsafe(SMALL, LARGE)) && *max > LARGE_BYTES)
		*max = LARGE_BYTES;
	if (!copy) {
		copy = claim_sigsafe(0, SMALL);
		*max = SMALL_BYTES;
	}
	return copy;
}

static uint32_t put_aside_sigsafe(const struct unwind_regs *regs, uint32_t walked)
{
	size_t max;
	struct copy *copy = claim_for_sigsafe(regs, &max);
	uint32_t number = copy ? atomic_fetch_add(&numbers, 1) : 0;

	if (!copy || number >= NUMBERS_MAX) {
		if (copy) {
			atomic_store(&numbers, NUMBERS_MAX); /* it must not come round */
			atomic_store(&copy->state, COPY_FREE);
		}
		atomic_fetch_add(&lost, 1);
		return walked;
	}
	copy->number = number;
	copy->walked = walked;
	copy->regs = *regs;
	copy->size = unwind_copy_stack_sigsafe(regs, bytes_of(copy), max);
	atomic_store(&found[number], walked);
	atomic_fetch_add(&waiting, 1);
	atomic_store_explicit(&copy->state, COPY_WAITS, memory_order_release);
	return number | LATER;
}

uint32_t later_walk_sigsafe(const struct unwind_regs *regs)
{
	uint32_t walked, aside;

	if (!unwind_has_tables_sigsafe()) {
		aside = put_aside_sigsafe(regs, 0);
		return aside ? aside : depot_walk_sigsafe(regs);
	}
	walked = depot_walk_sigsafe(regs);
	if (walked == 0 || depot_get(walked).end == UNWIND_COMPLETE ||
		depot_get(walked).end == UNWIND_DEPTH || !unwind_is_stale())
		return walked;
	return put_aside_sigsafe(regs, walked);
}

uint32_t later_stack(uint32_t number)
{
	if (!(number & LATER))
		return number;
	return atomic_load(&found[number & ~LATER]);
}

bool later_any(void)
{
	return atomic_load(&waiting) > 0;
}

static void walk_copy(struct copy *copy)
{
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	struct depot_stack before = depot_get(copy->walked);
	enum unwind_end end;
	size_t len;

	end = unwind_walk_copy(
		&copy->regs, bytes_of(copy), copy->size, pcs, UNWIND_DEPTH_MAX, &len);
	if (end == UNWIND_COMPLETE || len > before.len) {
		uint32_t stack = depot_put_sigsafe(pcs, len, end);

		if (stack)
			atomic_store(&found[copy->number], stack);
	}
}

void later_walk_all(void)
{
	for (size_t i = 0; i < COPIES; i++) {
		if (atomic_load_explicit(&copies[i].state, memory_order_acquire) != COPY_WAITS)
			continue;
		walk_copy(&copies[i]);
		(void)madvise(bytes_of(&copies[i]), copies[i].size, MADV_DONTNEED);
		atomic_fetch_sub(&waiting, 1);
		atomic_store(&copies[i].state, COPY_FREE);
	}
}

uint64_t later_lost(void)
{
	return atomic_load(&lost);
}

void later_after_fork(void)
{
	unsigned kept = 0;

	for (size_t i = 0; i < COPIES; i++) {
		enum copy_state state = atomic_load(&copies[i].state);

		if (state == COPY_CLAIMED)
			atomic_store(&copies[i].state, COPY_FREE);
		kept += state == COPY_WAITS;
	}
	atomic_store(&waiting, kept);
}
