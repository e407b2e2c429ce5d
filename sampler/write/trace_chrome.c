#include "sampler/write/trace_chrome.h"

#include <unistd.h>

#include "base/json.h"
#include "sampler/names/symbols.h"
#include "sampler/store/depot.h"
#include "sampler/store/labels.h"
#include "sampler/store/log.h"
#include "sampler/write/trace.h"
#include "sampler/write/trace_table.h"

#define FRAMES_MAX     64
#define FRAME_NAME_MAX 256      /* of a frame; longer ones are cut */
#define REGIONS_MAX    32       /* open in one thread; deeper ones are left out */
#define REUSED         10000000 /* as in trace.c */
#define REOPEN_NS      UINT64_C(1000000000)

struct thread {
	struct trace_cell cell;
	uint32_t tid, name;
	uint64_t id; /* as it is shown */
	bool waits, ended;
	uint32_t stack; /* of the wait */
	uint64_t waker; /* id of who ended it; 0: not known */
	size_t depth;   /* open regions; the first REGIONS_MAX of them are shown */
	uint32_t regions[REGIONS_MAX];
};

/* A stack, as its frames are written. */
struct stack {
	struct trace_cell cell;
	uint32_t depot;
	struct sv json;
};

struct trace_chrome {
	struct arena *arena;
	struct symbols *symbols;
	uint64_t symbols_ns; /* when they were read */
	uint64_t start_ns, now;
	uint64_t arrows;
	struct trace_table threads, stacks;
	struct trace_cell *at;
	bool ends;
};

/* In Go's words, where there is one. */
static const char *const off_names[TRACE_OFFS] = {
	[TRACE_OFF_UNKNOWN] = "waiting",
	[TRACE_OFF_READY] = "runnable",
	[TRACE_OFF_SYNC] = "semacquire",
	[TRACE_OFF_COND] = "sync.Cond.Wait",
	[TRACE_OFF_SLEEP] = "sleep",
	[TRACE_OFF_IO] = "IO wait",
	[TRACE_OFF_CALL] = "syscall",
};

/* Microseconds, with the nanoseconds behind the point. */
static void add_time(const struct trace_chrome *writer, struct buf *out)
{
	uint64_t part = writer->now % 1000;

	json_key(out, "ts");
	json_u64(out, writer->now / 1000);
	buf_add_byte(out, '.');
	buf_add_byte(out, (char)('0' + part / 100));
	buf_add_byte(out, (char)('0' + part / 10 % 10));
	buf_add_byte(out, (char)('0' + part % 10));
}

/* The head of an event, up to its own members. */
static void begin_event(struct trace_chrome *writer, const char *phase, const char *category,
	struct sv name, uint64_t id, struct buf *out)
{
	buf_add_cstr(out, ",\n");
	json_object_begin(out);
	json_member_cstr(out, "ph", phase);
	json_member_cstr(out, "cat", category);
	if (name.len > 0)
		json_member_string(out, "name", name);
	json_member_u64(out, "pid", (uint64_t)getpid());
	json_member_u64(out, "tid", id);
	add_time(writer, out);
}

static bool is_stack(const struct trace_cell *cell, const void *key)
{
	return ((const struct stack *)(const void *)cell)->depot == *(const uint32_t *)key;
}

/* Code that was loaded since is named, too. */
static void find_symbol(struct trace_chrome *writer, uintptr_t pc, struct symbol *out)
{
	struct symbols *again;
	struct err err;

	symbols_find(writer->symbols, pc, out);
	if (out->module < symbols_modules(writer->symbols) ||
		writer->now < writer->symbols_ns + REOPEN_NS)
		return;
	writer->symbols_ns = writer->now;
	if (symbols_open(writer->arena, &again, &err))
		return;
	writer->symbols = again;
	symbols_find(again, pc, out);
}

static struct sv frames_of(struct trace_chrome *writer, uint32_t depot)
{
	struct depot_stack frames = depot_get(depot);
	struct stack *stack;
	uint64_t hash = trace_hash(depot);
	struct buf json;

	stack = (void *)trace_table_find(&writer->stacks, hash, is_stack, &depot);
	if (stack)
		return stack->json;
	stack = arena_alloc(writer->arena, sizeof(*stack));
	if (!stack ||
		arena_buf(writer->arena, FRAMES_MAX * (size_t)(FRAME_NAME_MAX + 8), &json))
		return SV("[]");
	json_array_begin(&json);
	for (size_t i = 0; i < frames.len && i < FRAMES_MAX; i++) {
		struct symbol symbol;
		struct sv name;

		find_symbol(writer, frames.pcs[i] - 1, &symbol);
		name = sv_from_cstr(symbol.name);
		if (name.len > FRAME_NAME_MAX)
			name.len = FRAME_NAME_MAX;
		json_text(&json, name);
	}
	json_array_end(&json);
	stack->cell.hash = hash;
	stack->depot = depot;
	stack->json = json.failed ? SV("[]") : buf_sv(&json);
	(void)trace_table_add(&writer->stacks, writer->arena, &stack->cell);
	return stack->json;
}

static void add_stack(struct trace_chrome *writer, uint32_t depot, struct buf *out)
{
	if (!depot)
		return;
	json_key(out, "stack");
	buf_add_sv(out, frames_of(writer, depot));
}

static bool is_thread(const struct trace_cell *cell, const void *key)
{
	return ((const struct thread *)(const void *)cell)->tid == *(const uint32_t *)key;
}

static struct thread *find_thread(const struct trace_chrome *writer, uint32_t tid)
{
	return (void *)trace_table_find(&writer->threads, trace_hash(tid), is_thread, &tid);
}

static struct sv name_of(const struct thread *thread)
{
	struct sv name = labels_text_of(thread->name);

	return name.len > 0 ? name : SV("[thread without a name]");
}

static void put_name(struct trace_chrome *writer, const struct thread *thread, struct buf *out)
{
	begin_event(writer, "M", "", SV("thread_name"), thread->id, out);
	json_key(out, "args");
	json_object_begin(out);
	json_member_string(out, "name", name_of(thread));
	json_object_end(out);
	json_object_end(out);
}

/* A thread's first event. */
static struct thread *appear(
	struct trace_chrome *writer, uint32_t tid, uint32_t name, struct buf *out)
{
	struct thread *thread = find_thread(writer, tid);

	if (!thread) {
		thread = arena_alloc(writer->arena, sizeof(*thread));
		if (!thread)
			return NULL;
		thread->cell.hash = trace_hash(tid);
		thread->tid = tid;
		thread->id = tid;
		if (trace_table_add(&writer->threads, writer->arena, &thread->cell))
			return NULL;
	} else {
		thread->id += REUSED;
	}
	thread->name = name;
	thread->waits = thread->ended = false;
	thread->depth = 0;
	put_name(writer, thread, out);
	return thread;
}

static void begin_slice(struct trace_chrome *writer, const struct thread *thread,
	const char *category, struct sv name, struct buf *out)
{
	begin_event(writer, "B", category, name, thread->id, out);
	json_object_end(out);
}

/* It runs again, if it did not. */
static void go_on(struct trace_chrome *writer, struct thread *thread, struct buf *out)
{
	if (!thread->waits)
		return;
	thread->waits = false;
	begin_event(writer, "E", "wait", SV(""), thread->id, out);
	json_key(out, "args");
	json_object_begin(out);
	if (thread->waker)
		json_member_u64(out, "woken by", thread->waker);
	add_stack(writer, thread->stack, out);
	json_object_end(out);
	json_object_end(out);
}

static void stop(struct trace_chrome *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	unsigned detail = event->detail < TRACE_OFFS ? event->detail : TRACE_OFF_UNKNOWN;

	go_on(writer, thread, out);
	begin_slice(writer, thread, "wait", sv_from_cstr(off_names[detail]), out);
	thread->waits = true;
	thread->stack = event->stack;
	thread->waker = 0;
}

static void put_arrow(struct trace_chrome *writer, const char *phase, uint64_t id,
	bool encloses, struct buf *out)
{
	begin_event(writer, phase, "wake", SV("wakes"), id, out);
	json_member_u64(out, "id", writer->arrows);
	if (encloses)
		json_member_cstr(out, "bp", "e");
	json_object_end(out);
}

/* An arrow leads from a slice to a slice: who wakes gets one without length for it. */
static void wake(struct trace_chrome *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	const struct thread *waker = find_thread(writer, (uint32_t)event->value);

	if (!thread->waits || thread->waker || !waker || waker->ended || waker->waits ||
		waker == thread)
		return;
	thread->waker = waker->id;
	begin_event(writer, "X", "wake", SV("wakes"), waker->id, out);
	buf_add_cstr(out, ",\"dur\":0");
	json_key(out, "args");
	json_object_begin(out);
	json_member_u64(out, "thread", thread->id);
	json_member_string(out, "name", name_of(thread));
	add_stack(writer, event->stack, out);
	json_object_end(out);
	json_object_end(out);
	writer->arrows++;
	put_arrow(writer, "s", waker->id, false, out);
	put_arrow(writer, "f", thread->id, true, out);
}

/* A moment of a thread: `text` about it, or "". */
struct instant {
	const char *category;
	struct sv name, text;
	uint32_t stack;
};

static void put_instant(struct trace_chrome *writer, const struct thread *thread,
	const struct instant *instant, struct buf *out)
{
	begin_event(writer, "i", instant->category, instant->name, thread->id, out);
	json_member_cstr(out, "s", "t");
	json_key(out, "args");
	json_object_begin(out);
	if (instant->text.len > 0)
		json_member_string(out, "text", instant->text);
	add_stack(writer, instant->stack, out);
	json_object_end(out);
	json_object_end(out);
}

static void put_log(struct trace_chrome *writer, const struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	char line[LOG_TEXT_MAX];
	struct sv text = { line, 0 }, key = labels_text_of(event->text);

	if (!log_get(event->value, line, &text.len))
		text = SV("[written over by later lines]");
	put_instant(writer, thread,
		&(struct instant){ "log", key.len > 0 ? key : SV("log"), text, event->stack },
		out);
}

static void close_regions(
	struct trace_chrome *writer, struct thread *thread, size_t depth, struct buf *out)
{
	for (; thread->depth > depth; thread->depth--) {
		if (thread->depth > REGIONS_MAX)
			continue;
		begin_event(writer, "E", "region", SV(""), thread->id, out);
		json_object_end(out);
	}
}

static void begin_region(
	struct trace_chrome *writer, struct thread *thread, uint32_t name, struct buf *out)
{
	struct sv text = labels_text_of(name);

	if (thread->depth++ >= REGIONS_MAX)
		return;
	thread->regions[thread->depth - 1] = name;
	begin_slice(writer, thread, "region", text.len > 0 ? text : SV("region"), out);
}

/* With those inside it that were left open; one that was never begun is none. */
static void end_region(
	struct trace_chrome *writer, struct thread *thread, uint32_t name, struct buf *out)
{
	size_t depth = thread->depth;

	if (depth <= REGIONS_MAX) {
		while (depth > 0 && thread->regions[depth - 1] != name)
			depth--;
	}
	if (depth > 0)
		close_regions(writer, thread, depth - 1, out);
}

static void end_thread(struct trace_chrome *writer, struct thread *thread, struct buf *out)
{
	go_on(writer, thread, out);
	close_regions(writer, thread, 0, out);
	thread->ended = true;
}

static void put_heap(struct trace_chrome *writer, uint64_t bytes, struct buf *out)
{
	begin_event(writer, "C", "heap", SV("heap in use"), 0, out);
	json_key(out, "args");
	json_object_begin(out);
	json_member_u64(out, "bytes", bytes);
	json_object_end(out);
	json_object_end(out);
}

/* What a thread does itself. */
static void put_own(struct trace_chrome *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	go_on(writer, thread, out);
	switch (event->kind) {
	case TRACE_REGION_BEGIN:
		begin_region(writer, thread, event->text, out);
		break;
	case TRACE_REGION_END:
		end_region(writer, thread, event->text, out);
		break;
	case TRACE_LOG:
		put_log(writer, thread, event, out);
		break;
	case TRACE_TASK_BEGIN:
	case TRACE_TASK_END:
		put_instant(writer, thread,
			&(struct instant){ "task",
				event->kind == TRACE_TASK_BEGIN ? SV("task begins")
								: SV("task ends"),
				labels_text_of(event->text), event->stack },
			out);
		break;
	default:
		break;
	}
}

static void put_thread_event(struct trace_chrome *writer, struct thread *thread,
	const struct trace_event *event, struct buf *out)
{
	const struct thread *creator;

	switch (event->kind) {
	case TRACE_THREAD:
		creator = find_thread(writer, (uint32_t)event->value);
		if (event->value && creator && !creator->ended)
			put_instant(writer, creator,
				&(struct instant){ "thread", SV("makes a thread"),
					name_of(thread), event->stack },
				out);
		break;
	case TRACE_END:
		end_thread(writer, thread, out);
		break;
	case TRACE_ON:
		go_on(writer, thread, out);
		break;
	case TRACE_OFF:
		stop(writer, thread, event, out);
		break;
	case TRACE_STACK:
		if (thread->waits && !thread->stack)
			thread->stack = event->stack;
		break;
	case TRACE_WAKE:
		wake(writer, thread, event, out);
		break;
	case TRACE_SAMPLE:
		put_instant(writer, thread,
			&(struct instant){ "cpu", SV("CPU sample"), SV(""), event->stack },
			out);
		break;
	default:
		put_own(writer, thread, event, out);
		break;
	}
}

static void set_now(struct trace_chrome *writer, uint64_t time_ns)
{
	uint64_t now = time_ns > writer->start_ns ? time_ns - writer->start_ns : 0;

	if (now > writer->now)
		writer->now = now;
}

void trace_chrome_add(
	struct trace_chrome *writer, const struct trace_event *event, struct buf *out)
{
	struct thread *thread = find_thread(writer, event->tid);

	set_now(writer, event->time_ns);
	if (event->kind == TRACE_HEAP) {
		put_heap(writer, event->value, out);
		return;
	}
	if (!thread || thread->ended)
		thread = appear(
			writer, event->tid, event->kind == TRACE_THREAD ? event->text : 0, out);
	if (thread)
		put_thread_event(writer, thread, event, out);
}

struct trace_chrome *trace_chrome_begin(
	struct arena *arena, const char *name, uint64_t start_ns, struct buf *out)
{
	struct trace_chrome *writer = arena_alloc(arena, sizeof(*writer));
	struct err err;

	if (!writer || symbols_open(arena, &writer->symbols, &err))
		return NULL;
	writer->arena = arena;
	writer->start_ns = start_ns;
	json_object_begin(out);
	json_member_cstr(out, "displayTimeUnit", "ns");
	json_key(out, "traceEvents");
	json_array_begin(out);
	buf_add_byte(out, '\n');
	json_object_begin(out);
	json_member_cstr(out, "ph", "M");
	json_member_cstr(out, "name", "process_name");
	json_member_u64(out, "pid", (uint64_t)getpid());
	json_key(out, "args");
	json_object_begin(out);
	json_member_cstr(out, "name", name);
	json_object_end(out);
	json_object_end(out);
	return writer;
}

bool trace_chrome_finish(struct trace_chrome *writer, uint64_t end_ns, struct buf *out)
{
	if (!writer->ends) {
		set_now(writer, end_ns);
		writer->ends = true;
		writer->at = writer->threads.first;
	}
	for (; writer->at; writer->at = writer->at->next) {
		if (out->max - out->len < TRACE_ROOM / 2)
			return false;
		end_thread(writer, (void *)writer->at, out);
	}
	buf_add_cstr(out, "\n]}\n");
	return true;
}
