#include "tests/unit/unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/store/depot.h"
#include "sampler/store/labels.h"
#include "sampler/store/log.h"
#include "sampler/write/trace.h"
#include "tests/unit/trace_check.h"

#define ARENA_BYTES ((size_t)1 << 30)
#define OUT_BYTES   ((size_t)64 << 20)
#define START       1000
#define CPUS        2

#define GO_BLOCK_NET 27

static uint32_t text(const char *words)
{
	return labels_text_sigsafe(sv_from_cstr(words));
}

static __attribute__((noinline)) int leaf(int number)
{
	return number + 1;
}

static __attribute__((noinline)) int caller(int number)
{
	return leaf(number) * 3;
}

/* A stack of this program's own functions. */
static uint32_t stack(void)
{
	uintptr_t pcs[3] = { (uintptr_t)leaf + 1, (uintptr_t)caller + 1, (uintptr_t)stack + 1 };

	return depot_put_sigsafe(pcs, 3, UNWIND_COMPLETE);
}

/* The whole trace of these events, as a file has it. In the arena. */
static struct sv write_trace(struct arena *arena, const struct trace_event *events, size_t len)
{
	struct buf all, out;
	struct trace_writer *writer;
	struct symbols *symbols;
	struct err err;
	uint64_t end = START;
	bool done = false;

	assert_int_equal(arena_open(arena, ARENA_BYTES), 0);
	assert_int_equal(arena_buf(arena, OUT_BYTES, &all), 0);
	assert_int_equal(arena_buf(arena, TRACE_ROOM, &out), 0);
	assert_int_equal(symbols_open(arena, &symbols, &err), 0);
	writer = trace_begin(arena, CPUS, START, &out);
	assert_non_null(writer);
	for (size_t i = 0; i < len; i++) {
		trace_add(writer, &events[i], &out);
		assert_false(out.failed);
		buf_add_sv(&all, buf_sv(&out));
		buf_clear(&out);
		end = events[i].time_ns > end ? events[i].time_ns : end;
	}
	while (!done) {
		done = trace_finish(writer, symbols, end + 1, &out);
		assert_false(out.failed);
		assert_true(done || out.len > 0);
		buf_add_sv(&all, buf_sv(&out));
		buf_clear(&out);
	}
	assert_int_equal(trace_lost(writer), 0);
	assert_false(all.failed);
	return buf_sv(&all);
}

/* What has no time gets the next nanosecond. */
static void check_text(const struct trace_event *events, size_t len, const char *want)
{
	struct trace_event timed[32];
	struct go_trace trace;
	struct arena arena;
	char *got;

	memcpy(timed, events, len * sizeof(*events));
	for (size_t i = 0; i < len; i++)
		timed[i].time_ns = START + 10 * (i + 1);
	if (!go_trace_read(write_trace(&arena, timed, len), false, &trace))
		fail_msg("%s", trace.why);
	got = go_trace_text(&trace);
	assert_string_equal(got, want);
	free(got);
	go_trace_free(&trace);
	arena_close(&arena);
}

static void test_golden_bytes(void **state)
{
	const struct trace_event events[] = {
		{ .kind = TRACE_THREAD, .tid = 7, .text = text("main"), .time_ns = START + 5 },
		{ .kind = TRACE_ON, .tid = 7, .time_ns = START + 9 },
	};
	static const unsigned char want[] =
		"go 1.19 trace\0\0\0"
		"\x41\x00\x00"     /* batch: P 0, tick 0 */
		"\x84\x00\x02\x00" /* Gomaxprocs 2, no stack */
		"\x45\x09\x07"     /* 9 ticks on: ProcStart by thread 7 */
		"\x8e\x00\x07\x01" /* GoStart 7, its 1st */
		"\x52\x01\x01"     /* the end: GoPreempt with stack 1 */
		"\x06\x00"         /* ProcStop */
		"\x41\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x05" /* batch: no P, tick 5 */
		"\xcd\x04\x00\x07\x01\x00" /* GoCreate 7 with stack 1, by nobody */
		"\x41\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x0a" /* batch: no P, tick 10 */
		"\x02\x80\x94\xeb\xdc\x03"                         /* 10^9 ticks a second */
		"\xc3\x0f\x01\x01";                                /* stack 1, of one frame: */
	static const char string[] = "\x25\x01\x04main";
	struct arena arena;
	struct sv got = write_trace(&arena, events, COUNT(events));

	(void)state;
	assert_true(got.len > sizeof(want) + sizeof(string));
	assert_memory_equal(got.ptr, want, sizeof(want) - 1);
	assert_memory_equal(
		got.ptr + got.len - (sizeof(string) - 1), string, sizeof(string) - 1);
	arena_close(&arena);
}

static void test_waits_and_wakes(void **state)
{
	const struct trace_event events[] = {
		{ .kind = TRACE_THREAD, .tid = 7, .text = text("main") },
		{ .kind = TRACE_ON, .tid = 7, .cpu = 2 },
		{ .kind = TRACE_THREAD,
			.tid = 8,
			.text = text("worker"),
			.value = 7,
			.stack = stack() },
		{ .kind = TRACE_ON, .tid = 8 },
		{ .kind = TRACE_OFF, .tid = 8, .detail = TRACE_OFF_COND },
		{ .kind = TRACE_WAKE, .tid = 8, .value = 7 },
		{ .kind = TRACE_OFF, .tid = 7, .detail = TRACE_OFF_CALL },
		{ .kind = TRACE_ON, .tid = 8 },
		{ .kind = TRACE_ON, .tid = 7, .cpu = 1 },
		{ .kind = TRACE_END, .tid = 7 },
	};

	(void)state;
	check_text(events, COUNT(events),
		"0 P0 g0 Gomaxprocs 2 @-\n"
		"10 P-1 g0 GoCreate 7 1 @-\n"
		"20 P1 g0 ProcStart 7\n"
		"20 P1 g7 GoStart 7 1\n"
		"30 P1 g7 GoCreate 8 3 @main\n"
		"40 P0 g0 ProcStart 8\n"
		"40 P0 g8 GoStart 8 1\n"
		"50 P0 g8 GoBlockCond @worker\n"
		"50 P0 g0 ProcStop\n"
		"60 P1 g7 GoUnblock 8 2 @main\n"
		"70 P1 g7 GoSysCall @main\n"
		"70 P1 g7 GoSysBlock\n"
		"70 P1 g0 ProcStop\n"
		"80 P0 g0 ProcStart 8\n"
		"80 P0 g8 GoStart 8 3\n"
		"90 P1 g0 ProcStart 7\n"
		"90 P-1 g7 GoSysExit 7 2 0\n"
		"90 P1 g7 GoStart 7 3\n"
		"100 P1 g7 GoEnd\n"
		"100 P1 g0 ProcStop\n"
		"101 P0 g8 GoPreempt @worker\n"
		"101 P0 g0 ProcStop\n");
}

/* A record was lost here and there: it goes on without. */
static void test_what_does_not_fit_together(void **state)
{
	const struct trace_event events[] = {
		{ .kind = TRACE_OFF, .tid = 7, .detail = TRACE_OFF_SYNC },
		{ .kind = TRACE_OFF, .tid = 7, .detail = TRACE_OFF_IO },
		{ .kind = TRACE_WAKE, .tid = 7, .value = 99 },
		{ .kind = TRACE_WAKE, .tid = 7 },
		{ .kind = TRACE_REGION_END, .tid = 7, .text = text("never begun") },
		{ .kind = TRACE_ON, .tid = 7 },
		{ .kind = TRACE_END, .tid = 7 },
		{ .kind = TRACE_THREAD, .tid = 7, .text = text("runtime.again"), .value = 7 },
		{ .kind = TRACE_OFF, .tid = 7, .detail = 200 },
	};

	(void)state;
	check_text(events, COUNT(events),
		"0 P0 g0 Gomaxprocs 2 @-\n"
		"10 P0 g0 ProcStart 7\n"
		"10 P-1 g0 GoCreate 7 1 @-\n"
		"10 P0 g7 GoStart 7 1\n"
		"10 P0 g7 GoBlockSync @[thread without a name]\n"
		"10 P0 g0 ProcStop\n"
		"20 P0 g0 ProcStart 7\n"
		"20 P-1 g0 GoUnblock 7 2 @-\n"
		"20 P0 g7 GoStart 7 3\n"
		"20 P0 g7 GoBlockNet @[thread without a name]\n"
		"20 P0 g0 ProcStop\n"
		"30 P-1 g0 GoUnblock 7 4 @-\n"
		"50 P0 g0 ProcStart 7\n"
		"50 P0 g7 GoStart 7 5\n"
		"70 P0 g7 GoEnd\n"
		"70 P0 g0 ProcStop\n"
		"80 P-1 g0 GoCreate 10000007 4 @-\n"
		"90 P0 g0 ProcStart 7\n"
		"90 P0 g10000007 GoStart 10000007 1\n"
		"90 P0 g10000007 GoBlock @thread runtime.again\n"
		"90 P0 g0 ProcStop\n");
}

/* The stack of a wait is told when it is known, and belongs to that wait alone. */
static void test_stacks_told_later(void **state)
{
	const struct trace_event events[] = {
		{ .kind = TRACE_OFF, .tid = 7, .detail = TRACE_OFF_IO },
		{ .kind = TRACE_STACK, .tid = 7, .stack = stack() },
		{ .kind = TRACE_ON, .tid = 7 },
		{ .kind = TRACE_STACK, .tid = 7, .stack = stack() },
		{ .kind = TRACE_OFF, .tid = 7, .detail = TRACE_OFF_IO },
	};

	size_t frames[2], waits = 0;
	struct trace_event timed[COUNT(events)];
	struct go_trace trace;
	struct arena arena;

	(void)state;
	memcpy(timed, events, sizeof(events));
	for (size_t i = 0; i < COUNT(events); i++)
		timed[i].time_ns = START + 10 * (i + 1);
	if (!go_trace_read(write_trace(&arena, timed, COUNT(events)), false, &trace))
		fail_msg("%s", trace.why);
	for (size_t i = 0; i < trace.len && waits < 2; i++) {
		if (trace.events[i].type == GO_BLOCK_NET)
			frames[waits++] = trace.stacks[trace.events[i].args[0]].len;
	}
	assert_int_equal(waits, 2);
	assert_int_equal(frames[0], 4); /* and the thread's name below */
	assert_int_equal(frames[1], 1);
	go_trace_free(&trace);
	arena_close(&arena);
}

static void test_regions_tasks_and_logs(void **state)
{
	const struct trace_event events[] = {
		{ .kind = TRACE_THREAD, .tid = 7, .text = text("main") },
		{ .kind = TRACE_TASK_BEGIN, .tid = 7, .text = text("request"), .value = 5 },
		{ .kind = TRACE_REGION_BEGIN, .tid = 7, .text = text("outer"), .value = 5 },
		{ .kind = TRACE_REGION_BEGIN, .tid = 7, .text = text("inner"), .value = 5 },
		{ .kind = TRACE_LOG,
			.tid = 7,
			.text = text("key"),
			.value = log_put_sigsafe(SV("hello")) },
		{ .kind = TRACE_SAMPLE, .tid = 7, .stack = stack() },
		{ .kind = TRACE_REGION_END, .tid = 7, .text = text("outer"), .value = 5 },
		{ .kind = TRACE_TASK_END, .tid = 7, .value = 5 },
		{ .kind = TRACE_REGION_BEGIN, .tid = 7, .text = text("left open") },
		{ .kind = TRACE_HEAP, .value = 4096 },
		{ .kind = TRACE_OFF, .tid = 7, .detail = TRACE_OFF_SLEEP },
	};

	(void)state;
	check_text(events, COUNT(events),
		"0 P0 g0 Gomaxprocs 2 @-\n"
		"10 P-1 g0 GoCreate 7 1 @-\n"
		"20 P0 g0 ProcStart 7\n"
		"20 P0 g7 GoStart 7 1\n"
		"20 P0 g7 UserTaskCreate 5 0 1 @main\n"
		"30 P0 g7 UserRegion 5 0 2 @main\n"
		"40 P0 g7 UserRegion 5 0 3 @main\n"
		"50 P0 g7 UserLog 5 4 @main \"hello\"\n"
		"70 P0 g7 UserRegion 5 1 3 @main\n"
		"70 P0 g7 UserRegion 5 1 2 @main\n"
		"80 P0 g7 UserTaskEnd 5 @main\n"
		"90 P0 g7 UserRegion 0 0 5 @main\n"
		"100 P-1 g0 HeapAlloc 4096\n"
		"110 P0 g7 GoSleep @main\n"
		"110 P0 g0 ProcStop\n"
		"111 P0 g0 ProcStart 7\n"
		"111 P-1 g0 GoUnblock 7 2 @-\n"
		"111 P0 g7 GoStart 7 3\n"
		"111 P0 g7 UserRegion 0 1 5 @main\n"
		"111 P0 g7 GoPreempt @main\n"
		"111 P0 g0 ProcStop\n");
}

static uint64_t random_state; /* of draw(); never 0 */

/* The same numbers in every run. */
static uint32_t draw(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32) % below;
}

static struct trace_event random_event(uint64_t *time)
{
	static const char *const names[] = { "", "main", "worker", "runtime.gc", "io" };
	struct trace_event event = { .kind = (uint8_t)(1 + draw(TRACE_HEAP)) };

	*time += draw(3); /* often the same tick */
	event.time_ns = *time - draw(2);
	event.detail = (uint8_t)draw(TRACE_OFFS + 1);
	event.cpu = (uint16_t)draw(5);
	event.tid = 1 + draw(12);
	event.stack = draw(2) ? stack() : 0;
	event.text = text(names[draw(5)]);
	event.value = draw(13);
	/* A task's id is used once: that is for who makes the events. */
	if (event.kind == TRACE_TASK_BEGIN)
		event.value = *time << 8;
	if (event.kind == TRACE_LOG)
		event.value = log_put_sigsafe(SV("line"));
	return event;
}

/* Whatever comes in whatever order: the file keeps every rule, however its reader breaks ties. */
static void test_any_events(void **state)
{
	struct trace_event *events = calloc(4000, sizeof(*events));
	struct go_trace trace;

	(void)state;
	for (unsigned seed = 1; seed <= 300; seed++) {
		size_t len = seed % 10 ? seed : 4000;
		uint64_t time = START;
		struct arena arena;
		struct sv bytes;

		random_state = 88172645463325252U + seed;
		for (size_t i = 0; i < len; i++)
			events[i] = random_event(&time);
		bytes = write_trace(&arena, events, len);
		for (int late = 0; late < 2; late++) {
			if (!go_trace_read(bytes, late, &trace))
				fail_msg("seed %u: %s", seed, trace.why);
			go_trace_free(&trace);
		}
		arena_close(&arena);
	}
	free(events);
}

/* More threads that run at once than there are CPUs, and more stacks and strings than fit into one
 * round of writing. */
static void test_many(void **state)
{
	size_t len = 0;
	struct trace_event *events = calloc(20000, sizeof(*events));
	struct go_trace trace;
	struct arena arena;

	(void)state;
	for (uint32_t i = 1; i <= 1500; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "thread number %u", i);
		events[len++] = (struct trace_event){
			.kind = TRACE_THREAD, .tid = i, .text = text(name)
		};
		events[len++] = (struct trace_event){
			.kind = TRACE_ON, .tid = i, .time_ns = START + i
		};
	}
	if (!go_trace_read(write_trace(&arena, events, len), true, &trace))
		fail_msg("%s", trace.why);
	assert_int_equal(trace.events[trace.len - 1].time, 1501);
	go_trace_free(&trace);
	arena_close(&arena);
	free(events);
}

/* Files that break one rule each: would the checks above see it? Written as `P:type,value…` with a
 * tick between two, but for `=`: none. */
static const struct {
	const char *events, *why;
} broken[] = {
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,1 0:28,1 0:30", "rule 12" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,1 0:28,1 =0:30 0:6", "rule 1:" },
	{ "0:4,2,0 0:13,7,1,0 0:32,7", "rule 2" },
	{ "0:13,7,1,0 0:4,2,0", "rule 3" },
	{ "0:4,2,0 =0:5,7 =0:13,7,1,0 =0:14,7,1", "rule 3" },
	{ "0:4,2,0 0:13,7,1,0 0:14,7,1", "rule 4" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,1", "rule 5" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,1 0:47,0,0,1,1 0:18,1 0:6", "rule 6" },
	{ "0:4,2,0 0:13,7,9,0", "rule 7" },
	{ "0:4,2,0 0:49,1,0,7,1", "rule 8" },
	{ "0:4,2,0 3:5,7 3:13,7,1,0", "rule 9" },
	{ "0:4,2,0 0:13,7,2,0", "rule 10" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,1 0:18,3 0:6", "rule 10" },
	{ "0:4,2,0 0:5,8 0:13,7,1,0 0:14,7,1", "rule 11" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,2", "no consistent ordering" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,1 0:21,7,2,0", "no consistent ordering" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:13,8,1,0 0:14,7,1 0:14,8,1", "p is already running" },
	{ "0:4,2,0 0:5,7 0:13,7,1,0 0:14,7,1 0:47,0,1,1,1", "misuse of region" },
};

static void put_number(struct buf *out, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		buf_add_byte(out, (char)(value | 0x80));
	buf_add_byte(out, (char)value);
}

/* One word of `broken`; each is a batch of its own. */
static void put_word(struct buf *out, const char *word, uint64_t *time)
{
	char bytes[64];
	uint64_t type, value;
	struct buf body;
	char *at;
	unsigned count = 0;

	buf_init_fixed(&body, bytes, sizeof(bytes));
	*time += *word == '=' ? 0 : 1;
	word += *word == '=';
	buf_add_byte(out, 1 | 1 << 6);
	put_number(out, strtoull(word, &at, 10));
	put_number(out, *time);
	type = strtoull(at + 1, &at, 10);
	put_number(&body, 0);
	while (*at == ',') {
		value = strtoull(at + 1, &at, 10);
		put_number(&body, value);
		count++;
	}
	buf_add_byte(out, (char)(type | (count < 3 ? count : 3) << 6));
	if (count >= 3)
		put_number(out, body.len);
	buf_add_sv(out, buf_sv(&body));
}

static void test_broken_traces_are_seen(void **state)
{
	static const char tail[] =
		"\x02\x80\x94\xeb\xdc\x03"                         /* frequency */
		"\xc3\x06\x01\x01\x01\x01\x00\x00"                 /* stack 1: "main" */
		"\xc3\x0a\x02\x02\x01\x01\x00\x00\x02\x02\x00\x00" /* 2: "main", "other" */
		"\xc3\x06\x03\x01\x02\x02\x00\x00"                 /* 3: "other" */
		"\x25\x01\x04main\x25\x02\x05other";

	(void)state;
	for (size_t i = 0; i < COUNT(broken); i++) {
		char bytes[1024], words[256], *rest = words, *word;
		struct go_trace trace;
		uint64_t time = 0;
		struct buf out;

		buf_init_fixed(&out, bytes, sizeof(bytes));
		buf_add(&out, "go 1.19 trace\0\0\0", 16);
		(void)snprintf(words, sizeof(words), "%s", broken[i].events);
		while ((word = strtok_r(rest, " ", &rest)))
			put_word(&out, word, &time);
		buf_add(&out, tail, sizeof(tail) - 1);
		assert_false(go_trace_read(buf_sv(&out), false, &trace));
		if (!strstr(trace.why, broken[i].why))
			fail_msg("%s: '%s' instead of '%s'", broken[i].events, trace.why,
				broken[i].why);
		go_trace_free(&trace);
	}
}

/* A trace with something for every page of `go tool trace`. */
static size_t make_busy_trace(struct trace_event *events)
{
	static const uint8_t reasons[] = { TRACE_OFF_SYNC, TRACE_OFF_COND, TRACE_OFF_SLEEP,
		TRACE_OFF_IO, TRACE_OFF_CALL, TRACE_OFF_READY, TRACE_OFF_UNKNOWN };
	uint64_t now = START + 1000, task = 0;
	size_t len = 0;

#define ADD(...)                             \
	events[len++] = (struct trace_event) \
	{                                    \
		.time_ns = now, __VA_ARGS__  \
	}
	for (uint32_t tid = 100; tid < 160; tid++) {
		ADD(.kind = TRACE_THREAD, .tid = tid,
			.text = text(tid == 100 ? "main"
				     : tid % 2  ? "worker"
						: "io"),
			.value = tid > 100 ? 100 : 0, .stack = stack());
		ADD(.kind = TRACE_ON, .tid = tid);
		ADD(.kind = TRACE_OFF, .tid = tid, .detail = TRACE_OFF_SYNC, .stack = stack());
	}
	for (uint32_t turn = 0; turn < 700; turn++) {
		uint32_t tid = 100 + turn % 60, waker = 100 + (turn + 59) % 60;

		now += 100;
		ADD(.kind = TRACE_WAKE, .tid = tid, .value = turn % 3 ? waker : 0,
			.stack = stack());
		ADD(.kind = TRACE_ON, .tid = tid, .cpu = (uint16_t)(1 + turn % 2));
		ADD(.kind = TRACE_TASK_BEGIN, .tid = tid, .text = text("request"),
			.value = ++task);
		ADD(.kind = TRACE_REGION_BEGIN, .tid = tid, .text = text("query"),
			.value = task);
		now += 1000;
		ADD(.kind = TRACE_SAMPLE, .tid = tid, .stack = stack());
		ADD(.kind = TRACE_LOG, .tid = tid, .text = text("log"),
			.value = log_put_sigsafe(SV("a line")));
		ADD(.kind = TRACE_HEAP, .value = (turn + 1) * 4096);
		if (turn % 7 != 6) { /* the others are cut by the end */
			ADD(.kind = TRACE_REGION_END, .tid = tid, .text = text("query"));
			ADD(.kind = TRACE_TASK_END, .tid = tid, .value = task);
		}
		if (turn > 690) {
			ADD(.kind = TRACE_END, .tid = tid);
			continue;
		}
		now += 50;
		ADD(.kind = TRACE_OFF, .tid = tid, .detail = reasons[turn % COUNT(reasons)],
			.stack = stack());
	}
#undef ADD
	return len;
}

static void test_busy_trace(void **state)
{
	struct trace_event *events = calloc(20000, sizeof(*events));
	size_t len = make_busy_trace(events);
	const char *path = getenv("POSTERN_TRACE_FILE");
	struct go_trace trace;
	struct arena arena;
	struct sv bytes = write_trace(&arena, events, len);

	(void)state;
	for (int late = 0; late < 2; late++) {
		if (!go_trace_read(bytes, late, &trace))
			fail_msg("%s", trace.why);
		assert_int_equal(trace.samples, 700);
		go_trace_free(&trace);
	}
	if (path) { /* for the end-to-end test, which has the tools themselves read it */
		FILE *file = fopen(path, "wb");

		assert_non_null(file);
		assert_int_equal(fwrite(bytes.ptr, 1, bytes.len, file), bytes.len);
		assert_int_equal(fclose(file), 0);
	}
	arena_close(&arena);
	free(events);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden_bytes),
		cmocka_unit_test(test_waits_and_wakes),
		cmocka_unit_test(test_what_does_not_fit_together),
		cmocka_unit_test(test_stacks_told_later),
		cmocka_unit_test(test_regions_tasks_and_logs),
		cmocka_unit_test(test_any_events),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_busy_trace),
		cmocka_unit_test(test_broken_traces_are_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
