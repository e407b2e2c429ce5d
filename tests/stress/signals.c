/* Rows 8, 11, 18: handlers of the program's own, their stacks, and errno. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/stress/stress.h"

#define OWN_SIGNALS   8
#define STACK_BYTES   8192
#define UNLIKELY_CODE 1234

static volatile sig_atomic_t ticks, queued;

static void on_tick(int signal)
{
	(void)signal;
	ticks++;
}

static void on_queued(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	queued += info->si_value.sival_int;
}

static long send_own(void)
{
	for (int signal = SIGRTMIN; signal < SIGRTMIN + OWN_SIGNALS; signal++) {
		if (sigqueue(getpid(), signal, (union sigval){ .sival_int = 1 }))
			wrong("sigqueue");
	}
	return OWN_SIGNALS;
}

static void check_handlers(void)
{
	struct sigaction seen;

	for (int signal = SIGRTMIN; signal < SIGRTMIN + OWN_SIGNALS; signal++) {
		if (sigaction(signal, NULL, &seen) || seen.sa_sigaction != on_queued)
			wrong("a handler is another");
	}
	if (sigaction(SIGPROF, NULL, &seen) || seen.sa_handler != on_tick)
		wrong("SIGPROF's handler is another");
}

/* A profiler of the program's own, and signals that it sends itself: each arrives, and none other does. */
static void own_handlers(void)
{
	const struct itimerval often = { { 0, 4000 }, { 0, 4000 } }, never = { 0 };
	const struct sigaction tick = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	const struct sigaction queue = { .sa_sigaction = on_queued, .sa_flags = SA_SIGINFO };
	struct itimerval seen;
	double whole = seconds_left();
	long sent = 0;

	(void)sigaction(SIGPROF, &tick, NULL);
	for (int signal = SIGRTMIN; signal < SIGRTMIN + OWN_SIGNALS; signal++)
		(void)sigaction(signal, &queue, NULL);
	while (seconds_left() > whole / 2) {
		(void)burn(200000);
		sent += send_own();
	}
	if (ticks)
		wrong("SIGPROF came, and nobody had asked for it");
	ticks = 0;
	if (setitimer(ITIMER_PROF, &often, NULL))
		wrong("setitimer");
	while (goes_on()) {
		(void)burn(200000);
		sent += send_own();
	}
	if (getitimer(ITIMER_PROF, &seen) || seen.it_interval.tv_usec != 4000)
		wrong("the program's timer is another");
	(void)setitimer(ITIMER_PROF, &never, NULL);
	check_handlers();
	if (queued != sent)
		wrong("a signal was lost");
	if (ticks < 5)
		wrong("no ticks came");
	atomic_store(&stress_rounds, (unsigned long)sent);
}

/* Set before a profiler begins to ask, and not to be changed by it. */
static void all_blocked(void)
{
	sigset_t all, seen;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, NULL);
	while (goes_on()) {
		(void)burn(1000000);
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	(void)pthread_sigmask(SIG_SETMASK, NULL, &seen);
	for (int signal = SIGRTMIN; signal <= SIGRTMAX; signal++) {
		if (!sigismember(&seen, signal))
			wrong("the mask was changed");
	}
}

static _Thread_local char *guarded;
static _Thread_local volatile sig_atomic_t faults;

static void on_fault(int signal)
{
	(void)signal;
	(void)burn(3000000); /* long enough to be sampled on the small stack */
	faults++;
	(void)mprotect(guarded, 4096, PROT_READ | PROT_WRITE);
}

/* A fault handler on a small stack of its own, as runtimes have it; a page that is not there below it. */
static void *fault_on(void *unused)
{
	char *memory = mmap(NULL, STACK_BYTES + 8192, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t stack = { .ss_sp = memory + 4096, .ss_size = STACK_BYTES };
	int expected = 0;

	if (memory == MAP_FAILED || mprotect(memory, 4096, PROT_NONE) ||
		sigaltstack(&stack, NULL)) {
		wrong("setting up");
		return unused;
	}
	guarded = memory + 4096 + STACK_BYTES;
	for (; goes_on(); expected++) {
		(void)mprotect(guarded, 4096, PROT_NONE);
		*(volatile char *)guarded = 1;
	}
	if (faults != expected)
		wrong("faults were lost");
	(void)atomic_fetch_add(&stress_rounds, (unsigned long)expected);
	return unused;
}

static void small_alternate_stacks(void)
{
	const struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK };

	(void)sigaction(SIGSEGV, &action, NULL);
	for (unsigned i = 0; i < 3; i++)
		start(fault_on, NULL);
	join_all();
}

/* Functions that leave errno alone when they succeed, and free() always. */
static void use_library(sem_t *semaphore, pthread_mutex_t *lock, pthread_cond_t *condition)
{
	void *objects[20];

	for (size_t i = 0; i < COUNT(objects); i++)
		objects[i] = i % 2 ? malloc(i * 3000 + 1) : calloc(i + 1, 500);
	for (size_t i = 0; i < COUNT(objects); i++)
		objects[i] = realloc(objects[i], 10000);
	for (size_t i = 0; i < COUNT(objects); i++)
		free(objects[i]);
	(void)pthread_mutex_lock(lock);
	(void)pthread_cond_signal(condition);
	(void)pthread_mutex_unlock(lock);
	(void)sem_post(semaphore);
	(void)sem_wait(semaphore);
}

static void *keep_errno(void *library)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
	static sem_t semaphore;

	while (goes_on()) {
		errno = UNLIKELY_CODE;
		if (library)
			use_library(&semaphore, &lock, &condition);
		(void)burn(30000);
		if (errno != UNLIKELY_CODE)
			(void)atomic_fetch_add(&stress_errno, 1);
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return NULL;
}

static void errno_stays(void)
{
	static char library;

	start(keep_errno, NULL);
	start(keep_errno, &library);
	start(keep_errno, &library);
	join_all();
}

const struct mode modes_signals[] = { { "08-handlers", own_handlers },
	{ "08-blocked", all_blocked }, { "11-small-stacks", small_alternate_stacks },
	{ "18-errno", errno_stays }, { NULL, NULL } };
