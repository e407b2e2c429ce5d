/* Rows 9, 10: threads that come and go, and what of the kernel's each may have. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tests/stress/stress.h"

#define PENDING   64 /* of RLIMIT_SIGPENDING */
#define OWN       20 /* that the program uses itself: signals and timers */
#define COMPUTING 60

static void *compute_a_while(void *unused)
{
	(void)burn(150000000);
	return unused;
}

/* The first thread does nothing: what the process uses, threads use that are gone soon. */
static void new_threads(void)
{
	while (goes_on()) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, compute_a_while, NULL) ||
			pthread_join(thread, NULL))
			wrong("a thread");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
}

static void *end_soon(void *number)
{
	(void)burn(20000);
	return number;
}

static void short_threads(void)
{
	while (goes_on()) {
		pthread_t threads[8];
		char numbers[8];

		for (size_t i = 0; i < COUNT(threads); i++) {
			if (pthread_create(&threads[i], NULL, end_soon, &numbers[i]))
				wrong("pthread_create");
		}
		for (size_t i = 0; i < COUNT(threads); i++) {
			void *result = NULL;

			if (pthread_join(threads[i], &result) || result != &numbers[i])
				wrong("pthread_join");
		}
		(void)atomic_fetch_add(&stress_rounds, COUNT(threads));
	}
}

static void queue_and_take(const sigset_t *own)
{
	const struct timespec at_once = { 0 };

	for (int i = 0; i < OWN; i++) {
		if (sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }))
			wrong("sigqueue");
	}
	for (int i = 0; i < OWN; i++) {
		siginfo_t info;

		if (sigtimedwait(own, &info, &at_once) != SIGRTMIN ||
			info.si_value.sival_int != i)
			wrong("a signal was lost");
	}
}

static void make_timers(void)
{
	timer_t timers[OWN];
	size_t len = 0;
	struct sigevent event;

	memset(&event, 0, sizeof(event));
	event.sigev_notify = SIGEV_SIGNAL;
	event.sigev_signo = SIGRTMIN;
	for (int i = 0; i < OWN; i++) {
		if (timer_create(CLOCK_MONOTONIC, &event, &timers[len]))
			wrong("timer_create");
		else
			len++;
	}
	while (len > 0)
		(void)timer_delete(timers[--len]);
}

/* Signals that are queued, and timers, are few; the program gets those that it has a right to. */
static void few_pending(void)
{
	const struct rlimit few = { PENDING, PENDING };
	sigset_t own;

	(void)sigemptyset(&own);
	(void)sigaddset(&own, SIGRTMIN);
	(void)pthread_sigmask(SIG_BLOCK, &own, NULL);
	if (setrlimit(RLIMIT_SIGPENDING, &few))
		wrong("setrlimit");
	for (unsigned i = 0; i < COMPUTING; i++)
		start(burn_on, NULL);
	while (goes_on()) {
		queue_and_take(&own);
		make_timers();
		(void)atomic_fetch_add(&stress_rounds, 1);
		(void)burn(1000000);
	}
	join_all();
}

/* Closes everything it does not know, counts what it has, and lives on few descriptors. */
static void few_descriptors(void)
{
	const struct rlimit few = { 8, 8 };

	closefrom(3);
	if (setrlimit(RLIMIT_NOFILE, &few))
		wrong("setrlimit");
	while (goes_on()) {
		int pair[2];

		if (pipe(pair) || pair[0] != 3 || pair[1] != 4)
			wrong("descriptors are not the lowest free ones");
		(void)close(pair[0]);
		(void)close(pair[1]);
		(void)burn(10000);
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
}

const struct mode modes_threads[] = { { "09-new-threads", new_threads },
	{ "09-short-threads", short_threads }, { "10-pending", few_pending },
	{ "10-descriptors", few_descriptors }, { NULL, NULL } };
