/*
 * stress MODE SECONDS - things that programs do and that samplers have died of, or made go wrong.
 *
 * Run by run.py, under libpostern and under other profilers.  A mode's name begins with the row of the
 * table in run.py that it belongs to.  Prints what was wrong, and counts:
 *
 *	rounds=1234 eintr=0 errno=0 wrong=0
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/stress/stress.h"

#define TOLD_MAX    5
#define THREADS_MAX 128

atomic_ulong stress_rounds, stress_interrupted, stress_errno;
char stress_self[PATH_MAX];

static double until;
static atomic_ulong wrongs;
static pthread_t threads[THREADS_MAX];
static size_t threads_len;

double seconds_left(void)
{
	struct timespec time;

	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return until - ((double)time.tv_sec + (double)time.tv_nsec / 1e9);
}

bool goes_on(void)
{
	return seconds_left() > 0;
}

__attribute__((noinline)) unsigned long burn(unsigned long rounds)
{
	unsigned long x = rounds;

	for (unsigned long i = 0; i < rounds; i++) {
		x = x * 6364136223846793005UL + 1;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

void wrong(const char *what)
{
	int error = errno;

	if (atomic_fetch_add(&wrongs, 1) < TOLD_MAX)
		printf("wrong: %s (errno %d)\n", what, error);
}

void start(void *(*run)(void *), void *arg)
{
	if (threads_len == THREADS_MAX ||
		pthread_create(&threads[threads_len], NULL, run, arg)) {
		wrong("pthread_create");
		return;
	}
	threads_len++;
}

void join_all(void)
{
	while (threads_len > 0) {
		if (pthread_join(threads[--threads_len], NULL))
			wrong("pthread_join");
	}
}

void expect_status(int child, int status, const char *what)
{
	int seen = -1;

	if (child < 0)
		wrong("fork");
	while (child > 0 && waitpid(child, &seen, 0) < 0) {
		if (errno != EINTR) {
			wrong("waitpid");
			return;
		}
		(void)atomic_fetch_add(&stress_interrupted, 1);
	}
	if (seen != status) {
		errno = seen;
		wrong(what);
	}
}

void *burn_on(void *unused)
{
	while (goes_on())
		(void)burn(100000);
	return unused;
}

const char *beside(const char *file, char *out, size_t size)
{
	const char *slash = strrchr(stress_self, '/');

	(void)snprintf(out, size, "%.*s/%s", (int)(slash - stress_self), stress_self, file);
	return out;
}

/* What a program that was executed by one of these does. */
static int be_executed(int argc, char **argv)
{
	const char *preload = getenv("LD_PRELOAD"); /* NOLINT(concurrency-mt-unsafe) */
	long left;

	(void)burn(10000000);
	left = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
	if (left > 0) { /* and so on */
		(void)snprintf(argv[2], strlen(argv[2]) + 1, "%ld", left - 1);
		(void)execv(argv[0], argv);
		return 9;
	}
	return preload && strstr(preload, "libpostern") ? 8 : 0;
}

static const struct mode *const all[] = { modes_confined, modes_frames, modes_loader,
	modes_memory, modes_processes, modes_signals, modes_threads, modes_waits };

static const struct mode *find(const char *name)
{
	for (size_t i = 0; i < COUNT(all); i++) {
		for (const struct mode *mode = all[i]; mode->name; mode++) {
			if (strcmp(mode->name, name) == 0)
				return mode;
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	const struct mode *mode;

	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && strcmp(argv[1], "executed") == 0)
		return be_executed(argc, argv);
	mode = argc == 3 ? find(argv[1]) : NULL;
	if (!mode || !realpath("/proc/self/exe", stress_self)) {
		(void)fprintf(stderr, "usage: stress MODE SECONDS\n");
		return 2;
	}
	until = strtod(argv[2], NULL) - seconds_left();
	mode->run();
	printf("rounds=%lu eintr=%lu errno=%lu wrong=%lu\n", atomic_load(&stress_rounds),
		atomic_load(&stress_interrupted), atomic_load(&stress_errno),
		atomic_load(&wrongs));
	return 0;
}
