#include "tests/unit/unit.h"

#include <string.h>

#include "profile/profile.h"
#include "sampler/write/pprof.h"

#define ARENA_BYTES   ((size_t)1 << 30)
#define PROFILE_BYTES ((size_t)1 << 20)

static struct arena arena;

static int set_up(void **state)
{
	(void)state;
	return arena_open(&arena, ARENA_BYTES);
}

static int tear_down(void **state)
{
	(void)state;
	arena_close(&arena);
	return 0;
}

static const struct pprof_settings settings = {
	.values = { { "samples", "count" }, { "cpu", "nanoseconds" } },
	.values_len = 2,
	.period_type = { "cpu", "nanoseconds" },
	.period = 10000000,
	.time_unix_ns = INT64_C(1700000000123456789),
	.duration_ns = INT64_C(5000000000),
	.default_sample_type = "cpu",
	.comments = { "first", "second" },
};

static __attribute__((noinline)) int leaf(int number)
{
	return number + 1;
}

static __attribute__((noinline)) int caller(int number)
{
	return leaf(number) * 3;
}

static struct pprof *open_pprof(struct symbols **symbols)
{
	struct err err;
	struct pprof *pprof;

	assert_int_equal(caller(1), 6);
	assert_int_equal(symbols_open(&arena, symbols, &err), 0);
	pprof = pprof_open(&arena, *symbols, &settings);
	assert_non_null(pprof);
	return pprof;
}

/* Read back by the reader that `postern top` uses. */
static struct profile *finish(struct pprof *pprof)
{
	struct profile *profile;
	struct err err = { 0 };
	struct buf out;

	assert_int_equal(arena_buf(&arena, PROFILE_BYTES, &out), 0);
	assert_int_equal(pprof_finish(pprof, &out, &err), 0);
	assert_memory_equal(out.ptr, "\x1f\x8b", 2);
	assert_int_equal(profile_parse(buf_sv(&out), &profile, &err), 0);
	return profile;
}

static void assert_text(struct sv got, const char *want)
{
	assert_int_equal(got.len, strlen(want));
	assert_memory_equal(got.ptr, want, got.len);
}

static struct sv function_of(const struct profile *profile, size_t sample, size_t frame)
{
	const struct profile_location *location =
		&profile->locations[profile->samples[sample].locations[frame]];

	assert_int_equal(location->lines_len, 1);
	return profile->functions[location->lines[0].function].name;
}

static void test_head(void **state)
{
	struct symbols *symbols;
	struct profile *profile = finish(open_pprof(&symbols));

	(void)state;
	assert_int_equal(profile->types_len, 2);
	assert_text(profile->types[0].type, "samples");
	assert_text(profile->types[0].unit, "count");
	assert_text(profile->types[1].type, "cpu");
	assert_int_equal(profile->default_type, 1);
	assert_text(profile->period_type.unit, "nanoseconds");
	assert_int_equal(profile->period, settings.period);
	assert_int_equal(profile->time_ns, settings.time_unix_ns);
	assert_int_equal(profile->duration_ns, settings.duration_ns);
	assert_int_equal(profile->comments_len, 2);
	assert_text(profile->comments[1], "second");
	assert_int_equal(profile->samples_len, 0);
	profile_free(profile);
}

/* The return address is the first byte after the caller: it is the caller all the same. */
static void test_frames(void **state)
{
	const uintptr_t pcs[] = { (uintptr_t)leaf, (uintptr_t)caller + 1 };
	const int64_t values[] = { 3, -30000000 };
	const struct pprof_label labels[] = { { "thread", "worker", 0 },
		{ "bytes", NULL, 64 } };
	struct symbols *symbols;
	struct pprof *pprof = open_pprof(&symbols);
	struct profile *profile;
	const struct profile_location *location;
	struct symbol symbol;

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		pprof_add(pprof, &(struct pprof_stack){ pcs, COUNT(pcs), true }, values, labels,
			COUNT(labels));
	profile = finish(pprof);
	assert_int_equal(profile->samples_len, 2);
	assert_int_equal(profile->locations_len, 2);
	assert_int_equal(profile->functions_len, 2);
	assert_int_equal(profile->samples[0].values[0], 3);
	assert_int_equal(profile->samples[0].values[1], -30000000);
	assert_text(function_of(profile, 0, 0), "leaf");
	assert_text(function_of(profile, 0, 1), "caller");
	location = &profile->locations[profile->samples[0].locations[0]];
	symbols_find(symbols, pcs[0], &symbol);
	assert_int_equal(location->address, symbol.address);
	assert_true(profile->mappings[location->mapping].has_functions);
	assert_true(location->address >= profile->mappings[location->mapping].start);
	assert_true(location->address < profile->mappings[location->mapping].limit);
	profile_free(profile);
}

static void test_without_an_exact_leaf(void **state)
{
	const uintptr_t pc = (uintptr_t)leaf + 1;
	const int64_t values[] = { 1, 1 };
	struct symbols *symbols;
	struct pprof *pprof = open_pprof(&symbols);
	struct profile *profile;
	struct symbol symbol;

	(void)state;
	pprof_add(pprof, &(struct pprof_stack){ &pc, 1, false }, values, NULL, 0);
	profile = finish(pprof);
	symbols_find(symbols, pc - 1, &symbol);
	assert_int_equal(profile->locations[0].address, symbol.address);
	profile_free(profile);
}

static void test_unknown_and_named(void **state)
{
	const uintptr_t pc = 8;
	const int64_t values[] = { 1, 1 };
	struct symbols *symbols;
	struct pprof *pprof = open_pprof(&symbols);
	struct profile *profile;

	(void)state;
	pprof_add(pprof, &(struct pprof_stack){ &pc, 1, true }, values, NULL, 0);
	pprof_add_named(pprof, "[lost]", values);
	pprof_add_named(pprof, "[lost]", values);
	profile = finish(pprof);
	assert_int_equal(profile->samples_len, 3);
	assert_text(function_of(profile, 0, 0), "[unknown]");
	assert_text(function_of(profile, 1, 0), "[lost]");
	assert_int_equal(profile->functions_len, 2);
	assert_int_equal(profile->locations[0].mapping, PROFILE_NONE);
	profile_free(profile);
}

/* More places than a table has at first, and a stack as deep as any. */
static void test_many(void **state)
{
	uintptr_t pcs[200];
	struct symbols *symbols;
	struct pprof *pprof = open_pprof(&symbols);
	struct profile *profile;

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		const int64_t values[] = { i, 1 };

		for (size_t j = 0; j < COUNT(pcs); j++)
			pcs[j] = 0x10000 + i * 64U + j;
		pprof_add(
			pprof, &(struct pprof_stack){ pcs, COUNT(pcs), true }, values, NULL, 0);
	}
	profile = finish(pprof);
	assert_int_equal(profile->samples_len, 3000);
	assert_int_equal(profile->samples[2999].values[0], 2999);
	assert_int_equal(profile->samples[2999].locations_len, COUNT(pcs));
	assert_int_equal(profile->functions_len, 1);
	profile_free(profile);
}

static void test_no_room(void **state)
{
	struct symbols *symbols;
	struct pprof *pprof = open_pprof(&symbols);
	struct err err = { 0 };
	struct buf out;

	(void)state;
	assert_int_equal(arena_buf(&arena, 16, &out), 0);
	assert_int_equal(pprof_finish(pprof, &out, &err), -1);
	assert_int_equal(err.kind, ERR_NOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_head, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_frames, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_without_an_exact_leaf, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown_and_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_room, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
