#include "unit.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "gateway/problem.h"

static void write_one(const struct problem_answer *answer, char *out, size_t size)
{
	struct buf buf;

	buf_init_fixed(&buf, out, size - 1);
	problem_write(answer, &buf);
	assert_false(buf.failed);
	out[buf.len] = '\0';
}

/* Each one parses by our own reader, has the contract's fields, and its length is true. */
static void test_every_problem_as_json(void **state)
{
	(void)state;
	for (unsigned i = 1; i < PROBLEMS_LEN; i++) {
		struct problem_answer answer = {
			.problem = (enum problem)i, .request_id = SV("abc123"), .close = true
		};
		struct http_response response;
		const char *detail;
		char text[2048], type[128];
		struct sv value;
		json_t *body;

		if (problem_status(answer.problem) == 0)
			continue;
		print_message("  %s\n", problem_slug(answer.problem));
		write_one(&answer, text, sizeof(text));
		assert_int_equal(http_response_parse(sv_from_cstr(text), sizeof(text), false,
					 &response, &detail),
			HTTP_DONE);
		assert_int_equal(response.status, problem_status(answer.problem));
		assert_int_equal(response.head_len + response.content_length, strlen(text));
		assert_true(http_response_field(&response, SV("x-request-id"), &value));
		assert_true(sv_is(value, SV("abc123")));
		assert_true(http_response_field(&response, SV("cache-control"), &value));
		assert_true(sv_is(value, SV("no-store")));
		assert_true(http_response_field(&response, SV("connection"), &value));
		assert_int_equal(response.status == 401,
			http_response_field(&response, SV("www-authenticate"), &value));
		body = json_loads(text + response.head_len, 0, NULL);
		assert_non_null(body);
		(void)snprintf(type, sizeof(type), "urn:postern:problem:%s",
			problem_slug(answer.problem));
		assert_string_equal(json_string_value(json_object_get(body, "type")), type);
		assert_int_equal(
			json_integer_value(json_object_get(body, "status")), response.status);
		assert_true(strlen(json_string_value(json_object_get(body, "title"))) > 0);
		assert_true(strlen(json_string_value(json_object_get(body, "detail"))) > 0);
		assert_string_equal(
			json_string_value(json_object_get(body, "request_id")), "abc123");
		json_decref(body);
	}
}

static void test_plain_for_pprof(void **state)
{
	struct problem_answer answer = { .problem = PROBLEM_SLOT_TAKEN,
		.request_id = SV("id"),
		.retry_after_s = 7,
		.plain = true };
	char text[2048];

	(void)state;
	write_one(&answer, text, sizeof(text));
	assert_non_null(strstr(text, "\r\nX-Go-Pprof: 1\r\n"));
	assert_non_null(strstr(text, "\r\nRetry-After: 7\r\n"));
	assert_non_null(strstr(text, "\r\n\r\nslot-taken: other captures of this target are "
				     "running (request id)\n"));
	assert_null(strstr(text, "Connection: close"));
	answer.to_head = true;
	answer.problem = PROBLEM_METHOD_NOT_ALLOWED;
	answer.allow = "GET";
	write_one(&answer, text, sizeof(text));
	assert_non_null(strstr(text, "\r\nAllow: GET\r\n"));
	assert_string_equal(text + strlen(text) - 4, "\r\n\r\n");
}

static void test_who_wants_plain(void **state)
{
	static const struct http_policy policy = { 100, 1000, 0, false };

	static const struct {
		const char *fields;
		bool want;
	} rows[] = {
		{ "", false },
		{ "User-Agent: Go-http-client/1.1\r\n", true },
		{ "User-Agent: curl/7.88.1\r\nAccept: */*\r\n", false },
		{ "Accept: text/html, text/plain;q=0.9\r\n", true },
		{ "Accept: application/json\r\n", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct http_request request;
		struct http_refusal refusal;
		char text[256];

		(void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n",
			rows[i].fields);
		assert_int_equal(
			http_request_parse(sv_from_cstr(text), &policy, &request, &refusal),
			HTTP_DONE);
		assert_int_equal(problem_wants_plain(&request), rows[i].want);
	}
}

static void test_refusals_of_the_parser_have_a_problem(void **state)
{
	static const struct {
		const char *slug;
		enum problem want;
	} rows[] = {
		{ "malformed-request", PROBLEM_MALFORMED_REQUEST },
		{ "credential-placement", PROBLEM_CREDENTIAL_PLACEMENT },
		{ "content-too-large", PROBLEM_CONTENT_TOO_LARGE },
		{ "uri-too-long", PROBLEM_URI_TOO_LONG },
		{ "expectation-failed", PROBLEM_EXPECTATION_FAILED },
		{ "header-too-large", PROBLEM_HEADER_TOO_LARGE },
		{ "not-implemented", PROBLEM_NOT_IMPLEMENTED },
		{ "version-not-supported", PROBLEM_VERSION_NOT_SUPPORTED },
		{ "something-new", PROBLEM_MALFORMED_REQUEST },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct http_refusal refusal = { 400, rows[i].slug, "" };

		assert_int_equal(problem_of_refusal(&refusal), rows[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_problem_as_json),
		cmocka_unit_test(test_plain_for_pprof),
		cmocka_unit_test(test_who_wants_plain),
		cmocka_unit_test(test_refusals_of_the_parser_have_a_problem),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
