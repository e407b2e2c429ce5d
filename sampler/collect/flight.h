/*
 * flight.h - the flight recorder: the last events of the program's threads, always there, for when
 * something has just gone wrong.  Bounded in bytes, and in time if asked for.  Server thread only.
 */
#ifndef SAMPLER_FLIGHT_H
#define SAMPLER_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/collect/trace_event.h"
#include "sampler/collect/trace_states.h"

/* Begin, with room for so many bytes of events (rounded down to whole ones); `keep_ns` 0: no limit but that. */
int flight_open(uint64_t bytes, uint64_t keep_ns, struct err *err);
void flight_close(void);
bool flight_is_on(void);

/* Where a reading from `from_ns` begins: there, or where the earliest event is. */
uint64_t flight_begins(uint64_t from_ns);

/* Read what was recorded from then on; first the threads as they were then. -1 without memory, of which it
 * takes some from the arena. */
int flight_read(struct arena *arena, uint64_t from_ns,
	void (*told)(void *to, const struct trace_event *event), void *to);

struct flight_state {
	uint64_t events, events_max;
	uint64_t kept_ns; /* from the earliest to the latest */
};

void flight_state(struct flight_state *out);

/* In a forked child. */
void flight_after_fork(void);

#endif
