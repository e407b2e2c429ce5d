#include "sampler/collect/rate.h"

#include <limits.h>
#include <stdatomic.h>

#include "sampler/collect/heap.h"
#include "sampler/collect/locks.h"
#include "sampler/collect/starts.h"
#include "sampler/settings.h"

static _Atomic uint64_t defaults[RATES_LEN] = { RATE_NOT_SET, RATE_NOT_SET, RATE_NOT_SET };
static _Atomic uint64_t asked[RATES_LEN] = { RATE_NOT_SET, RATE_NOT_SET, RATE_NOT_SET };
static _Atomic uint64_t leased[RATES_LEN] = { RATE_NOT_SET, RATE_NOT_SET, RATE_NOT_SET };
static atomic_bool is_asleep;

static const uint64_t most[RATES_LEN] = { SETTINGS_RATE_MAX, INT_MAX, INT64_MAX };

static uint64_t cap(enum rate rate, uint64_t value)
{
	return value == RATE_NOT_SET || value < most[rate] ? value : most[rate];
}

/* RATE_NOT_SET: nobody has said anything. */
static uint64_t wanted(enum rate rate)
{
	uint64_t value = atomic_load(&leased[rate]);

	if (atomic_load(&is_asleep))
		return 0;
	if (value == RATE_NOT_SET)
		value = atomic_load(&asked[rate]);
	return value == RATE_NOT_SET ? atomic_load(&defaults[rate]) : value;
}

static void set(enum rate rate, uint64_t value)
{
	switch (rate) {
	case RATE_HEAP:
		heap_set_rate(value);
		break;
	case RATE_MUTEX:
		(void)locks_set_mutex_fraction((int)value);
		break;
	case RATE_BLOCK:
		(void)locks_set_block_rate((int64_t)value);
		break;
	case RATES_LEN:
		break;
	}
}

/* Of several threads that come here at once the last one to set sees what all of them want. */
static void apply(enum rate rate)
{
	uint64_t value;

	do {
		value = wanted(rate);
		if (value == RATE_NOT_SET)
			return;
		set(rate, value);
	} while (wanted(rate) != value);
}

void rate_default(enum rate rate, uint64_t value)
{
	atomic_store(&defaults[rate], cap(rate, value));
	apply(rate);
}

uint64_t rate_asked(enum rate rate)
{
	uint64_t value = atomic_load(&asked[rate]);

	if (value == RATE_NOT_SET)
		value = atomic_load(&defaults[rate]);
	return value == RATE_NOT_SET ? 0 : value;
}

uint64_t rate_ask(enum rate rate, uint64_t value)
{
	uint64_t before = atomic_exchange(&asked[rate], cap(rate, value));

	apply(rate);
	if (before == RATE_NOT_SET)
		before = atomic_load(&defaults[rate]);
	return before == RATE_NOT_SET ? 0 : before;
}

void rate_lease(enum rate rate, uint64_t value)
{
	atomic_store(&leased[rate], cap(rate, value));
	apply(rate);
}

void rate_sleep(bool asleep)
{
	atomic_store(&is_asleep, asleep);
	starts_watch(!asleep);
	for (enum rate rate = 0; rate < RATES_LEN; rate++)
		apply(rate);
}

uint64_t rate_now(enum rate rate)
{
	struct heap_state heap;

	switch (rate) {
	case RATE_HEAP:
		heap_read(&heap);
		return heap.rate;
	case RATE_MUTEX:
		return (uint64_t)locks_mutex_fraction();
	case RATE_BLOCK:
		return (uint64_t)locks_block_rate();
	case RATES_LEN:
		break;
	}
	return 0;
}
