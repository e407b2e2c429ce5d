#include "gateway/routes.h"

/* A path below /debug/pprof/, and what it takes. */
struct endpoint {
	struct sv name;
	enum profile profile;
	uint32_t default_seconds;
	const char *target_path;
};

#define ENDPOINT(name, profile, seconds)                                        \
	{                                                                       \
		SV_INIT(name), PROFILE_##profile, seconds, "/debug/pprof/" name \
	}

static const struct endpoint endpoints[] = {
	ENDPOINT("", INDEX, 0),
	ENDPOINT("heap", HEAP, 0),
	ENDPOINT("allocs", ALLOCS, 0),
	ENDPOINT("profile", CPU, 30),
	ENDPOINT("goroutine", GOROUTINE, 0),
	ENDPOINT("threads", GOROUTINE, 0),
	ENDPOINT("threadcreate", THREADCREATE, 0),
	ENDPOINT("block", BLOCK, 0),
	ENDPOINT("mutex", MUTEX, 0),
	ENDPOINT("delta_heap", HEAP, 0),
	ENDPOINT("delta_block", BLOCK, 0),
	ENDPOINT("delta_mutex", MUTEX, 0),
	ENDPOINT("wall", WALL, 30),
	ENDPOINT("offcpu", OFFCPU, 30),
	ENDPOINT("trace", TRACE, 1),
	ENDPOINT("symbol", SYMBOL, 0),
	ENDPOINT("cmdline", CMDLINE, 0),
};

#define TARGET_NAME_MAX 64

static void set_methods(struct route *route, unsigned methods)
{
	route->methods = methods;
	route->allow = methods & ROUTE_POST ? "GET, HEAD, POST"
					    : (methods & ROUTE_HEAD ? "GET, HEAD" : "GET");
}

static bool drop_prefix(struct sv *text, struct sv prefix)
{
	if (!sv_starts_with(*text, prefix))
		return false;
	text->ptr += prefix.len;
	text->len -= prefix.len;
	return true;
}

static void set_endpoint(struct route *route, const struct endpoint *endpoint)
{
	bool is_symbol = endpoint->profile == PROFILE_SYMBOL;

	route->kind = ROUTE_PPROF;
	route->profile = endpoint->profile;
	route->target_path = endpoint->target_path;
	route->default_seconds = endpoint->default_seconds;
	set_methods(route, endpoint->default_seconds ? ROUTE_GET
			   : is_symbol               ? ROUTE_GET | ROUTE_HEAD | ROUTE_POST
						     : ROUTE_GET | ROUTE_HEAD);
}

/* "/debug/pprof/heap", "/debug/pprof", of the default target or behind a target's name. */
static void find_pprof(struct sv path, struct route *route)
{
	if (sv_is(path, SV("/debug/pprof"))) {
		route->kind = ROUTE_REDIRECT;
		return;
	}
	if (!drop_prefix(&path, SV("/debug/pprof/")))
		return;
	for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
		if (sv_is(path, endpoints[i].name)) {
			set_endpoint(route, &endpoints[i]);
			return;
		}
	}
}

static bool is_target_name(struct sv name)
{
	if (name.len == 0 || name.len > TARGET_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		char c = name.ptr[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			    (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.'))
			return false;
	}
	return true;
}

/* What stands behind "/targets/". */
static void find_of_target(struct sv path, struct route *route)
{
	const char *slash = path.len ? memchr(path.ptr, '/', path.len) : NULL;

	if (!slash)
		return;
	route->target = (struct sv){ path.ptr, (size_t)(slash - path.ptr) };
	if (!is_target_name(route->target))
		return;
	path.ptr = slash;
	path.len -= route->target.len;
	if (sv_is(path, SV("/metrics"))) {
		route->kind = ROUTE_TARGET_METRICS;
		route->profile = PROFILE_METRICS;
		route->target_path = "/metrics";
		return;
	}
	find_pprof(path, route);
}

void route_find(struct sv path, struct route *out)
{
	static const struct {
		struct sv path;
		enum route_kind kind;
	} own[] = {
		{ SV_INIT("/"), ROUTE_PAGE },
		{ SV_INIT("/whoami"), ROUTE_WHOAMI },
		{ SV_INIT("/targets"), ROUTE_TARGETS },
		{ SV_INIT("/metrics"), ROUTE_METRICS },
	};

	*out = (struct route){ .kind = ROUTE_NONE };
	set_methods(out, ROUTE_GET | ROUTE_HEAD);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
		if (sv_is(path, own[i].path)) {
			out->kind = own[i].kind;
			out->profile = PROFILE_METRICS;
			return;
		}
	}
	if (drop_prefix(&path, SV("/targets/")))
		find_of_target(path, out);
	else
		find_pprof(path, out);
}

bool route_takes(const struct route *route, enum http_method method)
{
	switch (method) {
	case HTTP_GET:
		return route->methods & ROUTE_GET;
	case HTTP_HEAD:
		return route->methods & ROUTE_HEAD;
	case HTTP_POST:
		return route->methods & ROUTE_POST;
	case HTTP_OTHER_METHOD:
		break;
	}
	return false;
}
