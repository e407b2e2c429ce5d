#include "sampler/collect/heap.h"

#include <errno.h>

#include "base/clock.h"
#include "sampler/proc/host.h"
#include "sampler/settings.h"
#include "sampler/store/cost.h"
#include "sampler/store/depot.h"
#include "sampler/store/intern.h"
#include "sampler/store/later.h"
#include "sampler/store/poisson.h"
#include "sampler/store/ring.h"

#define BUCKET_BYTES  ((size_t)64 << 20)
#define SIZES_A_POWER ((uint64_t)32)
#define EARLY_POLL_MS 10 /* while there are no tables: what waits for them is limited */
#define EARLY_POLLS   200
#define POLL_MS       1000
#define REFRESH_SHARE 100 /* looking for new code may take one part in so many of the time */

/* The key of a bucket. */
enum {
	KEY_STACK, /* later.h */
	KEY_SIZE,
	KEY_RATE,
	KEY_WORDS
};

/* Its counters. */
enum {
	ALLOCS,
	FREES,
	AT_PEAK,  /* 32 bits: number of a peak; 32 bits: how many were in use then */
	REPORTED, /* allocs when HEAP_SINCE was last read; the server thread's */
	COUNTERS
};

_Atomic uint64_t heap_rate = HEAP_RATE_UNDECIDED;

static struct intern buckets = INTERN_INIT(BUCKET_BYTES, COUNTERS);
static atomic_ulong samples, lost;
static _Atomic uint64_t last_rate = SETTINGS_HEAP_RATE;
static _Atomic int64_t blind_until_us;

/* Estimates in bytes. */
static _Atomic int64_t inuse, allocated, peak;

/*
 * The live set at its largest is not copied when that comes: each bucket keeps how many were in use at
 * the last peak when it first changes after it.  One that has not changed since has it still.
 */
static _Atomic uint32_t peak_number = 1;

static void keep_peak_sigsafe(_Atomic int64_t *counters)
{
	uint32_t number = atomic_load_explicit(&peak_number, memory_order_relaxed);
	int64_t kept = atomic_load_explicit(&counters[AT_PEAK], memory_order_relaxed), now;

	if ((uint32_t)((uint64_t)kept >> 32) == number)
		return;
	now = atomic_load_explicit(&counters[ALLOCS], memory_order_relaxed) -
	      atomic_load_explicit(&counters[FREES], memory_order_relaxed);
	(void)atomic_compare_exchange_strong(
		&counters[AT_PEAK], &kept, (int64_t)((uint64_t)number << 32 | (uint32_t)now));
}

static int64_t weight_of(const struct intern_entry *bucket)
{
	uint64_t size = bucket->words[KEY_SIZE];

	return (int64_t)((double)size * poisson_scale(size, bucket->words[KEY_RATE]));
}

static void note_peak_sigsafe(int64_t now)
{
	int64_t before = atomic_load_explicit(&peak, memory_order_relaxed);

	while (now > before) {
		if (atomic_compare_exchange_weak(&peak, &before, now)) {
			atomic_fetch_add(&peak_number, 1);
			return;
		}
	}
}

static void count_alloc_sigsafe(uint32_t id)
{
	struct intern_entry *bucket = intern_get(&buckets, id);
	_Atomic int64_t *counters = intern_values(bucket);
	int64_t weight = weight_of(bucket);

	keep_peak_sigsafe(counters);
	atomic_fetch_add_explicit(&counters[ALLOCS], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&allocated, weight, memory_order_relaxed);
	atomic_fetch_add_explicit(&samples, 1, memory_order_relaxed);
	note_peak_sigsafe(atomic_fetch_add(&inuse, weight) + weight);
}

void heap_freed_sigsafe(uint32_t id)
{
	struct intern_entry *bucket = intern_get(&buckets, id);
	_Atomic int64_t *counters = intern_values(bucket);

	keep_peak_sigsafe(counters);
	/* After what was counted when it was allocated: a reader never sees more freed. */
	atomic_fetch_add_explicit(&counters[FREES], 1, memory_order_release);
	atomic_fetch_sub_explicit(&inuse, weight_of(bucket), memory_order_relaxed);
}

uint32_t heap_take_sigsafe(const void *object)
{
	return live_take_sigsafe(object);
}

void heap_kept_sigsafe(const void *object, uint32_t bucket)
{
	if (!live_put_sigsafe(object, bucket))
		heap_freed_sigsafe(bucket);
}

static void lose_sigsafe(void)
{
	atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
}

/*
 * A program that runs for years may ask for ever new sizes.  Before the last bucket is taken, sizes are taken for
 * the nearest of 32 a power of two: off by 1.6 % at most, and not to one side.
 */
static uint64_t bucket_size_sigsafe(uint64_t size)
{
	unsigned low;

	if (size < SIZES_A_POWER * 2 || !intern_is_half_full_sigsafe(&buckets))
		return size;
	low = 63U - (unsigned)__builtin_clzll(size / SIZES_A_POWER);
	return (size + (UINT64_C(1) << low >> 1)) >> low << low;
}

/* With the thread's own rate, which the distance to this sample was drawn with. */
static void record_sigsafe(const void *object, size_t size, const struct unwind_regs *regs)
{
	uint64_t key[KEY_WORDS] = {
		[KEY_SIZE] = bucket_size_sigsafe(size), [KEY_RATE] = self.heap_rate
	};
	uint32_t bucket, stale = 0;
	struct record *record;

	if (self.heap_rate == HEAP_RATE_UNDECIDED)
		key[KEY_RATE] = SETTINGS_HEAP_RATE;
	/* Somebody freed what lay here by a way that is not ours. */
	if (live_may_hold_sigsafe(object) && (stale = live_take_sigsafe(object)))
		heap_freed_sigsafe(stale);
	key[KEY_STACK] = later_walk_sigsafe(regs);
	bucket = intern_put_sigsafe(&buckets, key, KEY_WORDS, 0);
	if (bucket == 0) {
		lose_sigsafe();
		return;
	}
	count_alloc_sigsafe(bucket);
	/* One whose end would not be seen must not look as if it stayed for ever. */
	if (!live_put_sigsafe(object, bucket)) {
		heap_freed_sigsafe(bucket);
		lose_sigsafe();
	}
	if (ring_is_wanted_sigsafe(RECORD_HEAP) && (record = ring_claim_sigsafe())) {
		*record = (struct record){ .kind = RECORD_HEAP,
			.tid = self_tid_sigsafe(),
			.time_ns = clock_mono_ns(),
			.value = (uint64_t)atomic_load(&inuse) };
		ring_commit_sigsafe(record);
	}
}

/* The first one to ask: before our constructor, where the C library may not have begun either. */
static uint64_t decide_sigsafe(void)
{
	uint64_t undecided = HEAP_RATE_UNDECIDED, rate;

	if (host_is_sanitized_sigsafe())
		rate = 0;
	else if (!settings_heap_rate_sigsafe(&rate))
		return HEAP_RATE_UNDECIDED;
	if (atomic_compare_exchange_strong(&heap_rate, &undecided, rate)) {
		if (rate)
			atomic_store(&last_rate, rate);
		return rate;
	}
	return undecided;
}

static void draw_sigsafe(uint64_t rate)
{
	self.heap_rate = rate;
	if (rate == HEAP_RATE_UNDECIDED)
		rate = SETTINGS_HEAP_RATE;
	if (rate == 0)
		self.heap_left = INT64_MAX;
	else if (rate == 1)
		self.heap_left = -1;
	else
		self.heap_left = poisson_distance(self_random_sigsafe(), rate);
}

void heap_allocated_sigsafe(const void *object, size_t size, const struct unwind_regs *regs)
{
	uint64_t rate = atomic_load_explicit(&heap_rate, memory_order_relaxed);
	int kept = errno;

	if (rate == HEAP_RATE_UNDECIDED)
		rate = decide_sigsafe();
	if (self.heap_rate != rate) {
		draw_sigsafe(rate);
		self.heap_left = (int64_t)((uint64_t)self.heap_left - size);
	}
	if (self.heap_left < 0 && rate != 0) {
		if (!self.inside && object && size > 0) {
			uint64_t began = clock_mono_ns();

			self.inside++;
			record_sigsafe(object, size, regs);
			self.inside--;
			cost_note_sigsafe(began);
		}
	}
	if (self.heap_left < 0)
		draw_sigsafe(rate);
	errno = kept;
}

void heap_set_rate(uint64_t rate)
{
	uint64_t before = atomic_exchange(&heap_rate, rate);

	if (rate)
		atomic_store(&last_rate, rate);
	if (before == 0 && rate)
		atomic_store(&blind_until_us, clock_unix_us());
}

/* As counted, by the stack as it is known by now, size and rate. */
static void add_raw(struct tally *raw, struct intern_entry *bucket, int view)
{
	_Atomic int64_t *counters = intern_values(bucket);
	uint64_t rate = bucket->words[KEY_RATE];
	int64_t frees = atomic_load_explicit(&counters[FREES], memory_order_acquire);
	int64_t allocs = atomic_load(&counters[ALLOCS]), used = allocs - frees;
	int64_t at_peak = atomic_load(&counters[AT_PEAK]);
	struct tally_key key = { .stack = later_stack((uint32_t)bucket->words[KEY_STACK]),
		.number = bucket->words[KEY_SIZE],
		.other = (uint32_t)rate,
		.tid = (uint32_t)(rate >> 32) };

	if (view & HEAP_PEAK &&
		(uint32_t)((uint64_t)at_peak >> 32) == atomic_load(&peak_number))
		used = (uint32_t)at_peak;
	if (view & HEAP_SINCE)
		allocs -= atomic_exchange(&counters[REPORTED], allocs);
	tally_add(raw, &key, (int64_t[TALLY_VALUES]){ allocs, used }, 1);
}

/*
 * A count has to be whole.  Most large objects are alone with their size, and stand for one and a bit:
 * all of them cut, or rounded, would make a site that has thousands of sizes wrong by as many bits.  So
 * the threshold between down and up is anywhere from 0 to 1, each row's own, and the same at each reading.
 */
static int64_t make_whole(double count, const struct tally_key *key)
{
	uint64_t mixed = ((uint64_t)key->stack << 40 ^ key->number) * 0x9e3779b97f4a7c15U;

	mixed = (mixed ^ mixed >> 32) * 0xd6e8feb86659fd93U;
	return (int64_t)(count + (double)(mixed >> 11) * 0x1p-53);
}

/* What they stand for; raw, too, when samples of another rate than the last are among them: who reads
 * that will scale all by one rate. */
static void add_scaled(
	struct tally *out, const struct tally_row *raw, int view, uint64_t one_rate)
{
	struct tally_key key = { .stack = raw->key.stack, .number = raw->key.number };
	uint64_t rate = (uint64_t)raw->key.tid << 32 | raw->key.other;
	double scale = poisson_scale(key.number, rate), size = (double)key.number;
	int64_t values[TALLY_VALUES];

	if (view & HEAP_RAW)
		scale = rate == one_rate ? 1 : scale / poisson_scale(key.number, one_rate);
	for (size_t i = 0; i < 2; i++) {
		double count = (double)raw->values[i] * scale;

		values[2 * i] = make_whole(count, &key);
		values[2 * i + 1] = (int64_t)(count * size + 0.5);
	}
	tally_add(out, &key, values, 1);
}

int heap_tally(struct tally *out, int view)
{
	const struct tally_row *row;
	struct tally raw;
	size_t at = 0;
	uint32_t id;

	if (tally_open(&raw, out->arena))
		return -1;
	while ((id = intern_next(&buckets, &at)))
		add_raw(&raw, intern_get(&buckets, id), view);
	at = 0;
	while ((row = tally_next(&raw, &at)))
		add_scaled(out, row, view, atomic_load(&last_rate));
	return 0;
}

size_t heap_buckets(void)
{
	size_t len, bytes;
	uint64_t refused;

	intern_stats(&buckets, &len, &bytes, &refused);
	return len;
}

void heap_read(struct heap_state *out)
{
	uint64_t rate = atomic_load(&heap_rate);

	*out = (struct heap_state){ .rate = rate == HEAP_RATE_UNDECIDED ? SETTINGS_HEAP_RATE
									: rate,
		.last_rate = atomic_load(&last_rate),
		.blind_until_us = atomic_load(&blind_until_us),
		.samples = atomic_load(&samples),
		.lost = atomic_load(&lost),
		.cut = later_lost(),
		.inuse = atomic_load(&inuse),
		.peak = atomic_load(&peak),
		.allocated = atomic_load(&allocated),
		.live = live_len() };
}

static unsigned early_polls;
static uint64_t next_refresh_ns;

static unsigned period_ms(void)
{
	if (atomic_load(&heap_rate) == 0 && !later_any())
		return 0;
	return !unwind_has_tables_sigsafe() && early_polls < EARLY_POLLS ? EARLY_POLL_MS
									 : POLL_MS;
}

/* Nothing is built before something is sampled: most short programs never come to that. */
static void poll_heap(uint64_t now)
{
	struct err err;

	if (early_polls < EARLY_POLLS)
		early_polls++;
	if (!later_any())
		return;
	if ((!unwind_has_tables_sigsafe() || unwind_is_stale()) && now >= next_refresh_ns) {
		(void)unwind_refresh(&err); /* what can be walked is walked all the same */
		next_refresh_ns = now + (clock_mono_ns() - now) * REFRESH_SHARE;
	}
	later_walk_all();
}

const struct collector heap_collector = {
	.name = "heap",
	.period_ms = period_ms,
	.poll = poll_heap,
	.after_fork = later_after_fork,
};
