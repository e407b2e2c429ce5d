/*
 * state stacks N | threads N - a process in a state that is costly to look at: N live objects, each with a
 * stack of its own, or N threads that sleep.  Says "ready", then waits for the end of its input; with
 * jemalloc's profiler in it, each line of input is a dump, and its time in ms is told.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES ((size_t)64 << 10)

int mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len)
	__attribute__((weak));

static void *volatile keep;

static void left(unsigned path, unsigned bits);
static void right(unsigned path, unsigned bits);

/* The path's bits say which way each call goes: every path is another stack. */
static void turn(unsigned path, unsigned bits) /* NOLINT(misc-no-recursion) */
{
	if (bits == 0)
		keep = malloc(64);
	else if (path & 1)
		left(path >> 1, bits - 1);
	else
		right(path >> 1, bits - 1);
	__asm__ volatile("");
}

__attribute__((noinline)) static void left(
	unsigned path, unsigned bits) /* NOLINT(misc-no-recursion) */
{
	turn(path, bits);
	__asm__ volatile("");
}

__attribute__((noinline)) static void right(
	unsigned path, unsigned bits) /* NOLINT(misc-no-recursion) */
{
	turn(path, bits);
	__asm__ volatile("");
}

static void *sleep_long(void *unused)
{
	for (;;)
		(void)pause();
	return unused;
}

static int make_threads(unsigned long count)
{
	pthread_attr_t attributes;
	pthread_t thread;

	if (pthread_attr_init(&attributes) ||
		pthread_attr_setstacksize(&attributes, STACK_BYTES))
		return -1;
	while (count-- > 0) {
		if (pthread_create(&thread, &attributes, sleep_long, NULL))
			return -1;
	}
	return 0;
}

static void dump(void)
{
	const char *file = "/dev/null";
	struct timespec began, ended;

	(void)clock_gettime(CLOCK_MONOTONIC, &began);
	if (!mallctl || mallctl("prof.dump", NULL, NULL, (void *)&file, sizeof(file))) {
		printf("none\n");
		return;
	}
	(void)clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("%.2f\n", (double)(ended.tv_sec - began.tv_sec) * 1e3 +
				 (double)(ended.tv_nsec - began.tv_nsec) / 1e6);
}

int main(int argc, char **argv)
{
	unsigned long count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	char line[16];

	if (count == 0)
		return 2;
	if (strcmp(argv[1], "threads") == 0) {
		if (make_threads(count))
			return 1;
	} else {
		for (unsigned long i = 0; i < count; i++)
			turn((unsigned)i, 17);
	}
	printf("ready\n");
	(void)fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		dump();
		(void)fflush(stdout);
	}
	return 0;
}
