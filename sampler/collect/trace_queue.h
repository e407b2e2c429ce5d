/*
 * trace_queue.h - records waiting until everything before them is known, the earliest first. Server
 * thread only.
 */
#ifndef SAMPLER_TRACE_QUEUE_H
#define SAMPLER_TRACE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "sampler/collect/trace_event.h"
#include "sampler/memory/arena.h"
#include "sampler/store/ring.h"

/* What is queued beside the ring's own kinds. */
enum {
	QUEUED_ON = RECORD_KINDS, /* the thread runs */
	QUEUED_WOKEN,             /* by `value` */
	QUEUED_LOOK, /* it was looked at; detail: enum trace_off, TRACE_RUNS; other: its name's text */
	QUEUED_SWITCH, /* the kernel has put it on a CPU (detail: TRACE_RUNS; other: its number), or taken it off */
};

/* In the place of an enum trace_off: it has a CPU. */
#define TRACE_RUNS TRACE_OFFS

struct trace_queue {
	struct trace_queued *queued; /* a heap */
	size_t len;
	uint64_t next_number;
};

/* -1 without memory. */
int trace_queue_open(struct trace_queue *queue, struct arena *arena);

/* Those of one time stay in the order in which they came. */
void trace_queue_put(struct trace_queue *queue, const struct record *record);
bool trace_queue_is_full(const struct trace_queue *queue);

/* The earliest; NULL when there is none up to `until_ns`. Valid until the next call. */
const struct record *trace_queue_take(struct trace_queue *queue, uint64_t until_ns);

#endif
