/*
 * problem.h - a refusal, as the client sees it (RFC 9457) and as the audit log names it.
 *
 * Nothing of the client's bytes is ever in it.
 */
#ifndef GATEWAY_PROBLEM_H
#define GATEWAY_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/sv.h"
#include "http/head.h"

enum problem {
	PROBLEM_NONE = 0, /* nothing is wrong */
#define PROBLEM(name, status, slug, title, detail) PROBLEM_##name,
#include "gateway/problems.def"
#undef PROBLEM
	PROBLEMS_LEN
};

unsigned problem_status(enum problem problem);
const char *problem_slug(enum problem problem);

/* The problem that a head's refusal is; MALFORMED_REQUEST when the slug is none of ours. */
enum problem problem_of_refusal(const struct http_refusal *refusal);

struct problem_answer {
	enum problem problem;
	const char *detail; /* NULL: that of the table */
	struct sv request_id;
	uint64_t retry_after_s; /* 0: no Retry-After */
	const char *allow;      /* of 405: "GET, HEAD" */
	bool plain;             /* one line of text, which `go tool pprof` shows; else JSON */
	bool to_head;           /* no body */
	bool close;             /* the connection ends behind it */
};

/* Does this client rather read plain text? (go tool pprof, curl -H 'Accept: text/plain') */
bool problem_wants_plain(const struct http_request *request);

/* Append head and body. Not for a problem with status 0. */
void problem_write(const struct problem_answer *answer, struct buf *out);

#endif
