/*
 * Path and query from anywhere: what is written for the target is made of nothing but digits,
 * letters and our separators, is read as the same again, and is never a longer capture than allowed.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "gateway/routes.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_SECONDS 300

static bool is_plain(struct sv text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFX0123456789=&.+";

	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] == '\0' || !strchr(allowed, text.ptr[i]))
			return false;
	}
	return true;
}

static void check_query(const struct route *route, struct sv query)
{
	struct http_request request = { .method = HTTP_GET, .query = query, .has_query = true };
	char text[8192], text_again[8192];
	struct params params, again;
	const char *detail;
	struct buf out, out_again;

	if (params_parse(route, &request, MAX_SECONDS, &params, &detail) != PROBLEM_NONE)
		return;
	assert(params.capture_ms <= (uint64_t)MAX_SECONDS * 1000);
	assert(params.profiles >> route->profile & 1);
	buf_init_fixed(&out, text, sizeof(text));
	params_write(&params, &out);
	assert(!out.failed && is_plain(buf_sv(&out)));
	request.query = buf_sv(&out);
	assert(params_parse(route, &request, MAX_SECONDS, &again, &detail) == PROBLEM_NONE);
	assert(again.capture_ms == params.capture_ms && again.profiles == params.profiles);
	buf_init_fixed(&out_again, text_again, sizeof(text_again));
	params_write(&again, &out_again);
	assert(sv_is(buf_sv(&out), buf_sv(&out_again)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv query = { (const char *)data, size };
	struct sv path = size > 0 ? sv_cut(&query, '?') : SV("");
	struct route route;

	if (size > 6000)
		return 0;
	route_find(path, &route);
	switch (route.kind) {
	case ROUTE_PPROF:
		assert(sv_starts_with(sv_from_cstr(route.target_path), SV("/debug/pprof/")));
		/* The path has one spelling: the target's name and the static rest. */
		assert(path.len == strlen(route.target_path) +
					   (route.target.len ? route.target.len + 9 : 0));
		check_query(&route, query);
		break;
	case ROUTE_NONE:
	case ROUTE_TARGET_METRICS:
	case ROUTE_METRICS:
	case ROUTE_WHOAMI:
	case ROUTE_TARGETS:
	case ROUTE_PAGE:
	case ROUTE_REDIRECT:
		break;
	}
	return 0;
}
