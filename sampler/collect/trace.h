/*
 * trace.h - what the program's threads do, as events in the order of time, for any number of readers at
 * once: execution traces that are being taken, and the flight recorder (flight.h).
 *
 * The records of the ring come as they were written: a wait's when it has ended, who woke whom after both.
 * So they are held back for a moment (TRACE_HOLD_NS) and sorted.  Server thread only.
 */
#ifndef SAMPLER_COLLECT_TRACE_H
#define SAMPLER_COLLECT_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/collect/collect.h"
#include "sampler/collect/trace_event.h"

#define TRACE_HOLD_NS UINT64_C(100000000)

struct trace_sink {
	/* Called from the collector's turn. First come the threads that there are, with the time at which
	 * the sink was attached. */
	void (*told)(void *to, const struct trace_event *event);
	void *to;
	bool is_patient;  /* it need not be told soon */
	uint64_t from_ns; /* set by trace_attach(): when it begins */

	/* private */
	struct trace_sink *next;
	bool is_live;
};

/* From now on: `sink` must stay where it is until it is detached. */
int trace_attach(struct trace_sink *sink, struct err *err);
void trace_detach(struct trace_sink *sink);

/* All events up to that time were told. */
uint64_t trace_told_ns(void);

/* TRACE_STACK events of those that wait still and whose stack is not known: they are looked at for it. */
void trace_tell_stacks(void (*told)(void *to, const struct trace_event *event), void *to);

/* Events that are in no trace since there was no room, in all since the process began; but for the ring's
 * records. trace_drop(): a sink had none. */
uint64_t trace_dropped(void);
void trace_drop(void);

extern const struct collector trace_collector;

#endif
