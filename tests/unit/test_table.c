#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gateway/siphash.h"
#include "gateway/table.h"

static struct table *new_table(void)
{
	struct err err;
	int fd;
	struct table *table = table_create(&fd, &err);

	assert_non_null(table);
	(void)close(fd);
	return table;
}

/* The vectors of the paper's reference code. */
static void test_siphash(void **state)
{
	static const struct {
		size_t len;
		uint64_t want;
	} rows[] = {
		{ 0, 0x726fdb47dd0e0e31U },
		{ 1, 0x74f839c593dc67fdU },
		{ 7, 0xab0200f58b01d137U },
		{ 8, 0x93f5f5799a932462U },
		{ 15, 0xa129ca6149be45e5U },
	};

	uint8_t key[16];
	char bytes[16];

	(void)state;
	for (unsigned i = 0; i < 16; i++) {
		key[i] = (uint8_t)i;
		bytes[i] = (char)i;
	}
	for (size_t i = 0; i < COUNT(rows); i++)
		assert_true(siphash(key, (struct sv){ bytes, rows[i].len }) == rows[i].want);
}

static void test_rate(void **state)
{
	struct table *table = new_table();
	uint64_t now = 1000000, wait;

	(void)state;
	/* A burst of three, then one each 100 ms. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(table_take(table, TABLE_PER_ADDRESS, SV("a"), 10, 3, now), 0);
	wait = table_take(table, TABLE_PER_ADDRESS, SV("a"), 10, 3, now);
	assert_int_equal(wait, 100);
	/* The promise is kept to the millisecond, and refusals cost nothing. */
	assert_int_equal(
		table_take(table, TABLE_PER_ADDRESS, SV("a"), 10, 3, now + wait - 1), 1);
	assert_int_equal(table_take(table, TABLE_PER_ADDRESS, SV("a"), 10, 3, now + wait), 0);
	assert_int_equal(table_take(table, TABLE_PER_ADDRESS, SV("a"), 10, 3, now + wait), 100);
	/* Others, and other kinds, have buckets of their own. */
	assert_int_equal(table_take(table, TABLE_PER_ADDRESS, SV("b"), 10, 3, now), 0);
	assert_int_equal(table_take(table, TABLE_PER_IDENTITY, SV("a"), 10, 3, now), 0);
	/* After a rest the whole burst is there again. */
	now += 10000;
	for (int i = 0; i < 3; i++)
		assert_int_equal(table_take(table, TABLE_PER_ADDRESS, SV("a"), 10, 3, now), 0);
	assert_true(table_take(table, TABLE_PER_ADDRESS, SV("a"), 10, 3, now) > 0);
	table_unmap(table);
}

/* More keys than there is room for: the newcomers share, and nobody gets more than his own. */
static void test_a_flood_lets_nothing_through(void **state)
{
	enum {
		KEYS = 200000
	};
	struct table *table = new_table();
	unsigned passed = 0;
	char key[16];

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < KEYS; i++) {
			int len = snprintf(key, sizeof(key), "%u", i);

			passed += table_take(table, TABLE_PER_ADDRESS,
					  (struct sv){ key, (size_t)len }, 0.01, 1, 1000) == 0;
		}
	}
	print_message("  %u of %u passed\n", passed, 2 * KEYS);
	assert_true(passed <= 4096 * 8);
	assert_true(passed > 20000);
	table_unmap(table);
}

static void test_terms(void **state)
{
	struct table *table = new_table();
	uint64_t now = 5000;

	(void)state;
	assert_int_equal(table_left_ms(table, TABLE_BANNED, SV("a"), now), 0);
	table_set_until(table, TABLE_BANNED, SV("a"), now + 10000, now);
	assert_int_equal(table_left_ms(table, TABLE_BANNED, SV("a"), now), 10000);
	assert_int_equal(table_left_ms(table, TABLE_BANNED, SV("b"), now), 0);
	assert_int_equal(table_left_ms(table, TABLE_TRUSTED, SV("a"), now), 0);
	assert_int_equal(table_left_ms(table, TABLE_BANNED, SV("a"), now + 9999), 1);
	assert_int_equal(table_left_ms(table, TABLE_BANNED, SV("a"), now + 10000), 0);
	/* Longer, and taken back. */
	table_set_until(table, TABLE_BANNED, SV("a"), now + 20000, now);
	assert_int_equal(table_left_ms(table, TABLE_BANNED, SV("a"), now), 20000);
	table_set_until(table, TABLE_BANNED, SV("a"), 0, now);
	assert_int_equal(table_left_ms(table, TABLE_BANNED, SV("a"), now), 0);
	table_set_until(table, TABLE_BANNED, SV("never"), 0, now);
	table_unmap(table);
}

static int take_slot(struct table *table, uint32_t worker, const char *key, uint32_t max,
	uint64_t until_ms, uint64_t now_ms, uint64_t *left_ms)
{
	struct table_capture capture = { sv_from_cstr(key), max, until_ms };

	return table_slot_take(table, worker, &capture, now_ms, left_ms);
}

static void test_slots(void **state)
{
	struct table *table = new_table();
	uint64_t now = 1000, left;
	int first, second;

	(void)state;
	first = take_slot(table, 0, "vtp", 2, now + 30000, now, &left);
	second = take_slot(table, 1, "vtp", 2, now + 10000, now, &left);
	assert_true(first >= 0 && second >= 0 && first != second);
	assert_int_equal(take_slot(table, 0, "vtp", 2, now + 5000, now, &left), -1);
	assert_int_equal(left, 10000);
	assert_true(take_slot(table, 0, "jobs", 2, now + 5000, now, &left) >= 0);
	table_slot_free(table, 0, first);
	assert_true(take_slot(table, 0, "vtp", 2, now + 5000, now, &left) >= 0);
	/* A capture that is late promises a second, not the past. */
	assert_int_equal(take_slot(table, 0, "vtp", 2, now + 99000, now + 60000, &left), -1);
	assert_int_equal(left, 1000);
	/* What the dead one held is free again, what the other holds is not. */
	table_free_worker(table, 1);
	assert_true(take_slot(table, 2, "vtp", 2, now + 5000, now, &left) >= 0);
	assert_int_equal(take_slot(table, 2, "vtp", 2, now + 5000, now, &left), -1);
	table_unmap(table);
}

static void test_connections(void **state)
{
	struct table *table = new_table();

	(void)state;
	assert_true(table_connection_add(table, 0, SV("a"), 4, 2));
	assert_true(table_connection_add(table, 1, SV("a"), 4, 2));
	assert_false(table_connection_add(table, 2, SV("a"), 4, 2)); /* of all workers */
	assert_true(table_connection_add(table, 0, SV("b"), 4, 2));
	assert_true(table_connection_add(table, 0, SV("c"), 4, 2));
	assert_false(table_connection_add(table, 0, SV("d"), 4, 2)); /* all four */
	assert_int_equal(table_connections(table, 0), 3);
	assert_int_equal(table_connections_all(table), 4);
	table_connection_remove(table, 0, SV("a"));
	assert_true(table_connection_add(table, 2, SV("a"), 4, 2));
	table_free_worker(table, 1);
	assert_int_equal(table_connections_all(table), 3);
	assert_true(table_connection_add(table, 0, SV("a"), 4, 2));
	table_unmap(table);
}

#define THREADS 4

static struct table *shared;
static atomic_uint taken;

static void *take_all(void *arg)
{
	uint32_t worker = (uint32_t)(uintptr_t)arg;

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t left;
		int slot;

		if (table_take(shared, TABLE_PER_IDENTITY, SV("k"), 0.001, 1000, 1) == 0)
			atomic_fetch_add(&taken, 1);
		if (table_connection_add(shared, worker, SV("c"), 2, 2)) {
			assert_true(table_connections(shared, worker) == 1);
			table_connection_remove(shared, worker, SV("c"));
		}
		slot = take_slot(shared, worker, "s", 1, 1000, 1, &left);
		if (slot >= 0)
			table_slot_free(shared, worker, slot);
	}
	return NULL;
}

/* Four at once take exactly what there is. */
static void test_at_once(void **state)
{
	pthread_t threads[THREADS];
	uint64_t left;

	(void)state;
	shared = new_table();
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, take_all, (void *)i), 0); /* NOLINT */
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&taken), 1000);
	assert_int_equal(table_connections_all(shared), 0);
	assert_true(take_slot(shared, 0, "s", 1, 1000, 1, &left) >= 0);
	table_unmap(shared);
}

static void test_a_wrong_file_is_refused(void **state)
{
	struct err err;
	int fd = memfd_create("test", MFD_CLOEXEC);

	(void)state;
	assert_null(table_map(fd, &err));
	assert_string_equal(err.text, "the shared table is not of this version");
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_siphash),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_a_flood_lets_nothing_through),
		cmocka_unit_test(test_terms),
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_connections),
		cmocka_unit_test(test_at_once),
		cmocka_unit_test(test_a_wrong_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
