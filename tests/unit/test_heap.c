/*
 * test_heap.c - sampling by bytes, the table of live objects, and the buckets of the heap profile.
 */
#include "tests/unit/unit.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "sampler/collect/heap.h"
#include "sampler/store/live.h"
#include "sampler/store/poisson.h"

#define RATE    ((uint64_t)524288)
#define THREADS 4
#define OBJECTS 20000

static void logarithm_and_share_are_libms(void **state)
{
	(void)state;
	for (double x = 0x1p-60; x < 0x1p60; x *= 1.0009)
		assert_true(fabs(poisson_log(x) - log(x)) <= 1e-15 * fmax(1, fabs(log(x))));
	for (double x = 0x1p-60; x < 800; x *= 1.0009)
		assert_true(fabs(poisson_share(x) / -expm1(-x) - 1) < 1e-14);
	assert_true(poisson_share(0) == 0);
}

/* Mean and variance of an exponential distribution, and how much of it lies below its mean. */
static void distances_are_exponential(void **state)
{
	const size_t draws = 1000000;
	double sum = 0, squares = 0, below = 0, mean;

	(void)state;
	for (size_t i = 0; i < draws; i++) {
		double distance = (double)poisson_distance(self_random_sigsafe(), RATE);

		assert_true(distance >= 0);
		sum += distance;
		squares += distance * distance;
		below += distance < RATE;
	}
	mean = sum / (double)draws;
	assert_true(fabs(mean / RATE - 1) < 5e-3);
	assert_true(fabs((squares / (double)draws - mean * mean) / RATE / RATE - 1) < 3e-2);
	assert_true(fabs(below / (double)draws - (1 - exp(-1))) < 3e-3);
}

static void scales_are_gos(void **state)
{
	(void)state;
	assert_true(poisson_scale(100, 1) == 1 && poisson_scale(100, 0) == 1);
	assert_true(fabs(poisson_scale(RATE, RATE) - 1 / (1 - exp(-1))) < 1e-12);
	assert_true(fabs(poisson_scale(1, RATE) / (RATE + 0.5) - 1) < 1e-9);
	assert_true(fabs(poisson_scale(100 * RATE, RATE) - 1) < 1e-15);
}

static const void *object_of(uintptr_t number)
{
	return (const void *)(number * 16 +
			      ((uintptr_t)1 << 44)); /* NOLINT(performance-no-int-to-ptr) */
}

static void *put_and_take(void *first)
{
	uintptr_t from = (uintptr_t)first;

	for (size_t round = 0; round < 5; round++) {
		for (uintptr_t i = from; i < from + OBJECTS; i++)
			assert_true(live_put_sigsafe(object_of(i), (uint32_t)i + 1));
		for (uintptr_t i = from; i < from + OBJECTS; i++) {
			assert_true(live_may_hold_sigsafe(object_of(i)));
			assert_int_equal(live_take_sigsafe(object_of(i)), i + 1);
			assert_int_equal(live_take_sigsafe(object_of(i)), 0);
		}
	}
	return NULL;
}

static void live_objects_are_found_once(void **state)
{
	pthread_t threads[THREADS];
	size_t marked = 0;

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, put_and_take,
				(void *)(i * OBJECTS)), /* NOLINT(performance-no-int-to-ptr) */
			0);
	for (size_t i = 0; i < THREADS; i++)
		(void)pthread_join(threads[i], NULL);
	assert_int_equal(live_len(), 0);
	/* The filter is as it was, too: nothing is left but what overflowed, which cannot be here. */
	for (uintptr_t i = 0; i < THREADS * OBJECTS; i++)
		marked += live_may_hold_sigsafe(object_of(i));
	assert_int_equal(marked, 0);
}

static int64_t weight(int64_t count, uint64_t size)
{
	return (int64_t)((double)count * poisson_scale(size, RATE));
}

/* A program counter of its own for each "function" that allocates. */
static struct unwind_regs regs_of(uintptr_t function)
{
	struct unwind_regs regs = { .pc = function, .pc_is_return = true };

	return regs;
}

static void allocate(uintptr_t function, const void *object, size_t size)
{
	struct unwind_regs regs = regs_of(function);

	self.heap_left = -1; /* the sample is due */
	heap_allocated_sigsafe(object, size, &regs);
}

struct found {
	size_t rows;
	int64_t values[TALLY_VALUES];
};

static struct found read_size(uint64_t size, int view)
{
	struct found found = { 0 };
	const struct tally_row *row;
	struct arena arena;
	struct tally tally;
	size_t at = 0;

	assert_int_equal(arena_open(&arena, 16 << 20), 0);
	assert_int_equal(tally_open(&tally, &arena), 0);
	assert_int_equal(heap_tally(&tally, view), 0);
	while ((row = tally_next(&tally, &at))) {
		if (row->key.number != size)
			continue;
		found.rows++;
		for (size_t i = 0; i < TALLY_VALUES; i++)
			found.values[i] += row->values[i];
	}
	arena_close(&arena);
	return found;
}

static int set_up(void **state)
{
	struct err err;

	(void)state;
	heap_set_rate(RATE);
	allocate(0x1000, NULL, 1); /* this thread's rate is that one now */
	return unwind_refresh(&err);
}

static void frees_end_what_was_sampled(void **state)
{
	struct found found;

	(void)state;
	for (uintptr_t i = 0; i < 10; i++)
		allocate(0x1000, object_of(1000 + i), 4096);
	for (uintptr_t i = 0; i < 4; i++)
		heap_freed_sigsafe(heap_take_sigsafe(object_of(1000 + i)));
	found = read_size(4096, HEAP_NOW);
	assert_in_range(found.values[0], weight(10, 4096), weight(10, 4096) + 1);
	assert_in_range(found.values[2], weight(6, 4096), weight(6, 4096) + 1);
	found = read_size(4096, HEAP_RAW);
	assert_int_equal(found.values[1], 10 * 4096);
	assert_int_equal(found.values[3], 6 * 4096);
}

static void an_address_that_comes_again_ends_its_former_object(void **state)
{
	struct found found;

	(void)state;
	allocate(0x1000, object_of(2000), 5000);
	allocate(0x1000, object_of(2000), 5001);
	found = read_size(5000, HEAP_NOW);
	assert_int_equal(found.values[2], 0);
	assert_int_not_equal(found.values[0], 0);
	assert_int_equal(read_size(5001, HEAP_RAW).values[2], 1);
}

static void failures_and_our_own_are_not_counted(void **state)
{
	(void)state;
	allocate(0x1000, NULL, 6000);
	self.inside = 1;
	allocate(0x1000, object_of(3000), 6000);
	self.inside = 0;
	assert_int_equal(read_size(6000, HEAP_NOW).rows, 0);
}

static void the_peak_is_kept(void **state)
{
	const size_t huge = 1 << 30; /* nothing else in this program comes near it */

	(void)state;
	allocate(0x1000, object_of(4000), huge);
	allocate(0x1000, object_of(4001), huge);
	heap_freed_sigsafe(heap_take_sigsafe(object_of(4000)));
	allocate(0x1000, object_of(4002), 7000);
	heap_freed_sigsafe(heap_take_sigsafe(object_of(4001)));
	assert_int_equal(read_size(huge, HEAP_NOW).values[2], 0);
	assert_int_equal(read_size(huge, HEAP_PEAK).values[2], 2);
	assert_int_equal(read_size(7000, HEAP_RAW).values[2], 1);
	assert_int_equal(read_size(7000, HEAP_RAW | HEAP_PEAK).values[2], 0);
}

static void what_was_reported_is_not_reported_again(void **state)
{
	(void)state;
	allocate(0x1000, object_of(5000), 8000);
	assert_int_equal(read_size(8000, HEAP_RAW | HEAP_SINCE).values[0], 1);
	allocate(0x1000, object_of(5001), 8000);
	allocate(0x1000, object_of(5002), 8000);
	assert_int_equal(read_size(8000, HEAP_RAW | HEAP_SINCE).values[0], 2);
	assert_int_equal(read_size(8000, HEAP_RAW | HEAP_SINCE).values[0], 0);
	assert_int_equal(read_size(8000, HEAP_RAW | HEAP_SINCE).values[2], 3);
	assert_int_equal(read_size(8000, HEAP_RAW).values[0], 3);
}

/* 10^6 small objects and some large ones, none of which is due by force. */
static void estimates_are_unbiased(void **state)
{
	static const size_t sizes[] = { 48, 1000, 40000, 3000000 };
	static const size_t counts[] = { 4000000, 1000000, 50000, 500 };
	struct unwind_regs regs = regs_of(0x2000);

	(void)state;
	for (size_t k = 0; k < 4; k++) {
		double p = poisson_share((double)sizes[k] / RATE), deviation;

		for (uintptr_t i = 0; i < counts[k]; i++) {
			if (!heap_passes_sigsafe(sizes[k]))
				heap_allocated_sigsafe(object_of(100000 + i), sizes[k], &regs);
		}
		deviation = sqrt((double)counts[k] * (1 - p) / p);
		assert_true(fabs((double)read_size(sizes[k], HEAP_NOW).values[0] -
				    (double)counts[k]) <= 5 * deviation + 1);
	}
}

static void rate_one_takes_everything_and_off_nothing(void **state)
{
	struct unwind_regs regs = regs_of(0x3000);

	(void)state;
	heap_set_rate(1);
	for (uintptr_t i = 0; i < 100; i++) {
		assert_false(heap_passes_sigsafe(24));
		heap_allocated_sigsafe(object_of(200000 + i), 24, &regs);
	}
	assert_int_equal(read_size(24, HEAP_NOW).values[2], 100);
	heap_set_rate(0);
	assert_false(heap_passes_sigsafe(24)); /* the thread learns of it */
	heap_allocated_sigsafe(object_of(300000), 24, &regs);
	for (uintptr_t i = 0; i < 100; i++) {
		assert_true(heap_passes_sigsafe(24));
		heap_freed_sigsafe(heap_take_sigsafe(object_of(200000 + i)));
	}
	assert_int_equal(read_size(24, HEAP_NOW).values[2], 0);
	assert_int_equal(read_size(24, HEAP_NOW).values[0], 100);
	heap_set_rate(RATE);
}

/* For years: every size is a new one. Next to nothing is lost, and the bytes are right. */
static void ever_new_sizes_find_room(void **state)
{
	struct heap_state before, after;
	double truth = 0;
	uint32_t id;

	(void)state;
	heap_set_rate(1);
	self.heap_left = -1;
	heap_read(&before);
	for (size_t i = 0; i < 1200000; i++) {
		size_t size = 1000 + i * 7;

		allocate(0x9000 + i % 3, object_of(((uintptr_t)1 << 30) + i), size);
		id = heap_take_sigsafe(object_of(((uintptr_t)1 << 30) + i));
		if (id)
			heap_freed_sigsafe(id);
		truth += (double)size;
	}
	heap_read(&after);
	heap_set_rate(RATE);
	/* But where by chance all places for a key are taken. */
	assert_in_range(after.lost - before.lost, 0, 100);
	assert_in_range(after.samples - before.samples, 1200000 - 100, 1200000);
	assert_int_equal(after.inuse, before.inuse);
	assert_true(fabs((double)(after.allocated - before.allocated) / truth - 1) < 1e-3);
	assert_in_range(heap_buckets(), 500000, 560000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(logarithm_and_share_are_libms),
		cmocka_unit_test(distances_are_exponential),
		cmocka_unit_test(scales_are_gos),
		cmocka_unit_test(live_objects_are_found_once),
		cmocka_unit_test(frees_end_what_was_sampled),
		cmocka_unit_test(an_address_that_comes_again_ends_its_former_object),
		cmocka_unit_test(failures_and_our_own_are_not_counted),
		cmocka_unit_test(the_peak_is_kept),
		cmocka_unit_test(what_was_reported_is_not_reported_again),
		cmocka_unit_test(estimates_are_unbiased),
		cmocka_unit_test(rate_one_takes_everything_and_off_nothing),
		cmocka_unit_test(ever_new_sizes_find_room),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
