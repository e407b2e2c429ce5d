/*
 * test_regions.c - labels, regions and log lines of the program, and how they come out as metrics.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "sampler/collect/regions.h"
#include "sampler/postern.h"
#include "sampler/store/labels.h"
#include "sampler/store/log.h"
#include "sampler/store/ring.h"
#include "sampler/store/self.h"
#include "sampler/write/metrics.h"

static struct sv label_of(struct sv key)
{
	uint32_t wanted = labels_text_sigsafe(key);
	struct label_pair pairs[LABELS_SET_MAX];
	size_t len = labels_of(self.labels, pairs);

	for (size_t i = 0; i < len; i++) {
		if (pairs[i].key == wanted)
			return labels_text_of(pairs[i].value);
	}
	return SV("");
}

static bool find(struct sv name, struct region_histogram *out)
{
	size_t at = 0;

	while (regions_next(&at, out)) {
		if (sv_is(out->name, name))
			return true;
	}
	return false;
}

static void labels_come_and_go(void **state)
{
	(void)state;
	errno = 77;
	postern_label("route", "/a");
	assert_true(sv_is(label_of(SV("route")), SV("/a")));
	postern_label("route", "/b");
	assert_true(sv_is(label_of(SV("route")), SV("/b")));
	postern_label("route", NULL);
	postern_label(NULL, "x");
	assert_int_equal(self.labels, 0);
	assert_int_equal(errno, 77);
}

static void regions_nest(void **state)
{
	struct postern_region outer = postern_region_begin("outer"), inner;

	(void)state;
	postern_label("user", "me");
	inner = postern_region_begin("inner");
	assert_true(sv_is(label_of(SV("region")), SV("inner")));
	postern_region_end(&inner);
	assert_true(sv_is(label_of(SV("region")), SV("outer")));
	assert_true(sv_is(label_of(SV("user")), SV("me")));
	postern_region_end(&outer);
	assert_true(sv_is(label_of(SV("region")), SV("")));
	postern_label("user", NULL);
	assert_int_equal(self.labels, 0);
}

static void *end_elsewhere(void *region)
{
	postern_region_end(region);
	return NULL;
}

static void a_region_may_end_in_another_thread(void **state)
{
	struct postern_region region = postern_region_begin("travels");
	struct region_histogram histogram;
	uint64_t count = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, end_elsewhere, &region), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(find(SV("travels"), &histogram));
	for (size_t i = 0; i < REGION_BUCKETS; i++)
		count += histogram.counts[i];
	assert_int_equal(count, 1);
	self.labels = self.region = 0;
}

/* A duration falls into the first bucket whose bound it does not exceed: what it was, the sum tells. */
static void durations_fall_into_buckets(void **state)
{
	static const uint64_t ms[] = { 0, 4, 9, 40, 90, 20000 };
	struct region_histogram before = { .sum_ns = 0 }, after;

	(void)state;
	for (size_t i = 0; i < sizeof(ms) / sizeof(ms[0]); i++) {
		struct postern_region region = postern_region_begin("timed");
		uint64_t lasted;
		size_t bucket = 0;

		region.begin_ns -= ms[i] * 1000000;
		postern_region_end(&region);
		assert_true(find(SV("timed"), &after));
		lasted = after.sum_ns - before.sum_ns;
		assert_in_range(lasted, ms[i] * 1000000, (ms[i] + 60000) * 1000000);
		while (bucket < REGION_BUCKETS - 1 && lasted > region_bounds_ns[bucket])
			bucket++;
		assert_int_equal(after.counts[bucket], before.counts[bucket] + 1);
		before = after;
	}
	assert_int_equal(before.counts[REGION_BUCKETS - 1], 1);
}

static void the_guides_bounds_are_there(void **state)
{
	static const uint64_t wanted_ms[] = { 5, 10, 50, 100 };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		bool found = false;

		for (size_t k = 0; k < REGION_BUCKETS - 1; k++)
			found |= region_bounds_ns[k] == wanted_ms[i] * 1000000;
		assert_true(found);
	}
}

static void too_many_names_are_counted_as_lost(void **state)
{
	(void)state;
	assert_int_equal(regions_lost(), 0);
	for (unsigned i = 0; i < 5000; i++) {
		char name[] = { 'r', (char)('a' + i % 26), (char)('a' + i / 26 % 26),
			(char)('a' + i / 676), '\0' };
		struct postern_region region = postern_region_begin(name);

		postern_region_end(&region);
	}
	assert_true(regions_lost() > 0);
}

static void records_tell_of_regions_and_lines(void **state)
{
	char text[LOG_TEXT_MAX];
	struct record record;
	struct postern_region region;
	size_t len;

	(void)state;
	assert_int_equal(ring_open(), 0);
	while (ring_take(&record))
		continue;
	postern_log("nobody", "listens");
	assert_false(ring_take(&record));
	ring_want(RECORD_REGION_BEGIN, true);
	ring_want(RECORD_REGION_END, true);
	ring_want(RECORD_LOG, true);
	region = postern_region_begin("traced");
	postern_log("key", "a line");
	postern_region_end(&region);
	assert_true(ring_take(&record));
	assert_int_equal(record.kind, RECORD_REGION_BEGIN);
	assert_true(sv_is(labels_text_of((uint32_t)record.value), SV("traced")));
	assert_true(ring_take(&record));
	assert_int_equal(record.kind, RECORD_LOG);
	assert_true(log_get(record.value, text, &len));
	assert_true(sv_is((struct sv){ text, len }, SV("a line")));
	assert_true(ring_take(&record));
	assert_int_equal(record.kind, RECORD_REGION_END);
	for (unsigned i = 0; i < 3000; i++)
		(void)log_put_sigsafe(SV("newer"));
	assert_false(log_get(1, text, &len));
	ring_want(RECORD_REGION_BEGIN, false);
	ring_want(RECORD_REGION_END, false);
	ring_want(RECORD_LOG, false);
}

static void numbers_as_prometheus_has_them(void **state)
{
	char mem[512];
	struct buf out, labels;
	char labels_mem[64];

	(void)state;
	buf_init_fixed(&out, mem, sizeof(mem));
	buf_init_fixed(&labels, labels_mem, sizeof(labels_mem));
	metrics_label(&labels, "a", SV("x\"y\\z\nw"));
	metrics_label(&labels, "b", SV("2"));
	metrics_seconds(&out, "m", "_sum", buf_sv(&labels), 1500000001);
	metrics_bound(&out, 2500000);
	buf_add_byte(&out, ' ');
	metrics_bound(&out, UINT64_C(10000000000));
	assert_true(sv_is(buf_sv(&out),
		SV("m_sum{a=\"x\\\"y\\\\z\\nw\",b=\"2\"} 1.500000001\n0.0025 10")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(labels_come_and_go),
		cmocka_unit_test(regions_nest),
		cmocka_unit_test(a_region_may_end_in_another_thread),
		cmocka_unit_test(durations_fall_into_buckets),
		cmocka_unit_test(the_guides_bounds_are_there),
		cmocka_unit_test(too_many_names_are_counted_as_lost),
		cmocka_unit_test(records_tell_of_regions_and_lines),
		cmocka_unit_test(numbers_as_prometheus_has_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
