/*
 * cpu_itimer.c - samples by one timer on the CPU time of the whole process: it sees threads however short they
 * live, and needs nothing for each of them.
 *
 * What ITIMER_PROF is, but made by timer_create(2): that takes no signal which the program may use itself, and
 * ends when another program is executed, which ITIMER_PROF would kill.  The signal goes to the thread that
 * runs when the time is up (since Linux 6.4; before, always to the first one).  Should that one block
 * it, another thread is woken by it: so it is not used by itself where one does.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "sampler/collect/cpu_source.h"
#include "sampler/collect/signal.h"
#include "sampler/proc/cpus.h"
#include "sampler/store/self.h"

#define LOOKS   5
#define LOOK_NS 300000

static struct {
	uint32_t number;
	uint64_t period_ns, lost;
	int timer;
} source;

static unsigned limit_hz(void)
{
	return cpus_tick_hz();
}

/* Our own thread's CPU time counts, too: it must take its own signals. */
static void take_signals(bool takes)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, signal_number());
	(void)pthread_sigmask(takes ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

static bool finds_who_runs(void)
{
	struct utsname name;
	long major, minor = 0;
	char *end;

	if (uname(&name))
		return false;
	major = strtol(name.release, &end, 10);
	if (*end == '.')
		minor = strtol(end + 1, NULL, 10);
	return major > 6 || (major == 6 && minor >= 4);
}

static uint32_t blocking;

/* For good, that is: while it makes another, a thread blocks all signals, and the new one does so, too. */
static void look(struct cpu_thread *thread)
{
	struct timespec pause = { .tv_nsec = LOOK_NS };

	for (unsigned i = 0; i < LOOKS; i++) {
		if (!task_blocks(thread->tid, signal_number()) ||
			task_state(thread->tid) == '\0')
			return;
		(void)nanosleep(&pause, NULL);
	}
	blocking = thread->tid;
}

static int probe(struct err *err)
{
	if (!finds_who_runs())
		return err_set(err, ERR_SYSTEM,
			"before Linux 6.4 the process's timer does not find who runs");
	return cpu_timer.probe(err);
}

static int arm(struct err *err)
{
	struct timespec period = { (time_t)(source.period_ns / 1000000000),
		(long)(source.period_ns % 1000000000) };
	uint64_t first = 1 + self_random_sigsafe() % source.period_ns;
	struct itimerspec when = { .it_interval = period,
		.it_value = { (time_t)(first / 1000000000), (long)(first % 1000000000) } };
	struct sigevent event;

	memset(&event, 0, sizeof(event));
	event.sigev_notify = SIGEV_SIGNAL;
	event.sigev_signo = signal_number();
	event.sigev_value.sival_int = (int)source.number;
	if (syscall(SYS_timer_create, CLOCK_PROCESS_CPUTIME_ID, &event, &source.timer))
		return err_sys(err, "timer_create");
	if (syscall(SYS_timer_settime, source.timer, 0, &when, NULL) == 0)
		return 0;
	(void)syscall(SYS_timer_delete, source.timer);
	return err_sys(err, "timer_settime");
}

static int start(uint64_t period_ns, struct err *err)
{
	if (probe(err))
		return -1;
	blocking = 0;
	if (!cpu_is_forced())
		cpu_threads_scan(look, NULL);
	if (blocking)
		return err_set(err, ERR_SYSTEM, "thread %u blocks signal %d", blocking,
			signal_number());
	source.number = signal_begin_capture();
	source.period_ns = period_ns;
	source.lost = signal_lost();
	take_signals(true);
	if (arm(err) == 0)
		return 0;
	take_signals(false);
	signal_end_capture();
	return -1;
}

static void stop(void)
{
	(void)syscall(SYS_timer_delete, source.timer);
	signal_end_capture();
	take_signals(false);
}

static int set_period(uint64_t period_ns, struct err *err)
{
	(void)syscall(SYS_timer_delete, source.timer);
	source.number = signal_begin_capture();
	source.period_ns = period_ns;
	return arm(err);
}

static void take(const struct record *record)
{
	if (record->other == source.number && record->tid != self_tid_sigsafe())
		cpu_take_hit(&(struct cpu_hit){ .tid = record->tid,
			.stack = record->stack,
			.labels = record->labels,
			.time_ns = record->time_ns,
			.ns = record->value * source.period_ns });
}

static int poll_itimer(uint64_t now, struct err *err)
{
	uint64_t lost = signal_lost();

	(void)now;
	(void)err;
	cpu_take_lost((lost - source.lost) * source.period_ns);
	source.lost = lost;
	return 0;
}

const struct cpu_source cpu_itimer = {
	.name = "itimer",
	.limit_hz = limit_hz,
	.probe = probe,
	.start = start,
	.set_period = set_period,
	.stop = stop,
	.poll = poll_itimer,
	.take = take,
};
