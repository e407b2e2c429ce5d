#include "sampler/store/self.h"

#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "sampler/proc/memory.h"

#define LISTED ((size_t)4096) /* a power of two */
#define PROBES ((size_t)16)

_Thread_local struct self self __attribute__((tls_model("initial-exec")));

/*
 * Where threads keep what is above, by tid; of threads that are gone, too: so an entry is read by the kernel,
 * and counts only if what is there says the same tid.
 */
static _Atomic(uintptr_t) listed[LISTED];

static size_t place_of(uint32_t tid, size_t probe)
{
	return ((size_t)(tid * UINT32_C(2654435761)) + probe) & (LISTED - 1);
}

void self_list_sigsafe(void)
{
	uint32_t tid = self_tid_sigsafe();
	uintptr_t own = (uintptr_t)&self;

	self.listed = 1;
	for (size_t i = 0; i < PROBES; i++) {
		uintptr_t there = 0;

		if (atomic_compare_exchange_strong(&listed[place_of(tid, i)], &there, own) ||
			there == own)
			return;
	}
	atomic_store(&listed[place_of(tid, self_random_sigsafe() % PROBES)], own);
}

uint32_t self_labels_of(uint32_t tid)
{
	uint32_t labels = 0;
	struct self other;

	memory_begin();
	for (size_t i = 0; i < PROBES && labels == 0; i++) {
		uintptr_t there = atomic_load(&listed[place_of(tid, i)]);

		if (there && memory_copy(there, &other, sizeof(other)) == sizeof(other) &&
			other.tid == tid)
			labels = other.labels;
	}
	memory_end();
	return labels;
}

static void seed_sigsafe(void)
{
	struct timespec now = { 0 };
	uint64_t seed;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	seed = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 32 ^
	       (uint64_t)(uint32_t)gettid() << 40 ^ (uint64_t)(uintptr_t)&self;
	/* splitmix64's finisher: neighbouring seeds must not give neighbouring numbers. */
	seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9U;
	seed = (seed ^ seed >> 27) * 0x94d049bb133111ebU;
	seed ^= seed >> 31;
	self.random = seed ? seed : 1;
}

uint64_t self_random_sigsafe(void)
{
	uint64_t x;

	if (self.random == 0)
		seed_sigsafe();
	x = self.random;
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	self.random = x;
	return x * 0x2545f4914f6cdd1dU;
}

void self_after_fork(void)
{
	self.tid = 0;
	self.random = 0;
	self.listed = 0;
	for (size_t i = 0; i < LISTED; i++)
		atomic_store_explicit(&listed[i], 0, memory_order_relaxed);
}
