#include "unit.h"

#include <string.h>

#include "http/head.h"

static const struct http_policy policy = {
	.target_bytes = 4096, .head_bytes = 16384, .body_bytes = 65536
};

#define OK "GET /x HTTP/1.1\r\nHost: a\r\n"

static const struct {
	const char *name;
	struct sv bytes;
	unsigned status; /* 0: served */
} rows[] = {
	{ "plain", SV_INIT(OK "\r\n"), 0 },
	{ "POST with a body",
		SV_INIT("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"), 0 },
	{ "HEAD", SV_INIT("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"), 0 },
	{ "length zero on GET", SV_INIT(OK "Content-Length: 0\r\n\r\n"), 0 },
	{ "tab around a value", SV_INIT(OK "A:\tb\t\r\n\r\n"), 0 },
	{ "empty value", SV_INIT(OK "A:\r\n\r\n"), 0 },
	{ "length and chunked",
		SV_INIT(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), 400 },
	{ "chunked", SV_INIT(OK "Transfer-Encoding: chunked\r\n\r\n"), 501 },
	{ "unknown coding", SV_INIT(OK "Transfer-Encoding: xchunked\r\n\r\n"), 501 },
	{ "two codings",
		SV_INIT(OK "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"),
		501 },
	{ "coding with VT", SV_INIT(OK "Transfer-Encoding: \vchunked\r\n\r\n"), 400 },
	{ "two equal lengths", SV_INIT(OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
		400 },
	{ "two lengths", SV_INIT(OK "Content-Length: 1\r\nContent-Length: 5\r\n\r\n"), 400 },
	{ "list of lengths", SV_INIT(OK "Content-Length: 5, 5\r\n\r\n"), 400 },
	{ "length +5", SV_INIT(OK "Content-Length: +5\r\n\r\n"), 400 },
	{ "length -1", SV_INIT(OK "Content-Length: -1\r\n\r\n"), 400 },
	{ "length 0x5", SV_INIT(OK "Content-Length: 0x5\r\n\r\n"), 400 },
	{ "length 5abc", SV_INIT(OK "Content-Length: 5abc\r\n\r\n"), 400 },
	{ "empty length", SV_INIT(OK "Content-Length:\r\n\r\n"), 400 },
	{ "length 2^64", SV_INIT(OK "Content-Length: 18446744073709551617\r\n\r\n"), 400 },
	{ "body on GET", SV_INIT(OK "Content-Length: 5\r\n\r\n"), 400 },
	{ "space before colon", SV_INIT(OK "Content-Length : 5\r\n\r\n"), 400 },
	{ "tab before colon", SV_INIT(OK "Transfer-Encoding\t: chunked\r\n\r\n"), 400 },
	{ "folded", SV_INIT(OK "A: b\r\n c\r\n\r\n"), 400 },
	{ "folded first", SV_INIT("GET /x HTTP/1.1\r\n Host: a\r\n\r\n"), 400 },
	{ "bare LF", SV_INIT("GET /x HTTP/1.1\nHost: a\n\n"), 400 },
	{ "bare LF between", SV_INIT("GET /x HTTP/1.1\r\nHost: a\nB: c\r\n\r\n"), 400 },
	{ "bare CR in a value", SV_INIT(OK "A: b\rc\r\n\r\n"), 400 },
	{ "NUL in a value", SV_INIT(OK "A: adm\0in\r\n\r\n"), 400 },
	{ "NUL in a name", SV_INIT(OK "A\0: b\r\n\r\n"), 400 },
	{ "NUL in the target", SV_INIT("GET /x\0 HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "control in a value", SV_INIT(OK "A: \x01\r\n\r\n"), 400 },
	{ "DEL in a value", SV_INIT(OK "A: \x7f\r\n\r\n"), 400 },
	{ "0xff in a value", SV_INIT(OK "A: \xff\r\n\r\n"), 400 },
	{ "empty name", SV_INIT(OK ": v\r\n\r\n"), 400 },
	{ "no colon", SV_INIT(OK "novalue\r\n\r\n"), 400 },
	{ "0xff in a name", SV_INIT(OK "A\xff: b\r\n\r\n"), 400 },
	{ "parentheses in a name", SV_INIT(OK "A(b): c\r\n\r\n"), 400 },
	{ "underscore in a name", SV_INIT(OK "A_b: c\r\n\r\n"), 400 },
	{ "no Host", SV_INIT("GET /x HTTP/1.1\r\nA: b\r\n\r\n"), 400 },
	{ "no fields", SV_INIT("GET /x HTTP/1.1\r\n\r\n"), 400 },
	{ "two Hosts", SV_INIT(OK "Host: b\r\n\r\n"), 400 },
	{ "absolute form", SV_INIT("GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "authority form", SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "asterisk form", SV_INIT("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "no slash", SV_INIT("GET foo HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "two spaces", SV_INIT("GET  /x HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "space in the target", SV_INIT("GET /x y HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "tab separators", SV_INIT("GET\t/x\tHTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "trailing space", SV_INIT("GET /x HTTP/1.1 \r\nHost: a\r\n\r\n"), 400 },
	{ "HTTP/1.2", SV_INIT("GET /x HTTP/1.2\r\nHost: a\r\n\r\n"), 505 },
	{ "HTTP/1.0", SV_INIT("GET /x HTTP/1.0\r\nHost: a\r\n\r\n"), 505 },
	{ "HTTP/2.0", SV_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505 },
	{ "HTTP/0.9", SV_INIT("GET /x\r\n\r\n"), 400 },
	{ "http/1.1", SV_INIT("GET /x http/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "lower-case method", SV_INIT("get /x HTTP/1.1\r\nHost: a\r\n\r\n"), 501 },
	{ "unknown method", SV_INIT("FOO /x HTTP/1.1\r\nHost: a\r\n\r\n"), 501 },
	{ "method with brackets", SV_INIT("G(T /x HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "Upgrade", SV_INIT(OK "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 400 },
	{ "Expect: foo", SV_INIT(OK "Expect: foo\r\n\r\n"), 417 },
	{ "two Authorizations", SV_INIT(OK "Authorization: a\r\nAuthorization: b\r\n\r\n"),
		400 },
	{ "leading CRLF", SV_INIT("\r\n" OK "\r\n"), 400 },
	{ "fragment", SV_INIT("GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "backslash", SV_INIT("GET /x\\y HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ "POST too large",
		SV_INIT("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n"), 413 },
};

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct http_request request;
		struct http_refusal refusal;
		enum http_result result =
			http_request_parse(rows[i].bytes, &policy, &request, &refusal);

		print_message("  %s\n", rows[i].name);
		if (rows[i].status == 0) {
			assert_int_equal(result, HTTP_DONE);
			assert_int_equal(request.head_len, rows[i].bytes.len);
		} else {
			assert_int_equal(result, HTTP_BAD);
			assert_int_equal(refusal.status, rows[i].status);
			assert_non_null(refusal.slug);
			assert_non_null(refusal.detail);
		}
	}
}

/* Fed byte by byte, a good head asks for more until it is whole, and a bad one is refused with the
 * same status at some byte, never served. */
static void test_prefixes(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		enum http_result result = HTTP_MORE;
		struct http_request request;
		struct http_refusal refusal;

		for (size_t len = 0; len <= rows[i].bytes.len && result == HTTP_MORE; len++)
			result = http_request_parse((struct sv){ rows[i].bytes.ptr, len },
				&policy, &request, &refusal);
		print_message("  %s\n", rows[i].name);
		assert_int_equal(result, rows[i].status == 0 ? HTTP_DONE : HTTP_BAD);
		if (rows[i].status != 0)
			assert_int_equal(refusal.status, rows[i].status);
	}
}

static void test_what_is_read(void **state)
{
	struct http_request request;
	struct http_refusal refusal;
	struct sv value;

	(void)state;
	assert_int_equal(
		http_request_parse(
			SV("POST /a/b?c=1&d HTTP/1.1\r\nHost: h:1\r\n"
			   "Authorization: Bearer x\r\nContent-Length: 3\r\n"
			   "Connection: keep-alive, Close\r\nX-A: 1\r\nX-B: 2\r\nx-b: 3\r\n"
			   "Expect: 100-continue\r\n\r\nabcGET"),
			&policy, &request, &refusal),
		HTTP_DONE);
	assert_int_equal(request.method, HTTP_POST);
	assert_true(sv_is(request.path, SV("/a/b")));
	assert_true(request.has_query);
	assert_true(sv_is(request.query, SV("c=1&d")));
	assert_true(sv_is(request.host, SV("h:1")));
	assert_true(sv_is(request.authorization, SV("Bearer x")));
	assert_int_equal(request.content_length, 3);
	assert_true(request.close);
	assert_true(request.expect_continue);
	assert_true(http_request_field(&request, SV("x-a"), &value));
	assert_true(sv_is(value, SV("1")));
	assert_false(http_request_field(&request, SV("x-b"), &value));
}

static void test_http10_where_it_is_allowed(void **state)
{
	struct http_policy old = policy;
	struct http_request request;
	struct http_refusal refusal;

	(void)state;
	old.allow_http10 = true;
	assert_int_equal(
		http_request_parse(SV("GET /x HTTP/1.0\r\n\r\n"), &old, &request, &refusal),
		HTTP_DONE);
	assert_true(request.close);
	assert_int_equal(
		http_request_parse(SV("GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
			&old, &request, &refusal),
		HTTP_DONE);
	assert_false(request.close);
	assert_int_equal(http_request_parse(SV("GET /x HTTP/1.0\r\nTransfer-Encoding: "
					       "chunked\r\n\r\n"),
				 &old, &request, &refusal),
		HTTP_BAD);
}

/* Limits are the first byte too many, and they are noticed before the head is whole. */
static void test_limits(void **state)
{
	static const struct http_policy small = {
		.target_bytes = 16, .head_bytes = 128, .body_bytes = 8
	};
	static char many[HTTP_FIELDS_MAX * 8 + 256];
	struct http_policy wide = policy;
	struct http_request request;
	struct http_refusal refusal;
	char head[256];
	size_t len = 0;

	(void)state;
	assert_int_equal(
		http_request_parse(SV("GET /234567890123456 HTTP/1.1\r\nHost: a\r\n\r\n"),
			&small, &request, &refusal),
		HTTP_DONE);
	assert_int_equal(
		http_request_parse(SV("GET /2345678901234567 HTTP/1.1\r\nHost: a\r\n\r\n"),
			&small, &request, &refusal),
		HTTP_BAD);
	assert_int_equal(refusal.status, 414);
	assert_int_equal(
		http_request_parse(
			SV("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
			&small, &request, &refusal),
		HTTP_BAD);
	assert_int_equal(refusal.status, 414);
	memset(head, 'a', sizeof(head));
	memcpy(head, OK "A: ", sizeof(OK "A: ") - 1);
	assert_int_equal(
		http_request_parse((struct sv){ head, 127 }, &small, &request, &refusal),
		HTTP_MORE);
	assert_int_equal(
		http_request_parse((struct sv){ head, 128 }, &small, &request, &refusal),
		HTTP_BAD);
	assert_int_equal(refusal.status, 431);
	memcpy(many, OK, sizeof(OK) - 1);
	len = sizeof(OK) - 1;
	for (int i = 0; i < HTTP_FIELDS_MAX; i++, len += 6)
		memcpy(many + len, "A: b\r\n", 6);
	memcpy(many + len, "\r\n", 2);
	wide.head_bytes = sizeof(many);
	assert_int_equal(
		http_request_parse((struct sv){ many, len + 2 }, &wide, &request, &refusal),
		HTTP_BAD);
	assert_int_equal(refusal.status, 431);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_what_is_read),
		cmocka_unit_test(test_http10_where_it_is_allowed),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
