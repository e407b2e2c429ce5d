#include "sampler/collect/collect.h"

#include "sampler/collect/cpu.h"
#include "sampler/collect/heap.h"
#include "sampler/collect/locks.h"
#include "sampler/collect/signal.h"
#include "sampler/collect/starts.h"
#include "sampler/collect/trace.h"
#include "sampler/collect/waits.h"
#include "sampler/collect/wall.h"
#include "sampler/proc/memory.h"
#include "sampler/store/depot.h"
#include "sampler/store/self.h"

static const struct collector *const all[] = {
	&cpu_collector,
	&heap_collector,
	&locks_collector,
	&starts_collector,
	&waits_collector,
	&trace_collector,
	&wall_collector,
};

#define ALL_LEN (sizeof(all) / sizeof(all[0]))

void collect_poll(uint64_t now)
{
	struct record record;

	while (ring_take(&record)) {
		for (size_t i = 0; i < ALL_LEN; i++) {
			if (all[i]->take)
				all[i]->take(&record);
		}
	}
	for (size_t i = 0; i < ALL_LEN; i++) {
		if (all[i]->poll && all[i]->period_ms() > 0)
			all[i]->poll(now);
	}
}

unsigned collect_wait_ms(void)
{
	unsigned least = 0;

	for (size_t i = 0; i < ALL_LEN; i++) {
		unsigned period = all[i]->period_ms();

		if (period > 0 && (least == 0 || period < least))
			least = period;
	}
	return least;
}

size_t collect_descriptors(int out[static COLLECT_DESCRIPTORS_MAX])
{
	size_t len = 0;

	for (size_t i = 0; i < ALL_LEN; i++) {
		int descriptor = all[i]->descriptor ? all[i]->descriptor() : -1;

		if (descriptor >= 0 && len < COLLECT_DESCRIPTORS_MAX)
			out[len++] = descriptor;
	}
	return len;
}

void collect_after_fork(void)
{
	self_after_fork();
	memory_after_fork();
	signal_after_fork();
	ring_after_fork();
	unwind_after_fork();
	depot_after_fork();
	for (size_t i = 0; i < ALL_LEN; i++) {
		if (all[i]->after_fork)
			all[i]->after_fork();
	}
}
