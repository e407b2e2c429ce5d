/* test_profile.c - reading pprof files, and what they are counted to. */
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <zlib.h>

#include "base/buf.h"
#include "profile/top.h"
#include "profile/units.h"

/* ---- writing the protocol buffer by hand: one message into another */

static void put_varint(struct buf *out, uint64_t n)
{
	for (; n >= 0x80; n >>= 7)
		buf_add_byte(out, (char)(n | 0x80));
	buf_add_byte(out, (char)n);
}

static void put_number(struct buf *out, unsigned field, uint64_t n)
{
	put_varint(out, field << 3);
	put_varint(out, n);
}

static void put_bytes(struct buf *out, unsigned field, struct sv bytes)
{
	put_varint(out, field << 3 | 2);
	put_varint(out, bytes.len);
	buf_add_sv(out, bytes);
}

struct pair {
	unsigned field;
	uint64_t n;
};

static void put_message(struct buf *out, unsigned field, const struct pair *pairs, size_t len)
{
	char mem[256];
	struct buf message;

	buf_init_fixed(&message, mem, sizeof(mem));
	for (size_t i = 0; i < len; i++)
		put_number(&message, pairs[i].field, pairs[i].n);
	put_bytes(out, field, buf_sv(&message));
}

#define PUT(out, field, ...)                                          \
	put_message(out, field, (const struct pair[]){ __VA_ARGS__ }, \
		COUNT(((const struct pair[]){ __VA_ARGS__ })))

enum {
	SAMPLE_TYPE = 1,
	SAMPLE,
	MAPPING,
	LOCATION,
	FUNCTION,
	STRING,
	DEFAULT_TYPE = 14,
};

/* A line: Location.line is field 4, a message in a message. */
static void put_location(struct buf *out, uint64_t id, const uint64_t *functions, size_t len)
{
	char mem[256];
	struct buf message;

	buf_init_fixed(&message, mem, sizeof(mem));
	put_number(&message, 1, id);
	put_number(&message, 2, 1);
	for (size_t i = 0; i < len; i++)
		PUT(&message, 4, { 1, functions[i] });
	put_bytes(out, LOCATION, buf_sv(&message));
}

/*
 * Types samples/count and cpu/nanoseconds. main calls work, into which hot is inlined; work calls
 * itself; a frame without a name lies in /lib/libx.so.
 */
static void put_profile(struct buf *out)
{
	static const char *const texts[] = { "", "samples", "count", "cpu", "nanoseconds",
		"main", "work", "hot", "/lib/libx.so" };

	PUT(out, SAMPLE_TYPE, { 1, 1 }, { 2, 2 });
	PUT(out, SAMPLE_TYPE, { 1, 3 }, { 2, 4 });
	PUT(out, MAPPING, { 1, 1 }, { 5, 8 });
	PUT(out, FUNCTION, { 1, 10 }, { 2, 5 });
	PUT(out, FUNCTION, { 1, 20 }, { 2, 6 });
	PUT(out, FUNCTION, { 1, 30 }, { 2, 7 });
	put_location(out, 100, (const uint64_t[]){ 10 }, 1);
	put_location(out, 200, (const uint64_t[]){ 30, 20 }, 2);
	put_location(out, 300, (const uint64_t[]){ 20 }, 1);
	put_location(out, 400, NULL, 0);
	PUT(out, SAMPLE, { 1, 200 }, { 1, 300 }, { 1, 100 }, { 2, 3 }, { 2, 30000000 });
	PUT(out, SAMPLE, { 1, 300 }, { 1, 300 }, { 1, 100 }, { 2, 1 }, { 2, 10000000 });
	PUT(out, SAMPLE, { 1, 400 }, { 1, 100 }, { 2, 6 }, { 2, 60000000 });
	for (size_t i = 0; i < COUNT(texts); i++)
		put_bytes(out, STRING, sv_from_cstr(texts[i]));
}

static struct profile *parse(const struct buf *bytes)
{
	struct profile *profile = NULL;
	struct err err = { 0 };

	if (profile_parse(buf_sv(bytes), &profile, &err))
		fail_msg("%s", err.text);
	return profile;
}

static void gzip(const struct buf *in, struct buf *out)
{
	z_stream stream = { 0 };
	char *to = buf_reserve(out, in->len + 1024);

	assert_non_null(to);
	assert_int_equal(
		deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
	stream.next_in = (Bytef *)in->ptr;
	stream.avail_in = (uInt)in->len;
	stream.next_out = (Bytef *)to;
	stream.avail_out = (uInt)in->len + 1024;
	assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
	buf_commit(out, stream.total_out);
	(void)deflateEnd(&stream);
}

/* ---- tests */

static void test_tables(void **state)
{
	struct buf bytes;
	struct profile *profile;

	(void)state;
	buf_init(&bytes, 4096);
	put_profile(&bytes);
	profile = parse(&bytes);
	assert_int_equal(profile->types_len, 2);
	assert_true(sv_is(profile->types[1].unit, SV("nanoseconds")));
	assert_int_equal(profile->default_type, 1);
	assert_int_equal(profile->samples_len, 3);
	assert_int_equal(profile->samples[0].locations_len, 3);
	assert_int_equal(profile->samples[0].locations[0], 1);
	assert_int_equal(profile->samples[2].values[1], 60000000);
	assert_int_equal(profile->locations[1].lines_len, 2);
	assert_true(sv_is(
		profile->functions[profile->locations[1].lines[0].function].name, SV("hot")));
	assert_true(sv_is(profile->mappings[0].file, SV("/lib/libx.so")));
	profile_free(profile);
	buf_free(&bytes);
}

static void test_top(void **state)
{
	static const struct {
		const char *name;
		int64_t flat, cum;
		enum top_inline inlined;
	} rows[] = {
		{ "libx.so", 60000000, 60000000, TOP_NOT_INLINED },
		{ "hot", 30000000, 30000000, TOP_INLINED },
		{ "work", 10000000, 40000000, TOP_NOT_INLINED },
		{ "main", 0, 100000000, TOP_NOT_INLINED },
	};
	struct buf bytes;
	struct profile *profile;
	struct err err;
	struct top *top;

	(void)state;
	buf_init(&bytes, 4096);
	put_profile(&bytes);
	profile = parse(&bytes);
	assert_int_equal(top_new(profile, 1, 0, &top, &err), 0);
	assert_int_equal(top->total, 100000000);
	assert_int_equal(top->rows_len, COUNT(rows));
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_true(sv_is(top->rows[i].name, sv_from_cstr(rows[i].name)));
		assert_int_equal(top->rows[i].flat, rows[i].flat);
		assert_int_equal(top->rows[i].cum, rows[i].cum);
		assert_int_equal(top->rows[i].inlined, rows[i].inlined);
	}
	assert_true(top->rows[0].is_mapping);
	assert_true(sv_is(top->unit_shown, SV("ms")));
	top_free(top);
	assert_int_equal(top_new(profile, 1, 2, &top, &err), 0);
	assert_int_equal(top->rows_len, 2);
	assert_int_equal(top->kept, 4);
	assert_int_equal(top->shown, 90000000);
	top_free(top);
	profile_free(profile);
	buf_free(&bytes);
}

static void test_gzip(void **state)
{
	struct buf bytes, packed;
	struct profile *profile;
	struct err err;

	(void)state;
	buf_init(&bytes, 4096);
	buf_init(&packed, 16384);
	put_profile(&bytes);
	gzip(&bytes, &packed);
	profile = parse(&packed);
	assert_int_equal(profile->samples_len, 3);
	profile_free(profile);
	for (size_t len = 0; len < packed.len; len++) {
		struct sv cut = { packed.ptr, len };

		assert_int_equal(profile_parse(cut, &profile, &err), -1);
	}
	buf_free(&packed);
	buf_free(&bytes);
}

struct bad {
	const char *name, *said;
	void (*put)(struct buf *out);
};

static void put_texts(struct buf *out)
{
	put_bytes(out, STRING, SV(""));
	put_bytes(out, STRING, SV("samples"));
}

static void put_no_types(struct buf *out)
{
	put_texts(out);
}

static void put_type(struct buf *out)
{
	put_texts(out);
	PUT(out, SAMPLE_TYPE, { 1, 1 }, { 2, 1 });
}

static void put_bad_text(struct buf *out)
{
	put_texts(out);
	PUT(out, SAMPLE_TYPE, { 1, 2 }, { 2, 1 });
}

static void put_negative_text(struct buf *out)
{
	put_texts(out);
	PUT(out, SAMPLE_TYPE, { 1, UINT64_MAX }, { 2, 1 });
}

static void put_no_empty_text(struct buf *out)
{
	put_bytes(out, STRING, SV("samples"));
}

static void put_value_missing(struct buf *out)
{
	put_type(out);
	PUT(out, SAMPLE, { 9, 0 }); /* an unknown field, no value */
}

static void put_value_too_many(struct buf *out)
{
	put_type(out);
	PUT(out, SAMPLE, { 2, 1 }, { 2, 1 });
}

static void put_no_location(struct buf *out)
{
	put_type(out);
	PUT(out, SAMPLE, { 1, 7 }, { 2, 1 });
}

static void put_function_zero(struct buf *out)
{
	put_type(out);
	PUT(out, FUNCTION, { 2, 1 });
}

static void put_function_twice(struct buf *out)
{
	put_type(out);
	PUT(out, FUNCTION, { 1, 5 }, { 2, 1 });
	PUT(out, FUNCTION, { 1, 5 }, { 2, 1 });
}

static void put_no_function(struct buf *out)
{
	put_type(out);
	PUT(out, MAPPING, { 1, 1 });
	put_location(out, 1, (const uint64_t[]){ 9 }, 1);
}

static void put_no_mapping(struct buf *out)
{
	put_type(out);
	put_location(out, 1, NULL, 0);
}

static void put_html(struct buf *out)
{
	buf_add_cstr(out, "<!doctype html>");
}

static void put_nothing(struct buf *out)
{
	(void)out;
}

static void test_bad(void **state)
{
	static const struct bad table[] = {
		{ "nothing", "it is empty", put_nothing },
		{ "a web page", "neither gzip nor", put_html },
		{ "no type", "no sample type", put_no_types },
		{ "text out of range", "text number 2 of 2", put_bad_text },
		{ "text below zero", "text number -1", put_negative_text },
		{ "first text not empty", "first text", put_no_empty_text },
		{ "a value missing", "sample 1 has", put_value_missing },
		{ "a value too many", "sample 1 has 2 values", put_value_too_many },
		{ "unknown location", "no location has id 7", put_no_location },
		{ "function without id", "a function without an id", put_function_zero },
		{ "function id twice", "two functions with id 5", put_function_twice },
		{ "unknown function", "no function has id 9", put_no_function },
		{ "unknown mapping", "no mapping has id 1", put_no_mapping },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct profile *profile = NULL;
		struct err err = { 0 };
		struct buf bytes;

		buf_init(&bytes, 4096);
		table[i].put(&bytes);
		if (profile_parse(buf_sv(&bytes), &profile, &err) == 0)
			fail_msg("%s: accepted", table[i].name);
		if (!strstr(err.text, table[i].said))
			fail_msg("%s: said '%s'", table[i].name, err.text);
		buf_free(&bytes);
	}
}

static void test_find_type(void **state)
{
	static const struct {
		const char *name;
		int rc;
		size_t index;
	} table[] = {
		{ "", 0, 1 },
		{ "samples", 0, 0 },
		{ "cpu", 0, 1 },
		{ "0", 0, 0 },
		{ "inuse_cpu", 0, 1 },
		{ "2", -1, 0 },
		{ "-1", -1, 0 },
		{ "nope", -1, 0 },
	};
	struct buf bytes;
	struct profile *profile;

	(void)state;
	buf_init(&bytes, 4096);
	put_profile(&bytes);
	put_number(&bytes, DEFAULT_TYPE, 0);
	profile = parse(&bytes);
	for (size_t i = 0; i < COUNT(table); i++) {
		struct err err;
		size_t index = 99;
		int rc = profile_find_type(profile, sv_from_cstr(table[i].name), &index, &err);

		if (rc != table[i].rc || (rc == 0 && index != table[i].index))
			fail_msg("'%s': %d, %zu", table[i].name, rc, index);
	}
	profile_free(profile);
	buf_free(&bytes);
}

static void test_units(void **state)
{
	static const struct {
		int64_t value;
		const char *unit, *shown, *text;
	} table[] = {
		{ 1530000000, "nanoseconds", "s", "1.53s" },
		{ 30000000, "nanoseconds", "s", "0.03s" },
		{ 10000000, "nanoseconds", "ms", "10ms" },
		{ 0, "nanoseconds", "s", "0" },
		{ -524288, "bytes", "kB", "-512kB" },
		{ 3670016, "bytes", "auto", "3.50MB" },
		{ 5, "microseconds", "auto", "5us" },
		{ 7200, "seconds", "auto", "2hrs" },
		{ 42, "count", "count", "42" },
		{ 42, "widgets", "widgets", "42widgets" },
		{ INT64_MIN, "bytes", "auto", "-8192PB" },
	};

	static const struct {
		int64_t value, total;
		const char *text;
	} percents[] = {
		{ 1, 1, "  100%" },
		{ 1, 3, "33.33%" },
		{ -1, 3, "33.33%" },
		{ 1, 1000, "  0.1%" },
		{ 0, 5, "    0%" },
		{ 5, 0, "    0%" },
		{ 9996, 10000, "  100%" },
		{ 7, 1000, "  0.7%" },
		{ 1, 3000, "0.033%" },
	};

	char text[UNITS_TEXT_SIZE];

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		units_format(table[i].value, sv_from_cstr(table[i].unit),
			sv_from_cstr(table[i].shown), text);
		assert_string_equal(text, table[i].text);
	}
	for (size_t i = 0; i < COUNT(percents); i++) {
		units_percent(percents[i].value, percents[i].total, text);
		assert_string_equal(text, percents[i].text);
	}
	assert_true(sv_is(units_choose(10000000, 20000000000, SV("nanoseconds")), SV("s")));
	assert_true(sv_is(units_choose(10000000, 900000000, SV("nanoseconds")), SV("ms")));
	assert_true(sv_is(units_choose(1, 5, SV("count")), SV("count")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_top),
		cmocka_unit_test(test_gzip),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_find_type),
		cmocka_unit_test(test_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
