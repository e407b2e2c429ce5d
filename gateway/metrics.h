/*
 * metrics.h - what one worker has counted, as Prometheus reads it. No identities, no paths, nothing
 * that a client could make grow.
 */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include <stdint.h>

#include "base/buf.h"
#include "gateway/problem.h"

struct metrics {
	uint64_t connections;      /* accepted */
	uint64_t connections_open; /* now */
	uint64_t handshakes_failed;
	uint64_t answers[5]; /* by status class: [1] is 2xx */
	uint64_t refusals[PROBLEMS_LEN];
	uint64_t sent_bytes;       /* of answers, without TLS */
	uint64_t captures;         /* begun */
	uint64_t captures_running; /* now */
	uint64_t captures_cut;     /* ended before they were whole */
};

/* Count an answer of that status, 100 to 599; others are not counted. */
void metrics_answer(struct metrics *metrics, unsigned status);

/* Also counts its status, if it has one. */
void metrics_refusal(struct metrics *metrics, enum problem problem);

/* Append the text format, each line with the worker's number. */
void metrics_write(const struct metrics *metrics, uint32_t worker, struct buf *out);

#endif
