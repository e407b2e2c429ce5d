#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "gateway/routes.h"

static const struct {
	const char *path;
	enum route_kind kind;
	const char *target, *target_path, *allow;
} paths[] = {
	{ "/", ROUTE_PAGE, "", NULL, "GET, HEAD" },
	{ "/whoami", ROUTE_WHOAMI, "", NULL, "GET, HEAD" },
	{ "/targets", ROUTE_TARGETS, "", NULL, "GET, HEAD" },
	{ "/metrics", ROUTE_METRICS, "", NULL, "GET, HEAD" },
	{ "/debug/pprof", ROUTE_REDIRECT, "", NULL, "GET, HEAD" },
	{ "/debug/pprof/", ROUTE_PPROF, "", "/debug/pprof/", "GET, HEAD" },
	{ "/debug/pprof/heap", ROUTE_PPROF, "", "/debug/pprof/heap", "GET, HEAD" },
	{ "/debug/pprof/profile", ROUTE_PPROF, "", "/debug/pprof/profile", "GET" },
	{ "/debug/pprof/trace", ROUTE_PPROF, "", "/debug/pprof/trace", "GET" },
	{ "/debug/pprof/symbol", ROUTE_PPROF, "", "/debug/pprof/symbol", "GET, HEAD, POST" },
	{ "/targets/a/debug/pprof/heap", ROUTE_PPROF, "a", "/debug/pprof/heap", "GET, HEAD" },
	{ "/targets/a-b.c_1/debug/pprof", ROUTE_REDIRECT, "a-b.c_1", NULL, "GET, HEAD" },
	{ "/targets/a/metrics", ROUTE_TARGET_METRICS, "a", "/metrics", "GET, HEAD" },
	{ "", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/%74race", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/tr%61ce", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof//trace", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/./trace", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/x/../trace", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/%2e%2e/pprof/trace", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/..%2fpprof/trace", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/trace;a=b", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/trace%00", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/trace/", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/TRACE", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof%5ctrace", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprof/../../etc/passwd", ROUTE_NONE, NULL, NULL, NULL },
	{ "/%c0%ae%c0%ae/etc/passwd", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/pprofX", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/vars", ROUTE_NONE, NULL, NULL, NULL },
	{ "/debug/requests", ROUTE_NONE, NULL, NULL, NULL },
	{ "//debug/pprof/heap", ROUTE_NONE, NULL, NULL, NULL },
	{ "/targets/", ROUTE_NONE, NULL, NULL, NULL },
	{ "/targets/a", ROUTE_NONE, NULL, NULL, NULL },
	{ "/targets/a/", ROUTE_NONE, NULL, NULL, NULL },
	{ "/targets//debug/pprof/heap", ROUTE_NONE, NULL, NULL, NULL },
	{ "/targets/%61/debug/pprof/heap", ROUTE_NONE, NULL, NULL, NULL },
	{ "/targets/a/b/debug/pprof/heap", ROUTE_NONE, NULL, NULL, NULL },
	{ "/targets/a/whoami", ROUTE_NONE, NULL, NULL, NULL },
	{ "/Debug/pprof/heap", ROUTE_NONE, NULL, NULL, NULL },
};

static void test_paths(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(paths); i++) {
		struct route route;

		print_message("  '%s'\n", paths[i].path);
		route_find(sv_from_cstr(paths[i].path), &route);
		assert_int_equal(route.kind, paths[i].kind);
		if (paths[i].kind == ROUTE_NONE)
			continue;
		assert_true(sv_is(route.target, sv_from_cstr(paths[i].target)));
		assert_string_equal(route.allow, paths[i].allow);
		if (paths[i].target_path)
			assert_string_equal(route.target_path, paths[i].target_path);
		assert_true(route_takes(&route, HTTP_GET));
		assert_false(route_takes(&route, HTTP_OTHER_METHOD));
		assert_int_equal(
			route_takes(&route, HTTP_HEAD), strstr(paths[i].allow, "HEAD") != NULL);
		assert_int_equal(
			route_takes(&route, HTTP_POST), strstr(paths[i].allow, "POST") != NULL);
	}
}

#define BIT(name) (1U << PROFILE_##name)

static const struct {
	const char *name, *query;
	enum problem problem;
	uint64_t capture_ms;
	const char *written;
	uint32_t profiles;
} queries[] = {
	{ "heap", "", PROBLEM_NONE, 0, "", BIT(HEAP) },
	{ "heap", "seconds=5", PROBLEM_NONE, 5000, "seconds=5", BIT(HEAP) },
	{ "heap", "debug=1&gc=1", PROBLEM_NONE, 0, "debug=1&gc=1", BIT(HEAP) | BIT(HEAP_GC) },
	{ "heap", "gc=0", PROBLEM_NONE, 0, "gc=0", BIT(HEAP) },
	{ "heap", "debug=2", PROBLEM_NONE, 0, "debug=2", BIT(HEAP) },
	{ "goroutine", "debug=2", PROBLEM_NONE, 0, "debug=2",
		BIT(GOROUTINE) | BIT(GOROUTINE_FULL) },
	{ "threads", "debug=1", PROBLEM_NONE, 0, "debug=1", BIT(GOROUTINE) },
	{ "profile", "", PROBLEM_NONE, 30000, "seconds=30", BIT(CPU) },
	{ "profile", "seconds=300", PROBLEM_NONE, 300000, "seconds=300", BIT(CPU) },
	{ "profile", "hz=99&seconds=1", PROBLEM_NONE, 1000, "seconds=1&hz=99", BIT(CPU) },
	{ "profile", "format=folded", PROBLEM_NONE, 30000, "seconds=30&format=folded",
		BIT(CPU) },
	{ "trace", "", PROBLEM_NONE, 1000, "seconds=1", BIT(TRACE) },
	{ "trace", "seconds=0.25", PROBLEM_NONE, 250, "seconds=0.250", BIT(TRACE) },
	{ "trace", "seconds=1.5", PROBLEM_NONE, 1500, "seconds=1.500", BIT(TRACE) },
	{ "trace", "seconds=0.0001", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "seconds=0.000", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "seconds=.5", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "seconds=1.", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "seconds=1e9", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "seconds=300.001", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=1.5", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=301", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=0", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=-1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=+5", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=0x10", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=Inf", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=NaN", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=01", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=999999999999", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=99999999999999999999", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=1&seconds=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "%73econds=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "Seconds=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=1;debug=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=1&", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "&seconds=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "seconds=1&&debug=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "debug=3", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "debug=1&debug=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "gc=2", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "hz=0", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "profile", "hz=4000", PROBLEM_NONE, 30000, "seconds=30&hz=4000", BIT(CPU) },
	{ "profile", "hz=4001", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "delta_heap", "", PROBLEM_NONE, 0, "", BIT(HEAP) },
	{ "trace", "last=10", PROBLEM_NONE, 0, "last=10s", BIT(TRACE) },
	{ "trace", "last=300s", PROBLEM_NONE, 0, "last=300s", BIT(TRACE) },
	{ "trace", "last=10s&format=perfetto", PROBLEM_NONE, 0, "last=10s&format=perfetto",
		BIT(TRACE) },
	{ "trace", "last=301s", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "last=0", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "last=s", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "last=1m", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "trace", "last=1&last=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "format=a/b", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "format=aaaaaaaaaaaaaaaa", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "nosuch=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "heap", "access_token=x", PROBLEM_CREDENTIAL_PLACEMENT, 0, NULL, 0 },
	{ "heap", "Token=x", PROBLEM_CREDENTIAL_PLACEMENT, 0, NULL, 0 },
	{ "", "", PROBLEM_NONE, 0, "", BIT(INDEX) },
	{ "", "debug=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "cmdline", "", PROBLEM_NONE, 0, "", BIT(CMDLINE) },
	{ "cmdline", "seconds=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "symbol", "", PROBLEM_NONE, 0, "", BIT(SYMBOL) },
	{ "symbol", "0x1f+2A", PROBLEM_NONE, 0, "0x1f+2A", BIT(SYMBOL) },
	{ "symbol", "0x", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "symbol", "1+", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "symbol", "1++2", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "symbol", "11112222333344445", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "symbol", "seconds=1", PROBLEM_BAD_PARAMETER, 0, NULL, 0 },
	{ "symbol", "token=1", PROBLEM_CREDENTIAL_PLACEMENT, 0, NULL, 0 },
};

static void find_endpoint(const char *name, struct route *route)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/debug/pprof/%s", name);
	route_find(sv_from_cstr(path), route);
	assert_int_equal(route->kind, ROUTE_PPROF);
}

static void test_queries(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(queries); i++) {
		struct http_request request = { .method = HTTP_GET,
			.has_query = true,
			.query = sv_from_cstr(queries[i].query) };
		struct route route;
		struct params params;
		const char *detail;
		char text[128];
		struct buf out;

		print_message("  %s?%s\n", queries[i].name, queries[i].query);
		find_endpoint(queries[i].name, &route);
		assert_int_equal(params_parse(&route, &request, 300, &params, &detail),
			queries[i].problem);
		if (queries[i].problem == PROBLEM_BAD_PARAMETER)
			assert_non_null(detail);
		if (queries[i].problem != PROBLEM_NONE)
			continue;
		assert_int_equal(params.capture_ms, queries[i].capture_ms);
		assert_int_equal(params.profiles, queries[i].profiles);
		buf_init_fixed(&out, text, sizeof(text));
		params_write(&params, &out);
		assert_true(sv_is(buf_sv(&out), sv_from_cstr(queries[i].written)));
	}
}

static void test_head_of_a_capture(void **state)
{
	static const struct {
		const char *name, *query;
		enum problem want;
	} rows[] = {
		{ "heap", "", PROBLEM_NONE },
		{ "heap", "seconds=1", PROBLEM_METHOD_NOT_ALLOWED },
		{ "profile", "", PROBLEM_METHOD_NOT_ALLOWED },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct http_request request = { .method = HTTP_HEAD,
			.query = sv_from_cstr(rows[i].query) };
		struct route route;
		struct params params;
		const char *detail;

		find_endpoint(rows[i].name, &route);
		assert_int_equal(
			params_parse(&route, &request, 300, &params, &detail), rows[i].want);
	}
}

/* A limit below the default refuses what would be longer than allowed. */
static void test_a_default_over_the_limit(void **state)
{
	struct http_request request = { .method = HTTP_GET };
	struct route route;
	struct params params;
	const char *detail;

	(void)state;
	find_endpoint("profile", &route);
	assert_int_equal(
		params_parse(&route, &request, 29, &params, &detail), PROBLEM_BAD_PARAMETER);
	assert_int_equal(params_parse(&route, &request, 30, &params, &detail), PROBLEM_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_queries),
		cmocka_unit_test(test_head_of_a_capture),
		cmocka_unit_test(test_a_default_over_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
