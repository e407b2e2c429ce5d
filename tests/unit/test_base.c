#include "unit.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/err.h"
#include "base/json.h"
#include "base/sv.h"

static void test_cut_and_trim(void **state)
{
	struct sv rest = SV("a=1;b"), head = sv_cut(&rest, ';');

	(void)state;
	assert_true(sv_is(head, SV("a=1")));
	assert_true(sv_is(rest, SV("b")));
	head = sv_cut(&rest, ';');
	assert_true(sv_is(head, SV("b")));
	assert_int_equal(rest.len, 0);
	assert_true(sv_is(sv_trim(SV(" \t x y\t ")), SV("x y")));
	assert_true(sv_is(sv_trim(SV("  ")), SV("")));
	assert_true(sv_is_nocase(SV("HOST"), SV("host")));
	assert_false(sv_is_nocase(SV("[ost"), SV("{ost")));
}

static void test_numbers_have_one_spelling(void **state)
{
	static const struct {
		struct sv text;
		uint64_t max;
		bool ok;
	} rows[] = {
		{ SV_INIT("0"), 9, true },
		{ SV_INIT("00"), 9, false },
		{ SV_INIT("01"), 9, false },
		{ SV_INIT("10"), 9, false },
		{ SV_INIT("+1"), 9, false },
		{ SV_INIT(" 1"), 9, false },
		{ SV_INIT(""), 9, false },
		{ SV_INIT("18446744073709551615"), UINT64_MAX, true },
		{ SV_INIT("18446744073709551616"), UINT64_MAX, false },
		{ SV_INIT("99999999999999999999999"), UINT64_MAX, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		uint64_t n;

		print_message("  '" SV_FMT "'\n", SV_ARG(rows[i].text));
		assert_int_equal(sv_to_u64(rows[i].text, rows[i].max, &n), rows[i].ok);
	}
}

static void test_cstr_refuses_nul(void **state)
{
	char buf[4];

	(void)state;
	assert_true(sv_to_cstr(SV("abc"), buf, sizeof(buf)));
	assert_string_equal(buf, "abc");
	assert_false(sv_to_cstr(SV("abcd"), buf, sizeof(buf)));
	assert_false(sv_to_cstr(SV("a\0b"), buf, sizeof(buf)));
}

static void test_buf_stops_at_its_maximum(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 5);
	buf_add_cstr(&buf, "abc");
	buf_add_cstr(&buf, "def");
	assert_true(buf.failed);
	buf_add_byte(&buf, 'x'); /* would fit, but the text has a hole by now */
	assert_true(sv_is(buf_sv(&buf), SV("abc")));
	buf_clear(&buf);
	buf_add_u64(&buf, 40);
	buf_printf(&buf, "%d", 7);
	assert_true(sv_is(buf_sv(&buf), SV("407")));
	buf_drop(&buf, 1);
	assert_true(sv_is(buf_sv(&buf), SV("07")));
	assert_false(buf.failed);
	buf_free(&buf);
}

static void test_fixed_buf_never_allocates(void **state)
{
	char mem[4];
	struct buf buf;

	(void)state;
	buf_init_fixed(&buf, mem, sizeof(mem));
	buf_add_cstr(&buf, "abcd");
	assert_false(buf.failed);
	assert_ptr_equal(buf.ptr, mem);
	buf_add_byte(&buf, 'e');
	assert_true(buf.failed);
	buf_free(&buf);
}

static void test_errors_gather_context(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(err_set(&err, ERR_INPUT, "'%s' is odd", "x"), -1);
	err_wrap(&err, "line %d", 3);
	assert_string_equal(err.text, "line 3: 'x' is odd");
	assert_int_equal(err.kind, ERR_INPUT);
	errno = ENOENT;
	err_sys(&err, "/nowhere");
	assert_string_equal(err.text, "/nowhere: No such file or directory");
	assert_int_equal(errno, ENOENT);
}

static void test_base64url_is_canonical(void **state)
{
	static const struct {
		struct sv text;
		struct sv bytes;
		bool ok;
	} rows[] = {
		{ SV_INIT(""), SV_INIT(""), true },
		{ SV_INIT("Zg"), SV_INIT("f"), true },
		{ SV_INIT("Zm8"), SV_INIT("fo"), true },
		{ SV_INIT("Zm9v"), SV_INIT("foo"), true },
		{ SV_INIT("-_8"), SV_INIT("\xfb\xff"), true },
		{ SV_INIT("Zh"), SV_INIT(""), false },   /* unused bits set */
		{ SV_INIT("Zg=="), SV_INIT(""), false }, /* padding */
		{ SV_INIT("Z"), SV_INIT(""), false },
		{ SV_INIT("+/8"), SV_INIT(""), false },
		{ SV_INIT("Zm 9v"), SV_INIT(""), false },
		{ SV_INIT("Zm9v\n"), SV_INIT(""), false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct buf out, back;

		print_message("  '" SV_FMT "'\n", SV_ARG(rows[i].text));
		buf_init(&out, 64);
		buf_init(&back, 64);
		assert_int_equal(base64url_decode(rows[i].text, &out), rows[i].ok);
		if (rows[i].ok) {
			assert_true(sv_is(buf_sv(&out), rows[i].bytes));
			base64url_encode(&back, out.ptr, out.len);
			assert_true(sv_is(buf_sv(&back), rows[i].text));
		}
		buf_free(&out);
		buf_free(&back);
	}
}

static void test_hex(void **state)
{
	unsigned char bytes[2];
	char text[5];

	(void)state;
	hex_encode("\x0f\xa0", 2, text);
	assert_string_equal(text, "0fa0");
	assert_true(hex_decode(SV("0fa0"), bytes, 2));
	assert_memory_equal(bytes, "\x0f\xa0", 2);
	assert_false(hex_decode(SV("0FA0"), bytes, 2));
	assert_false(hex_decode(SV("0fa"), bytes, 2));
	assert_false(hex_decode(SV("0fa0a"), bytes, 2));
}

static void test_json_never_breaks_its_line(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 1024);
	json_object_begin(&out);
	json_member_string(&out, "s", SV("a\"\\\n\x7f\xff\xc3\xa9\0z"));
	json_member_u64(&out, "n", 7);
	json_key(&out, "list");
	json_array_begin(&out);
	json_bool(&out, true);
	json_object_begin(&out);
	json_object_end(&out);
	json_array_end(&out);
	json_object_end(&out);
	assert_true(sv_is(
		buf_sv(&out), SV("{\"s\":\"a\\\"\\\\\\u000a\\u007f\\u00ff\xc3\xa9\\u0000z\","
				 "\"n\":7,\"list\":[true,{}]}")));
	buf_free(&out);
}

static void test_json_rejects_bad_utf8(void **state)
{
	static const struct {
		struct sv in, want;
	} rows[] = {
		{ SV_INIT("\xc0\xaf"), SV_INIT("\"\\u00c0\\u00af\"") }, /* overlong */
		{ SV_INIT("\xed\xa0\x80"),
			SV_INIT("\"\\u00ed\\u00a0\\u0080\"") }, /* surrogate */
		{ SV_INIT("\xf4\x90\x80\x80"), SV_INIT("\"\\u00f4\\u0090\\u0080\\u0080\"") },
		{ SV_INIT("\xe2\x82"), SV_INIT("\"\\u00e2\\u0082\"") }, /* cut short */
		{ SV_INIT("\xf0\x9f\x98\x80"), SV_INIT("\"\xf0\x9f\x98\x80\"") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct buf out;

		buf_init(&out, 128);
		json_text(&out, rows[i].in);
		assert_true(sv_is(buf_sv(&out), rows[i].want));
		buf_free(&out);
	}
}

static void test_rfc3339(void **state)
{
	char text[CLOCK_RFC3339_SIZE];

	(void)state;
	clock_rfc3339(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000000Z");
	clock_rfc3339(INT64_C(1795521806123456), text);
	assert_string_equal(text, "2026-11-24T12:03:26.123456Z");
	clock_rfc3339(INT64_MAX, text);
	assert_string_equal(text, "9999-12-31T23:59:59.999999Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_and_trim),
		cmocka_unit_test(test_numbers_have_one_spelling),
		cmocka_unit_test(test_cstr_refuses_nul),
		cmocka_unit_test(test_buf_stops_at_its_maximum),
		cmocka_unit_test(test_fixed_buf_never_allocates),
		cmocka_unit_test(test_errors_gather_context),
		cmocka_unit_test(test_base64url_is_canonical),
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_json_never_breaks_its_line),
		cmocka_unit_test(test_json_rejects_bad_utf8),
		cmocka_unit_test(test_rfc3339),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
