#include "sampler/collect/wall.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "sampler/collect/cpu.h"
#include "sampler/proc/task.h"
#include "sampler/store/labels.h"
#include "sampler/store/self.h"
#include "sampler/unwind/unwind.h"

#define THREADS_MAX   65536
#define STREAM_BYTES  ((size_t)64 << 20)
#define SCRATCH_BYTES ((size_t)1 << 20)
#define CAPTURE_BYTES ((size_t)256 << 20)
#define SCAN_NS       UINT64_C(50000000) /* how often threads are listed, if that is cheap */
#define SCAN_SHARE    50
#define REFRESH_SHARE 100
#define NAME_SCANS \
	4 /* a name may be given late: it is read at so many scans, and at each 16th */
#define FIRST_LOOKS_NS UINT64_C(50000000) /* that the first look at all may take */

/* What a thread did between two moments, and where it slept at both. */
struct stretch {
	uint64_t from_ns, to_ns;
	uint32_t labels_before, labels, ran_at;
	uint64_t asleep_ns, ready_ns, cpu_ns;
	struct thread_look before, after;
};

struct looked {
	uint32_t tid, name, labels_before, labels, scans;
	uint32_t ran_at; /* stack of its last CPU sample; 0: none yet */
	bool seen;       /* in the scan that is under way */
	struct thread_look look;
	uint64_t met_ns, time_ns; /* 0: it has not been looked at yet */
	/* Since `owed_from_ns`, and given to no stack yet: the counters lag behind by a tick, so it may be less than
	 * nothing. */
	int64_t owed_ns;
	uint64_t owed_from_ns, owed_ready_ns, owed_cpu_ns;
};

struct wall_capture {
	bool used, runs;
	struct cpu_capture *cpu; /* what runs; or NULL */
	struct arena arena;
	uint64_t began_ns, cost_before_ns;
	uint64_t used_ns; /* CPU time of the threads that were looked at */
	struct wall_result result;
};

static struct {
	bool open;
	struct arena arena, scratch;
	struct reading *reading;
	struct looked *threads; /* sorted by tid */
	size_t len, next;       /* whose turn it is */
	uint64_t next_scan_ns, next_refresh_ns, last_poll_ns, cost_ns;
} stream;

static struct wall_capture captures[WALL_CAPTURES_MAX];

/* --- what a stretch is worth to a capture --- */

static uint64_t part_of(uint64_t ns, const struct stretch *stretch, uint64_t began_ns)
{
	uint64_t whole = stretch->to_ns - stretch->from_ns;

	if (began_ns <= stretch->from_ns || whole == 0)
		return ns;
	if (began_ns >= stretch->to_ns)
		return 0;
	return (uint64_t)((double)ns * (double)(stretch->to_ns - began_ns) / (double)whole);
}

static void add(struct wall_capture *capture, uint32_t labels, const struct thread_look *look,
	uint64_t looks, uint64_t ns)
{
	struct tally_key key = { .stack = look->stack, .labels = labels, .other = look->state };
	int64_t values[TALLY_VALUES] = { (int64_t)looks, (int64_t)ns };

	if (ns > 0 || looks > 0)
		tally_add(&capture->result.tally, &key, values, 1);
}

static void add_stretch(struct wall_capture *capture, const struct stretch *stretch)
{
	const struct thread_look ready = { .state = THREAD_READY, .stack = stretch->ran_at };
	static const struct thread_look running = { .state = THREAD_RUNNING };
	uint64_t used = part_of(stretch->cpu_ns, stretch, capture->began_ns);
	uint64_t asleep = part_of(stretch->asleep_ns, stretch, capture->began_ns);

	if (stretch->before.sleeps && stretch->after.sleeps) {
		add(capture, stretch->labels_before, &stretch->before, 0, asleep / 2);
		add(capture, stretch->labels, &stretch->after, 1, asleep - asleep / 2);
	} else if (stretch->after.sleeps) {
		add(capture, stretch->labels, &stretch->after, 1, asleep);
	} else {
		add(capture, stretch->labels_before, &stretch->before, 1, asleep);
	}
	if (!capture->runs)
		return;
	add(capture, stretch->labels, &ready, 0,
		part_of(stretch->ready_ns, stretch, capture->began_ns));
	capture->used_ns += used;
	if (!capture->cpu)
		add(capture, stretch->labels, &running, 0, used);
}

static void give(const struct stretch *stretch)
{
	for (size_t i = 0; i < WALL_CAPTURES_MAX; i++) {
		if (captures[i].used)
			add_stretch(&captures[i], stretch);
	}
}

/* --- looking --- */

/* The counters have moved on from `before` to what thread->look has. */
static void count(struct looked *thread, const struct thread_look *before, uint64_t now)
{
	uint64_t passed = now - thread->time_ns;
	bool slept = before->sleeps && thread->look.switches == before->switches;

	if (slept)
		thread->owed_ns += (int64_t)passed;
	else if (before->counted && thread->look.counted)
		thread->owed_ns += (int64_t)(passed - (thread->look.cpu_ns - before->cpu_ns) -
					     (thread->look.waited_ns - before->waited_ns));
	else if (before->sleeps || thread->look.sleeps) /* a guess is all there is */
		thread->owed_ns +=
			(int64_t)(before->sleeps && thread->look.sleeps ? passed : passed / 2);
	if (before->counted && thread->look.counted) {
		thread->owed_ready_ns += thread->look.waited_ns - before->waited_ns;
		thread->owed_cpu_ns += thread->look.cpu_ns - before->cpu_ns;
	}
	thread->time_ns = now;
}

/* What is owed goes to where the thread slept; while it was not seen asleep, it stays owed. */
static void pay(struct looked *thread, const struct thread_look *before, bool at_last)
{
	struct stretch stretch = { .from_ns = thread->owed_from_ns,
		.to_ns = thread->time_ns,
		.labels_before = thread->labels_before,
		.labels = thread->labels,
		.ran_at = thread->ran_at,
		.asleep_ns = thread->owed_ns > 0 ? (uint64_t)thread->owed_ns : 0,
		.ready_ns = thread->owed_ready_ns,
		.cpu_ns = thread->owed_cpu_ns,
		.before = *before,
		.after = thread->look };

	if (!before->sleeps && !thread->look.sleeps) {
		if (!at_last)
			return;
		stretch.before = (struct thread_look){ .state = THREAD_WAITING };
	}
	give(&stretch);
	if (thread->owed_ns > 0)
		thread->owed_ns = 0;
	thread->owed_ready_ns = 0;
	thread->owed_cpu_ns = 0;
	thread->owed_from_ns = thread->time_ns;
}

/* The program's labels, and the thread's name as one. */
static void read_labels(struct looked *thread)
{
	static uint32_t key;

	if (!key)
		key = labels_text_sigsafe(SV("thread"));
	thread->labels = labels_with_sigsafe(self_labels_of(thread->tid), key, thread->name);
}

/* False when it is gone. */
static bool look(struct looked *thread)
{
	struct thread_look before = thread->look;
	bool is_first = thread->time_ns == 0;

	if (!threads_look_again(stream.reading, thread->tid, &thread->look))
		return false;
	for (size_t i = 0; i < WALL_CAPTURES_MAX; i++)
		captures[i].result.looks += captures[i].used;
	if (is_first) {
		thread->met_ns = thread->time_ns = thread->owed_from_ns = clock_mono_ns();
		read_labels(thread);
		thread->labels_before = thread->labels;
		return true;
	}
	count(thread, &before, clock_mono_ns());
	if (thread->look.switches != before.switches)
		read_labels(thread); /* those that it sleeps with now */
	pay(thread, &before, false);
	thread->labels_before = thread->labels;
	return true;
}

static size_t place_of(uint32_t tid)
{
	size_t from = 0, to = stream.len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (stream.threads[middle].tid < tid)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

static void read_name(struct looked *thread)
{
	char name[TASK_NAME_SIZE];

	if (thread->scans++ >= NAME_SCANS && thread->scans % 16 != 0)
		return;
	task_name(thread->tid, name);
	if (name[0])
		thread->name = labels_text_sigsafe(sv_from_cstr(name));
}

static void meet(uint32_t tid)
{
	size_t at = place_of(tid);
	struct looked *thread = &stream.threads[at];

	if (at == stream.len || thread->tid != tid) {
		if (stream.len == THREADS_MAX)
			return;
		memmove(thread + 1, thread, (stream.len - at) * sizeof(*thread));
		*thread = (struct looked){ .tid = tid };
		stream.len++;
		stream.next += at < stream.next;
		for (size_t i = 0; i < WALL_CAPTURES_MAX; i++)
			captures[i].result.threads += captures[i].used;
	}
	read_name(thread);
	thread->seen = true;
}

/* Threads that are gone; what is not known of their last moments is less than the time between two scans. */
static void forget_gone(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < stream.len; i++) {
		if (!stream.threads[i].seen)
			continue;
		stream.threads[i].seen = false;
		if (i != kept)
			stream.threads[kept] = stream.threads[i];
		kept++;
	}
	stream.len = kept;
	if (stream.next >= kept)
		stream.next = 0;
}

static void scan(uint64_t now)
{
	uint32_t *tids;
	size_t len;
	uint64_t took;

	stream.scratch.used = 0;
	if (task_list(&stream.scratch, &tids, &len) == 0) {
		for (size_t i = 0; i < len; i++)
			meet(tids[i]);
		forget_gone();
	}
	took = (clock_mono_ns() - now) * SCAN_SHARE;
	stream.next_scan_ns = now + (took > SCAN_NS ? took : SCAN_NS);
}

static uint64_t cpu_ns(void)
{
	struct timespec time = { 0 };

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Each at most once, and no longer than that: who did not have its turn has it first the next time. */
static void look_round(uint64_t most_ns)
{
	uint64_t began = cpu_ns();

	for (size_t i = 0; i < stream.len; i++) {
		if (stream.next >= stream.len)
			stream.next = 0;
		(void)look(
			&stream.threads[stream.next++]); /* who is gone, the next scan misses */
		if (i % 4 == 3 && cpu_ns() - began > most_ns)
			break;
	}
	stream.cost_ns += cpu_ns() - began;
}

static unsigned highest_hz(void)
{
	unsigned hz = 0;

	for (size_t i = 0; i < WALL_CAPTURES_MAX; i++) {
		if (captures[i].used && captures[i].result.hz > hz)
			hz = captures[i].result.hz;
	}
	return hz;
}

static unsigned period_ms(void)
{
	unsigned hz = highest_hz();

	return hz ? 1000 / hz : 0;
}

static void poll_wall(uint64_t now)
{
	uint64_t passed = now - stream.last_poll_ns;
	struct err err;

	/* The server also wakes up for other reasons. */
	if (passed < UINT64_C(900000000) / highest_hz())
		return;
	stream.last_poll_ns = now;
	if (now >= stream.next_scan_ns)
		scan(now);
	look_round(passed * WALL_COST_PERCENT / 100);
	if (unwind_is_stale() && now >= stream.next_refresh_ns) {
		(void)unwind_refresh(&err); /* the tables that are there stay good */
		stream.next_refresh_ns = now + (clock_mono_ns() - now) * REFRESH_SHARE;
	}
}

/* The counters of all threads, up to now. */
static void settle(void)
{
	uint64_t began = cpu_ns();

	for (size_t i = 0; i < stream.len; i++) {
		struct looked *thread = &stream.threads[i];
		struct thread_look before = thread->look;

		if (thread->time_ns == 0 ||
			!threads_count_again(stream.reading, thread->tid, &thread->look))
			continue;
		if (thread->look.switches != before.switches)
			thread->look.sleeps =
				false; /* it has moved, and where to is not known */
		count(thread, &before, clock_mono_ns());
		pay(thread, &before, true);
	}
	stream.cost_ns += cpu_ns() - began;
}

/* --- captures --- */

static void close_stream(void)
{
	if (stream.reading)
		threads_close(stream.reading);
	arena_close(&stream.arena);
	arena_close(&stream.scratch);
	memset(&stream, 0, sizeof(stream));
}

static int open_stream(void)
{
	memset(&stream, 0, sizeof(stream));
	if (arena_open(&stream.arena, STREAM_BYTES) == 0 &&
		arena_open(&stream.scratch, SCRATCH_BYTES) == 0)
		stream.threads = arena_alloc(
			&stream.arena, (THREADS_MAX + 1) * sizeof(stream.threads[0]));
	if (stream.threads)
		stream.reading = threads_open(&stream.arena);
	if (!stream.reading) {
		close_stream();
		return -1;
	}
	stream.open = true;
	return 0;
}

/* Where it ran last is where it waits for a CPU. */
static void take_running(void *unused, const struct cpu_sample *sample)
{
	size_t at = place_of(sample->tid);

	(void)unused;
	if (at < stream.len && stream.threads[at].tid == sample->tid)
		stream.threads[at].ran_at = sample->stack;
}

/* What runs, the CPU profile sees. */
static void begin_cpu(struct wall_capture *capture)
{
	const struct cpu_wanted wanted = { .hz = CPU_HZ, .take = take_running };
	struct err err;

	capture->cpu = cpu_start(&wanted, &err);
	if (!capture->cpu)
		capture->result.note = "what runs has no stacks here: there is no CPU profile";
}

static void end_cpu(struct wall_capture *capture)
{
	if (capture->cpu)
		cpu_release(capture->cpu);
	capture->cpu = NULL;
}

static void add_cpu(struct wall_capture *capture)
{
	const struct cpu_result *cpu = cpu_stop(capture->cpu);
	uint64_t sampled = 0, least = cpu->period_ns * (uint64_t)(stream.len + 1);
	struct thread_look running = { .state = THREAD_RUNNING };
	const struct tally_row *row;
	size_t at = 0;

	while ((row = tally_next(&cpu->tally, &at))) {
		running.stack = row->key.stack;
		sampled += (uint64_t)row->values[1];
		add(capture, row->key.labels, &running, (uint64_t)row->values[0],
			(uint64_t)row->values[1]);
	}
	running.stack =
		0; /* what the samples have not seen, if it is more than they are exact */
	if (capture->used_ns > sampled + least)
		add(capture, 0, &running, 0, capture->used_ns - sampled);
	end_cpu(capture);
}

struct wall_capture *wall_start(unsigned hz, bool runs, struct err *err)
{
	struct wall_capture *capture = captures;
	uint64_t now = clock_mono_ns();

	while (capture < captures + WALL_CAPTURES_MAX && capture->used)
		capture++;
	if (capture == captures + WALL_CAPTURES_MAX) {
		(void)err_set(err, ERR_DENIED, "there are too many of these already");
		return NULL;
	}
	memset(capture, 0, sizeof(*capture));
	if (arena_open(&capture->arena, CAPTURE_BYTES) ||
		tally_open(&capture->result.tally, &capture->arena) ||
		(!stream.open && open_stream())) {
		arena_close(&capture->arena);
		(void)err_set(err, ERR_SYSTEM, "the threads cannot be read");
		return NULL;
	}
	capture->runs = runs;
	capture->result.hz = hz;
	capture->result.began_unix_ns = clock_unix_us() * 1000;
	capture->result.threads = stream.len;
	capture->cost_before_ns = stream.cost_ns;
	capture->used = true;
	if (runs)
		begin_cpu(capture);
	scan(now);
	look_round(FIRST_LOOKS_NS);
	capture->began_ns = stream.last_poll_ns = clock_mono_ns();
	return capture;
}

const struct wall_result *wall_stop(struct wall_capture *capture)
{
	struct wall_result *result = &capture->result;
	uint64_t now;

	settle();
	now = clock_mono_ns();
	if (capture->cpu)
		add_cpu(capture);
	result->duration_ns = now - capture->began_ns;
	result->cost_ns = stream.cost_ns - capture->cost_before_ns;
	for (size_t i = 0; i < stream.len; i++) {
		uint64_t met = stream.threads[i].met_ns;

		if (met)
			result->thread_ns +=
				now - (met > capture->began_ns ? met : capture->began_ns);
	}
	return result;
}

void wall_release(struct wall_capture *capture)
{
	end_cpu(capture);
	arena_close(&capture->arena);
	memset(capture, 0, sizeof(*capture));
	if (highest_hz() == 0)
		close_stream();
}

/* The descriptors are the parent's server's, which are not in our table. */
static void after_fork(void)
{
	for (size_t i = 0; i < WALL_CAPTURES_MAX; i++)
		arena_close(&captures[i].arena);
	memset(captures, 0, sizeof(captures));
	arena_close(&stream.arena);
	arena_close(&stream.scratch);
	memset(&stream, 0, sizeof(stream));
}

const struct collector wall_collector = {
	.name = "wall",
	.period_ms = period_ms,
	.poll = poll_wall,
	.after_fork = after_fork,
};
