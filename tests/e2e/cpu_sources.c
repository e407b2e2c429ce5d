/*
 * cpu_sources MODE - programs whose CPU time is known, for ever; test_cpu_sources.py profiles them.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sampler/postern.h"

extern struct postern_region postern_region_begin(const char *) __attribute__((weak));
extern void postern_region_end(const struct postern_region *) __attribute__((weak));

/* CPU time of this thread, until it has used `ns` more. */
static inline __attribute__((always_inline)) void use(int64_t ns)
{
	struct timespec now, from;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
	do {
		for (volatile unsigned i = 0; i < 20000; i++)
			;
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	} while ((now.tv_sec - from.tv_sec) * 1000000000 + now.tv_nsec - from.tv_nsec < ns);
}

__attribute__((noinline)) static void *before(void *name)
{
	prctl(PR_SET_NAME, name);
	for (;;)
		use(1000000);
}

__attribute__((noinline)) static void *during(void *ns)
{
	prctl(PR_SET_NAME, "later");
	use(*(const int64_t *)ns);
	return NULL;
}

/* Half of the time goes into a thread that was there from the start, the rest into those of 50 ms. */
static void threads(void)
{
	int64_t ns = 50000000;
	pthread_t thread;

	pthread_create(&thread, NULL, before, "early");
	for (;;) {
		pthread_create(&thread, NULL, during, &ns);
		pthread_join(thread, NULL);
	}
}

__attribute__((noinline)) static void *brief(void *unused)
{
	use(800000);
	return unused;
}

/* No thread lives for a whole period, or long enough to be found. */
static void brief_threads(void)
{
	pthread_t thread;

	for (;;) {
		pthread_create(&thread, NULL, brief, NULL);
		pthread_join(thread, NULL);
	}
}

__attribute__((noinline)) static void in_child(int64_t ns)
{
	use(ns);
	__asm__ volatile("" : : : "memory");
}

__attribute__((noinline)) static void in_parent(void)
{
	use(20000000);
	__asm__ volatile("" : : : "memory");
}

static void forks(void)
{
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, 9);
		for (;;)
			in_child(1000000);
	}
	for (;;) {
		pid_t child = fork();

		if (child == 0) {
			in_child(10000000);
			_exit(0);
		}
		in_parent();
		(void)waitpid(child, NULL, 0);
	}
}

static void reads(void)
{
	static char bytes[1 << 16];
	int zero = open("/dev/zero", O_RDONLY);

	for (;;)
		(void)!read(zero, bytes, sizeof(bytes));
}

/* 3 : 1, in turns of a few milliseconds. */
static void regions(void)
{
	for (;;) {
		struct postern_region region = postern_region_begin("three");

		use(3000000);
		postern_region_end(&region);
		region = postern_region_begin("one");
		use(1000000);
		postern_region_end(&region);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} modes[] = {
		{ "threads", threads },
		{ "brief", brief_threads },
		{ "forks", forks },
		{ "reads", reads },
		{ "regions", regions },
	};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (argc > 1 && strcmp(argv[1], modes[i].name) == 0)
			modes[i].run();
	}
	return 2;
}
