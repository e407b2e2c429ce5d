#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "gateway/access.h"
#include "gateway/memfile.h"
#include "gateway/switch.h"
#include "gateway/wish.h"

#define MINUTE UINT64_C(60000)

static void test_window(void **state)
{
	static const struct {
		const char *name;
		uint64_t first_ttl, later_at, later_ttl, max_ttl, until;
		bool moved;
	} rows[] = {
		{ "prolonged", 10 * MINUTE, 5 * MINUTE, 10 * MINUTE, 60 * MINUTE, 15 * MINUTE,
			true },
		{ "shorter: the end stays", 10 * MINUTE, 5 * MINUTE, MINUTE, 60 * MINUTE,
			10 * MINUTE, false },
		{ "never past max_ttl from the first opening", 10 * MINUTE, 5 * MINUTE,
			10 * MINUTE, 12 * MINUTE, 12 * MINUTE, true },
		{ "at max_ttl nothing moves", 12 * MINUTE, 11 * MINUTE, 12 * MINUTE,
			12 * MINUTE, 12 * MINUTE, false },
		{ "an end that passed begins anew", 10 * MINUTE, 10 * MINUTE, 10 * MINUTE,
			12 * MINUTE, 20 * MINUTE, true },
		{ "no limit", 10 * MINUTE, 5 * MINUTE, 0, 12 * MINUTE, SWITCH_NO_LIMIT, true },
		{ "no limit stays", 0, 5 * MINUTE, MINUTE, 12 * MINUTE, SWITCH_NO_LIMIT,
			false },
	};

	const uint64_t start = 1000;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct access_window window = { 0 };
		uint64_t until = rows[i].until;

		print_message("  %s\n", rows[i].name);
		assert_true(access_open(&window, start, rows[i].first_ttl, rows[i].max_ttl));
		assert_int_equal(access_open(&window, start + rows[i].later_at,
					 rows[i].later_ttl, rows[i].max_ttl),
			rows[i].moved);
		if (until != SWITCH_NO_LIMIT)
			until += start;
		assert_true(window.until_ms == until);
		access_close(&window);
		assert_true(window.until_ms == 0 && window.opened_ms == 0);
	}
}

static void test_window_edges(void **state)
{
	struct access_window window = { 0 };

	(void)state;
	assert_true(access_open(&window, 1000, UINT64_MAX - 1, UINT64_MAX));
	assert_true(window.until_ms == SWITCH_NO_LIMIT - 1); /* no wrap, and not "no limit" */
	access_cap(&window, 500);
	assert_true(window.until_ms == 1500);
	access_cap(&window, 900); /* allows more again: does not prolong */
	assert_true(window.until_ms == 1500);
}

static void test_wish(void **state)
{
	static const struct {
		const char *text;
		bool ok, is_open;
		uint64_t ttl_ms;
		const char *reason;
	} rows[] = {
		{ "{\"state\":\"open\"}", true, true, 0, "" },
		{ "{\"state\":\"closed\"}", true, false, 0, "" },
		{ "{\"state\":\"closed\",\"reason\":\"done\"}", true, false, 0, "done" },
		{ "{\"state\":\"open\",\"ttl\":\"15m\",\"reason\":\"INC-1\"}", true, true,
			15 * MINUTE, "INC-1" },
		{ "{\"state\":\"open\",\"ttl\":\"500ms\"}", true, true, 500, "" },
		{ "{\"state\":\"open\",\"ttl\":\"4h\",\"reason\":\" \\t\"}", true, true,
			240 * MINUTE, "" },
		{ "", false, false, 0, "" },
		{ "{", false, false, 0, "" },
		{ "[]", false, false, 0, "" },
		{ "\"open\"", false, false, 0, "" },
		{ "{}", false, false, 0, "" },
		{ "{\"state\":\"open\"} x", false, false, 0, "" },
		{ "{\"state\":\"Open\"}", false, false, 0, "" },
		{ "{\"state\":true}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"state\":\"closed\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"tll\":\"15m\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":15}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"0s\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"-5m\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"15\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"15 m\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"1.5h\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"m\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"ttl\":\"99999999999999999999s\"}", false, false, 0,
			"" },
		{ "{\"state\":\"closed\",\"ttl\":\"15m\"}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"reason\":null}", false, false, 0, "" },
		{ "{\"state\":\"open\",\"reason\":\"a\\u0000b\"}", false, false, 0, "" },
	};

	char long_body[AUDIT_TEXT_MAX + 64];
	struct buf out;
	struct wish wish;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		print_message("  %s\n", rows[i].text);
		if (!rows[i].ok) {
			assert_non_null(wish_parse(sv_from_cstr(rows[i].text), &wish));
			continue;
		}
		assert_null(wish_parse(sv_from_cstr(rows[i].text), &wish));
		assert_int_equal(wish.is_open, rows[i].is_open);
		assert_int_equal(wish.has_ttl, rows[i].ttl_ms != 0);
		assert_true(wish.ttl_ms == rows[i].ttl_ms);
		assert_string_equal(wish.reason, rows[i].reason);
	}
	buf_init_fixed(&out, long_body, sizeof(long_body));
	buf_add_cstr(&out, "{\"state\":\"open\",\"reason\":\"");
	while (out.len < AUDIT_TEXT_MAX + 30)
		buf_add_byte(&out, 'x');
	buf_add_cstr(&out, "\"}");
	assert_false(out.failed);
	assert_non_null(wish_parse(buf_sv(&out), &wish));
}

static void test_wish_for_rates(void **state)
{
	static const struct {
		const char *text, *out; /* NULL: refused */
	} rows[] = {
		{ "{\"heap\":\"512KiB\",\"mutex\":1,\"block\":\"1us\"}",
			"{\"heap\":524288,\"mutex\":1,\"block\":1000}" },
		{ "{\"block\":\"2ms\",\"heap\":\"1MiB\"}",
			"{\"heap\":1048576,\"block\":2000000}" },
		{ "{\"heap\":0}", "{\"heap\":0}" },
		{ "{\"heap\":\"0B\",\"block\":\"0ns\"}", "{\"heap\":0,\"block\":0}" },
		{ "{\"heap\":65536}", "{\"heap\":65536}" },
		{ "{\"mutex\":100}", "{\"mutex\":100}" },
		{ "{\"heap\":65535}", NULL },
		{ "{\"heap\":\"63KiB\"}", NULL },
		{ "{\"heap\":-1}", NULL },
		{ "{\"heap\":65536.0}", NULL },
		{ "{\"heap\":null}", NULL },
		{ "{\"heap\":true}", NULL },
		{ "{\"heap\":\"\"}", NULL },
		{ "{\"heap\":\"512\"}", NULL },
		{ "{\"heap\":\"512KB\"}", NULL },
		{ "{\"heap\":\"4294967295GiB\"}", NULL },
		{ "{\"heap\":9223372036854775807}", NULL },
		{ "{\"mutex\":\"1\"}", NULL },
		{ "{\"mutex\":-1}", NULL },
		{ "{\"block\":999}", NULL },
		{ "{\"block\":\"999ns\"}", NULL },
		{ "{\"block\":\"1m\"}", NULL },
		{ "{\"heap\":65536,\"heap\":65536}", NULL },
		{ "{\"heap\":65536,\"cpu\":1}", NULL },
		{ "{}", NULL },
		{ "[]", NULL },
		{ "1", NULL },
		{ "", NULL },
		{ "{\"heap\":65536", NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char mem[256];
		struct buf out;
		const char *wrong;

		buf_init_fixed(&out, mem, sizeof(mem));
		wrong = wish_rates(sv_from_cstr(rows[i].text), &out);
		print_message("  %s\n", rows[i].text);
		assert_int_equal(wrong == NULL, rows[i].out != NULL);
		if (rows[i].out)
			assert_true(sv_is(buf_sv(&out), sv_from_cstr(rows[i].out)));
	}
}

static void test_memfile(void **state)
{
	struct sv bytes;
	struct err err;
	int fd = memfile_create("x", SV("some bytes"), &err), plain;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "y", 1), -1);
	assert_int_equal(ftruncate(fd, 1), -1);
	assert_int_equal(memfile_map(fd, &bytes, &err), 0);
	assert_true(sv_is(bytes, SV("some bytes")));
	(void)close(fd);
	plain = open("/dev/null", O_RDWR);
	assert_int_equal(memfile_map(plain, &bytes, &err), -1);
	(void)close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_window_edges),
		cmocka_unit_test(test_wish),
		cmocka_unit_test(test_wish_for_rates),
		cmocka_unit_test(test_memfile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
