/*
 * test_lease.c - which rates hold, when several want different ones.
 */
#include "tests/unit/unit.h"

#include "sampler/collect/rate.h"
#include "sampler/serve/lease.h"

static void check(uint64_t heap, uint64_t mutex, uint64_t block)
{
	assert_int_equal(rate_now(RATE_HEAP), heap);
	assert_int_equal(rate_now(RATE_MUTEX), mutex);
	assert_int_equal(rate_now(RATE_BLOCK), block);
}

static void set(struct lease *lease, enum rate rate, uint64_t value)
{
	struct rates rates = { 0 };

	rates.is_set[rate] = true;
	rates.values[rate] = value;
	lease_rates(lease, &rates);
}

static void what_the_program_asks_for_comes_before_its_environment(void **state)
{
	(void)state;
	rate_default(RATE_HEAP, 1000);
	rate_default(RATE_MUTEX, 5);
	rate_default(RATE_BLOCK, 0);
	check(1000, 5, 0);
	assert_int_equal(rate_ask(RATE_MUTEX, 6), 5);
	assert_int_equal(rate_ask(RATE_MUTEX, 7), 6);
	rate_default(RATE_MUTEX, 9);
	check(1000, 7, 0);
}

static void asleep_nothing_is_sampled(void **state)
{
	(void)state;
	rate_sleep(true);
	check(0, 0, 0);
	(void)rate_ask(RATE_BLOCK, 1);
	rate_lease(RATE_HEAP, 1);
	check(0, 0, 0);
	rate_lease(RATE_HEAP, RATE_NOT_SET);
	rate_sleep(false);
	check(1000, 7, 1);
}

static void the_latest_lease_counts_then_the_one_before(void **state)
{
	struct lease first = { 0 }, second = { 0 }, third = { 0 };

	(void)state;
	lease_take(&first);
	lease_take(&first);
	lease_take(&second);
	lease_take(&third);
	assert_int_equal(leases_held(), 3);
	set(&first, RATE_HEAP, 1);
	set(&second, RATE_HEAP, 2);
	set(&third, RATE_MUTEX, 3);
	check(2, 3, 1);
	set(&first, RATE_BLOCK, 0);
	check(2, 3, 0);
	lease_end(&first);
	check(2, 3, 1);
	(void)rate_ask(RATE_HEAP, 77); /* under it, until it ends */
	check(2, 3, 1);
	lease_end(&second);
	lease_end(&second);
	check(77, 3, 1);
	lease_end(&third);
	check(77, 7, 1);
	assert_int_equal(leases_held(), 0);
}

static void a_forked_child_has_none(void **state)
{
	struct lease lease = { 0 };

	(void)state;
	lease_take(&lease);
	set(&lease, RATE_HEAP, 1);
	leases_forget();
	assert_int_equal(leases_held(), 0);
	check(77, 7, 1);
}

static void too_much_is_cut(void **state)
{
	(void)state;
	(void)rate_ask(RATE_HEAP, UINT64_MAX - 1);
	(void)rate_ask(RATE_MUTEX, UINT64_MAX - 1);
	(void)rate_ask(RATE_BLOCK, UINT64_MAX - 1);
	check(UINT64_C(1) << 40, INT32_MAX, INT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_program_asks_for_comes_before_its_environment),
		cmocka_unit_test(asleep_nothing_is_sampled),
		cmocka_unit_test(the_latest_lease_counts_then_the_one_before),
		cmocka_unit_test(a_forked_child_has_none),
		cmocka_unit_test(too_much_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
