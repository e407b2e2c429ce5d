/*
 * routes.h - which paths there are, and which parameters they take.
 *
 * Paths are compared byte for byte: nothing is decoded, normalised or matched by its beginning, so
 * there is one spelling of each.  Parameters are read into numbers and written anew for the target.
 */
#ifndef GATEWAY_ROUTES_H
#define GATEWAY_ROUTES_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/grant.h"
#include "base/buf.h"
#include "gateway/problem.h"
#include "http/head.h"

enum route_kind {
	ROUTE_NONE = 0,       /* 404 */
	ROUTE_PPROF,          /* forwarded */
	ROUTE_TARGET_METRICS, /* forwarded */
	ROUTE_METRICS,        /* the gate's own */
	ROUTE_WHOAMI,
	ROUTE_TARGETS,
	ROUTE_PAGE,     /* "/": no sign-in needed */
	ROUTE_REDIRECT, /* to the same path and a slash */
};

enum {
	ROUTE_GET = 1,
	ROUTE_HEAD = 2,
	ROUTE_POST = 4,
};

struct route {
	enum route_kind kind;
	struct sv target;     /* as in the path; empty: the default one */
	enum profile profile; /* what a grant must cover, where kind is forwarded or METRICS */
	const char *target_path;  /* where it is at the target; static */
	unsigned methods;         /* ROUTE_GET and so on */
	const char *allow;        /* the same as text */
	uint32_t default_seconds; /* of a capture that is not told how long; 0: at once */
};

/* Always fills `out`; kind ROUTE_NONE when there is no such path. */
void route_find(struct sv path, struct route *out);

bool route_takes(const struct route *route, enum http_method method);

#define PARAMS_TEXT_MAX 16

struct params {
	uint64_t capture_ms; /* how long the target will take; 0: no capture, no slot */
	uint64_t
		span_ms; /* of how much time the answer tells: of that, or of what was recorded before */
	uint32_t profiles; /* bits of all that a grant must cover: full goroutines, forced gc */
	bool has_seconds, has_debug, has_gc, has_hz, has_peak;
	uint32_t debug, gc, hz, peak;
	uint32_t last;                /* seconds; 0: absent */
	char format[PARAMS_TEXT_MAX]; /* "" when absent */
	struct sv symbols;            /* of a GET of symbol: borrows the query */
};

/*
 * Read the query of a request for `route`. PROBLEM_NONE, or what is wrong: BAD_PARAMETER,
 * CREDENTIAL_PLACEMENT, METHOD_NOT_ALLOWED (HEAD of a capture); `*detail` says more (static).
 */
enum problem params_parse(const struct route *route, const struct http_request *request,
	uint32_t max_seconds, struct params *out, const char **detail);

/* Does a parameter carry, by its name, what belongs into an Authorization header? */
bool params_hold_credential(struct sv query);

/* "seconds=30&debug=1", or nothing: for the target and for the audit record. */
void params_write(const struct params *params, struct buf *out);

/* "0x1f+2a": what symbol takes, in its query and as its body. Empty is fine. */
bool params_is_symbols(struct sv text);

#endif
