/*
 * single [thread] - what simple calls of the C library cost, in nanoseconds: "malloc 9.8", a line each; the least
 * of many rounds.
 *
 * With one thread the C library takes short cuts (no locked instructions in malloc and in stdio); with `thread`
 * there is another, which sleeps, and it takes none, for ever.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 200
#define CALLS  20000

static FILE *source, *sink;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *sleep_on(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void allocate_small(void)
{
	for (int i = 0; i < CALLS; i++) {
		void *volatile object = malloc(64);

		free(object);
	}
}

/* More than the allocator keeps for each thread. */
static void allocate_large(void)
{
	for (int i = 0; i < CALLS; i++) {
		void *volatile object = malloc(5000);

		free(object);
	}
}

static void read_bytes(void)
{
	rewind(source);
	for (int i = 0; i < CALLS; i++) {
		if (getc(source) == EOF)
			rewind(source);
	}
}

static void write_bytes(void)
{
	for (int i = 0; i < CALLS; i++)
		putc('x', sink);
}

static void take_lock(void)
{
	for (int i = 0; i < CALLS; i++) {
		pthread_mutex_lock(&lock);
		pthread_mutex_unlock(&lock);
	}
}

static const struct {
	const char *name;
	void (*run)(void);
} calls[] = { { "malloc_64", allocate_small }, { "malloc_5000", allocate_large },
	{ "getc", read_bytes }, { "putc", write_bytes }, { "mutex", take_lock } };

static double now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	(void)argv;
	source = fopen("/proc/self/exe", "r");
	sink = fopen("/dev/null", "w");
	if (!source || !sink || (argc > 1 && pthread_create(&thread, NULL, sleep_on, NULL)))
		return 1;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		double least = 1e18;

		for (int round = 0; round < ROUNDS; round++) {
			double began = now_ns(), took;

			calls[i].run();
			took = (now_ns() - began) / CALLS;
			least = took < least ? took : least;
		}
		printf("%s %.2f\n", calls[i].name, least);
	}
	return 0;
}
