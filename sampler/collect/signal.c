#include "sampler/collect/signal.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/store/cost.h"
#include "sampler/store/depot.h"
#include "sampler/store/ring.h"
#include "sampler/store/self.h"

/* Real-time signals at the ends of the range are what programs and libraries take first. */
#define FROM_THE_END 5

/* What a timer carries: a capture's number, or with this bit a question's. */
#define QUESTION 0x80000000U

static atomic_int number;
static _Atomic uint32_t capture;
static _Atomic uint64_t lost;

/*
 * The one question that is under way. `state` is the question's own number (shifted) and where it
 * stands: a thread that answers too late finds another number there and leaves it alone.
 */
enum {
	ASKED = 1,
	ANSWERING = 2,
	ANSWERED = 3,
	STAGE = 3,
};

static struct {
	_Atomic uint32_t state;
	uint32_t stack; /* the answer */
} question;

static uint32_t walk_sigsafe(const ucontext_t *context)
{
	struct unwind_regs regs;

	unwind_regs_from_ucontext_sigsafe(context, &regs);
	return depot_walk_sigsafe(&regs);
}

static void take_sample_sigsafe(const siginfo_t *info, const ucontext_t *context)
{
	struct record *record;
	uint64_t now;

	if ((uint32_t)info->si_value.sival_int !=
			atomic_load_explicit(&capture, memory_order_relaxed) ||
		info->si_value.sival_int == 0)
		return;
	now = clock_mono_ns();
	record = ring_claim_sigsafe();
	if (!record) {
		atomic_fetch_add_explicit(
			&lost, 1 + (uint64_t)(uint32_t)info->si_overrun, memory_order_relaxed);
		return;
	}
	*record = (struct record){
		.kind = RECORD_CPU,
		.tid = self_tid_sigsafe(),
		.stack = walk_sigsafe(context),
		.labels = self.labels,
		.time_ns = now,
		.value = 1 + (uint32_t)info->si_overrun,
		.other = (uint32_t)info->si_value.sival_int,
	};
	ring_commit_sigsafe(record);
}

static void answer_sigsafe(const siginfo_t *info, const ucontext_t *context)
{
	uint32_t asked = ((uint32_t)info->si_value.sival_int & ~QUESTION) << 2 | ASKED;

	if (!atomic_compare_exchange_strong(
		    &question.state, &asked, (asked & ~(uint32_t)STAGE) | ANSWERING))
		return;
	question.stack = walk_sigsafe(context);
	atomic_store(&question.state, (asked & ~(uint32_t)STAGE) | ANSWERED);
}

static void on_signal_sigsafe(int received, siginfo_t *info, void *context)
{
	uint64_t began;

	(void)received;
	/* Somebody else's; or one that came to where only the way back is allowed. */
	if (info->si_code != SI_TIMER || self.is_confined)
		return;
	began = clock_mono_ns();
	if ((uint32_t)info->si_value.sival_int & QUESTION)
		answer_sigsafe(info, context);
	else
		take_sample_sigsafe(info, context);
	cost_note_sigsafe(began);
}

static bool is_free(int candidate)
{
	struct sigaction action;

	return sigaction(candidate, NULL, &action) == 0 && action.sa_handler == SIG_DFL;
}

int signal_open(struct err *err)
{
	struct sigaction action = { .sa_sigaction = on_signal_sigsafe,
		.sa_flags = SA_SIGINFO | SA_RESTART };

	if (number)
		return 0;
	for (int candidate = SIGRTMAX - FROM_THE_END; candidate > SIGRTMIN; candidate--) {
		if (!is_free(candidate))
			continue;
		if (sigaction(candidate, &action, NULL))
			return err_sys(err, "signal %d", candidate);
		number = candidate;
		return 0;
	}
	return err_set(err, ERR_SYSTEM, "the program uses every real-time signal itself");
}

int signal_number(void)
{
	return number;
}

bool signal_is_ours(void)
{
	struct sigaction action;

	return sigaction(number, NULL, &action) == 0 &&
	       action.sa_sigaction == on_signal_sigsafe;
}

const sigset_t *signal_shut_out_sigsafe(const sigset_t *set, sigset_t *changed)
{
	int ours = atomic_load_explicit(&number, memory_order_relaxed);

	if (!set || !ours || sigismember(set, ours))
		return set;
	*changed = *set;
	(void)sigaddset(changed, ours);
	return changed;
}

const sigset_t *signal_leave_out_sigsafe(const sigset_t *set, sigset_t *changed)
{
	int ours = atomic_load_explicit(&number, memory_order_relaxed);

	for (int other = SIGRTMIN; other <= SIGRTMAX; other++) {
		if (!set || !sigismember(set, other))
			return set;
	}
	*changed = *set;
	/* What is read from a descriptor may have been chosen before our signal was. */
	(void)sigdelset(changed, ours ? ours : SIGRTMAX - FROM_THE_END);
	return changed;
}

uint32_t signal_begin_capture(void)
{
	static uint32_t last;

	last = (last + 1) & ~QUESTION;
	if (last == 0)
		last = 1;
	atomic_store(&capture, last);
	return last;
}

void signal_end_capture(void)
{
	atomic_store(&capture, 0);
}

uint64_t signal_lost(void)
{
	return atomic_load(&lost);
}

clockid_t signal_clock_of(uint32_t tid)
{
	return (clockid_t)(~tid << 3 | 6);
}

/*
 * By a timer that expires at the thread's next tick on a CPU: one that goes to sleep before that is not
 * woken.  And not by a signal queued by hand: should the thread be about to run another program, the
 * kernel drops what timers have sent, while a queued signal would end that program.
 */
static bool send_question(uint32_t tid, uint32_t asked, int *timer)
{
	struct sigevent event;
	struct itimerspec at_once = { .it_value.tv_nsec = 1 };

	memset(&event, 0, sizeof(event));
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = number;
	event.sigev_value.sival_int = (int)(asked | QUESTION);
	event._sigev_un._tid = (pid_t)tid;
	if (syscall(SYS_timer_create, signal_clock_of(tid), &event, timer))
		return false;
	if (syscall(SYS_timer_settime, *timer, 0, &at_once, NULL) == 0)
		return true;
	(void)syscall(SYS_timer_delete, *timer);
	return false;
}

static bool await_answer(uint64_t give_up)
{
	struct timespec pause = { .tv_nsec = 20000 };

	for (;;) {
		uint32_t state = atomic_load(&question.state);

		if ((state & STAGE) == ANSWERED)
			return true;
		/* Once it answers it will be done in microseconds: take nothing back then. */
		if ((state & STAGE) == ASKED && clock_mono_ns() > give_up &&
			atomic_compare_exchange_strong(&question.state, &state, 0))
			return false;
		(void)nanosleep(&pause, NULL);
	}
}

bool signal_ask_stack(uint32_t tid, unsigned wait_ms, uint32_t *stack)
{
	static uint32_t asked;
	bool answered;
	int timer;

	asked = (asked + 1) & 0x1fffffff;
	atomic_store(&question.state, asked << 2 | ASKED);
	if (!send_question(tid, asked, &timer))
		return false;
	answered = await_answer(clock_mono_ns() + wait_ms * UINT64_C(1000000));
	(void)syscall(SYS_timer_delete, timer);
	if (answered)
		*stack = question.stack;
	return answered;
}

void signal_after_fork(void)
{
	atomic_store(&capture, 0);
	atomic_store(&question.state, 0);
}
