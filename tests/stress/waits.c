/* Row 5: waits that end early. Each kind of wait has a thread, which computes a little between two; and one
 * computes all the time, so that a profiler has something to tell. */
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/stress/stress.h"

#define MS_NS 1000000L

static int wait_poll(void)
{
	return poll(NULL, 0, 1);
}

static int wait_nanosleep(void)
{
	return nanosleep(&(struct timespec){ .tv_nsec = MS_NS / 2 }, NULL);
}

static int wait_clock_nanosleep(void)
{
	errno = clock_nanosleep(
		CLOCK_MONOTONIC, 0, &(struct timespec){ .tv_nsec = MS_NS / 2 }, NULL);
	return errno ? -1 : 0;
}

static int wait_select(void)
{
	return select(0, NULL, NULL, NULL, &(struct timeval){ .tv_usec = 500 });
}

static int wait_ppoll(void)
{
	return ppoll(NULL, 0, &(struct timespec){ .tv_nsec = MS_NS / 2 }, NULL);
}

static int wait_epoll(void)
{
	static _Thread_local int epoll = -1;
	struct epoll_event event;

	if (epoll < 0)
		epoll = epoll_create1(EPOLL_CLOEXEC);
	return epoll_wait(epoll, &event, 1, 1);
}

static int wait_semaphore(void)
{
	static _Thread_local sem_t never;
	struct timespec when;

	(void)clock_gettime(CLOCK_REALTIME, &when);
	when.tv_nsec += MS_NS;
	if (when.tv_nsec >= 1000 * MS_NS) {
		when.tv_nsec -= 1000 * MS_NS;
		when.tv_sec++;
	}
	return sem_timedwait(&never, &when) && errno == ETIMEDOUT ? 0 : -1;
}

static int wait_socket(void)
{
	static _Thread_local int pair[2] = { -1, -1 };
	const struct timeval limit = { .tv_usec = 1000 };
	char byte;

	if (pair[0] < 0 &&
		(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
			setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit))))
		return -1;
	return recv(pair[0], &byte, 1, 0) < 0 && errno == EAGAIN ? 0 : -1;
}

static int wait_signal(void)
{
	const struct timespec limit = { .tv_nsec = MS_NS };
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR1);
	return sigtimedwait(&set, NULL, &limit) < 0 && errno == EAGAIN ? 0 : -1;
}

static int (*const waits[])(void) = { wait_poll, wait_nanosleep, wait_clock_nanosleep,
	wait_select, wait_ppoll, wait_epoll, wait_semaphore, wait_socket, wait_signal };

static void count_wait(int result)
{
	if (result >= 0)
		(void)atomic_fetch_add(&stress_rounds, 1);
	else if (errno == EINTR)
		(void)atomic_fetch_add(&stress_interrupted, 1);
	else
		wrong("a wait failed");
}

static void *wait_on(void *wait)
{
	while (goes_on()) {
		(void)burn(50000);
		count_wait((*(int (*const *)(void))wait)());
	}
	return NULL;
}

static void all_waits(void)
{
	for (size_t i = 0; i < COUNT(waits); i++)
		start(wait_on, (void *)(uintptr_t)&waits[i]);
	start(burn_on, NULL);
	while (goes_on()) {
		int left = (int)(seconds_left() * 1000);

		count_wait(poll(NULL, 0, left < 200 ? left + 1 : 200)); /* and who only waits */
	}
	join_all();
}

/* While nothing but stacks of threads are asked for. */
static void waits_while_looked_at(void)
{
	all_waits();
}

static int open_poll(const sigset_t *before)
{
	return ppoll(NULL, 0, &(struct timespec){ .tv_nsec = MS_NS / 2 }, before);
}

static int open_select(const sigset_t *before)
{
	return pselect(0, NULL, NULL, NULL, &(struct timespec){ .tv_nsec = MS_NS / 2 }, before);
}

static int open_epoll(const sigset_t *before)
{
	static _Thread_local int epoll = -1;
	struct epoll_event event;

	if (epoll < 0)
		epoll = epoll_create1(EPOLL_CLOEXEC);
	return epoll_pwait(epoll, &event, 1, 1, before);
}

/* Any signal at all: nobody sends one. */
static int take_signal(const sigset_t *before)
{
	const struct timespec limit = { .tv_nsec = MS_NS / 2 };
	sigset_t all;

	(void)before;
	(void)sigfillset(&all);
	if (sigtimedwait(&all, NULL, &limit) > 0)
		wrong("a signal that nobody sent was waited for, and came");
	return 0;
}

static int read_signal(const sigset_t *before)
{
	static _Thread_local int file = -1;
	struct pollfd polled = { .events = POLLIN };
	sigset_t all;

	(void)before;
	(void)sigfillset(&all);
	if (file < 0)
		file = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	polled.fd = file;
	if (poll(&polled, 1, 1) > 0) {
		struct signalfd_siginfo info;

		(void)!read(file, &info, sizeof(info));
		wrong("a signal that nobody sent was read");
	}
	return 0;
}

static int (*const open_waits[])(
	const sigset_t *) = { open_poll, open_select, open_epoll, take_signal, read_signal };

/* Blocks all signals but while it waits, as servers do. */
static void *wait_open(void *wait)
{
	sigset_t all, before;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	while (goes_on()) {
		(void)burn(300000);
		count_wait((*(int (*const *)(const sigset_t *))wait)(&before));
	}
	if (pthread_sigmask(SIG_SETMASK, NULL, &all) || !sigismember(&all, SIGTERM) ||
		!sigismember(&all, SIGRTMAX - 5))
		wrong("the mask was changed");
	return NULL;
}

static void waits_that_open_the_mask(void)
{
	for (size_t i = 0; i < COUNT(open_waits); i++)
		start(wait_open, (void *)(uintptr_t)&open_waits[i]);
	start(burn_on, NULL);
	join_all();
}

const struct mode modes_waits[] = { { "05-waits", all_waits },
	{ "05-dumps", waits_while_looked_at }, { "05-masked", waits_that_open_the_mask },
	{ NULL, NULL } };
