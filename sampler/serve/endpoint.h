/*
 * endpoint.h - what the loopback server answers: one function for each path below /debug/pprof/.
 *
 * An endpoint gets a parsed request and fills in an answer; it knows no sockets.  `profile` alone
 * takes time: its answer is asked for when the capture has ended.
 */
#ifndef SAMPLER_ENDPOINT_H
#define SAMPLER_ENDPOINT_H

#include "http/head.h"
#include "sampler/memory/arena.h"

struct answer {
	unsigned status;
	const char *content_type;
	const char *filename; /* of the attachment; NULL: shown */
	const char *location; /* of a redirection, or NULL */
	const char *allow;    /* with 405, or NULL */
	bool is_error;        /* adds X-Go-Pprof, so that `go tool pprof` shows the text */
	struct buf body;
};

struct question {
	const struct http_request *request;
	struct sv body; /* of POST */
	struct arena *arena;
	const char *name; /* of this process */
};

enum endpoint_result {
	ENDPOINT_ANSWERED = 0,
	ENDPOINT_CAPTURE, /* a CPU capture was begun: answer it by endpoint_captured() */
};

/* `capture_ms` gets how long a capture shall last. */
enum endpoint_result endpoint_ask(
	const struct question *question, struct answer *answer, uint64_t *capture_ms);

/* The capture that endpoint_ask() began has ended. */
void endpoint_captured(struct arena *arena, struct answer *answer);

/* An answer of one line, in Go's form for errors. */
void answer_error(
	struct arena *arena, struct answer *answer, unsigned status, const char *text);

/* The endpoints that write stacks of threads (endpoint_goroutine.c). */
void endpoint_goroutine(const struct question *question, int64_t debug, struct answer *answer);

/* A form value as Go reads it: absent or not a whole number is 0. */
int64_t question_int(const struct question *question, struct sv name, bool *present);

/* "0x" and lower-case digits. */
void add_hex(struct buf *out, uint64_t value);

#define ANSWER_BODY_MAX ((size_t)256 << 20)

#endif
