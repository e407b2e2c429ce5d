#include "sampler/collect/trace.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/flight.h"
#include "sampler/collect/locks.h"
#include "sampler/collect/threads.h"
#include "sampler/collect/trace_queue.h"
#include "sampler/collect/trace_sources.h"
#include "sampler/collect/trace_states.h"
#include "sampler/collect/trace_wakes.h"
#include "sampler/collect/waits.h"
#include "sampler/store/labels.h"
#include "sampler/store/later.h"

#define ARENA_BYTES   ((size_t)64 << 20)
#define SCRATCH_BYTES ((size_t)16 << 20)
#define UNBLOCKS_MAX  8192
#define POLL_MS       20
#define PATIENT_MS    50
#define BUSY_MS       4
#define BUSY_RECORDS  1024 /* in one turn: the ring is filling up */
#define SWEEP_NS      UINT64_C(1000000000)
#define WAITED_NS \
	(TRACE_HOLD_NS / 2) /* a wait is told before it has ended when it is so long */

static struct {
	struct trace_sink *sinks;
	struct arena arena, scratch;
	struct trace_states states;
	struct trace_queue queue;
	/* Waits that have ended since the turn before; and those before, whose wakers are known now. */
	struct record *fresh, *ripe;
	size_t fresh_len, ripe_len;
	unsigned taken; /* records in this turn */
	uint64_t told_ns, next_sweep_ns;
	bool is_busy;
} trace;

static uint64_t dropped;

static const enum record_kind kinds[] = { RECORD_THREAD_START, RECORD_THREAD_END,
	RECORD_REGION_BEGIN, RECORD_REGION_END, RECORD_LOG, RECORD_HEAP };

static void want(bool wanted)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		ring_want(kinds[i], wanted);
	locks_trace(wanted);
	waits_trace(wanted);
}

static const uint8_t off_of_reason[] = {
	[WAIT_MUTEX] = TRACE_OFF_SYNC,
	[WAIT_RWLOCK] = TRACE_OFF_SYNC,
	[WAIT_COND] = TRACE_OFF_COND,
	[WAIT_SEMAPHORE] = TRACE_OFF_SYNC,
	[WAIT_SLEEP] = TRACE_OFF_SLEEP,
	[WAIT_IO] = TRACE_OFF_IO,
	[WAIT_JOIN] = TRACE_OFF_SYNC,
	[WAIT_OTHER] = TRACE_OFF_CALL,
};

static const uint8_t off_of_state[] = {
	[THREAD_RUNNING] = TRACE_RUNS,
	[THREAD_WAITING] = TRACE_OFF_UNKNOWN,
	[THREAD_SYSCALL] = TRACE_OFF_CALL,
	[THREAD_IO] = TRACE_OFF_IO,
	[THREAD_SLEEP] = TRACE_OFF_SLEEP,
	[THREAD_FUTEX] = TRACE_OFF_SYNC,
	[THREAD_STOPPED] = TRACE_OFF_UNKNOWN,
	[THREAD_DEAD] = TRACE_OFF_UNKNOWN,
};

static uint32_t name_of(const char *name)
{
	return labels_text_sigsafe(sv_from_cstr(name));
}

static uint32_t name_now(uint32_t tid)
{
	char name[TASK_NAME_SIZE];

	task_name(tid, name);
	return name_of(name);
}

/* One that is gone already has most likely had its creator's name, or else its process's. */
static uint32_t name_or_kin(uint32_t tid, uint32_t creator)
{
	uint32_t name = name_now(tid);

	if (name == 0 && creator != 0)
		name = name_now(creator);
	return name ? name : name_now((uint32_t)getpid());
}

/* --- what is told --- */

static void tell_states(struct trace_sink *sink)
{
	sink->is_live = true;
	trace_states_tell(&trace.states, sink->from_ns, sink->told, sink->to);
}

/* Sinks whose time has come are told of the threads that there are. */
static void begin_sinks(uint64_t until_ns)
{
	for (struct trace_sink *sink = trace.sinks; sink; sink = sink->next) {
		if (!sink->is_live && sink->from_ns <= until_ns)
			tell_states(sink);
	}
}

static void tell(const struct trace_event *event)
{
	trace_states_apply(&trace.states, event);
	for (struct trace_sink *sink = trace.sinks; sink; sink = sink->next) {
		if (sink->is_live)
			sink->told(sink->to, event);
	}
}

static void tell_simple(enum trace_kind kind, uint32_t tid, uint64_t time_ns)
{
	tell(&(struct trace_event){ .kind = (uint8_t)kind, .tid = tid, .time_ns = time_ns });
}

static void tell_off(uint32_t tid, uint64_t time_ns, uint8_t detail, uint32_t stack)
{
	tell(&(struct trace_event){ .kind = TRACE_OFF,
		.detail = detail,
		.tid = tid,
		.stack = stack,
		.time_ns = time_ns });
}

static void tell_thread(
	uint32_t tid, uint64_t time_ns, uint32_t name, uint32_t creator, uint32_t stack)
{
	tell(&(struct trace_event){ .kind = TRACE_THREAD,
		.tid = tid,
		.text = name,
		.value = creator,
		.stack = stack,
		.time_ns = time_ns });
}

/* The thread of a record. One that came without our knowledge appears; one that has ended does not again: what
 * it does behind its end is not shown. */
static struct trace_state *state_of(const struct record *record)
{
	struct trace_state *state = trace_states_find(&trace.states, record->tid);

	if (state || trace_states_ended(&trace.states, record->tid))
		return state;
	tell_thread(record->tid, record->time_ns, name_or_kin(record->tid, 0), 0, 0);
	tell_simple(TRACE_ON, record->tid, record->time_ns);
	return trace_states_find(&trace.states, record->tid);
}

/* It was only looked at, and does something now: it has gone on. */
static void goes_on(const struct trace_state *state, uint64_t time_ns)
{
	if (state && !state->runs && state->looked)
		tell_simple(TRACE_ON, state->tid, time_ns);
}

/* --- one record --- */

static void show_start(const struct record *record)
{
	const struct trace_state *creator =
		trace_states_find(&trace.states, (uint32_t)record->value);
	uint32_t name = name_or_kin(record->tid, (uint32_t)record->value);
	struct record on = { .kind = QUEUED_ON, .tid = record->tid, .time_ns = record->other };

	if (trace_states_find(&trace.states, record->tid))
		tell_simple(TRACE_END, record->tid, record->time_ns);
	goes_on(creator, record->time_ns);
	tell_thread(record->tid, record->time_ns, name, (uint32_t)record->value,
		later_stack(record->stack));
	trace_queue_put(&trace.queue, &on);
}

static void show_block(const struct record *record)
{
	struct trace_state *state = state_of(record);

	if (!state || (!state->runs && !state->looked && state->since_ns == record->time_ns))
		return; /* told already */
	goes_on(state, record->time_ns);
	tell_off(record->tid, record->time_ns,
		record->detail < sizeof(off_of_reason) ? off_of_reason[record->detail]
						       : TRACE_OFF_UNKNOWN,
		record->stack);
	state->waits = true;
}

static void show_unblock(const struct record *record)
{
	struct trace_state *state = state_of(record);

	if (!state)
		return;
	state->waits = false;
	if (state->runs)
		return;
	if (state->stack == 0 && record->stack != 0)
		tell(&(struct trace_event){ .kind = TRACE_STACK,
			.tid = record->tid,
			.stack = record->stack,
			.time_ns = record->time_ns });
	tell_simple(TRACE_ON, record->tid, record->time_ns);
}

static void show_woken(const struct record *record)
{
	if (!trace_states_find(&trace.states, record->tid))
		return;
	goes_on(trace_states_find(&trace.states, (uint32_t)record->value), record->time_ns);
	tell(&(struct trace_event){ .kind = TRACE_WAKE,
		.tid = record->tid,
		.stack = record->stack,
		.value = record->value,
		.time_ns = record->time_ns });
}

static void show_look(const struct record *record)
{
	struct trace_state *state;

	/* What its own records said is better. */
	if (trace_states_find(&trace.states, record->tid) ||
		trace_states_ended(&trace.states, record->tid))
		return;
	tell_thread(record->tid, record->time_ns, (uint32_t)record->other, 0, 0);
	tell_simple(TRACE_ON, record->tid, record->time_ns);
	if (record->detail == TRACE_RUNS)
		return;
	tell_off(record->tid, record->time_ns, record->detail, record->stack);
	state = trace_states_find(&trace.states, record->tid);
	if (state)
		state->looked = true;
}

/* A wait that has a record of its own begins before the thread goes off its CPU, and ends when it is on one
 * again: that record knows more. */
static void show_switch(const struct record *record)
{
	bool on = record->detail == TRACE_RUNS;
	const struct trace_state *state =
		on ? state_of(record) : trace_states_find(&trace.states, record->tid);

	if (!state || state->waits)
		return;
	if (on && !state->runs)
		tell(&(struct trace_event){ .kind = TRACE_ON,
			.cpu = (uint16_t)(record->other + 1),
			.tid = record->tid,
			.time_ns = record->time_ns });
	else if (!on && state->runs)
		tell_off(record->tid, record->time_ns, record->detail, 0);
}

/* What the thread itself says or does. */
static void show_own(const struct record *record, const struct trace_event *event)
{
	const struct trace_state *state = state_of(record);

	if (!state)
		return;
	goes_on(state, record->time_ns);
	tell(event);
}

static void show_rest(const struct record *record)
{
	struct trace_event event = {
		.tid = record->tid, .stack = record->stack, .time_ns = record->time_ns
	};

	switch (record->kind) {
	case RECORD_REGION_BEGIN:
	case RECORD_REGION_END:
		event.kind = record->kind == RECORD_REGION_BEGIN ? TRACE_REGION_BEGIN
								 : TRACE_REGION_END;
		event.text = (uint32_t)record->value;
		show_own(record, &event);
		break;
	case RECORD_LOG:
		event.kind = TRACE_LOG;
		event.text = (uint32_t)record->other;
		event.value = record->value;
		show_own(record, &event);
		break;
	case RECORD_CPU:
		event.kind = TRACE_SAMPLE;
		show_own(record, &event);
		break;
	case RECORD_HEAP:
		event = (struct trace_event){
			.kind = TRACE_HEAP, .value = record->value, .time_ns = record->time_ns
		};
		tell(&event);
		break;
	default:
		break;
	}
}

static void show(const struct record *record)
{
	switch (record->kind) {
	case RECORD_THREAD_START:
		show_start(record);
		break;
	case RECORD_THREAD_END:
		if (trace_states_find(&trace.states, record->tid))
			tell_simple(TRACE_END, record->tid, record->time_ns);
		break;
	case RECORD_BLOCK:
		show_block(record);
		break;
	case RECORD_UNBLOCK:
		show_unblock(record);
		break;
	case QUEUED_ON:
		if (state_of(record))
			tell_simple(TRACE_ON, record->tid, record->time_ns);
		break;
	case QUEUED_WOKEN:
		show_woken(record);
		break;
	case QUEUED_LOOK:
		show_look(record);
		break;
	case QUEUED_SWITCH:
		show_switch(record);
		break;
	default:
		show_rest(record);
		break;
	}
}

/* --- the queue --- */

static void show_next(const struct record *next)
{
	struct record record = *next; /* the queue may be added to meanwhile */

	begin_sinks(record.time_ns - 1);
	show(&record);
}

static void show_until(uint64_t until_ns)
{
	const struct record *next;

	while ((next = trace_queue_take(&trace.queue, until_ns)))
		show_next(next);
	if (until_ns > trace.told_ns)
		trace.told_ns = until_ns;
	begin_sinks(until_ns);
}

static void put(const struct record *record)
{
	/* More than may be held back: what is oldest goes early, and perhaps in the wrong order. */
	if (trace_queue_is_full(&trace.queue)) {
		const struct record *first = trace_queue_take(&trace.queue, UINT64_MAX);

		if (first)
			show_next(first);
		dropped++;
	}
	trace_queue_put(&trace.queue, record);
}

/* Waits that were recorded only when they had ended. */
static void put_wait(const struct record *record)
{
	struct record block = *record;

	block.kind = RECORD_BLOCK;
	block.time_ns -= record->value;
	put(&block);
	put(record);
}

static void take(const struct record *record)
{
	if (!trace.sinks)
		return;
	trace.taken++;
	switch (record->kind) {
	case RECORD_WAKE:
		trace_wakes_note(record);
		break;
	case RECORD_THREAD_END:
		trace_wakes_note(record); /* of who joins it */
		put(record);
		break;
	case RECORD_UNBLOCK:
		if (record->other == 0) {
			put_wait(record);
			break;
		}
		if (trace.fresh_len < UNBLOCKS_MAX)
			trace.fresh[trace.fresh_len++] = *record;
		put(record);
		break;
	case RECORD_LABELS:
	case RECORD_CPU: /* they come from take_sample() */
		break;
	default:
		put(record);
		break;
	}
}

/* Who wakes records that after it has done so: so the wakers are looked for one turn later. */
static void put_woken(void)
{
	struct record *swapped = trace.ripe;

	for (size_t i = 0; i < trace.ripe_len; i++) {
		const struct record *wake = trace_wakes_find(&trace.ripe[i]);
		struct record woken;

		if (!wake)
			continue;
		woken = (struct record){ .kind = QUEUED_WOKEN,
			.tid = trace.ripe[i].tid,
			.stack = wake->stack,
			.value = wake->tid,
			.time_ns = wake->time_ns };
		if (wake->kind == RECORD_THREAD_END)
			woken.time_ns--; /* it is the last that it does */
		put(&woken);
	}
	trace.ripe = trace.fresh;
	trace.ripe_len = trace.fresh_len;
	trace.fresh = swapped;
	trace.fresh_len = 0;
}

/* Long waits are told before they have ended. */
static void put_waiting(uint64_t now)
{
	struct waiting waiting;
	size_t at = 0;

	while (waits_next(&at, &waiting)) {
		const struct trace_state *state;
		struct record block = { .kind = RECORD_BLOCK,
			.detail = waiting.reason,
			.tid = waiting.tid,
			.time_ns = waiting.since_ns };

		if (waiting.since_ns + TRACE_HOLD_NS > now)
			continue; /* it will be recorded in time */
		state = trace_states_find(&trace.states, waiting.tid);
		if (!state || state->runs || state->since_ns != waiting.since_ns)
			put(&block);
	}
}

/* Threads that are gone without having said so: seen twice, since their last words may be on the way. */
static void sweep(uint64_t now)
{
	struct trace_state *state;
	uint32_t *tids;
	size_t len, at = 0;

	trace.next_sweep_ns = now + SWEEP_NS;
	trace_states_clean(&trace.states, now - SWEEP_NS);
	trace.scratch.used = 0;
	if (task_list(&trace.scratch, &tids, &len))
		return;
	while ((state = trace_states_next(&trace.states, &at)))
		state->gone++;
	for (size_t i = 0; i < len; i++) {
		state = trace_states_find(&trace.states, tids[i]);
		if (state)
			state->gone = 0;
	}
	for (at = 0; (state = trace_states_next(&trace.states, &at));) {
		if (state->gone < 2)
			continue;
		waits_forget(state->tid);
		tell_simple(TRACE_END, state->tid, trace.told_ns);
	}
}

static void poll_trace(uint64_t now)
{
	trace.is_busy = trace.taken > BUSY_RECORDS;
	trace.taken = 0;
	trace_sources_poll(now);
	put_woken();
	put_waiting(now);
	show_until(now - TRACE_HOLD_NS);
	if (now >= trace.next_sweep_ns)
		sweep(now);
}

static unsigned period_ms(void)
{
	bool all_patient = true;

	for (const struct trace_sink *sink = trace.sinks; sink; sink = sink->next)
		all_patient &= sink->is_patient;
	if (!trace.sinks)
		return 0;
	if (trace.is_busy)
		return BUSY_MS;
	return all_patient ? PATIENT_MS : POLL_MS;
}

/* --- beginning and end --- */

static int look(struct err *err)
{
	struct record record;
	struct thread *threads;
	size_t len;

	trace.scratch.used = 0;
	if (threads_look(&trace.scratch, &threads, &len))
		return err_set(err, ERR_SYSTEM, "the threads cannot be read");
	for (size_t i = 0; i < len; i++) {
		/* Gone since. */
		if (threads[i].state == THREAD_DEAD || !threads[i].name[0])
			continue;
		record = (struct record){ .kind = QUEUED_LOOK,
			.detail = off_of_state[threads[i].state],
			.tid = threads[i].tid,
			.stack = threads[i].stack,
			.other = name_of(threads[i].name),
			.time_ns = clock_mono_ns() };

		put(&record);
	}
	return 0;
}

/* Those cost too much to be on always, as for the flight recorder. */
static void follow_sinks(void)
{
	bool any = false;

	for (const struct trace_sink *sink = trace.sinks; sink; sink = sink->next)
		any |= !sink->is_patient;
	trace_sources_follow(any, put);
}

static void close_all(void)
{
	trace_wakes_forget();
	arena_close(&trace.arena);
	arena_close(&trace.scratch);
	memset(&trace, 0, sizeof(trace));
}

static int open_all(struct err *err)
{
	memset(&trace, 0, sizeof(trace));
	if (ring_open() || arena_open(&trace.arena, ARENA_BYTES) ||
		arena_open(&trace.scratch, SCRATCH_BYTES) ||
		trace_states_open(&trace.states, &trace.arena) ||
		trace_queue_open(&trace.queue, &trace.arena))
		return err_set(err, ERR_NOMEM, "no memory for a trace");
	trace.fresh = arena_alloc(&trace.arena, UNBLOCKS_MAX * sizeof(*trace.fresh));
	trace.ripe = arena_alloc(&trace.arena, UNBLOCKS_MAX * sizeof(*trace.ripe));
	if (!trace.fresh || !trace.ripe)
		return err_set(err, ERR_NOMEM, "no memory for a trace");
	return 0;
}

/* What is recorded while the threads are looked at is better than the look. */
static int open_first(struct trace_sink *sink, struct err *err)
{
	if (open_all(err)) {
		close_all();
		return -1;
	}
	trace.told_ns = clock_mono_ns();
	trace.sinks = sink;
	want(true);
	if (look(err) == 0)
		return 0;
	want(false);
	close_all();
	return -1;
}

int trace_attach(struct trace_sink *sink, struct err *err)
{
	sink->is_live = false;
	sink->next = NULL;
	sink->from_ns = UINT64_MAX;
	if (!trace.sinks) {
		if (open_first(sink, err))
			return -1;
	} else {
		sink->next = trace.sinks;
		trace.sinks = sink;
	}
	follow_sinks();
	sink->from_ns = clock_mono_ns();
	return 0;
}

void trace_detach(struct trace_sink *sink)
{
	struct trace_sink **at = &trace.sinks;

	while (*at && *at != sink)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = sink->next;
	follow_sinks();
	if (trace.sinks)
		return;
	want(false);
	close_all();
}

uint64_t trace_told_ns(void)
{
	return trace.told_ns;
}

uint64_t trace_dropped(void)
{
	return dropped + trace_sources_lost();
}

void trace_drop(void)
{
	dropped++;
}

void trace_tell_stacks(void (*told)(void *to, const struct trace_event *event), void *to)
{
	struct thread *threads;
	size_t len, wanted = 0, at = 0;
	const struct trace_state *state;

	while ((state = trace_states_next(&trace.states, &at)))
		wanted += !state->runs && state->stack == 0;
	trace.scratch.used = 0;
	if (wanted == 0 || threads_look(&trace.scratch, &threads, &len))
		return;
	for (size_t i = 0; i < len; i++) {
		struct trace_event event = {
			.kind = TRACE_STACK, .tid = threads[i].tid, .stack = threads[i].stack
		};

		state = trace_states_find(&trace.states, event.tid);
		if (state && !state->runs && state->stack == 0 && event.stack)
			told(to, &event);
	}
}

/* The traces that were being taken are the parent's. */
static void after_fork(void)
{
	trace_sources_after_fork();
	flight_after_fork();
	if (trace.arena.base)
		close_all();
}

const struct collector trace_collector = {
	.name = "trace",
	.period_ms = period_ms,
	.poll = poll_trace,
	.take = take,
	.after_fork = after_fork,
};
