#include "sampler/collect/trace_states.h"

#include <string.h>

#define SLOTS (2 * TRACE_STATES_MAX)

int trace_states_open(struct trace_states *states, struct arena *arena)
{
	states->len = 0;
	states->slots = arena_alloc(arena, SLOTS * sizeof(states->slots[0]));
	return states->slots ? 0 : -1;
}

static size_t slot_of(uint32_t tid)
{
	return (size_t)tid * 2654435761U % SLOTS;
}

/* The slot of a thread, or where it belongs. */
static struct trace_state *place(const struct trace_states *states, uint32_t tid)
{
	size_t at = slot_of(tid);

	while (states->slots[at].tid != 0 && states->slots[at].tid != tid)
		at = (at + 1) % SLOTS;
	return &states->slots[at];
}

void trace_states_copy(struct trace_states *to, const struct trace_states *from)
{
	memset(to->slots, 0, SLOTS * sizeof(to->slots[0]));
	to->len = 0;
	for (size_t i = 0; i < SLOTS; i++) {
		if (from->slots[i].tid == 0 || from->slots[i].ended)
			continue;
		*place(to, from->slots[i].tid) = from->slots[i];
		to->len++;
	}
}

struct trace_state *trace_states_find(const struct trace_states *states, uint32_t tid)
{
	struct trace_state *state = tid ? place(states, tid) : NULL;

	return state && state->tid && !state->ended ? state : NULL;
}

static struct trace_state *add(struct trace_states *states, uint32_t tid)
{
	struct trace_state *state = place(states, tid);

	if (state->tid == 0) {
		if (states->len == TRACE_STATES_MAX)
			return NULL;
		states->len++;
	}
	*state = (struct trace_state){ .tid = tid, .runs = true };
	return state;
}

static void begin_region(struct trace_state *state, uint32_t name)
{
	if (state->depth < TRACE_STATES_DEEP)
		state->regions[state->depth] = name;
	if (state->depth < UINT8_MAX)
		state->depth++;
}

static void end_region(struct trace_state *state, uint32_t name)
{
	uint8_t depth = state->depth;

	if (depth > TRACE_STATES_DEEP) {
		state->depth--;
		return;
	}
	while (depth > 0 && state->regions[depth - 1] != name)
		depth--;
	if (depth > 0)
		state->depth = (uint8_t)(depth - 1);
}

static void set_running(struct trace_state *state, bool runs, uint64_t time_ns)
{
	if (state->runs != runs || !runs)
		state->since_ns = time_ns;
	state->runs = runs;
	state->looked = false;
}

void trace_states_apply(struct trace_states *states, const struct trace_event *event)
{
	struct trace_state *state = trace_states_find(states, event->tid);

	if (event->tid == 0 || (!state && !(state = add(states, event->tid))))
		return;
	switch (event->kind) {
	case TRACE_THREAD:
		*state = (struct trace_state){ .tid = event->tid,
			.name = event->text,
			.runs = true,
			.since_ns = event->time_ns };
		break;
	case TRACE_END:
		state->ended = true;
		state->since_ns = event->time_ns;
		break;
	case TRACE_OFF:
		set_running(state, false, event->time_ns);
		state->detail = event->detail;
		state->stack = event->stack;
		break;
	case TRACE_STACK:
		if (!state->runs)
			state->stack = event->stack;
		break;
	case TRACE_REGION_BEGIN:
		begin_region(state, event->text);
		break;
	case TRACE_REGION_END:
		end_region(state, event->text);
		break;
	case TRACE_ON:
		set_running(state, true, event->time_ns);
		break;
	default:
		break;
	}
}

bool trace_states_ended(const struct trace_states *states, uint32_t tid)
{
	const struct trace_state *state = place(states, tid);

	return state->tid && state->ended;
}

struct trace_state *trace_states_next(const struct trace_states *states, size_t *at)
{
	while (*at < SLOTS) {
		struct trace_state *state = &states->slots[(*at)++];

		if (state->tid && !state->ended)
			return state;
	}
	return NULL;
}

void trace_states_clean(struct trace_states *states, uint64_t before_ns)
{
	/* Taking one out moves those behind it that it stood in the way of. */
	for (size_t i = 0; i < SLOTS; i++) {
		if (states->slots[i].tid == 0 || !states->slots[i].ended ||
			states->slots[i].since_ns >= before_ns)
			continue;
		states->slots[i].tid = 0;
		states->len--;
		for (size_t at = (i + 1) % SLOTS; states->slots[at].tid;
			at = (at + 1) % SLOTS) {
			struct trace_state moved = states->slots[at];

			states->slots[at].tid = 0;
			*place(states, moved.tid) = moved;
		}
	}
}

void trace_states_tell(const struct trace_states *states, uint64_t time_ns,
	void (*told)(void *to, const struct trace_event *event), void *to)
{
	const struct trace_state *state;
	size_t at = 0;

	while ((state = trace_states_next(states, &at))) {
		struct trace_event event = { .tid = state->tid, .time_ns = time_ns };

		event.kind = TRACE_THREAD;
		event.text = state->name;
		told(to, &event);
		event.kind = TRACE_ON;
		event.text = 0;
		told(to, &event);
		event.kind = TRACE_REGION_BEGIN;
		for (uint8_t k = 0; k < state->depth && k < TRACE_STATES_DEEP; k++) {
			event.text = state->regions[k];
			told(to, &event);
		}
		if (state->runs)
			continue;
		event.kind = TRACE_OFF;
		event.text = 0;
		event.detail = state->detail;
		event.stack = state->stack;
		told(to, &event);
	}
}
