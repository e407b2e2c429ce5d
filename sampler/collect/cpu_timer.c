/*
 * cpu_timer.c - samples by signals: every thread has a timer on its own CPU time.  Such timers tick with the
 * kernel (CONFIG_HZ, often 250 a second); a tick that comes late stands for the periods that it
 * missed.
 */
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sampler/collect/cpu_source.h"
#include "sampler/collect/signal.h"
#include "sampler/proc/cpus.h"
#include "sampler/proc/process.h"
#include "sampler/store/self.h"

#define TIMERS_MAX 4096 /* each takes one of RLIMIT_SIGPENDING, which the program needs too */

static struct {
	uint32_t number; /* that the timers carry */
	uint64_t period_ns, lost;
	size_t timers, timers_max;
} source;

static bool arm(uint32_t tid, int *timer)
{
	struct sigevent event;
	struct itimerspec when = { .it_interval = { (time_t)(source.period_ns / 1000000000),
					   (long)(source.period_ns % 1000000000) } };
	/* Threads that were started together shall not all be sampled at the same moments. */
	uint64_t first = 1 + self_random_sigsafe() % source.period_ns;

	memset(&event, 0, sizeof(event));
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = signal_number();
	event.sigev_value.sival_int = (int)source.number;
	event._sigev_un._tid = (pid_t)tid;
	if (syscall(SYS_timer_create, signal_clock_of(tid), &event, timer))
		return false;
	when.it_value =
		(struct timespec){ (time_t)(first / 1000000000), (long)(first % 1000000000) };
	if (syscall(SYS_timer_settime, *timer, 0, &when, NULL) == 0)
		return true;
	(void)syscall(SYS_timer_delete, *timer);
	return false;
}

/* One that cannot be had is not seen. */
static void meet(struct cpu_thread *thread)
{
	if (thread->has_timer || source.timers >= source.timers_max)
		return;
	thread->has_timer = arm(thread->tid, &thread->timer);
	source.timers += thread->has_timer;
}

static void leave(struct cpu_thread *thread)
{
	if (!thread->has_timer)
		return;
	(void)syscall(SYS_timer_delete, thread->timer);
	thread->has_timer = false;
	source.timers--;
}

static unsigned limit_hz(void)
{
	return cpus_tick_hz();
}

static int probe(struct err *err)
{
	if (signal_open(err))
		return -1;
	if (!signal_is_ours())
		return err_set(err, ERR_SYSTEM,
			"the program has taken signal %d for itself meanwhile",
			signal_number());
	return 0;
}

static int start(uint64_t period_ns, struct err *err)
{
	if (probe(err))
		return -1;
	memset(&source, 0, sizeof(source));
	source.number = signal_begin_capture();
	source.period_ns = period_ns;
	source.lost = signal_lost();
	source.timers_max = process_spare_timers();
	if (source.timers_max > TIMERS_MAX)
		source.timers_max = TIMERS_MAX;
	return 0;
}

static void stop(void)
{
	cpu_threads_each(leave);
	signal_end_capture();
}

static int set_period(uint64_t period_ns, struct err *err)
{
	(void)err;
	cpu_threads_each(leave);
	source.number = signal_begin_capture();
	source.period_ns = period_ns;
	cpu_threads_each(meet);
	return 0;
}

static void take(const struct record *record)
{
	if (record->other == source.number)
		cpu_take_hit(&(struct cpu_hit){ .tid = record->tid,
			.stack = record->stack,
			.labels = record->labels,
			.time_ns = record->time_ns,
			.ns = record->value * source.period_ns });
}

static int poll_timer(uint64_t now, struct err *err)
{
	uint64_t lost = signal_lost();

	(void)now;
	(void)err;
	cpu_take_lost((lost - source.lost) * source.period_ns);
	source.lost = lost;
	return 0;
}

const struct cpu_source cpu_timer = {
	.name = "timer",
	.limit_hz = limit_hz,
	.probe = probe,
	.start = start,
	.set_period = set_period,
	.stop = stop,
	.poll = poll_timer,
	.meet = meet,
	.leave = leave,
	.take = take,
};
