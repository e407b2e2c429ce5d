/*
 * test_rates.c - what POST /debug/pprof/rates takes, and what it says to everything else.
 */
#include "tests/unit/unit.h"

#include <string.h>

#include "sampler/serve/rates.h"

static void what_is_right_is_read(void **state)
{
	static const struct {
		const char *json;
		enum rate rate;
		uint64_t value;
	} cases[] = {
		{ "{\"heap\":\"512KiB\"}", RATE_HEAP, 524288 },
		{ " { \"heap\" : \"2MiB\" } \n", RATE_HEAP, 2 << 20 },
		{ "{\"heap\":\"100B\"}", RATE_HEAP, 100 },
		{ "{\"heap\":0}", RATE_HEAP, 0 },
		{ "{\"heap\":\"524288\"}", RATE_HEAP, 524288 },
		{ "{\"mutex\":100,\"heap\":1}", RATE_MUTEX, 100 },
		{ "{\"block\":\"1us\"}", RATE_BLOCK, 1000 },
		{ "{\"block\":\"10ns\"}", RATE_BLOCK, 10 },
		{ "{\"block\":\"2s\"}", RATE_BLOCK, 2000000000 },
		{ "{\"block\":1000}", RATE_BLOCK, 1000 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rates rates;
		struct err err;

		assert_int_equal(rates_parse(sv_from_cstr(cases[i].json), &rates, &err), 0);
		assert_true(rates.is_set[cases[i].rate]);
		assert_int_equal(rates.values[cases[i].rate], cases[i].value);
	}
}

static void the_rest_is_refused_with_a_reason(void **state)
{
	static const char *const cases[][2] = {
		{ "", "must be JSON" },
		{ "[]", "must be JSON" },
		{ "{heap:1}", "must be JSON" },
		{ "{\"heap\":1", "does not end" },
		{ "{\"heap\":1,}", "must be JSON" },
		{ "{\"heap\":1}x", "follows" },
		{ "{\"heap\":1,\"heap\":2}", "twice" },
		{ "{\"heaps\":1}", "'heaps' is not a rate" },
		{ "{\"heap\":-1}", "is bytes" },
		{ "{\"heap\":1.5}", "does not end" },
		{ "{\"heap\":\"512KB\"}", "is bytes" },
		{ "{\"heap\":\"KiB\"}", "is bytes" },
		{ "{\"heap\":\"99999999999GiB\"}", "is bytes" },
		{ "{\"heap\":\"18446744073709551616\"}", "is bytes" },
		{ "{\"heap\":null}", "is bytes" },
		{ "{\"mutex\":\"1s\"}", "one in how many" },
		{ "{\"block\":\"1h\"}", "is a duration" },
		{ "{\"he\\u0061p\":1}", "must be JSON" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rates rates;
		struct err err;

		assert_int_equal(rates_parse(sv_from_cstr(cases[i][0]), &rates, &err), -1);
		if (!strstr(err.text, cases[i][1]))
			fail_msg("%s: %s", cases[i][0], err.text);
	}
}

static void nothing_asked_for_is_nothing_set(void **state)
{
	struct rates rates;
	struct err err;

	(void)state;
	assert_int_equal(rates_parse(SV("{ }"), &rates, &err), 0);
	for (size_t i = 0; i < RATES_LEN; i++)
		assert_false(rates.is_set[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_right_is_read),
		cmocka_unit_test(the_rest_is_refused_with_a_reason),
		cmocka_unit_test(nothing_asked_for_is_nothing_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
