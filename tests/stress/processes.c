/* Rows 6, 7, 17, 19, 21: children, programs they become, and how processes end. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/stress/stress.h"

#define FORKED_BYTES ((size_t)192 << 20)

static int run_cloned(void *unused)
{
	(void)unused;
	(void)burn(1000);
	return 7;
}

__attribute__((noinline)) static pid_t fork_shared(void)
{
	pid_t child = vfork();

	if (child == 0)
		_exit(7);
	return child;
}

static pid_t fork_and_burn(unsigned long rounds)
{
	pid_t child = fork();

	if (child == 0) {
		(void)burn(rounds);
		_exit(7);
	}
	return child;
}

/* A fork takes longer than a signal's period here: who is interrupted and begins anew never gets through. */
static void *fork_on(void *unused)
{
	static char stack[64 << 10];

	for (unsigned i = 0; goes_on(); i++) {
		pid_t child = i % 8 == 7
				      ? clone(run_cloned, stack + sizeof(stack), SIGCHLD, NULL)
			      : i % 8 == 3 ? fork_shared()
					   : fork_and_burn(i % 10 == 0 ? 3000000 : 1000);

		expect_status(child, 7 << 8, "a child's status");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void forks(void)
{
	char *large = mmap(
		NULL, FORKED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (large == MAP_FAILED) {
		wrong("mmap");
		return;
	}
	(void)madvise(large, FORKED_BYTES, MADV_NOHUGEPAGE);
	memset(large, 1, FORKED_BYTES);
	start(fork_on, NULL);
	start(burn_on, NULL);
	join_all();
	if (atomic_load(&stress_rounds) == 0)
		wrong("not one fork came to its end");
}

/* Its environment empty, another program does not even have the profiler's handler. */
static void execute(const char *depth, bool with_environment)
{
	char word[] = "executed", count[8];
	char *arguments[] = { stress_self, word, count, NULL }, *nothing[] = { NULL };

	(void)snprintf(count, sizeof(count), "%s", depth);
	if (with_environment)
		(void)execv(stress_self, arguments);
	(void)execve(stress_self, arguments, nothing);
	_exit(127);
}

__attribute__((noinline)) static pid_t spawn_shared(const char *depth)
{
	pid_t child = vfork();

	if (child == 0)
		execute(depth ? depth : "0", depth);
	return child;
}

static pid_t spawn(const char *depth)
{
	pid_t child = fork();

	if (child == 0)
		execute(depth ? depth : "0", depth);
	return child;
}

static void *execute_on(void *depth)
{
	for (unsigned i = 0; goes_on(); i++) {
		expect_status(i % 2 ? spawn(depth) : spawn_shared(depth), 0,
			"how an executed program ended");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return NULL;
}

static void starts_and_stops(void)
{
	start(execute_on, NULL);
	start(burn_on, NULL);
	start(burn_on, NULL);
	join_all();
}

static void children_of_children(void)
{
	char depth[] = "5";

	start(execute_on, depth);
	start(burn_on, NULL);
	join_all();
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *be_short(void *unused)
{
	free(malloc(5000));
	return unused;
}

static void live_as_child(void)
{
	pthread_t thread;
	void *kept[100];

	for (size_t i = 0; i < COUNT(kept); i++) {
		kept[i] = malloc(10 + i * 100);
		if (!kept[i])
			_exit(1);
	}
	for (size_t i = 0; i < COUNT(kept); i++)
		free(kept[i]);
	if (pthread_mutex_lock(&lock) || pthread_mutex_unlock(&lock))
		_exit(2);
	if (pthread_create(&thread, NULL, be_short, NULL) || pthread_join(thread, NULL))
		_exit(3);
	(void)burn(100000);
	_exit(7);
}

/* Children of a process whose threads allocate, wait and end meanwhile; some of them fork in turn. */
static void *fork_states(void *unused)
{
	while (goes_on()) {
		pid_t child = fork();

		if (child == 0) {
			pid_t inner = fork();

			if (inner == 0)
				live_as_child();
			expect_status(inner, 7 << 8, "a child's child");
			live_as_child();
		}
		expect_status(child, 7 << 8, "a child that goes on");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void *thread_on(void *unused)
{
	while (goes_on()) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, be_short, NULL) || pthread_join(thread, NULL))
			wrong("a thread");
	}
	return unused;
}

static void forks_of_threads(void)
{
	start(allocate_on, (void *)(uintptr_t)1);
	start(thread_on, NULL);
	start(fork_states, NULL);
	join_all();
}

static void *wait_for_ever(void *unused)
{
	while (pause() != 0) /* it never is */
		continue;
	return unused;
}

static void last_words(void)
{
	free(malloc(100000));
	(void)pthread_mutex_lock(&lock);
	(void)burn(1000000);
	(void)pthread_mutex_unlock(&lock);
}

/* Threads go on while the process ends. */
static void be_busy(void)
{
	const struct rlimit no_core = { 0, 0 };

	(void)setrlimit(RLIMIT_CORE, &no_core);
	(void)atexit(last_words);
	(void)at_quick_exit(last_words);
	start(allocate_on, (void *)(uintptr_t)2);
	start(wait_for_ever, NULL);
	start(thread_on, NULL);
	while (seconds_left() > 0.05)
		(void)burn(100000);
}

static void end_by_exit(void)
{
	be_busy();
	exit(3); /* NOLINT(concurrency-mt-unsafe) */
}

static void end_at_once(void)
{
	be_busy();
	_exit(4);
}

static void end_quickly(void)
{
	be_busy();
	quick_exit(5);
}

static void end_by_abort(void)
{
	be_busy();
	abort();
}

static void end_by_execution(void)
{
	be_busy();
	execute("0", true);
}

static void end_by_signal(void)
{
	be_busy();
	(void)kill(getpid(), SIGTERM);
	(void)wait_for_ever(NULL);
}

/* The process ends when the last of its threads has, with the status 0. */
static void end_first_thread(void)
{
	start(burn_on, NULL);
	(void)burn(1000000);
	pthread_exit(NULL);
}

/* In a child the thread that forked is the first; it returns from its function. */
static void *fork_and_return(void *unused)
{
	while (goes_on()) {
		pid_t child = fork();

		if (child == 0)
			return unused;
		expect_status(child, 0, "a child whose only thread returned");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void end_by_return(void)
{
	start(fork_and_return, NULL);
	start(burn_on, NULL);
	join_all();
}

const struct mode modes_processes[] = { { "06-forks", forks }, { "07-stops", starts_and_stops },
	{ "17-states", forks_of_threads }, { "19-children", children_of_children },
	{ "21-exit", end_by_exit }, { "21-at-once", end_at_once },
	{ "21-quickly", end_quickly }, { "21-abort", end_by_abort },
	{ "21-execution", end_by_execution }, { "21-signal", end_by_signal },
	{ "21-return", end_by_return }, { "21-first-thread", end_first_thread },
	{ NULL, NULL } };
