#include "sampler/write/trace.h"

#include <string.h>

#include "sampler/store/labels.h"
#include "sampler/store/log.h"
#include "sampler/write/trace_names.h"
#include "sampler/write/trace_table.h"

#define LANES_MAX   4096 /* threads that run at one time */
#define LANE_BYTES  1024
#define RECORD_MAX  512 /* the longest record that goes into a lane: a log line */
#define REGIONS_MAX 16  /* open in one thread; deeper ones are left out */
#define NO_PROC     UINT64_MAX
#define REUSED \
	10000000 /* more than any thread id: the second thread of an id is this much more */

enum go_event {
	GO_BATCH = 1,
	GO_FREQUENCY = 2,
	GO_GOMAXPROCS = 4,
	GO_PROC_START = 5,
	GO_PROC_STOP = 6,
	GO_CREATE = 13,
	GO_START = 14,
	GO_END = 15,
	GO_PREEMPT = 18,
	GO_SLEEP = 19,
	GO_BLOCK = 20,
	GO_UNBLOCK = 21,
	GO_BLOCK_SYNC = 25,
	GO_BLOCK_COND = 26,
	GO_BLOCK_NET = 27,
	GO_SYS_CALL = 28,
	GO_SYS_EXIT = 29,
	GO_SYS_BLOCK = 30,
	GO_HEAP_ALLOC = 33,
	GO_USER_TASK_CREATE = 45,
	GO_USER_TASK_END = 46,
	GO_USER_REGION = 47,
	GO_USER_LOG = 48,
	GO_CPU_SAMPLE = 49,
};

/* What a thread that goes off becomes; GO_SYS_CALL is followed by GO_SYS_BLOCK. */
static const uint8_t off_events[TRACE_OFFS] = {
	[TRACE_OFF_UNKNOWN] = GO_BLOCK,
	[TRACE_OFF_READY] = GO_PREEMPT,
	[TRACE_OFF_SYNC] = GO_BLOCK_SYNC,
	[TRACE_OFF_COND] = GO_BLOCK_COND,
	[TRACE_OFF_SLEEP] = GO_SLEEP,
	[TRACE_OFF_IO] = GO_BLOCK_NET,
	[TRACE_OFF_CALL] = GO_SYS_CALL,
};

enum state {
	READY = 0,
	RUNNING,
	WAITING,
	IN_CALL,
	DEAD,
};

/* Events of one P, in the order of time, until they become a batch of the file. */
struct lane {
	uint64_t proc;
	uint64_t last; /* ticks of its last event */
	struct thread *runs;
	size_t len;
	unsigned char bytes[LANE_BYTES];
};

struct region {
	uint32_t text;
	uint64_t task;
};

struct thread {
	struct trace_cell cell;
	uint32_t tid, root; /* root: text of its name */
	uint64_t g, seq;
	enum state state;
	struct lane *lane; /* while it runs, where; else where it ran last; or NULL */
	struct trace_stack
		*late; /* of the wait that it is in, when it is to be told yet; or NULL */
	size_t depth;  /* open regions; the first REGIONS_MAX of them are kept */
	struct region regions[REGIONS_MAX];
};

enum finish {
	FINISH_THREADS = 0,
	FINISH_LANES,
	FINISH_NAMES,
};

struct trace_writer {
	struct arena *arena;
	uint64_t start_ns, now; /* now: ticks, which are ns since the start */
	uint64_t lost;
	struct trace_names names;
	struct lane *lanes[LANES_MAX];
	size_t lanes_len, told_procs;
	struct lane wakes, samples; /* of no P */
	struct trace_table threads;
	enum finish finish;
	size_t at_lane;
	struct trace_cell *at;
};

static void flush(struct lane *lane, struct buf *out)
{
	buf_add(out, lane->bytes, lane->len);
	lane->len = 0;
}

/* Make room in a lane; a fresh one begins with the batch's head. */
static void open_batch(struct trace_writer *writer, struct lane *lane, struct buf *out)
{
	if (lane->len + RECORD_MAX > LANE_BYTES)
		flush(lane, out);
	if (lane->len > 0)
		return;
	lane->bytes[lane->len++] = GO_BATCH | 1 << 6;
	lane->len += trace_varint(lane->bytes + lane->len, lane->proc);
	lane->len += trace_varint(lane->bytes + lane->len, writer->now);
	lane->last = writer->now;
}

#define ARGS(...)                          \
	(const uint64_t[]){ __VA_ARGS__ }, \
		sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t)

/* One event: the time since the lane's last, and `len` numbers more. */
static void put(struct trace_writer *writer, struct lane *lane, unsigned type,
	const uint64_t *args, size_t len, struct buf *out)
{
	unsigned char body[64];
	size_t size;

	open_batch(writer, lane, out);
	size = trace_varint(body, writer->now - lane->last);
	lane->last = writer->now;
	for (size_t i = 0; i < len; i++)
		size += trace_varint(body + size, args[i]);
	lane->bytes[lane->len++] = (unsigned char)(type | (len < 3 ? len : 3) << 6);
	if (len >= 3)
		lane->len += trace_varint(lane->bytes + lane->len, size);
	memcpy(lane->bytes + lane->len, body, size);
	lane->len += size;
}

static uint64_t stack_id(
	struct trace_writer *writer, uint32_t depot, const struct thread *thread)
{
	return trace_names_stack(&writer->names, depot, thread->root);
}

/* The number of a stack that TRACE_STACK may fill in, as long as the thread waits. */
static uint64_t late_stack_id(struct trace_writer *writer, struct thread *thread)
{
	uint64_t id = 0;

	thread->late = trace_names_late(&writer->names, thread->root, &id);
	return id;
}

static bool is_thread(const struct trace_cell *cell, const void *key)
{
	return ((const struct thread *)(const void *)cell)->tid == *(const uint32_t *)key;
}

static struct thread *find_thread(const struct trace_writer *writer, uint32_t tid)
{
	return (void *)trace_table_find(&writer->threads, trace_hash(tid), is_thread, &tid);
}

static struct thread *live_thread(const struct trace_writer *writer, uint32_t tid)
{
	struct thread *thread = find_thread(writer, tid);

	return thread && thread->state != DEAD ? thread : NULL;
}

/* A thread's first event. Its number is its id, unless one before it had that. */
static struct thread *appear(struct trace_writer *writer, const struct trace_event *event,
	uint32_t root, struct buf *out)
{
	struct thread *thread = find_thread(writer, event->tid), *creator = NULL;
	uint64_t stack = 0;

	if (!thread) {
		thread = arena_alloc(writer->arena, sizeof(*thread));
		if (!thread)
			return NULL;
		thread->cell.hash = trace_hash(event->tid);
		thread->tid = event->tid;
		thread->g = event->tid;
		if (trace_table_add(&writer->threads, writer->arena, &thread->cell))
			return NULL;
	} else {
		thread->g += REUSED;
	}
	thread->root = root;
	thread->state = READY;
	thread->seq = 1;
	thread->depth = 0;
	thread->lane = NULL;
	thread->late = NULL;
	if (event->kind == TRACE_THREAD)
		creator = live_thread(writer, (uint32_t)event->value);
	if (creator && creator->state != RUNNING)
		creator = NULL;
	if (creator)
		stack = stack_id(writer, event->stack, creator);
	put(writer, creator ? creator->lane : &writer->wakes, GO_CREATE,
		ARGS(thread->g, stack_id(writer, 0, thread), stack), out);
	return thread;
}

/* The thread of an event; one that was never seen appears. */
static struct thread *thread_of(
	struct trace_writer *writer, const struct trace_event *event, struct buf *out)
{
	struct thread *thread = live_thread(writer, event->tid);

	return thread ? thread : appear(writer, event, 0, out);
}

static struct lane *new_lane(struct trace_writer *writer, struct buf *out)
{
	struct lane *lane;

	if (writer->lanes_len == LANES_MAX)
		return NULL;
	lane = arena_alloc(writer->arena, sizeof(*lane));
	if (!lane)
		return NULL;
	lane->proc = writer->lanes_len;
	writer->lanes[writer->lanes_len++] = lane;
	if (writer->lanes_len > writer->told_procs) {
		writer->told_procs = writer->lanes_len;
		put(writer, lane, GO_GOMAXPROCS, ARGS(writer->told_procs, 0), out);
	}
	return lane;
}

/* A P to run on: that of the CPU, where it ran last, the first free one, a new one. */
static struct lane *choose_lane(
	struct trace_writer *writer, const struct thread *thread, unsigned cpu, struct buf *out)
{
	if (cpu > 0 && cpu <= writer->told_procs) {
		while (writer->lanes_len < cpu) {
			if (!new_lane(writer, out))
				return NULL;
		}
		if (!writer->lanes[cpu - 1]->runs)
			return writer->lanes[cpu - 1];
	}
	if (thread->lane && !thread->lane->runs)
		return thread->lane;
	for (size_t i = 0; i < writer->lanes_len; i++) {
		if (!writer->lanes[i]->runs)
			return writer->lanes[i];
	}
	return new_lane(writer, out);
}

static uint64_t next_seq(struct thread *thread)
{
	return thread->seq++;
}

/* It could run: by `waker`, who runs, or NULL: nobody knows. */
static void wake(struct trace_writer *writer, struct thread *thread, struct thread *waker,
	uint32_t stack, struct buf *out)
{
	struct lane *lane = waker ? waker->lane : &writer->wakes;
	uint64_t id = waker ? stack_id(writer, stack, waker) : 0;

	if (thread->state == IN_CALL)
		put(writer, &writer->wakes, GO_SYS_EXIT, ARGS(thread->g, next_seq(thread), 0),
			out);
	else if (thread->state == WAITING)
		put(writer, lane, GO_UNBLOCK, ARGS(thread->g, next_seq(thread), id), out);
	else
		return;
	thread->state = READY;
}

/* Every switch starts the P anew: where its thread id is told is the only place that names the thread of
 * a P. False when there is no P to be had. */
static bool run(
	struct trace_writer *writer, struct thread *thread, unsigned cpu, struct buf *out)
{
	struct lane *lane;

	if (thread->state == RUNNING)
		return true;
	lane = choose_lane(writer, thread, cpu, out);
	if (!lane) {
		writer->lost++;
		return false;
	}
	wake(writer, thread, NULL, 0, out);
	put(writer, lane, GO_PROC_START, ARGS(thread->tid), out);
	put(writer, lane, GO_START, ARGS(thread->g, next_seq(thread)), out);
	lane->runs = thread;
	thread->lane = lane;
	thread->late = NULL;
	thread->state = RUNNING;
	return true;
}

/* The P must stop after a system call, or later tools end in a panic; after the rest it may. */
static void stop_lane(struct trace_writer *writer, struct lane *lane, struct buf *out)
{
	put(writer, lane, GO_PROC_STOP, NULL, 0, out);
	lane->runs = NULL;
}

static void stop(struct trace_writer *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	unsigned detail = event->detail < TRACE_OFFS ? event->detail : TRACE_OFF_UNKNOWN;
	uint64_t stack;

	if (!run(writer, thread, 0, out))
		return;
	stack = event->stack || detail == TRACE_OFF_READY
			? stack_id(writer, event->stack, thread)
			: late_stack_id(writer, thread);
	put(writer, thread->lane, off_events[detail], ARGS(stack), out);
	thread->state = detail == TRACE_OFF_READY ? READY : WAITING;
	if (detail == TRACE_OFF_CALL) {
		put(writer, thread->lane, GO_SYS_BLOCK, NULL, 0, out);
		thread->state = IN_CALL;
	}
	stop_lane(writer, thread->lane, out);
}

static void put_region(struct trace_writer *writer, const struct thread *thread,
	const struct region *region, uint64_t mode, uint32_t stack, struct buf *out)
{
	put(writer, thread->lane, GO_USER_REGION,
		ARGS(region->task, mode,
			trace_names_string(&writer->names, labels_text_of(region->text)),
			stack_id(writer, stack, thread)),
		out);
}

static void begin_region(struct trace_writer *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	struct region *region = &thread->regions[thread->depth];

	if (thread->depth++ >= REGIONS_MAX)
		return;
	*region = (struct region){ event->text, event->value };
	put_region(writer, thread, region, 0, event->stack, out);
}

static void close_regions(struct trace_writer *writer, struct thread *thread, size_t depth,
	uint32_t stack, struct buf *out)
{
	for (; thread->depth > depth; thread->depth--) {
		if (thread->depth <= REGIONS_MAX)
			put_region(writer, thread, &thread->regions[thread->depth - 1], 1,
				stack, out);
	}
}

/* With those inside it that were left open; one that was never begun is none. */
static void end_region(struct trace_writer *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	size_t depth = thread->depth;

	if (depth <= REGIONS_MAX) {
		while (depth > 0 && thread->regions[depth - 1].text != event->text)
			depth--;
	}
	if (depth > 0)
		close_regions(writer, thread, depth - 1, event->stack, out);
}

static void end_thread(
	struct trace_writer *writer, struct thread *thread, uint32_t stack, struct buf *out)
{
	if (!run(writer, thread, 0, out))
		return;
	close_regions(writer, thread, 0, stack, out);
	put(writer, thread->lane, GO_END, NULL, 0, out);
	thread->state = DEAD;
	stop_lane(writer, thread->lane, out);
}

static void add_log(struct trace_writer *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	char line[LOG_TEXT_MAX];
	struct sv text = { line, 0 };
	uint64_t key = trace_names_string(&writer->names, labels_text_of(event->text));
	uint64_t task = thread->depth > 0 ? thread->regions[0].task : 0;
	struct lane *lane = thread->lane;

	if (!log_get(event->value, line, &text.len))
		text = SV("[written over by later lines]");
	put(writer, lane, GO_USER_LOG, ARGS(task, key, stack_id(writer, event->stack, thread)),
		out);
	lane->len += trace_varint(lane->bytes + lane->len, text.len);
	memcpy(lane->bytes + lane->len, text.ptr, text.len);
	lane->len += text.len;
}

/* The oldest tools add a sample's delta to the clock and the later ones do not: it is always 0, and no
 * other event shares a batch with samples. */
static void add_sample(struct trace_writer *writer, const struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	struct lane *lane = &writer->samples;

	open_batch(writer, lane, out);
	lane->last = writer->now;
	put(writer, lane, GO_CPU_SAMPLE,
		ARGS(writer->now, thread->state == RUNNING ? thread->lane->proc : NO_PROC,
			thread->g, stack_id(writer, event->stack, thread)),
		out);
}

/* What a thread does itself: it must be running then. */
static void add_own(struct trace_writer *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	if (!run(writer, thread, 0, out))
		return;
	switch (event->kind) {
	case TRACE_REGION_BEGIN:
		begin_region(writer, thread, event, out);
		break;
	case TRACE_REGION_END:
		end_region(writer, thread, event, out);
		break;
	case TRACE_TASK_BEGIN:
		put(writer, thread->lane, GO_USER_TASK_CREATE,
			ARGS(event->value, 0,
				trace_names_string(&writer->names, labels_text_of(event->text)),
				stack_id(writer, event->stack, thread)),
			out);
		break;
	case TRACE_TASK_END:
		put(writer, thread->lane, GO_USER_TASK_END,
			ARGS(event->value, stack_id(writer, event->stack, thread)), out);
		break;
	case TRACE_LOG:
		add_log(writer, thread, event, out);
		break;
	default:
		break;
	}
}

/* The number of processors comes alone on the first tick: before any start of a thread, for tools that
 * take the order of equal ticks as they find it. */
static void set_now(struct trace_writer *writer, uint64_t time_ns)
{
	uint64_t ticks = time_ns > writer->start_ns ? time_ns - writer->start_ns : 1;

	if (ticks > writer->now)
		writer->now = ticks;
}

void trace_add(struct trace_writer *writer, const struct trace_event *event, struct buf *out)
{
	struct thread *thread, *waker;

	set_now(writer, event->time_ns);
	if (event->kind == TRACE_HEAP) {
		put(writer, &writer->wakes, GO_HEAP_ALLOC, ARGS(event->value), out);
		return;
	}
	if (event->kind == TRACE_THREAD && !live_thread(writer, event->tid))
		thread = appear(writer, event, event->text, out);
	else
		thread = thread_of(writer, event, out);
	if (!thread) {
		writer->lost++;
		return;
	}
	switch (event->kind) {
	case TRACE_THREAD:
		break;
	case TRACE_END:
		end_thread(writer, thread, event->stack, out);
		break;
	case TRACE_ON:
		(void)run(writer, thread, event->cpu, out);
		break;
	case TRACE_OFF:
		stop(writer, thread, event, out);
		break;
	case TRACE_WAKE:
		waker = live_thread(writer, (uint32_t)event->value);
		if (waker && (waker->state != RUNNING || waker == thread))
			waker = NULL;
		wake(writer, thread, waker, event->stack, out);
		break;
	case TRACE_STACK:
		if (thread->late)
			trace_names_set(thread->late, event->stack);
		break;
	case TRACE_SAMPLE:
		add_sample(writer, thread, event, out);
		break;
	default:
		add_own(writer, thread, event, out);
		break;
	}
}

struct trace_writer *trace_begin(
	struct arena *arena, unsigned cpus, uint64_t start_ns, struct buf *out)
{
	struct trace_writer *writer = arena_alloc(arena, sizeof(*writer));
	struct lane *lane;

	if (!writer)
		return NULL;
	writer->arena = arena;
	writer->names.arena = arena;
	writer->start_ns = start_ns;
	writer->told_procs = cpus > 0 ? cpus : 1;
	writer->wakes.proc = writer->samples.proc = NO_PROC;
	lane = new_lane(writer, out);
	if (!lane)
		return NULL;
	buf_add(out, "go 1.19 trace\0\0\0", 16);
	put(writer, lane, GO_GOMAXPROCS, ARGS(writer->told_procs, 0), out);
	writer->now = 1;
	return writer;
}

static bool has_room(const struct buf *out)
{
	return out->max - out->len >= TRACE_ROOM / 2;
}

/* Nobody may run at the end, and no region be open: the oldest tool would use what is not there. */
static bool finish_threads(struct trace_writer *writer, struct buf *out)
{
	static const struct trace_event preempted = { .kind = TRACE_OFF,
		.detail = TRACE_OFF_READY };

	for (; writer->at; writer->at = writer->at->next) {
		struct thread *thread = (void *)writer->at;

		if (!has_room(out))
			return false;
		if (thread->state == DEAD || (thread->state != RUNNING && thread->depth == 0) ||
			!run(writer, thread, 0, out))
			continue;
		close_regions(writer, thread, 0, 0, out);
		stop(writer, thread, &preempted, out);
	}
	return true;
}

static bool finish_lanes(struct trace_writer *writer, struct buf *out)
{
	for (; writer->at_lane < writer->lanes_len; writer->at_lane++) {
		if (!has_room(out))
			return false;
		flush(writer->lanes[writer->at_lane], out);
	}
	flush(&writer->samples, out);
	flush(&writer->wakes, out);
	/* What follows belongs to no P, but must follow a batch. */
	open_batch(writer, &writer->wakes, out);
	flush(&writer->wakes, out);
	buf_add_byte(out, GO_FREQUENCY);
	buf_add(out, "\x80\x94\xeb\xdc\x03", 5); /* 10^9 */
	return true;
}

bool trace_finish(
	struct trace_writer *writer, struct symbols *symbols, uint64_t end_ns, struct buf *out)
{
	if (writer->finish == FINISH_THREADS) {
		set_now(writer, end_ns);
		if (!writer->at)
			writer->at = writer->threads.first;
		if (!finish_threads(writer, out))
			return false;
		writer->finish = FINISH_LANES;
	}
	if (writer->finish == FINISH_LANES) {
		if (!finish_lanes(writer, out))
			return false;
		writer->finish = FINISH_NAMES;
	}
	return trace_names_write(&writer->names, symbols, out);
}

uint64_t trace_lost(const struct trace_writer *writer)
{
	return writer->lost;
}
