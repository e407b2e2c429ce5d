#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "http/body.h"
#include "http/head.h"
#include "http/query.h"

#define OK "HTTP/1.1 200 OK\r\n"

static const struct {
	const char *name;
	struct sv bytes;
	enum http_result want;
	enum http_framing framing;
	unsigned status;
} heads[] = {
	{ "length", SV_INIT(OK "Content-Length: 5\r\n\r\n"), HTTP_DONE, HTTP_LENGTH, 200 },
	{ "chunked", SV_INIT(OK "Transfer-Encoding: chunked\r\n\r\n"), HTTP_DONE, HTTP_CHUNKED,
		200 },
	{ "until close", SV_INIT("HTTP/1.0 200 OK\r\n\r\n"), HTTP_DONE, HTTP_UNTIL_CLOSE, 200 },
	{ "no content", SV_INIT("HTTP/1.1 204 No Content\r\n\r\n"), HTTP_DONE, HTTP_NO_BODY,
		204 },
	{ "no reason", SV_INIT("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), HTTP_DONE,
		HTTP_LENGTH, 200 },
	{ "interim", SV_INIT("HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 1\r\n\r\n"),
		HTTP_DONE, HTTP_LENGTH, 200 },
	{ "not whole", SV_INIT(OK "Content-Length: 5\r\n"), HTTP_MORE, 0, 0 },
	{ "interim alone", SV_INIT("HTTP/1.1 100 Continue\r\n\r\n"), HTTP_MORE, 0, 0 },
	{ "both framings",
		SV_INIT(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP_BAD,
		0, 0 },
	{ "two lengths", SV_INIT(OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), HTTP_BAD,
		0, 0 },
	{ "gzip coding", SV_INIT(OK "Transfer-Encoding: gzip\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "bad length", SV_INIT(OK "Content-Length: 5x\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "switching", SV_INIT("HTTP/1.1 101 Switching\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "status 999", SV_INIT("HTTP/1.1 999 X\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "status 2000", SV_INIT("HTTP/1.1 2000 X\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "chunked in HTTP/1.0",
		SV_INIT("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP_BAD, 0,
		0 },
	{ "nothing yet", SV_INIT(""), HTTP_MORE, 0, 0 },
	{ "a beginning", SV_INIT("HTT"), HTTP_MORE, 0, 0 },
	{ "can never be a status line", SV_INIT("SSH-2.0"), HTTP_BAD, 0, 0 },
	{ "garbage", SV_INIT("220 mail.example.com ESMTP\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "HTTP/2", SV_INIT("HTTP/2.0 200 OK\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "folded", SV_INIT(OK "A: b\r\n c\r\n\r\n"), HTTP_BAD, 0, 0 },
	{ "NUL", SV_INIT(OK "A: b\0c\r\n\r\n"), HTTP_BAD, 0, 0 },
};

static void test_heads(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(heads); i++) {
		struct http_response response;
		const char *detail;
		enum http_result result =
			http_response_parse(heads[i].bytes, 16384, false, &response, &detail);

		print_message("  %s\n", heads[i].name);
		assert_int_equal(result, heads[i].want);
		if (result == HTTP_DONE) {
			assert_int_equal(response.framing, heads[i].framing);
			assert_int_equal(response.status, heads[i].status);
			assert_int_equal(response.head_len, heads[i].bytes.len);
		}
	}
}

static void test_head_request_has_no_body(void **state)
{
	struct http_response response;
	const char *detail;

	(void)state;
	assert_int_equal(http_response_parse(SV(OK "Content-Length: 5\r\n\r\n"), 16384, true,
				 &response, &detail),
		HTTP_DONE);
	assert_int_equal(response.framing, HTTP_NO_BODY);
	assert_int_equal(response.content_length, 5);
	assert_true(sv_is(response.reason, SV("OK")));
}

static void test_too_large_a_head_is_bad(void **state)
{
	struct http_response response;
	const char *detail;

	(void)state;
	assert_int_equal(
		http_response_parse(SV(OK "A: bbbbbbbbbb"), 20, false, &response, &detail),
		HTTP_BAD);
}

static const struct {
	const char *name;
	struct sv bytes;
	enum http_result want;
	struct sv body;
	size_t left_over;
} chunked[] = {
	{ "one chunk", SV_INIT("5\r\nhello\r\n0\r\n\r\n"), HTTP_DONE, SV_INIT("hello"), 0 },
	{ "two chunks", SV_INIT("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), HTTP_DONE, SV_INIT("abc"),
		0 },
	{ "hex size", SV_INIT("00A\r\n0123456789\r\n0\r\n\r\n"), HTTP_DONE,
		SV_INIT("0123456789"), 0 },
	{ "trailers dropped", SV_INIT("0\r\nA: b\r\nC: d\r\n\r\n"), HTTP_DONE, SV_INIT(""), 0 },
	{ "what follows is not ours", SV_INIT("0\r\n\r\nHTTP"), HTTP_DONE, SV_INIT(""), 4 },
	{ "not whole", SV_INIT("5\r\nhel"), HTTP_MORE, SV_INIT("hel"), 0 },
	{ "last chunk without the empty line", SV_INIT("0\r\n"), HTTP_MORE, SV_INIT(""), 0 },
	{ "0x3", SV_INIT("0x3\r\nabc\r\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "+3", SV_INIT("+3\r\nabc\r\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "space before", SV_INIT(" 3\r\nabc\r\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "space behind", SV_INIT("3 \r\nabc\r\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "extension", SV_INIT("3;a=b\r\nabc\r\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "empty size", SV_INIT("\r\nabc\r\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "LF alone", SV_INIT("3\nabc\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "no CRLF after the data", SV_INIT("3\r\nabcd\r\n"), HTTP_BAD, SV_INIT("abc"), 0 },
	{ "CR in the place of the last LF", SV_INIT("0\r\n\r\r\n"), HTTP_BAD, SV_INIT(""), 0 },
	{ "size too long", SV_INIT("0000000000000003\r\nabc\r\n"), HTTP_BAD, SV_INIT(""), 0 },
};

/* All trailers together have a limit, however many lines they are. */
static void test_trailers_end(void **state)
{
	static const struct sv last_chunk = SV_INIT("0\r\n"), trailer = SV_INIT("a: b\r\n");
	struct http_body body;
	enum http_result result;
	struct sv payload;
	size_t used, lines = 0;

	(void)state;
	http_body_init(&body, HTTP_CHUNKED, 0);
	assert_int_equal(http_body_next(&body, last_chunk, &used, &payload), HTTP_MORE);
	do {
		result = http_body_next(&body, trailer, &used, &payload);
		lines++;
	} while (result == HTTP_MORE && lines < 100000);
	assert_int_equal(result, HTTP_BAD);
	assert_int_equal(lines, 4096 / 4 + 1);
}

/* In pieces of every size the reader must say the same. */
static void test_chunked(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(chunked); i++) {
		print_message("  %s\n", chunked[i].name);
		for (size_t piece = 1; piece <= chunked[i].bytes.len; piece++) {
			struct http_body body;
			enum http_result result = HTTP_MORE;
			char got[64];
			size_t got_len = 0, at = 0;

			http_body_init(&body, HTTP_CHUNKED, 0);
			while (at < chunked[i].bytes.len && result == HTTP_MORE) {
				struct sv in = { chunked[i].bytes.ptr + at,
					chunked[i].bytes.len - at },
					  payload;
				size_t used;

				if (in.len > piece)
					in.len = piece;
				result = http_body_next(&body, in, &used, &payload);
				memcpy(got + got_len, payload.ptr, payload.len);
				got_len += payload.len;
				at += used;
			}
			assert_int_equal(result, chunked[i].want);
			assert_true(sv_is((struct sv){ got, got_len }, chunked[i].body));
			if (result == HTTP_DONE)
				assert_int_equal(
					chunked[i].bytes.len - at, chunked[i].left_over);
			assert_int_equal(http_body_may_end_here(&body), result == HTTP_DONE);
		}
	}
}

static void test_length(void **state)
{
	struct http_body body;
	struct sv payload;
	size_t used;

	(void)state;
	http_body_init(&body, HTTP_LENGTH, 5);
	assert_int_equal(http_body_next(&body, SV("hel"), &used, &payload), HTTP_MORE);
	assert_false(http_body_may_end_here(&body));
	assert_int_equal(http_body_next(&body, SV("lo!"), &used, &payload), HTTP_DONE);
	assert_int_equal(used, 2);
	assert_true(sv_is(payload, SV("lo")));
	assert_true(http_body_may_end_here(&body));
	http_body_init(&body, HTTP_LENGTH, 0);
	assert_int_equal(http_body_next(&body, SV(""), &used, &payload), HTTP_DONE);
	http_body_init(&body, HTTP_UNTIL_CLOSE, 0);
	assert_int_equal(http_body_next(&body, SV("abc"), &used, &payload), HTTP_MORE);
	assert_int_equal(used, 3);
	assert_true(http_body_may_end_here(&body));
}

static void test_query(void **state)
{
	struct sv rest = SV("seconds=5&gc&x=&=y"), name, value;

	(void)state;
	assert_true(http_query_next(&rest, &name, &value));
	assert_true(sv_is(name, SV("seconds")) && sv_is(value, SV("5")));
	assert_true(http_query_next(&rest, &name, &value));
	assert_true(sv_is(name, SV("gc")) && value.len == 0);
	assert_true(http_query_next(&rest, &name, &value));
	assert_true(sv_is(name, SV("x")) && value.len == 0);
	assert_true(http_query_next(&rest, &name, &value));
	assert_true(name.len == 0 && sv_is(value, SV("y")));
	assert_false(http_query_next(&rest, &name, &value));
}

static void test_form(void **state)
{
	static const struct {
		struct sv text, meant;
	} rows[] = {
		{ SV_INIT(""), SV_INIT("") },
		{ SV_INIT("plain-_.~"), SV_INIT("plain-_.~") },
		{ SV_INIT("%31+%2b%2B"), SV_INIT("1 ++") },
		{ SV_INIT("%c3%A9"), SV_INIT("\xc3\xa9") },
		{ SV_INIT("%"), { NULL, 0 } },
		{ SV_INIT("a%4"), { NULL, 0 } },
		{ SV_INIT("%zz"), { NULL, 0 } },
		{ SV_INIT("%%31"), { NULL, 0 } },
		{ SV_INIT("1%3"), { NULL, 0 } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		/* Exactly as long as allowed: a sanitizer sees what lies behind. */
		char *room = malloc(rows[i].text.len + 1);
		size_t len;

		assert_non_null(room);
		len = http_form_decode(rows[i].text, room);
		if (rows[i].meant.ptr)
			assert_true(sv_is((struct sv){ room, len }, rows[i].meant));
		else
			assert_true(len == SIZE_MAX);
		free(room);
	}
}

static void test_hosts(void **state)
{
	static const struct {
		struct sv host;
		bool ok;
		struct sv name, port;
		bool loopback;
	} rows[] = {
		{ SV_INIT("localhost"), true, SV_INIT("localhost"), SV_INIT(""), true },
		{ SV_INIT("LOCALHOST:6060"), true, SV_INIT("LOCALHOST"), SV_INIT("6060"),
			true },
		{ SV_INIT("127.1.2.3:1"), true, SV_INIT("127.1.2.3"), SV_INIT("1"), true },
		{ SV_INIT("[::1]:6060"), true, SV_INIT("::1"), SV_INIT("6060"), true },
		{ SV_INIT("[::1]"), true, SV_INIT("::1"), SV_INIT(""), true },
		{ SV_INIT("evil.example"), true, SV_INIT("evil.example"), SV_INIT(""), false },
		{ SV_INIT("localhost.evil.example"), true, SV_INIT("localhost.evil.example"),
			SV_INIT(""), false },
		{ SV_INIT("128.0.0.1"), true, SV_INIT("128.0.0.1"), SV_INIT(""), false },
		{ SV_INIT("a:"), true, SV_INIT("a"), SV_INIT(""), false },
		{ SV_INIT(""), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("a:0"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("a:65536"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("a:1:2"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("a b"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("user@a"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("a/b"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("[::1"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("[::1]x"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("[a]"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT(".a"), false, SV_INIT(""), SV_INIT(""), false },
		{ SV_INIT("a..b"), false, SV_INIT(""), SV_INIT(""), false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct sv name, port;

		print_message("  '" SV_FMT "'\n", SV_ARG(rows[i].host));
		assert_int_equal(http_host_split(rows[i].host, &name, &port), rows[i].ok);
		if (rows[i].ok) {
			assert_true(sv_is(name, rows[i].name));
			assert_true(sv_is(port, rows[i].port));
			assert_int_equal(http_host_is_loopback(name), rows[i].loopback);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_head_request_has_no_body),
		cmocka_unit_test(test_too_large_a_head_is_bad),
		cmocka_unit_test(test_chunked),
		cmocka_unit_test(test_trailers_end),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_query),
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
