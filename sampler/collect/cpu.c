#include "sampler/collect/cpu.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/signal.h"
#include "sampler/proc/task.h"
#include "sampler/store/depot.h"
#include "sampler/store/labels.h"

#define ARENA_BYTES   ((size_t)512 << 20)
#define SCRATCH_BYTES ((size_t)1 << 20)
#define TIMERS_MAX    4096 /* each takes one of RLIMIT_SIGPENDING, which the program needs too */
#define SCAN_SHARE    50   /* a scan may take one part in so many of the time between two */
#define REFRESH_SHARE \
	100 /* likewise for looking for new code: generated code never has tables */

struct timed {
	uint32_t tid;
	int timer;
	bool seen; /* in the scan that is under way */
	char name[TASK_NAME_SIZE];
};

static struct {
	bool running;
	uint32_t number; /* of this capture; never 0 */
	struct arena arena, scratch;
	struct timed *timed; /* sorted by tid */
	size_t timed_len;
	uint64_t began_ns, cpu_began_ns, next_scan_ns, next_refresh_ns, dropped_before;
	struct cpu_result result;
} capture;

bool cpu_is_running(void)
{
	return capture.running;
}

static uint64_t process_cpu_ns(void)
{
	struct timespec process = { 0 }, server = { 0 };

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &process);
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &server);
	return (uint64_t)(process.tv_sec - server.tv_sec) * 1000000000 +
	       (uint64_t)process.tv_nsec - (uint64_t)server.tv_nsec;
}

/* The clock of another thread's CPU time: clock_getcpuclockid(3)'s encoding, for a thread. */
static clockid_t clock_of(uint32_t tid)
{
	return (clockid_t)(~tid << 3 | 6);
}

static bool arm(struct timed *timed)
{
	struct sigevent event;
	struct itimerspec when = { .it_interval.tv_nsec = CPU_PERIOD_NS };

	memset(&event, 0, sizeof(event));
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = signal_number();
	event.sigev_value.sival_int = (int)capture.number;
	event._sigev_un._tid = (pid_t)timed->tid;
	if (syscall(SYS_timer_create, clock_of(timed->tid), &event, &timed->timer))
		return false;
	/* Threads that were started together shall not all be sampled at the same moments. */
	when.it_value.tv_nsec = 1 + timed->tid * INT64_C(2654435761) % CPU_PERIOD_NS;
	if (syscall(SYS_timer_settime, timed->timer, 0, &when, NULL) == 0)
		return true;
	(void)syscall(SYS_timer_delete, timed->timer);
	return false;
}

/* Where a thread is, or belongs, in the sorted list. */
static size_t place_of(uint32_t tid)
{
	size_t from = 0, to = capture.timed_len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (capture.timed[middle].tid < tid)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

static void meet(uint32_t tid)
{
	size_t at = place_of(tid);
	struct timed fresh = { .tid = tid, .seen = true };

	if (at < capture.timed_len && capture.timed[at].tid == tid) {
		capture.timed[at].seen = true;
		return;
	}
	if (capture.timed_len == TIMERS_MAX || !arm(&fresh))
		return; /* its time comes out as unseen */
	task_name(tid, fresh.name);
	memmove(&capture.timed[at + 1], &capture.timed[at],
		(capture.timed_len - at) * sizeof(capture.timed[0]));
	capture.timed[at] = fresh;
	capture.timed_len++;
}

/* Timers of threads that are gone would use up the process's share of pending signals. */
static void forget_gone(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < capture.timed_len; i++) {
		struct timed *timed = &capture.timed[i];

		if (!timed->seen) {
			(void)syscall(SYS_timer_delete, timed->timer);
			continue;
		}
		timed->seen = false;
		capture.timed[kept++] = *timed;
	}
	capture.timed_len = kept;
}

static void scan(uint64_t now)
{
	uint32_t *tids;
	size_t len;
	uint64_t took;

	capture.scratch.used = 0;
	if (task_list(&capture.scratch, &tids, &len) == 0) {
		for (size_t i = 0; i < len; i++)
			meet(tids[i]);
		forget_gone();
	}
	took = clock_mono_ns() - now;
	capture.next_scan_ns = now + took * SCAN_SHARE;
}

static void close_arenas(void)
{
	arena_close(&capture.arena);
	arena_close(&capture.scratch);
}

int cpu_start(struct err *err)
{
	uint32_t number = capture.number + 1;

	if (capture.running)
		return err_set(err, ERR_DENIED, "cpu profiling already in use");
	if (signal_open(err) || unwind_refresh(err))
		return -1;
	if (!signal_is_ours())
		return err_set(err, ERR_SYSTEM,
			"the program has taken signal %d for itself meanwhile",
			signal_number());
	close_arenas();
	memset(&capture, 0, sizeof(capture));
	capture.number = (number & 0x7fffffff) ? (number & 0x7fffffff) : 1;
	if (ring_open() || arena_open(&capture.arena, ARENA_BYTES) ||
		arena_open(&capture.scratch, SCRATCH_BYTES) ||
		tally_open(&capture.result.tally, &capture.arena)) {
		close_arenas();
		return err_set(err, ERR_NOMEM, "no memory for a CPU profile");
	}
	/* One more than the maximum, for the moment of inserting. */
	capture.timed =
		arena_alloc(&capture.arena, (TIMERS_MAX + 1) * sizeof(capture.timed[0]));
	if (!capture.timed) {
		close_arenas();
		return err_set(err, ERR_NOMEM, "no memory for a CPU profile");
	}
	capture.dropped_before = ring_dropped();
	capture.running = true;
	capture.result.began_unix_ns = clock_unix_us() * 1000;
	capture.began_ns = clock_mono_ns();
	capture.cpu_began_ns = process_cpu_ns();
	signal_set_capture(capture.number);
	scan(capture.began_ns);
	return 0;
}

/* The thread's labels, and its name as one of them. */
static uint32_t labels_with_name(uint32_t tid, uint32_t labels)
{
	size_t at = place_of(tid);

	if (at == capture.timed_len || capture.timed[at].tid != tid)
		return labels;
	return labels_with_sigsafe(labels, labels_text_sigsafe(SV("thread")),
		labels_text_sigsafe(sv_from_cstr(capture.timed[at].name)));
}

static void take(const struct record *record)
{
	struct tally_key key = { .stack = record->stack };
	int64_t values[TALLY_VALUES] = { (int64_t)record->value,
		(int64_t)record->value * CPU_PERIOD_NS };

	if (!capture.running || record->kind != RECORD_CPU || record->other != capture.number)
		return;
	capture.result.samples += record->value;
	if (depot_get(record->stack).end != UNWIND_COMPLETE)
		capture.result.incomplete += record->value;
	key.labels = labels_with_name(record->tid, record->labels);
	tally_add(&capture.result.tally, &key, values, 1);
}

static unsigned period_ms(void)
{
	return capture.running ? CPU_POLL_MS : 0;
}

static void poll_cpu(uint64_t now)
{
	struct err err;

	if (now >= capture.next_scan_ns)
		scan(now);
	if (unwind_is_stale() && now >= capture.next_refresh_ns) {
		(void)unwind_refresh(&err); /* the tables that are there stay good */
		capture.next_refresh_ns = now + (clock_mono_ns() - now) * REFRESH_SHARE;
	}
}

const struct cpu_result *cpu_stop(void)
{
	uint64_t used, sampled;

	for (size_t i = 0; i < capture.timed_len; i++)
		(void)syscall(SYS_timer_delete, capture.timed[i].timer);
	signal_set_capture(0);
	used = process_cpu_ns() - capture.cpu_began_ns;
	collect_poll(clock_mono_ns());
	capture.running = false;
	capture.result.dropped = ring_dropped() - capture.dropped_before;
	capture.result.duration_ns = clock_mono_ns() - capture.began_ns;
	sampled = (capture.result.samples + capture.result.dropped) * CPU_PERIOD_NS;
	capture.result.unseen_ns = used > sampled ? used - sampled : 0;
	return &capture.result;
}

static void after_fork(void)
{
	capture.running = false;
	close_arenas();
}

const struct collector cpu_collector = {
	.name = "cpu",
	.period_ms = period_ms,
	.poll = poll_cpu,
	.take = take,
	.after_fork = after_fork,
};
