#include "sampler/store/depot.h"

#include "sampler/store/intern.h"

#define BYTES     ((size_t)128 << 20)
#define SCRATCHES 64 /* walks at the same time; bits of a word */

static struct intern stacks = INTERN_INIT(BYTES, 0);

/* Where a stack is walked into: the program's own stack may be too small for it. */
static uintptr_t scratch[SCRATCHES][UNWIND_DEPTH_MAX];
static _Atomic uint64_t scratch_taken;
static atomic_ulong walks_lost;

_Static_assert(sizeof(uintptr_t) == sizeof(uint64_t), "keys are made of program counters");

static _Atomic uintptr_t hidden, hidden_size;

void depot_hide(uintptr_t start, size_t size)
{
	atomic_store(&hidden, start);
	atomic_store(&hidden_size, size);
}

static size_t drop_hidden_sigsafe(uintptr_t *pcs, size_t len)
{
	uintptr_t start = atomic_load_explicit(&hidden, memory_order_relaxed);
	uintptr_t size = atomic_load_explicit(&hidden_size, memory_order_relaxed);
	size_t kept = 0;

	for (size_t i = 0; i < len; i++) {
		if (pcs[i] - start >= size)
			pcs[kept++] = pcs[i];
	}
	return kept;
}

uint32_t depot_put_sigsafe(uintptr_t *pcs, size_t len, enum unwind_end end)
{
	len = drop_hidden_sigsafe(pcs, len);
	return intern_put_sigsafe(&stacks, (const uint64_t *)pcs, len, (uint16_t)end);
}

static int claim_sigsafe(void)
{
	uint64_t taken = atomic_load_explicit(&scratch_taken, memory_order_relaxed);

	while (taken != UINT64_MAX) {
		int free_one = __builtin_ctzll(~taken);

		if (atomic_compare_exchange_weak(
			    &scratch_taken, &taken, taken | UINT64_C(1) << free_one))
			return free_one;
	}
	return -1;
}

uint32_t depot_walk_below_sigsafe(uintptr_t leaf, const struct unwind_regs *regs)
{
	int mine = claim_sigsafe();
	size_t len, first = leaf != 0;
	enum unwind_end end;
	uint32_t id;

	if (mine < 0) {
		atomic_fetch_add_explicit(&walks_lost, 1, memory_order_relaxed);
		return 0;
	}
	scratch[mine][0] = leaf;
	end = unwind_walk_sigsafe(regs, &scratch[mine][first], UNWIND_DEPTH_MAX - first, &len);
	if (len > 0 && !regs->pc_is_return)
		scratch[mine][first]++;
	id = depot_put_sigsafe(scratch[mine], first + len, end);
	atomic_fetch_and(&scratch_taken, ~(UINT64_C(1) << mine));
	return id;
}

uint32_t depot_walk_sigsafe(const struct unwind_regs *regs)
{
	return depot_walk_below_sigsafe(0, regs);
}

struct depot_stack depot_get(uint32_t id)
{
	const struct intern_entry *entry;

	if (id == 0)
		return (struct depot_stack){ .end = UNWIND_NO_ROW };
	entry = intern_get(&stacks, id);
	return (struct depot_stack){ .len = entry->key_words,
		.pcs = (const uintptr_t *)entry->words,
		.end = (enum unwind_end)entry->info };
}

void depot_stats(size_t *len, size_t *bytes, uint64_t *lost)
{
	intern_stats(&stacks, len, bytes, lost);
	*lost += atomic_load(&walks_lost);
}

void depot_after_fork(void)
{
	atomic_store(&scratch_taken, 0);
}
