#include "sampler/collect/cpu.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "sampler/collect/cpu_source.h"
#include "sampler/collect/cpu_threads.h"
#include "sampler/collect/perf.h"
#include "sampler/store/depot.h"
#include "sampler/store/self.h"

#define ARENA_BYTES     ((size_t)512 << 20)
#define POLL_MS         20
#define POLL_PATIENT_MS 50 /* it hears of new threads by itself, and says when its ring fills */
#define SCAN_PATIENT_NS UINT64_C(200000000)
#define SCAN_SHARE      50 /* a scan may take one part in so many of the time between two */
#define REFRESH_SHARE \
	100 /* likewise for looking for new code: generated code never has tables */
#define WEIGH_NS     UINT64_C(250000000)   /* how often it is looked at what a source hides */
#define HIDDEN_PART  20U                   /* it may hide one part in so many */
#define HIDDEN_NOISE 8U                    /* periods that may be missing anyway */
#define DISTRUST_NS  UINT64_C(60000000000) /* how long a source is avoided that hid more */
#define NOTE_MAX     512

static const char hidden[] = "it hid more than 5 % of the CPU time";

struct cpu_capture {
	bool is_used;
	struct cpu_wanted wanted;
	struct arena arena;
	uint64_t began_ns, cpu_began_ns, seen_ns, lost_ns;
	char note[NOTE_MAX];
	struct cpu_result result;
};

/* From the best on. */
static const struct cpu_source *const ladder[] = { &cpu_perf, &cpu_timer, &cpu_itimer };

#define LADDER_LEN (sizeof(ladder) / sizeof(ladder[0]))

static struct cpu_capture captures[CPU_CAPTURES_MAX];
static enum settings_cpu_source chosen;
static uint64_t distrust_until_ns[LADDER_LEN];

static struct {
	const struct cpu_source *source; /* NULL: no stream */
	uint64_t period_ns, began_ns;
	uint32_t phases; /* counts the starts of all periods */
	uint64_t phases_ns;
	uint64_t next_scan_ns, next_refresh_ns, next_weigh_ns;
	uint64_t cpu_began_ns, seen_ns, lost_ns, hits; /* since the source was started */
	char note[NOTE_MAX];                           /* why it is not another one */
} stream;

void cpu_choose(enum settings_cpu_source source)
{
	chosen = source;
}

static uint64_t process_cpu_ns(void)
{
	struct timespec process = { 0 }, server = { 0 };

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &process);
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &server);
	return (uint64_t)(process.tv_sec - server.tv_sec) * 1000000000 +
	       (uint64_t)process.tv_nsec - (uint64_t)server.tv_nsec;
}

static void note(
	char text[static NOTE_MAX], const char *first, const char *second, const char *third)
{
	struct buf buf;
	size_t len = strlen(text);

	buf_init_fixed(&buf, text + len, NOTE_MAX - 1 - len);
	buf_add_cstr(&buf, len ? "; " : "");
	buf_add_cstr(&buf, first);
	buf_add_cstr(&buf, second);
	buf_add_cstr(&buf, third);
	text[buf.failed ? len : len + buf.len] = '\0';
}

/* --- what sources tell --- */

bool cpu_is_forced(void)
{
	return chosen != CPU_SOURCE_AUTO;
}

void cpu_note(const char *text)
{
	note(stream.note, text, "", "");
}

static void add_to(
	struct cpu_capture *capture, const struct cpu_hit *hit, uint32_t labels, uint64_t count)
{
	struct tally_key key = { .stack = hit->stack, .labels = labels };
	int64_t values[TALLY_VALUES] = { (int64_t)count,
		(int64_t)(count * capture->result.period_ns) };

	capture->result.hits++;
	capture->result.samples += count;
	if (hit->stack && depot_get(hit->stack).end != UNWIND_COMPLETE)
		capture->result.incomplete += count;
	if (capture->wanted.take)
		capture->wanted.take(
			capture->wanted.to, &(struct cpu_sample){ hit->tid, hit->stack, labels,
						    hit->time_ns, count });
	if (!capture->wanted.only_take)
		tally_add(&capture->result.tally, &key, values, 1);
}

/* A sample comes when a whole period has gone by; on average the half of one is still to come when all ends.
 * The first sample stands for that, too. */
static uint64_t half_period(struct cpu_thread *thread, const struct cpu_hit *hit)
{
	uint64_t bit;

	if (hit->phase == 0)
		return 0;
	if (thread->phases_of != stream.phases) {
		thread->phases_of = stream.phases;
		thread->phases = 0;
	}
	bit = UINT64_C(1) << (hit->phase & 63);
	if (thread->phases & bit)
		return 0;
	thread->phases |= bit;
	return hit->ns / 2;
}

static uint32_t *left_of(struct cpu_thread *thread, size_t at)
{
	/* Threads that run the same code shall not all be sampled at the same moments. */
	if (!(thread->drawn >> at & 1)) {
		thread->drawn |= UINT32_C(1) << at;
		thread->left[at] =
			(uint32_t)(self_random_sigsafe() % captures[at].result.period_ns);
	}
	return &thread->left[at];
}

void cpu_take_hit(const struct cpu_hit *hit)
{
	struct cpu_thread *thread = cpu_threads_get(hit->tid, NULL);
	uint64_t half = thread ? half_period(thread, hit) : 0;
	uint32_t labels = hit->labels;

	if (thread && stream.source->needs_labels)
		labels = cpu_threads_labels(thread, hit->time_ns);
	if (thread)
		labels = cpu_threads_named(thread, labels);
	stream.seen_ns += hit->ns + half;
	stream.hits++;
	for (size_t i = 0; i < CPU_CAPTURES_MAX; i++) {
		struct cpu_capture *capture = &captures[i];
		uint64_t ns = hit->ns, count;

		if (!capture->is_used || hit->time_ns < capture->began_ns)
			continue;
		if (capture->began_ns <= stream.phases_ns)
			ns += half;
		capture->seen_ns += ns;
		count = thread ? cpu_thin(ns, capture->result.period_ns, left_of(thread, i))
			       : ns / capture->result.period_ns;
		if (count > 0)
			add_to(capture, hit, labels, count);
	}
}

void cpu_take_lost(uint64_t ns)
{
	stream.lost_ns += ns;
	for (size_t i = 0; i < CPU_CAPTURES_MAX; i++)
		captures[i].lost_ns += ns;
}

void cpu_begin_phases(void)
{
	stream.phases++;
	stream.phases_ns = clock_mono_ns();
}

/* --- the stream --- */

/* The distance of samples that all captures can be served from. */
static uint64_t least_period(void)
{
	uint64_t least = 0;

	for (size_t i = 0; i < CPU_CAPTURES_MAX; i++) {
		uint64_t period = captures[i].result.period_ns;

		if (captures[i].is_used && (least == 0 || period < least))
			least = period;
	}
	return least;
}

static uint64_t period_of(unsigned hz, const struct cpu_source *source)
{
	unsigned limit = source->limit_hz(), least = hz < limit ? hz : limit;

	return 1000000000 / (least ? least : 1);
}

static void scan(uint64_t now)
{
	cpu_threads_scan(stream.source->meet, stream.source->leave);
	stream.next_scan_ns = now + (clock_mono_ns() - now) * SCAN_SHARE;
	/* Only who is gone, and names, are to be found out. */
	if (!stream.source->meet)
		stream.next_scan_ns += SCAN_PATIENT_NS;
}

static int start_source(const struct cpu_source *source, uint64_t period_ns, struct err *err)
{
	uint64_t now = clock_mono_ns();

	if (source->needs_labels) {
		ring_want(RECORD_LABELS, true);
		cpu_threads_look_at_labels();
	}
	stream.source = source;
	stream.period_ns = period_ns;
	stream.cpu_began_ns = process_cpu_ns();
	stream.seen_ns = stream.lost_ns = stream.hits = 0;
	stream.next_weigh_ns = now + WEIGH_NS;
	cpu_begin_phases();
	if (source->start(period_ns, err)) {
		if (source->needs_labels)
			ring_want(RECORD_LABELS, false);
		stream.source = NULL;
		return -1;
	}
	scan(now);
	return 0;
}

static void stop_source(void)
{
	if (!stream.source)
		return;
	stream.source->stop();
	if (stream.source->needs_labels)
		ring_want(RECORD_LABELS, false);
	stream.source = NULL;
}

static int try_rung(size_t rung, unsigned hz, struct err *err)
{
	const struct cpu_source *source = ladder[rung];
	uint64_t period = least_period();

	if (start_source(source, period ? period : period_of(hz, source), err) == 0)
		return 0;
	note(stream.note, source->name, ": ", err->text);
	return -1;
}

/* The first that can be had, and has not hidden too much lately; else any. */
static int start_any(unsigned hz, struct err *err)
{
	for (size_t i = 0; i < LADDER_LEN; i++) {
		if (distrust_until_ns[i] > clock_mono_ns())
			note(stream.note, ladder[i]->name, ": ", hidden);
		else if (try_rung(i, hz, err) == 0)
			return 0;
	}
	for (size_t i = 0; i < LADDER_LEN; i++) {
		if (try_rung(i, hz, err) == 0) {
			stream.next_weigh_ns = UINT64_MAX;
			return 0;
		}
	}
	return -1;
}

static int start_stream(unsigned hz, struct err *err)
{
	int rc;

	if (cpu_threads_open() || ring_open()) {
		cpu_threads_close();
		return err_set(err, ERR_NOMEM, "no memory for a CPU profile");
	}
	memset(&stream, 0, sizeof(stream));
	stream.began_ns = clock_mono_ns();
	if (chosen == CPU_SOURCE_AUTO) {
		rc = start_any(hz, err);
	} else {
		const struct cpu_source *source = ladder[chosen - CPU_SOURCE_PERF];

		rc = start_source(source, period_of(hz, source), err);
		if (rc)
			(void)err_wrap(err, "POSTERN_CPU_SOURCE is %s", source->name);
	}
	if (rc)
		cpu_threads_close();
	return rc;
}

static void stop_stream(void)
{
	stop_source();
	cpu_threads_close();
}

static size_t rung_of(const struct cpu_source *source)
{
	size_t rung = 0;

	while (rung + 1 < LADDER_LEN && ladder[rung] != source)
		rung++;
	return rung;
}

/* Another source in its place. */
static void change_source(const char *why)
{
	const struct cpu_source *before = stream.source;
	size_t rung = rung_of(before);
	struct err err;

	stop_source();
	note(stream.note, before->name, ": ", why);
	while (chosen == CPU_SOURCE_AUTO && ++rung < LADDER_LEN) {
		if (try_rung(rung, 0, &err) == 0)
			return;
	}
	/* There is nothing better. */
	if (start_source(before, least_period(), &err))
		note(stream.note, before->name, ": ", err.text);
	stream.next_weigh_ns = UINT64_MAX;
}

/* What is the process's CPU time that the source has not seen? */
static bool hides_too_much(void)
{
	uint64_t used = process_cpu_ns() - stream.cpu_began_ns;
	uint64_t seen = stream.seen_ns + stream.lost_ns, root = 0;

	while (root * root < stream.hits)
		root++;
	return used > seen &&
	       used - seen > used / HIDDEN_PART + (HIDDEN_NOISE + root) * stream.period_ns;
}

static void weigh(uint64_t now)
{
	size_t rung = rung_of(stream.source);

	stream.next_weigh_ns = now + WEIGH_NS;
	if (chosen != CPU_SOURCE_AUTO || rung + 1 == LADDER_LEN || !hides_too_much())
		return;
	distrust_until_ns[rung] = now + DISTRUST_NS;
	change_source(hidden);
}

/* Ask the source for as much as the captures want. */
static void set_rate(uint64_t period_ns)
{
	struct err err;

	if (!stream.source || period_ns == 0 || period_ns == stream.period_ns)
		return;
	stream.period_ns = period_ns;
	cpu_begin_phases();
	if (stream.source->set_period(period_ns, &err))
		change_source(err.text);
}

/* Tell the captures all that has happened up to now. */
static void catch_up(void)
{
	collect_poll(clock_mono_ns());
}

/* --- captures --- */

static void forget_left(struct cpu_thread *thread)
{
	uint32_t used = 0;

	for (size_t i = 0; i < CPU_CAPTURES_MAX; i++)
		used |= (uint32_t)captures[i].is_used << i;
	thread->drawn &= used;
}

static struct cpu_capture *find_free(void)
{
	for (size_t i = 0; i < CPU_CAPTURES_MAX; i++) {
		if (!captures[i].is_used && !captures[i].arena.base)
			return &captures[i];
	}
	return NULL;
}

static int make_capture(
	struct cpu_capture *capture, const struct cpu_wanted *wanted, struct err *err)
{
	memset(capture, 0, sizeof(*capture));
	capture->wanted = *wanted;
	if (arena_open(&capture->arena, ARENA_BYTES) == 0 &&
		tally_open(&capture->result.tally, &capture->arena) == 0)
		return 0;
	arena_close(&capture->arena);
	return err_set(err, ERR_NOMEM, "no memory for a CPU profile");
}

struct cpu_capture *cpu_start(const struct cpu_wanted *wanted, struct err *err)
{
	struct cpu_capture *capture = find_free();

	if (!capture) {
		(void)err_set(err, ERR_DENIED, "%d CPU profiles are being taken already",
			CPU_CAPTURES_MAX);
		return NULL;
	}
	if (unwind_refresh(err) || make_capture(capture, wanted, err))
		return NULL;
	if (stream.source)
		catch_up();
	if (!stream.source && start_stream(wanted->hz, err)) {
		arena_close(&capture->arena);
		return NULL;
	}
	capture->result.hz = wanted->hz;
	capture->result.period_ns = period_of(wanted->hz, stream.source);
	if (capture->result.period_ns < stream.period_ns)
		set_rate(capture->result.period_ns);
	capture->result.began_unix_ns = clock_unix_us() * 1000;
	/* A stream that was started for it counts for it from its first moment on. */
	capture->began_ns = clock_mono_ns();
	if (least_period() == 0)
		capture->began_ns = stream.began_ns;
	capture->cpu_began_ns = process_cpu_ns();
	capture->is_used = true;
	cpu_threads_each(forget_left);
	return capture;
}

static void describe_result(struct cpu_capture *capture)
{
	struct cpu_result *result = &capture->result;
	uint64_t seen = capture->seen_ns + capture->lost_ns;

	result->duration_ns = clock_mono_ns() - capture->began_ns;
	result->used_ns = process_cpu_ns() - capture->cpu_began_ns;
	result->unseen_ns = result->used_ns > seen ? result->used_ns - seen : 0;
	result->lost = capture->lost_ns / result->period_ns + result->tally.lost;
	result->source = stream.source ? stream.source->name : "none";
	if (stream.source && stream.source->limit_hz() < result->hz)
		result->limit_hz = stream.source->limit_hz();
	memcpy(capture->note, stream.note, sizeof(capture->note));
	result->note = capture->note;
}

const struct cpu_result *cpu_stop(struct cpu_capture *capture)
{
	uint64_t least;

	catch_up();
	capture->is_used = false;
	least = least_period();
	describe_result(capture);
	if (least == 0)
		stop_stream();
	else if (least / 2 >= stream.period_ns)
		set_rate(least);
	return &capture->result;
}

void cpu_release(struct cpu_capture *capture)
{
	if (capture->is_used)
		(void)cpu_stop(capture);
	arena_close(&capture->arena);
}

/* --- the collector --- */

static void take(const struct record *record)
{
	if (!stream.source)
		return;
	if (record->kind == RECORD_LABELS && stream.source->needs_labels)
		cpu_threads_take(record);
	else if (record->kind == RECORD_CPU && stream.source->take)
		stream.source->take(record);
}

static unsigned period_ms(void)
{
	if (!stream.source)
		return 0;
	return stream.source->meet ? POLL_MS : POLL_PATIENT_MS;
}

static void poll_cpu(uint64_t now)
{
	static uint64_t dropped;
	struct err err;

	if (stream.source->needs_labels && dropped != ring_dropped())
		cpu_threads_look_at_labels();
	dropped = ring_dropped();
	if (stream.source->poll && stream.source->poll(now, &err)) {
		change_source(err.text);
		return;
	}
	if (now >= stream.next_scan_ns)
		scan(now);
	if (unwind_is_stale() && now >= stream.next_refresh_ns) {
		(void)unwind_refresh(&err); /* the tables that are there stay good */
		stream.next_refresh_ns = now + (clock_mono_ns() - now) * REFRESH_SHARE;
	}
	if (now >= stream.next_weigh_ns)
		weigh(now);
}

static int descriptor(void)
{
	return stream.source && stream.source->descriptor ? stream.source->descriptor() : -1;
}

static void after_fork(void)
{
	for (size_t i = 0; i < CPU_CAPTURES_MAX; i++) {
		arena_close(&captures[i].arena);
		captures[i].is_used = false;
	}
	stream.source = NULL;
	cpu_threads_close();
	perf_after_fork();
}

const struct collector cpu_collector = {
	.name = "cpu",
	.period_ms = period_ms,
	.poll = poll_cpu,
	.take = take,
	.descriptor = descriptor,
	.after_fork = after_fork,
};

/* --- the index page --- */

void cpu_describe(struct buf *out)
{
	size_t rung = chosen == CPU_SOURCE_AUTO ? 0 : chosen - CPU_SOURCE_PERF;
	const struct cpu_source *source = stream.source;
	struct err err = { .text = "" };
	char why[NOTE_MAX] = "";

	if (!source && chosen == CPU_SOURCE_AUTO) {
		while (rung + 1 < LADDER_LEN && (distrust_until_ns[rung] > clock_mono_ns() ||
							ladder[rung]->probe(&err))) {
			note(why, ladder[rung]->name, ": ", err.text[0] ? err.text : hidden);
			err.text[0] = '\0';
			rung++;
		}
	} else if (!source && ladder[rung]->probe(&err)) {
		note(why, "not to be had: ", err.text, "");
	}
	if (!source)
		source = ladder[rung];
	buf_add_cstr(out, source->name);
	buf_add_cstr(
		out, chosen == CPU_SOURCE_AUTO ? " (chosen by itself)" : " (as asked for)");
	buf_add_cstr(out, ", at most ");
	buf_add_u64(out, source->limit_hz());
	buf_add_cstr(out, " samples a CPU-second");
	if (stream.source) {
		buf_add_cstr(out, ", now ");
		buf_add_u64(out, 1000000000 / stream.period_ns);
	}
	if (why[0]) {
		buf_add_cstr(out, " (");
		buf_add_cstr(out, why);
		buf_add_byte(out, ')');
	}
}
