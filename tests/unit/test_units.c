#include "tests/unit/unit.h"

#include "base/units.h"

static void test_bytes(void **state)
{
	static const char *const wrong[] = { "", "16", "B", "MiB", "16 MiB", "16MiB ", "16mib",
		"-1B", "+1B", "0x1B", "1.5MiB", "16MB", "17179869184GiB",
		"99999999999999999999B" };
	uint64_t bytes;

	(void)state;
	assert_true(units_bytes(SV("16MiB"), &bytes));
	assert_int_equal(bytes, 16 << 20);
	assert_true(units_bytes(SV("0B"), &bytes));
	assert_int_equal(bytes, 0);
	assert_true(units_bytes(SV("17179869183GiB"), &bytes));
	for (size_t i = 0; i < COUNT(wrong); i++)
		assert_false(units_bytes(sv_from_cstr(wrong[i]), &bytes));
}

static void test_durations(void **state)
{
	static const char *const wrong[] = { "", "10", "s", "10sec", "10 s", "1d", "1.5s",
		"-1s", "1h1m", "18446744074s", "5124096h" };
	uint64_t ns;

	(void)state;
	assert_true(units_duration(SV("10s"), &ns));
	assert_int_equal(ns, 10000000000);
	assert_true(units_duration(SV("250ms"), &ns));
	assert_int_equal(ns, 250000000);
	assert_true(units_duration(SV("2h"), &ns));
	assert_int_equal(ns, 7200000000000);
	for (size_t i = 0; i < COUNT(wrong); i++)
		assert_false(units_duration(sv_from_cstr(wrong[i]), &ns));
}

static void test_decimals(void **state)
{
	static const struct {
		const char *text;
		double value;
	} right[] = { { "2", 2 }, { "0.25", 0.25 }, { ".5", 0.5 }, { "5.", 5 }, { "1e-1", 0.1 },
		{ "1E2", 100 }, { "+3", 3 }, { "2.5e+1", 25 }, { "0", 0 } };

	static const char *const wrong[] = { "", ".", "-1", "e1", "1e", "1e1.5", "1 ", "1s",
		"nan", "inf", "0x1p3", "1_000", "1..2", "1234567890123456789", "1e99" };
	double value;

	(void)state;
	for (size_t i = 0; i < COUNT(right); i++) {
		assert_true(units_decimal(sv_from_cstr(right[i].text), &value));
		assert_true(value - right[i].value < 1e-12 && right[i].value - value < 1e-12);
	}
	for (size_t i = 0; i < COUNT(wrong); i++)
		assert_false(units_decimal(sv_from_cstr(wrong[i]), &value));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_decimals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
