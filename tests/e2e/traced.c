/*
 * traced MODE - what test_trace.py takes traces of.
 *
 * busy: threads that are known to sleep, wait for locks, conditions, pipes and each other, in regions and
 * with log lines, in rounds of 20 ms, until it is killed.  cpus: two threads that want the same CPU all the
 * time, and one that sleeps by the bare system call.  calls: does what a hook in front of a
 * cancellation point could spoil, for a second, and says "as it should be".
 */
#define POSTERN_OPTIONAL
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "sampler/postern.h"

#define MS 1000000L

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, cond_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int signals, pipe_ends[2];

static void sleep_ms(long ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * MS };

	(void)nanosleep(&time, NULL);
}

static void work(unsigned long rounds)
{
	for (unsigned long i = 0; i < rounds; i++)
		__asm__ volatile("");
}

static void name_me(const char *name)
{
	(void)pthread_setname_np(pthread_self(), name);
}

__attribute__((noinline)) static void hold_lock(void)
{
	(void)pthread_mutex_lock(&lock);
	sleep_ms(10);
	(void)pthread_mutex_unlock(&lock);
}

static void *holder(void *unused)
{
	name_me("holder");
	for (;;) {
		hold_lock();
		sleep_ms(10);
	}
	return unused;
}

__attribute__((noinline)) static void want_lock(void)
{
	(void)pthread_mutex_lock(&lock);
	(void)pthread_mutex_unlock(&lock);
}

static void *wanter(void *unused)
{
	name_me("wanter");
	for (;;) {
		want_lock();
		sleep_ms(2);
	}
	return unused;
}

__attribute__((noinline)) static void await_signal(void)
{
	(void)pthread_mutex_lock(&cond_lock);
	while (signals == 0)
		(void)pthread_cond_wait(&cond, &cond_lock);
	signals--;
	(void)pthread_mutex_unlock(&cond_lock);
}

static void *consumer(void *unused)
{
	name_me("consumer");
	for (;;)
		await_signal();
	return unused;
}

static void *producer(void *unused)
{
	name_me("producer");
	for (;;) {
		sleep_ms(20);
		(void)pthread_mutex_lock(&cond_lock);
		signals++;
		(void)pthread_cond_signal(&cond);
		(void)pthread_mutex_unlock(&cond_lock);
	}
	return unused;
}

__attribute__((noinline)) static void read_one(void)
{
	char byte;

	(void)!read(pipe_ends[0], &byte, 1);
}

static void *reader(void *unused)
{
	name_me("reader");
	for (;;)
		read_one();
	return unused;
}

/* Sleeps longer than events are held back, then makes the reader go on. */
static void *writer(void *unused)
{
	name_me("writer");
	for (;;) {
		sleep_ms(250);
		(void)!write(pipe_ends[1], "x", 1);
	}
	return unused;
}

static void *request(void *unused)
{
	name_me("request");
	for (;;) {
		struct postern_region outer, inner;

		if (postern_region_begin) {
			outer = postern_region_begin("request");
			inner = postern_region_begin("query");
			sleep_ms(5);
			postern_region_end(&inner);
			postern_log("rows", "42 \"rows\"");
			work(100000);
			postern_region_end(&outer);
		}
		sleep_ms(15);
	}
	return unused;
}

static void *shortly(void *unused)
{
	sleep_ms(4);
	return unused;
}

static int busy(void)
{
	static void *(*const all[])(
		void *) = { holder, wanter, consumer, producer, reader, writer, request };
	pthread_t thread;

	if (pipe(pipe_ends))
		return 1;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (pthread_create(&thread, NULL, all[i], NULL))
			return 1;
	}
	puts("started");
	for (;;) {
		if (pthread_create(&thread, NULL, shortly, NULL) || pthread_join(thread, NULL))
			return 1;
		sleep_ms(16);
	}
}

/* --- calls --- */

static void check(int holds, const char *what)
{
	if (holds)
		return;
	printf("wrong: %s (errno %d)\n", what, errno);
	exit(1);
}

static void on_signal(int number)
{
	(void)number;
}

static sigjmp_buf back;

static void on_jump(int number)
{
	(void)number;
	siglongjmp(back, 1);
}

static void install(int number, void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };

	(void)sigaction(number, &action, NULL);
}

static void arm_again_and_again(long us, long again_us)
{
	struct itimerspec in = { .it_value.tv_nsec = us * 1000,
		.it_interval.tv_nsec = again_us * 1000 };
	static timer_t timer;
	static int made;

	if (!made++)
		check(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0, "timer");
	(void)timer_settime(timer, 0, &in, NULL);
}

static void arm(long us)
{
	arm_again_and_again(us, 0);
}

/* The first signal may come before the call, when others want the CPU. */
static void interrupted(const int *pair)
{
	struct timespec second = { .tv_sec = 1 }, left = { 0 };
	char byte;

	install(SIGALRM, on_signal);
	arm_again_and_again(3000, 3000);
	check(nanosleep(&second, &left) == -1 && errno == EINTR && left.tv_nsec > 100000000,
		"nanosleep is interrupted");
	check(clock_nanosleep(CLOCK_MONOTONIC, 0, &second, &left) == EINTR, "clock_nanosleep");
	check(sleep(2) >= 1, "sleep");
	check(read(pair[0], &byte, 1) == -1 && errno == EINTR, "read is interrupted");
	check(poll(NULL, 0, 1000) == -1 && errno == EINTR, "poll");
	check(select(0, NULL, NULL, NULL, &(struct timeval){ .tv_sec = 1 }) == -1 &&
			errno == EINTR,
		"select");
	check(recv(pair[0], &byte, 1, 0) == -1 && errno == EINTR, "recv");
	arm(0);
	errno = 77;
	check(poll(NULL, 0, 1) == 0 && errno == 77, "errno is kept");
	check(read(-1, &byte, 1) == -1 && errno == EBADF, "read of nothing");
	check(recv(pair[0], &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "recv at once");
}

/* As programs give calls a time limit of their own. */
static void jumped_out(const int *pair)
{
	char byte;

	install(SIGALRM, on_jump);
	for (volatile int i = 0; i < 5; i++) {
		if (sigsetjmp(back, 1) == 0) {
			arm(2000);
			(void)!read(pair[0], &byte, 1);
			check(0, "the jump out of read");
		}
		if (sigsetjmp(back, 1) == 0) {
			arm(2000);
			sleep_ms(1000);
			check(0, "the jump out of nanosleep");
		}
	}
	install(SIGALRM, on_signal);
}

static int cleaned;

static void clean(void *unused)
{
	(void)unused;
	__atomic_add_fetch(&cleaned, 1, __ATOMIC_SEQ_CST);
}

static void *in_read(void *pair)
{
	char byte;

	pthread_cleanup_push(clean, NULL);
	(void)!read(((int *)pair)[0], &byte, 1);
	pthread_cleanup_pop(0);
	return NULL;
}

static void *in_sleep(void *unused)
{
	pthread_cleanup_push(clean, NULL);
	for (;;)
		(void)sleep(100);
	pthread_cleanup_pop(0);
	return unused;
}

static void *in_epoll(void *unused)
{
	struct epoll_event event;
	int epoll = epoll_create1(0);

	pthread_cleanup_push(clean, NULL);
	(void)epoll_wait(epoll, &event, 1, -1);
	pthread_cleanup_pop(0);
	return unused;
}

/* Cancelled while it waits, and before. */
static void cancelled(int *pair)
{
	void *(*const all[])(void *) = { in_read, in_sleep, in_epoll };
	int before = cleaned;

	for (size_t i = 0; i < 6; i++) {
		pthread_t thread;
		void *result;

		check(pthread_create(&thread, NULL, all[i % 3], pair) == 0, "pthread_create");
		if (i < 3)
			sleep_ms(5);
		else
			sleep_ms(0);
		check(pthread_cancel(thread) == 0, "pthread_cancel");
		check(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED,
			"a cancelled thread's result");
	}
	check(cleaned >= before + 3, "cleaning up");
}

static void *leaves(void *argument)
{
	pthread_cleanup_push(clean, NULL);
	pthread_exit(argument);
	pthread_cleanup_pop(0);
	return NULL;
}

static int c11(void *argument)
{
	return *(int *)argument;
}

static void made_and_ended(void)
{
	pthread_attr_t attributes;
	int number = -5, result_c11, before = cleaned;
	pthread_t thread;
	thrd_t other;
	void *result;

	check(pthread_create(&thread, NULL, leaves, &number) == 0 &&
			pthread_join(thread, &result) == 0 && result == &number &&
			cleaned == before + 1,
		"pthread_exit");
	check(thrd_create(&other, c11, &number) == thrd_success &&
			thrd_join(other, &result_c11) == thrd_success && result_c11 == -5,
		"thrd_create");
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setstacksize(&attributes, (size_t)1 << 46);
	check(pthread_create(&thread, &attributes, leaves, NULL) == EAGAIN, "no memory");
}

static int calls(void)
{
	struct timespec now, end;
	int pair[2];

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	do {
		interrupted(pair);
		jumped_out(pair);
		cancelled(pair);
		made_and_ended();
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec + 3);
	puts("as it should be");
	return 0;
}

static void *spins(void *where)
{
	name_me("spinner");
	while (sched_setaffinity(0, sizeof(cpu_set_t), where) == 0)
		work(1000000);
	return NULL;
}

static int cpus(void)
{
	struct timespec time = { .tv_nsec = 10 * MS };
	pthread_t thread;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	check(pthread_create(&thread, NULL, spins, &one) == 0 &&
			pthread_create(&thread, NULL, spins, &one) == 0,
		"pthread_create");
	puts("spinning");
	for (;;)
		(void)syscall(SYS_nanosleep, &time, NULL);
}

int main(int argc, char **argv)
{
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && strcmp(argv[1], "cpus") == 0)
		return cpus();
	return argc == 2 && strcmp(argv[1], "calls") == 0 ? calls() : busy();
}
