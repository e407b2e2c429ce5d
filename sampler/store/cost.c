#include "sampler/store/cost.h"

#include <stdatomic.h>

#include "base/clock.h"

static _Atomic uint64_t stops, total_ns, longest_ns;

void cost_note_sigsafe(uint64_t began_ns)
{
	uint64_t took = clock_mono_ns() - began_ns;
	uint64_t longest = atomic_load_explicit(&longest_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&stops, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&total_ns, took, memory_order_relaxed);
	while (took > longest && !atomic_compare_exchange_weak(&longest_ns, &longest, took))
		continue;
}

struct cost cost_read(void)
{
	return (struct cost){ atomic_load(&stops), atomic_load(&total_ns),
		atomic_load(&longest_ns) };
}
