/*
 * trace_states.h - what every thread is doing at one moment of a trace: what its events up to then add up
 * to, and what a trace that begins there must begin with.
 *
 * Server thread only.
 */
#ifndef SAMPLER_TRACE_STATES_H
#define SAMPLER_TRACE_STATES_H

#include <stdbool.h>
#include <stddef.h>

#include "sampler/collect/trace_event.h"
#include "sampler/memory/arena.h"

#define TRACE_STATES_MAX  ((size_t)16384) /* threads; more are left out */
#define TRACE_STATES_DEEP 8 /* open regions of a thread; deeper ones are left out */

struct trace_state {
	uint32_t tid, name; /* tid 0: free */
	uint32_t stack;     /* where it waits; 0: not known */
	uint8_t detail;     /* enum trace_off, unless it runs */
	bool runs, ended;
	uint8_t depth;
	uint32_t regions[TRACE_STATES_DEEP];
	uint64_t since_ns; /* it does what it does */

	/* collect/trace.c's own */
	bool looked; /* it is not known by a record that it waits, but by a look at it */
	bool waits;  /* in a hooked call: when that ends, its own record tells */
	uint8_t gone;
};

struct trace_states {
	struct trace_state *slots; /* open addressing */
	size_t len;
};

/* -1 without memory. */
int trace_states_open(struct trace_states *states, struct arena *arena);
void trace_states_copy(struct trace_states *to, const struct trace_states *from);

/* NULL: not there (or it has ended). */
struct trace_state *trace_states_find(const struct trace_states *states, uint32_t tid);

void trace_states_apply(struct trace_states *states, const struct trace_event *event);

/* Has the last thread of this id ended? */
bool trace_states_ended(const struct trace_states *states, uint32_t tid);

/* Forget those that ended before that time. */
void trace_states_clean(struct trace_states *states, uint64_t before_ns);

/* The next thread after `*at` (begin with 0); NULL at the end. */
struct trace_state *trace_states_next(const struct trace_states *states, size_t *at);

/* The events that a trace begins with at `time_ns`. */
void trace_states_tell(const struct trace_states *states, uint64_t time_ns,
	void (*told)(void *to, const struct trace_event *event), void *to);

#endif
