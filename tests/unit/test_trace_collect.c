/* What stands between the ring's records and the events of a trace. */
#include "tests/unit/unit.h"

#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/trace.h"
#include "sampler/collect/trace_queue.h"
#include "sampler/collect/trace_states.h"
#include "sampler/collect/trace_wakes.h"
#include "sampler/collect/waits.h"
#include "sampler/store/self.h"

static struct arena arena;

static int open_arena(void **state)
{
	(void)state;
	return arena_open(&arena, (size_t)64 << 20);
}

static int close_arena(void **state)
{
	(void)state;
	arena_close(&arena);
	return 0;
}

/* The earliest first, and those of one time as they came. */
static void test_queue(void **state)
{
	struct trace_queue queue;
	const struct record *taken;
	uint64_t last = 0, last_number = 0;
	uint32_t random = 1;
	size_t len = 0;

	(void)state;
	assert_int_equal(trace_queue_open(&queue, &arena), 0);
	assert_null(trace_queue_take(&queue, UINT64_MAX));
	for (uint64_t i = 1; i <= 5000; i++) {
		random = random * 1103515245 + 12345;
		trace_queue_put(&queue,
			&(struct record){ .time_ns = 1000 + (random >> 16) % 500, .value = i });
	}
	assert_null(trace_queue_take(&queue, 999));
	while ((taken = trace_queue_take(&queue, 1249))) {
		assert_true(taken->time_ns <= 1249);
		assert_true(taken->time_ns > last ||
			    (taken->time_ns == last && taken->value > last_number));
		last = taken->time_ns;
		last_number = taken->value;
		len++;
	}
	assert_true(len > 2000 && len < 3000);
	while ((taken = trace_queue_take(&queue, UINT64_MAX))) {
		assert_true(taken->time_ns >= last);
		last = taken->time_ns;
		len++;
	}
	assert_int_equal(len, 5000);
	while (!trace_queue_is_full(&queue))
		trace_queue_put(&queue, &(struct record){ .time_ns = 5 });
	taken = trace_queue_take(&queue, 5);
	assert_non_null(taken);
	assert_int_equal(taken->time_ns, 5);
}

static struct record unblock(uint32_t tid, uint64_t lock, uint64_t from, uint64_t to)
{
	return (struct record){ .kind = RECORD_UNBLOCK,
		.tid = tid,
		.other = lock,
		.time_ns = to,
		.value = to - from };
}

static void note(uint32_t tid, uint64_t lock, uint64_t time_ns)
{
	trace_wakes_note(&(struct record){
		.kind = RECORD_WAKE, .tid = tid, .other = lock, .time_ns = time_ns });
}

static uint32_t waker_of(struct record waited)
{
	const struct record *wake = trace_wakes_find(&waited);

	return wake ? wake->tid : 0;
}

static void test_wakes(void **state)
{
	(void)state;
	assert_int_equal(waker_of(unblock(1, 0x1000, 10, 100)), 0);
	note(2, 0x1000, 50);
	note(3, 0x2000, 60);
	note(4, 0x1000, 80);
	note(5, 0x1000, 150);
	assert_int_equal(waker_of(unblock(1, 0x1000, 10, 100)), 4); /* the last before */
	assert_int_equal(waker_of(unblock(1, 0x1000, 10, 70)), 2);
	assert_int_equal(waker_of(unblock(1, 0x1000, 90, 100)), 0);
	assert_int_equal(waker_of(unblock(4, 0x1000, 10, 100)), 2); /* not by itself */
	assert_int_equal(waker_of(unblock(1, 0x2000, 10, 100)), 3);
	/* Old ones are written over. */
	for (uint64_t i = 0; i < 5000; i++)
		note(9, 0x3000 + i * 64, 200);
	assert_int_equal(waker_of(unblock(1, 0x1000, 10, 100)), 0);
	trace_wakes_forget();
	assert_int_equal(waker_of(unblock(1, 0x3000, 10, 300)), 0);
}

static void apply(
	struct trace_states *states, enum trace_kind kind, uint32_t tid, uint32_t text)
{
	trace_states_apply(states,
		&(struct trace_event){ .kind = (uint8_t)kind, .tid = tid, .text = text });
}

static void count_kind(void *to, const struct trace_event *event)
{
	((size_t *)to)[event->kind]++;
}

static void test_states(void **state)
{
	struct trace_states states, copy;
	size_t kinds[16] = { 0 };

	(void)state;
	assert_int_equal(trace_states_open(&states, &arena), 0);
	assert_int_equal(trace_states_open(&copy, &arena), 0);
	apply(&states, TRACE_THREAD, 7, 1);
	apply(&states, TRACE_REGION_BEGIN, 7, 11);
	apply(&states, TRACE_REGION_BEGIN, 7, 12);
	apply(&states, TRACE_REGION_END, 7, 13); /* never begun */
	apply(&states, TRACE_OFF, 7, 0);
	apply(&states, TRACE_ON, 8, 0); /* never said to be there */
	apply(&states, TRACE_THREAD, 9, 1);
	apply(&states, TRACE_END, 9, 0);
	assert_null(trace_states_find(&states, 9));
	assert_true(trace_states_ended(&states, 9));
	assert_int_equal(trace_states_find(&states, 7)->depth, 2);
	trace_states_copy(&copy, &states);
	trace_states_tell(&copy, 5, count_kind, kinds);
	assert_int_equal(kinds[TRACE_THREAD], 2);
	assert_int_equal(kinds[TRACE_ON], 2);
	assert_int_equal(kinds[TRACE_OFF], 1);
	assert_int_equal(kinds[TRACE_REGION_BEGIN], 2);
	apply(&states, TRACE_REGION_END, 7, 11); /* with the one inside it */
	assert_int_equal(trace_states_find(&states, 7)->depth, 0);
	assert_int_equal(trace_states_find(&copy, 7)->depth, 2);
}

/* However many come and go, those that are there are found. */
static void test_states_of_many(void **state)
{
	struct trace_states states;

	(void)state;
	assert_int_equal(trace_states_open(&states, &arena), 0);
	for (uint32_t tid = 1; tid <= 40000; tid++) {
		apply(&states, TRACE_THREAD, tid, 1);
		if (tid > 100)
			apply(&states, TRACE_END, tid - 100, 0);
		if (tid % 5000 == 0)
			trace_states_clean(&states, UINT64_MAX);
	}
	trace_states_clean(&states, UINT64_MAX);
	trace_states_clean(&states, UINT64_MAX);
	assert_in_range(states.len, 100, 110);
	for (uint32_t tid = 39901; tid <= 40000; tid++)
		assert_non_null(trace_states_find(&states, tid));
	assert_null(trace_states_find(&states, 39900));
}

static void test_waits(void **state)
{
	struct unwind_regs regs = { 0 };
	struct waiting waiting;
	struct wait wait;
	size_t at = 0;

	(void)state;
	waits_begin_sigsafe(&wait, WAIT_IO);
	assert_true(waits_next(&at, &waiting));
	assert_int_equal(waiting.tid, self_tid_sigsafe());
	assert_int_equal(waiting.reason, WAIT_IO);
	assert_int_equal(waiting.since_ns, wait.began_ns);
	assert_false(waits_next(&at, &waiting));
	/* Long enough to be one: it is there until it was recorded. */
	wait.began_ns -= WAITS_LEAST_NS + 1;
	assert_true(waits_end_sigsafe(&wait));
	at = 0;
	assert_true(waits_next(&at, &waiting));
	waits_record_sigsafe(&wait, 0, &regs);
	at = 0;
	assert_false(waits_next(&at, &waiting));
	waits_begin_sigsafe(&wait, WAIT_SLEEP);
	waits_leave_sigsafe();
	at = 0;
	assert_false(waits_next(&at, &waiting));
	assert_int_equal(self.wait_place, 0);
}

#define NOBODY 0x7ffffff0U /* beyond every thread's number */

static bool nobody_came, nobody_had_a_name;

static void look_for_nobody(void *to, const struct trace_event *event)
{
	(void)to;
	if (event->kind != TRACE_THREAD || event->tid != NOBODY)
		return;
	nobody_came = true;
	nobody_had_a_name = event->text != 0;
}

/* It had ended before its name could be read, and its creator has not been looked at yet. */
static void test_short_life(void **state)
{
	struct trace_sink sink = { .told = look_for_nobody };
	uint64_t before = clock_mono_ns();
	struct err err;

	(void)state;
	assert_int_equal(trace_attach(&sink, &err), 0);
	sink.from_ns = before;
	trace_collector.take(&(struct record){ .kind = RECORD_THREAD_START,
		.tid = NOBODY,
		.value = (uint64_t)getpid(),
		.time_ns = before + 1,
		.other = before + 1 });
	trace_collector.poll(clock_mono_ns() + 2 * TRACE_HOLD_NS);
	trace_detach(&sink);
	assert_true(nobody_came);
	assert_true(nobody_had_a_name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_queue),
		cmocka_unit_test(test_wakes),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_states_of_many),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_short_life),
	};

	return cmocka_run_group_tests(tests, open_arena, close_arena);
}
