/*
 * test_store.c - what is kept between a signal handler and a profile: interned keys, stacks, records,
 * labels, tallies.
 */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <string.h>

#include "sampler/store/depot.h"
#include "sampler/store/intern.h"
#include "sampler/store/labels.h"
#include "sampler/store/ring.h"
#include "sampler/store/tally.h"

#define KEYS    20000
#define THREADS 4

static struct intern table = INTERN_INIT(16 << 20, 2);

static void a_key_is_kept_once(void **state)
{
	static struct intern small = INTERN_INIT(1 << 20, 1);
	uint64_t one[] = { 1, 2, 3 }, other[] = { 1, 2, 4 };
	uint32_t id = intern_put_sigsafe(&small, one, 3, 0);
	size_t at = 0, len, bytes;
	uint64_t refused;

	(void)state;
	assert_int_not_equal(id, 0);
	assert_int_equal(intern_put_sigsafe(&small, one, 3, 0), id);
	assert_int_not_equal(intern_put_sigsafe(&small, other, 3, 0), id);
	assert_int_not_equal(intern_put_sigsafe(&small, one, 2, 0), id);
	assert_int_not_equal(intern_put_sigsafe(&small, one, 3, 9), id);
	atomic_fetch_add(intern_values(intern_get(&small, id)), 5);
	assert_int_equal(atomic_load(intern_values(intern_get(&small, id))), 5);
	intern_stats(&small, &len, &bytes, &refused);
	assert_int_equal(len, 4);
	assert_int_equal(refused, 0);
	for (len = 0; intern_next(&small, &at); len++)
		continue;
	assert_int_equal(len, 4);
}

static void a_full_table_refuses_and_counts(void **state)
{
	static struct intern tiny = INTERN_INIT(64 << 10, 0);
	size_t len, bytes;
	uint64_t refused;

	(void)state;
	for (uint64_t i = 1; i <= 10000; i++)
		(void)intern_put_sigsafe(&tiny, &i, 1, 0);
	intern_stats(&tiny, &len, &bytes, &refused);
	assert_int_equal(len + refused, 10000);
	assert_int_not_equal(refused, 0);
	assert_true(bytes <= 64 << 10);
}

static void *put_all(void *unused)
{
	(void)unused;
	for (uint64_t i = 1; i <= KEYS; i++) {
		uint64_t key[2] = { i, i * i };
		uint32_t id = intern_put_sigsafe(&table, key, 2, 0);

		atomic_fetch_add(intern_values(intern_get(&table, id)), 1);
	}
	return NULL;
}

/* All bring the same keys at the same time: each is there once, and was counted by all. */
static void threads_meet_at_one_entry(void **state)
{
	pthread_t threads[THREADS];
	size_t at = 0, len = 0;
	uint32_t id;

	(void)state;
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, put_all, NULL), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	while ((id = intern_next(&table, &at))) {
		struct intern_entry *entry = intern_get(&table, id);

		assert_int_equal(entry->words[1], entry->words[0] * entry->words[0]);
		assert_int_equal(atomic_load(intern_values(entry)), THREADS);
		len++;
	}
	assert_int_equal(len, KEYS);
}

static void stacks_have_numbers(void **state)
{
	uintptr_t pcs[] = { 0x1000, 0x2000 };
	uint32_t id = depot_put_sigsafe(pcs, 2, UNWIND_COMPLETE);

	(void)state;
	assert_int_equal(depot_put_sigsafe(pcs, 2, UNWIND_COMPLETE), id);
	assert_int_not_equal(depot_put_sigsafe(pcs, 2, UNWIND_NO_ROW), id);
	assert_int_equal(depot_get(id).len, 2);
	assert_int_equal(depot_get(id).pcs[1], 0x2000);
	assert_int_equal(depot_get(id).end, UNWIND_COMPLETE);
	assert_int_equal(depot_get(0).len, 0);
}

static __attribute__((noinline)) uint32_t walk_from_here(void)
{
	struct unwind_regs regs;

	UNWIND_REGS_OF_CALLER(&regs);
	return depot_walk_sigsafe(&regs);
}

static void a_hook_sees_its_caller(void **state)
{
	uintptr_t function = (uintptr_t)a_hook_sees_its_caller;
	struct depot_stack stack;
	struct err err;

	(void)state;
	assert_int_equal(unwind_refresh(&err), 0);
	stack = depot_get(walk_from_here());
	assert_int_equal(stack.end, UNWIND_COMPLETE);
	assert_true(stack.len > 2);
	assert_true(stack.pcs[0] > function && stack.pcs[0] < function + 4096);
}

static void records_come_out_in_order(void **state)
{
	struct record out, *late;

	(void)state;
	assert_int_equal(ring_open(), 0);
	for (uint64_t round = 0; round < 5; round++) {
		uint64_t dropped = ring_dropped(), put = 0;
		struct record *record;

		while ((record = ring_claim_sigsafe())) {
			*record = (struct record){ .kind = RECORD_CPU, .value = put++ };
			ring_commit_sigsafe(record);
		}
		assert_int_equal(ring_dropped(), dropped + 1);
		assert_int_not_equal(put, 0);
		for (uint64_t i = 0; i < put; i++) {
			assert_true(ring_take(&out));
			assert_int_equal(out.value, i);
		}
		assert_false(ring_take(&out));
	}
	ring_after_fork();
	assert_false(ring_take(&out));
	late = ring_claim_sigsafe();
	assert_non_null(late);
	assert_false(ring_take(&out)); /* not committed */
	ring_commit_sigsafe(late);
	assert_true(ring_take(&out));
}

static void what_nobody_wants_is_not_wanted(void **state)
{
	(void)state;
	assert_false(ring_is_wanted_sigsafe(RECORD_LOG));
	ring_want(RECORD_LOG, true);
	ring_want(RECORD_LOG, true);
	ring_want(RECORD_LOG, false);
	assert_true(ring_is_wanted_sigsafe(RECORD_LOG));
	assert_false(ring_is_wanted_sigsafe(RECORD_BLOCK));
	ring_want(RECORD_LOG, false);
	assert_false(ring_is_wanted_sigsafe(RECORD_LOG));
}

static void label_sets(void **state)
{
	uint32_t route = labels_text_sigsafe(SV("route")),
		 user = labels_text_sigsafe(SV("user"));
	uint32_t a = labels_text_sigsafe(SV("/a")), b = labels_text_sigsafe(SV("b"));
	uint32_t both = labels_with_sigsafe(labels_with_sigsafe(0, user, b), route, a);
	struct label_pair pairs[LABELS_SET_MAX];

	(void)state;
	assert_int_equal(labels_with_sigsafe(labels_with_sigsafe(0, route, a), user, b), both);
	assert_int_equal(labels_of(both, pairs), 2);
	assert_int_equal(pairs[0].key, route);
	assert_true(sv_is(labels_text_of(pairs[0].value), SV("/a")));
	assert_int_equal(labels_with_sigsafe(both, user, 0), labels_with_sigsafe(0, route, a));
	assert_int_equal(labels_with_sigsafe(labels_with_sigsafe(0, route, a), route, 0), 0);
	assert_int_equal(labels_text_sigsafe(SV("")), 0);
	for (uint32_t i = 0; i < 20; i++) {
		char name[] = { 'k', (char)('a' + i) };

		both = labels_with_sigsafe(
			both, labels_text_sigsafe((struct sv){ name, 2 }), a);
	}
	assert_int_equal(labels_of(both, pairs), LABELS_SET_MAX);
}

static void equal_rows_are_added(void **state)
{
	int64_t values[TALLY_VALUES] = { 1, 2, 3, 4 };
	const struct tally_row *row;
	struct arena arena;
	struct tally tally;
	size_t at = 0;

	(void)state;
	assert_int_equal(arena_open(&arena, 64 << 20), 0);
	assert_int_equal(tally_open(&tally, &arena), 0);
	for (unsigned i = 0; i < 30000; i++)
		tally_add(&tally, &(struct tally_key){ .stack = i % 10000 + 1 }, values, 1);
	tally_add(&tally, &(struct tally_key){ .stack = 1 }, values, -1);
	assert_int_equal(tally.len, 10000);
	while ((row = tally_next(&tally, &at)))
		assert_int_equal(row->values[3], row->key.stack == 1 ? 8 : 12);
	arena_close(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_is_kept_once),
		cmocka_unit_test(a_full_table_refuses_and_counts),
		cmocka_unit_test(threads_meet_at_one_entry),
		cmocka_unit_test(stacks_have_numbers),
		cmocka_unit_test(a_hook_sees_its_caller),
		cmocka_unit_test(records_come_out_in_order),
		cmocka_unit_test(what_nobody_wants_is_not_wanted),
		cmocka_unit_test(label_sets),
		cmocka_unit_test(equal_rows_are_added),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
