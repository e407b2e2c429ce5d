#include "sampler/store/self.h"

#include <time.h>

_Thread_local struct self self __attribute__((tls_model("initial-exec")));

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
}
