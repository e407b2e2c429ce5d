#include "tests/unit/trace_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROCS_MAX   5000
#define THREADS_MAX 5000
#define BODY_MAX    2048
#define TYPES       50
#define REUSED      10000000

enum {
	BATCH = 1,
	FREQUENCY = 2,
	STACK = 3,
	GOMAXPROCS = 4,
	PROC_START = 5,
	PROC_STOP = 6,
	CREATE = 13,
	START = 14,
	END = 15,
	PREEMPT = 18,
	SLEEP = 19,
	BLOCK = 20,
	UNBLOCK = 21,
	BLOCK_SYNC = 25,
	BLOCK_COND = 26,
	BLOCK_NET = 27,
	SYS_CALL = 28,
	SYS_EXIT = 29,
	SYS_BLOCK = 30,
	IN_SYSCALL = 32,
	HEAP_ALLOC = 33,
	STRING = 37,
	TASK_CREATE = 45,
	TASK_END = 46,
	REGION = 47,
	LOG = 48,
	SAMPLE = 49
};

/* Values after the time, of what our writer uses and of what it must not. */
static const struct {
	const char *name;
	size_t values;
	bool has_stack; /* the last of them */
} types[TYPES] = {
	[GOMAXPROCS] = { "Gomaxprocs", 2, true },
	[PROC_START] = { "ProcStart", 1, false },
	[PROC_STOP] = { "ProcStop", 0, false },
	[CREATE] = { "GoCreate", 3, true },
	[START] = { "GoStart", 2, false },
	[END] = { "GoEnd", 0, false },
	[PREEMPT] = { "GoPreempt", 1, true },
	[SLEEP] = { "GoSleep", 1, true },
	[BLOCK] = { "GoBlock", 1, true },
	[UNBLOCK] = { "GoUnblock", 3, true },
	[BLOCK_SYNC] = { "GoBlockSync", 1, true },
	[BLOCK_COND] = { "GoBlockCond", 1, true },
	[BLOCK_NET] = { "GoBlockNet", 1, true },
	[SYS_CALL] = { "GoSysCall", 1, true },
	[SYS_EXIT] = { "GoSysExit", 3, false },
	[SYS_BLOCK] = { "GoSysBlock", 0, false },
	[IN_SYSCALL] = { "GoInSyscall", 1, false },
	[HEAP_ALLOC] = { "HeapAlloc", 1, false },
	[TASK_CREATE] = { "UserTaskCreate", 4, true },
	[TASK_END] = { "UserTaskEnd", 2, true },
	[REGION] = { "UserRegion", 4, true },
	[LOG] = { "UserLog", 3, true },
	[SAMPLE] = { "CPUSample", 4, true },
};

enum {
	DEAD,
	RUNNABLE,
	RUNNING,
	WAITING
};

struct thread {
	uint64_t g, seq, root; /* root: string */
	int status;
	bool ended;
	size_t depth;
	uint64_t regions[64];
};

struct proc {
	uint64_t id, g; /* g: of the events that are read */
	size_t len, at;
	size_t *events; /* numbers in file order */
	bool started;
	uint64_t runs; /* as the checks see it */
	uint64_t tid;
};

static struct thread threads[THREADS_MAX];
static size_t threads_len;
static struct proc procs[PROCS_MAX];
static size_t procs_len;

static bool fail(struct go_trace *trace, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static bool fail(struct go_trace *trace, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(trace->why, sizeof(trace->why), format, args);
	va_end(args);
	return false;
}

static bool number(struct sv *rest, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; shift < 70 && rest->len > 0; shift += 7) {
		unsigned char byte = (unsigned char)*rest->ptr;

		rest->ptr++;
		rest->len--;
		*out |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return false;
}

static struct proc *proc_of(uint64_t id)
{
	for (size_t i = 0; i < procs_len; i++) {
		if (procs[i].id == id)
			return &procs[i];
	}
	if (procs_len == PROCS_MAX)
		return NULL;
	procs[procs_len] = (struct proc){ .id = id };
	return &procs[procs_len++];
}

static struct thread *thread_of(uint64_t g)
{
	for (size_t i = 0; i < threads_len; i++) {
		if (threads[i].g == g)
			return &threads[i];
	}
	if (threads_len == THREADS_MAX)
		abort();
	threads[threads_len] = (struct thread){ .g = g };
	return &threads[threads_len++];
}

static bool read_string(struct go_trace *trace, struct sv *rest)
{
	uint64_t id, len;

	if (!number(rest, &id) || !number(rest, &len) || len > rest->len)
		return fail(trace, "string cut short");
	if (id == 0 || id >= 4096 || len == 0 || len > 1000000 || trace->strings[id].ptr)
		return fail(trace, "string %" PRIu64 " of length %" PRIu64, id, len);
	trace->strings[id] = (struct sv){ rest->ptr, len };
	rest->ptr += len;
	rest->len -= len;
	return true;
}

static bool read_stack(struct go_trace *trace, struct sv body)
{
	uint64_t id, len, *frames;

	if (!number(&body, &id) || !number(&body, &len) || id == 0 || id >= 4096 || len == 0 ||
		len > 1000 || trace->stacks[id].frames)
		return fail(trace, "stack that is twice there, empty or too long");
	frames = calloc(len * 4, sizeof(*frames));
	for (size_t i = 0; i < len * 4; i++) {
		if (!number(&body, &frames[i])) {
			free(frames);
			return fail(trace, "stack cut short");
		}
	}
	trace->stacks[id].len = len;
	trace->stacks[id].frames = frames;
	return body.len == 0 || fail(trace, "stack longer than it says");
}

/* Which thread an event is of, as all the parsers find out. */
static void assign(struct go_event *event, struct proc *proc)
{
	event->g = proc->g;
	switch (event->type) {
	case START:
		event->g = proc->g = event->args[0];
		break;
	case END:
	case PREEMPT:
	case SLEEP:
	case BLOCK:
	case BLOCK_SYNC:
	case BLOCK_COND:
	case BLOCK_NET:
	case SYS_BLOCK:
		proc->g = 0;
		break;
	case SYS_EXIT:
		event->g = event->args[0];
		break;
	case SAMPLE:
		event->g = event->args[2];
		break;
	default:
		break;
	}
}

struct file {
	struct sv rest;
	struct proc *proc;
	uint64_t clock;
	size_t batch, samples_batch,
		others_batch; /* the last ones with samples, and with others */
	bool has_frequency;
};

static bool read_values(
	struct go_trace *trace, struct file *file, unsigned first, struct go_event *event)
{
	struct sv body = file->rest;
	uint64_t size, delta, got = 0;
	size_t want = types[event->type].values;

	if ((first >> 6) != (want < 3 ? want : 3))
		return fail(trace, "%s says %u values", types[event->type].name, first >> 6);
	if (want >= 3) {
		if (!number(&file->rest, &size) || size > file->rest.len || size > BODY_MAX)
			return fail(trace, "%s has a bad length", types[event->type].name);
		body = (struct sv){ file->rest.ptr, size };
		file->rest.ptr += size;
		file->rest.len -= size;
	}
	if (!number(&body, &delta))
		return fail(trace, "cut short");
	while (got < want && number(&body, &event->args[got]))
		got++;
	event->len = got;
	if (got != want || (want >= 3 && body.len > 0))
		return fail(trace, "%s has %" PRIu64 " values", types[event->type].name, got);
	if (want < 3)
		file->rest = body;
	if (event->type == SAMPLE && delta != 0)
		return fail(trace, "rule 8: a sample moves the clock");
	file->clock += delta;
	event->time = event->type == SAMPLE ? event->args[0] : file->clock;
	return true;
}

static bool read_event(struct go_trace *trace, struct file *file, unsigned first)
{
	struct go_event *event = &trace->events[trace->len];
	uint64_t len;

	*event = (struct go_event){ .type = first & 63, .batch = file->batch };
	if (event->type >= TYPES || !types[event->type].name)
		return fail(trace, "event of type %u", event->type);
	if (!file->proc)
		return fail(trace, "%s before the first batch", types[event->type].name);
	event->proc = file->proc->id;
	if (!read_values(trace, file, first, event))
		return false;
	if (event->type == LOG) {
		if (!number(&file->rest, &len) || len > file->rest.len || len > 1000000)
			return fail(trace, "log cut short");
		event->log = (struct sv){ file->rest.ptr, len };
		file->rest.ptr += len;
		file->rest.len -= len;
	}
	if (event->type == SAMPLE)
		file->samples_batch = file->batch;
	else
		file->others_batch = file->batch;
	if (file->samples_batch == file->others_batch)
		return fail(trace, "rule 8: a batch with samples and others");
	assign(event, file->proc);
	trace->len++;
	return true;
}

static bool read_record(struct go_trace *trace, struct file *file)
{
	unsigned first = (unsigned char)*file->rest.ptr;
	uint64_t value, size;
	struct sv body;

	file->rest.ptr++;
	file->rest.len--;
	if ((first & 63) != BATCH && !file->proc)
		return fail(trace, "record of type %u before the first batch", first & 63);
	switch (first & 63) {
	case BATCH:
		if (first >> 6 != 1 || !number(&file->rest, &value) ||
			!number(&file->rest, &file->clock))
			return fail(trace, "bad batch");
		file->proc = proc_of(value);
		file->batch++;
		return file->proc || fail(trace, "too many Ps");
	case FREQUENCY:
		file->has_frequency = true;
		return (first >> 6 == 0 && number(&file->rest, &value) &&
			       value == 1000000000) ||
		       fail(trace, "bad frequency");
	case STRING:
		return read_string(trace, &file->rest);
	case STACK:
		if (first >> 6 != 3 || !number(&file->rest, &size) || size > file->rest.len ||
			size > BODY_MAX)
			return fail(trace, "stack with a bad length");
		body = (struct sv){ file->rest.ptr, size };
		file->rest.ptr += size;
		file->rest.len -= size;
		return read_stack(trace, body);
	default:
		return read_event(trace, file, first);
	}
}

/* Is it an event's turn, by its thread's state? Then `status` and `moves` say what comes of it. */
static bool is_ready(
	const struct go_event *event, struct thread **thread, int *status, bool *moves)
{
	struct thread *t = NULL;
	int before = 0, after = 0;
	uint64_t seq = UINT64_MAX;

	*moves = false;
	switch (event->type) {
	case CREATE:
		t = thread_of(event->args[0]);
		seq = 0;
		before = DEAD;
		after = RUNNABLE;
		break;
	case START:
		t = thread_of(event->g);
		seq = event->args[1];
		before = RUNNABLE;
		after = RUNNING;
		break;
	case UNBLOCK:
	case SYS_EXIT:
		t = thread_of(event->args[0]);
		seq = event->args[1];
		before = WAITING;
		after = RUNNABLE;
		break;
	case PREEMPT:
		t = thread_of(event->g);
		before = RUNNING;
		after = RUNNABLE;
		break;
	case SLEEP:
	case BLOCK:
	case BLOCK_SYNC:
	case BLOCK_COND:
	case BLOCK_NET:
	case SYS_BLOCK:
		t = thread_of(event->g);
		before = RUNNING;
		after = WAITING;
		break;
	default:
		break;
	}
	*thread = t;
	*status = after;
	if (!t)
		return true;
	*moves = seq != UINT64_MAX;
	return t->status == before && (seq == UINT64_MAX || seq == t->seq);
}

/* The merge of order.go: of the events whose turn it is, the one with the lowest time. */
static bool merge(struct go_trace *trace, bool late)
{
	struct go_event *sorted = calloc(trace->len + 1, sizeof(*sorted));
	struct thread *thread;
	size_t len = 0;
	int status;
	bool moves, ok = true;

	while (len < trace->len) {
		struct proc *best = NULL;
		const struct go_event *event = NULL;

		for (size_t i = 0; i < procs_len; i++) {
			struct proc *proc = &procs[late ? procs_len - 1 - i : i];
			const struct go_event *head;

			if (proc->at == proc->len)
				continue;
			head = &trace->events[proc->events[proc->at]];
			if (is_ready(head, &thread, &status, &moves) &&
				(!event || head->time < event->time)) {
				best = proc;
				event = head;
			}
		}
		if (!best) {
			ok = fail(trace, "no consistent ordering of events possible");
			break;
		}
		best->at++;
		(void)is_ready(event, &thread, &status, &moves);
		if (thread) {
			thread->status = status;
			thread->seq += moves;
		}
		sorted[len++] = *event;
		if (len > 1 && sorted[len - 2].time > event->time) {
			ok = fail(trace, "time stamps out of order");
			break;
		}
	}
	free(trace->events);
	trace->events = sorted;
	return ok;
}

static bool fail_at(struct go_trace *trace, const struct go_event *event, const char *what)
{
	return fail(trace, "%s: %s at %" PRIu64 " of thread %" PRIu64 " on P %" PRId64, what,
		types[event->type].name, event->time, event->g, (int64_t)event->proc);
}

/* Rule 10: the outermost frame of all of a thread's stacks is its name, which is not Go's own. */
static bool check_stack(
	struct go_trace *trace, const struct go_event *event, uint64_t id, uint64_t g)
{
	const struct go_stack *stack = &trace->stacks[id];
	uint64_t root;

	if (id == 0)
		return event->type == UNBLOCK || event->type == CREATE ||
		       event->type == GOMAXPROCS || fail_at(trace, event, "rule 10: no stack");
	if (id >= 4096 || stack->len == 0)
		return fail_at(trace, event, "rule 7: a stack that is not there");
	root = stack->frames[stack->len * 4 - 3];
	if (root == 0 || sv_starts_with(trace->strings[root], SV("runtime.")))
		return fail_at(trace, event, "rule 10: the name of Go's own threads");
	if (g != 0 && root != thread_of(g)->root)
		return fail_at(trace, event, "rule 10: not the thread's name");
	return true;
}

static bool check_region(
	struct go_trace *trace, const struct go_event *event, struct thread *thread)
{
	uint64_t key = event->args[0] << 32 | event->args[2];

	if (event->args[1] == 0) {
		if (thread->depth == 64)
			return fail_at(trace, event, "deep regions");
		thread->regions[thread->depth++] = key;
		return true;
	}
	if (thread->depth == 0 || thread->regions[thread->depth - 1] != key)
		return fail_at(trace, event, "misuse of region");
	thread->depth--;
	return true;
}

/* What must follow at once on the same P. */
static const struct go_event *next_on(const struct go_trace *trace, size_t at)
{
	for (size_t i = at + 1; i < trace->len; i++) {
		if (trace->events[i].proc == trace->events[at].proc &&
			trace->events[i].type != SAMPLE)
			return &trace->events[i];
	}
	return NULL;
}

static bool check_follower(struct go_trace *trace, size_t at, unsigned type, const char *rule)
{
	const struct go_event *event = &trace->events[at], *next = next_on(trace, at);

	return (next && next->type == type && next->time == event->time) ||
	       fail_at(trace, event, rule);
}

static bool check_start(struct go_trace *trace, const struct go_event *event, struct proc *proc)
{
	if (!proc->started)
		return fail_at(trace, event, "rule 4: no ProcStart");
	if (proc->runs)
		return fail_at(trace, event, "p is already running");
	if (proc->tid != event->g % REUSED)
		return fail_at(trace, event, "rule 11: not the thread of this P");
	proc->runs = event->g;
	return true;
}

static bool check_proc(struct go_trace *trace, const struct go_event *event, struct proc *proc)
{
	if (event->type == PROC_START) {
		if (proc->started)
			return fail_at(trace, event, "p is running before start");
		proc->started = true;
		proc->tid = event->args[0];
		return true;
	}
	if (!proc->started || proc->runs)
		return fail_at(trace, event, "p cannot stop");
	proc->started = false;
	return true;
}

static bool check_create(struct go_trace *trace, const struct go_event *event)
{
	struct thread *thread = thread_of(event->args[0]);
	const struct go_stack *stack = &trace->stacks[event->args[1] % 4096];

	if (thread->root)
		return fail_at(trace, event, "g already exists");
	if (event->args[1] == 0 || stack->len == 0)
		return fail_at(trace, event, "rule 7: no new stack");
	if (stack->len != 1)
		return fail_at(trace, event, "rule 10: more than the name");
	thread->root = stack->frames[1];
	return true;
}

static bool check_event(struct go_trace *trace, size_t at, uint64_t told)
{
	const struct go_event *event = &trace->events[at];
	struct proc *proc = proc_of(event->proc);
	unsigned type = event->type;

	if (type == IN_SYSCALL)
		return fail_at(trace, event, "rule 2");
	if (type == CREATE && !check_create(trace, event))
		return false;
	if (types[type].has_stack &&
		!check_stack(trace, event, event->args[event->len - 1], event->g))
		return false;
	if (event->proc != UINT64_MAX && event->proc >= told)
		return fail_at(trace, event, "rule 9: a P that there is not");
	switch (type) {
	case PROC_START:
	case PROC_STOP:
		return check_proc(trace, event, proc);
	case START:
		return check_start(trace, event, proc);
	case GOMAXPROCS:
	case HEAP_ALLOC:
	case SYS_EXIT:
		return true;
	case SAMPLE:
		return event->proc == UINT64_MAX ||
		       fail_at(trace, event, "rule 8: a sample on a P");
	case CREATE:
	case UNBLOCK:
		return proc->runs == event->g || fail_at(trace, event, "p is not running g");
	default:
		break;
	}
	if (event->g == 0 || proc->runs != event->g)
		return fail_at(trace, event, "p is not running g");
	if (type == REGION)
		return check_region(trace, event, thread_of(event->g));
	if (type == SYS_CALL)
		return check_follower(
			trace, at, SYS_BLOCK, "rule 12: a call that does not block");
	if (type == SYS_BLOCK && !check_follower(trace, at, PROC_STOP, "rule 1: no ProcStop"))
		return false;
	if (type != TASK_CREATE && type != TASK_END && type != LOG)
		proc->runs = 0;
	return true;
}

static bool check_end(struct go_trace *trace)
{
	for (size_t i = 0; i < procs_len; i++) {
		if (procs[i].runs || procs[i].started)
			return fail(
				trace, "rule 5: P %" PRIu64 " runs at the end", procs[i].id);
	}
	for (size_t i = 0; i < threads_len; i++) {
		if (threads[i].depth > 0)
			return fail(trace, "rule 6: thread %" PRIu64 " ends in a region",
				threads[i].g);
	}
	return true;
}

static bool check(struct go_trace *trace)
{
	uint64_t told = 0;

	if (trace->len == 0 || trace->events[0].type != GOMAXPROCS)
		return fail(trace, "rule 3: Gomaxprocs does not come first");
	for (size_t i = 0; i < trace->len; i++) {
		if (trace->events[i].type == GOMAXPROCS && trace->events[i].args[0] > told)
			told = trace->events[i].args[0];
		if (trace->events[i].type == START &&
			trace->events[i].time == trace->events[0].time)
			return fail(trace, "rule 3: a start on the tick of Gomaxprocs");
		if (!check_event(trace, i, told))
			return false;
	}
	return check_end(trace);
}

/* Later tools know a function by its pc alone. */
static bool check_pcs(struct go_trace *trace)
{
	for (size_t a = 1; a < 4096; a++) {
		for (size_t i = 0; i < trace->stacks[a].len * 4; i += 4) {
			for (size_t k = 0; k < i; k += 4) {
				const uint64_t *one = &trace->stacks[a].frames[i];
				const uint64_t *other = &trace->stacks[a].frames[k];

				if (one[0] == other[0] &&
					memcmp(one, other, 4 * sizeof(*one)) != 0)
					return fail(trace, "two functions of one pc");
			}
		}
	}
	return true;
}

static bool queue_events(struct go_trace *trace)
{
	for (size_t i = 0; i < trace->len; i++)
		proc_of(trace->events[i].proc)->len++;
	for (size_t i = 0; i < procs_len; i++) {
		procs[i].events = calloc(procs[i].len + 1, sizeof(size_t));
		procs[i].len = 0;
	}
	for (size_t i = 0; i < trace->len; i++) {
		struct proc *proc = proc_of(trace->events[i].proc);

		proc->events[proc->len++] = i;
	}
	return true;
}

/* They are sorted in by their own time, whatever the rest is: checked on their own, and left out. */
static bool take_samples_out(struct go_trace *trace)
{
	size_t kept = 0;

	for (size_t i = 0; i < trace->len; i++) {
		const struct go_event *event = &trace->events[i];

		if (event->type != SAMPLE) {
			trace->events[kept++] = *event;
			continue;
		}
		if (event->proc != UINT64_MAX || event->args[3] == 0 ||
			event->args[3] >= 4096 || trace->stacks[event->args[3]].len == 0 ||
			event->args[2] == 0)
			return fail_at(trace, event,
				"rule 8: a sample without batch, stack or thread");
		trace->samples++;
	}
	trace->len = kept;
	return true;
}

bool go_trace_read(struct sv bytes, bool late, struct go_trace *out)
{
	struct file file = { .others_batch = 0, .samples_batch = SIZE_MAX };
	bool ok = true;

	memset(out, 0, sizeof(*out));
	threads_len = procs_len = 0;
	out->events = calloc(bytes.len + 1, sizeof(*out->events));
	if (bytes.len < 16 || memcmp(bytes.ptr, "go 1.19 trace\0\0\0", 16) != 0)
		return fail(out, "not a trace");
	file.rest = (struct sv){ bytes.ptr + 16, bytes.len - 16 };
	while (ok && file.rest.len > 0)
		ok = read_record(out, &file);
	if (ok && !file.has_frequency)
		ok = fail(out, "no EvFrequency event");
	if (ok) {
		ok = take_samples_out(out) && queue_events(out) && merge(out, late);
	}
	if (ok)
		ok = check(out) && check_pcs(out);
	for (size_t i = 0; i < procs_len; i++)
		free(procs[i].events);
	return ok;
}

void go_trace_free(struct go_trace *trace)
{
	for (size_t i = 0; i < 4096; i++)
		free((void *)(uintptr_t)trace->stacks[i].frames);
	free(trace->events);
}

static struct sv root_of(const struct go_trace *trace, uint64_t stack)
{
	const struct go_stack *s = &trace->stacks[stack % 4096];

	return s->len == 0 ? SV("-") : trace->strings[s->frames[s->len * 4 - 3]];
}

char *go_trace_text(const struct go_trace *trace)
{
	size_t size = 0;
	char *text = NULL;
	FILE *file = open_memstream(&text, &size);

	for (size_t i = 0; i < trace->len; i++) {
		const struct go_event *event = &trace->events[i];
		size_t values = event->len - types[event->type].has_stack;
		struct sv root = root_of(trace, values < event->len ? event->args[values] : 0);

		(void)fprintf(file, "%" PRIu64 " P%" PRId64 " g%" PRIu64 " %s", event->time,
			(int64_t)event->proc, event->g, types[event->type].name);
		for (size_t k = 0; k < values; k++)
			(void)fprintf(file, " %" PRIu64, event->args[k]);
		if (values < event->len)
			(void)fprintf(file, " @%.*s", (int)root.len, root.ptr);
		if (event->type == LOG)
			(void)fprintf(file, " \"%.*s\"", (int)event->log.len, event->log.ptr);
		(void)fputc('\n', file);
	}
	(void)fclose(file);
	return text;
}
