#include "sampler/collect/flight.h"

#include <string.h>

#include "base/clock.h"
#include "sampler/collect/trace.h"

#define STATES_BYTES ((size_t)16 << 20)
#define EVENTS_LEAST 1024

static struct {
	struct trace_sink sink; /* first: it is what the collector knows */
	struct arena arena;
	struct trace_event *events; /* a ring; numbers count on without end */
	uint64_t size, head, tail;
	uint64_t keep_ns;
	struct trace_states before; /* what the threads did at `tail` */
	uint64_t before_ns;
	bool is_on;
} flight;

static struct trace_event *event_at(uint64_t number)
{
	return &flight.events[number % flight.size];
}

static void drop_oldest(void)
{
	const struct trace_event *event = event_at(flight.tail++);

	trace_states_apply(&flight.before, event);
	flight.before_ns = event->time_ns;
	if (flight.tail % flight.size == 0)
		trace_states_clean(&flight.before, UINT64_MAX);
}

static void keep(void *to, const struct trace_event *event)
{
	(void)to;
	if (flight.head - flight.tail == flight.size)
		drop_oldest();
	*event_at(flight.head++) = *event;
	while (flight.keep_ns && flight.tail < flight.head &&
		event_at(flight.tail)->time_ns + flight.keep_ns < event->time_ns)
		drop_oldest();
}

int flight_open(uint64_t bytes, uint64_t keep_ns, struct err *err)
{
	uint64_t size = bytes / sizeof(struct trace_event);

	if (flight.is_on)
		return 0;
	if (size < EVENTS_LEAST)
		size = EVENTS_LEAST;
	memset(&flight, 0, sizeof(flight));
	if (arena_open(&flight.arena, STATES_BYTES + size * sizeof(struct trace_event)))
		return err_set(err, ERR_NOMEM, "no memory for the flight recorder");
	flight.events = arena_alloc(&flight.arena, size * sizeof(struct trace_event));
	if (!flight.events || trace_states_open(&flight.before, &flight.arena)) {
		arena_close(&flight.arena);
		return err_set(err, ERR_NOMEM, "no memory for the flight recorder");
	}
	flight.size = size;
	flight.keep_ns = keep_ns;
	flight.before_ns = clock_mono_ns();
	flight.sink = (struct trace_sink){ .told = keep, .is_patient = true };
	if (trace_attach(&flight.sink, err)) {
		arena_close(&flight.arena);
		return -1;
	}
	flight.is_on = true;
	return 0;
}

void flight_close(void)
{
	if (!flight.is_on)
		return;
	trace_detach(&flight.sink);
	arena_close(&flight.arena);
	flight.is_on = false;
}

bool flight_is_on(void)
{
	return flight.is_on;
}

uint64_t flight_begins(uint64_t from_ns)
{
	uint64_t earliest = flight.before_ns;

	if (flight.tail == 0 && flight.head > 0)
		earliest = event_at(0)->time_ns;
	return from_ns > earliest ? from_ns : earliest;
}

int flight_read(struct arena *arena, uint64_t from_ns,
	void (*told)(void *to, const struct trace_event *event), void *to)
{
	struct trace_states states;
	uint64_t at = flight.tail;

	from_ns = flight_begins(from_ns);
	if (trace_states_open(&states, arena))
		return -1;
	trace_states_copy(&states, &flight.before);
	for (; at < flight.head && event_at(at)->time_ns < from_ns; at++)
		trace_states_apply(&states, event_at(at));
	trace_states_tell(&states, from_ns, told, to);
	for (; at < flight.head; at++)
		told(to, event_at(at));
	trace_tell_stacks(told, to);
	return 0;
}

void flight_state(struct flight_state *out)
{
	*out = (struct flight_state){ .events = flight.head - flight.tail,
		.events_max = flight.size };
	if (out->events > 0)
		out->kept_ns =
			event_at(flight.head - 1)->time_ns - event_at(flight.tail)->time_ns;
}

void flight_after_fork(void)
{
	if (!flight.is_on)
		return;
	arena_close(&flight.arena);
	flight.is_on = false;
}
