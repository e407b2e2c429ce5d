/*
 * times SECONDS SLEEPERS - threads that run, sleep, wait for input and for locks, and know for how long.
 *
 * For each thread, at the end: "NAME WHAT SECONDS", what it spent by its own clock asleep in the functions
 * sleep_short, sleep_long, read_in, lock_in, on the CPU, and waiting for one; then "early N": how many waits ended early.  SLEEPERS are as
 * many further threads that do nothing but sleep.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	SHORT,
	LONG,
	READ,
	LOCK,
	CPU,
	READY,
	KINDS
};

static const char *const kinds[KINDS] = { "sleep_short", "sleep_long", "read_in", "lock_in",
	"cpu", "ready" };

struct worker {
	const char *name;
	void (*turn)(struct worker *);
	double spent[KINDS];
	pthread_t thread;
};

static atomic_bool ended;
static atomic_ulong early;
static int pipes[2];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double clock_of(clockid_t which)
{
	struct timespec time;

	clock_gettime(which, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double now(void)
{
	return clock_of(CLOCK_MONOTONIC);
}

static _Thread_local int counters = -1;

/* For how long this thread could have run. */
static double ready(void)
{
	char text[100], *second;
	ssize_t len = pread(counters, text, sizeof(text) - 1, 0);

	text[len > 0 ? len : 0] = '\0';
	second = strchr(text, ' ');
	return second ? (double)strtoull(second, NULL, 10) / 1e9 : 0;
}

struct stay {
	double began, ready, cpu;
};

static struct stay begin(void)
{
	struct stay stay = { .ready = ready(), .cpu = clock_of(CLOCK_THREAD_CPUTIME_ID) };

	stay.began = now();
	return stay;
}

static void end(const struct stay *stay, double *spent)
{
	double ended = now();

	*spent += ended - stay->began - (clock_of(CLOCK_THREAD_CPUTIME_ID) - stay->cpu) -
		  (ready() - stay->ready);
}

static void pause_ns(long ns)
{
	if (nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL))
		atomic_fetch_add(&early, 1);
}

__attribute__((noinline)) static void sleep_short(struct worker *worker)
{
	struct stay stay = begin();

	pause_ns(2000000);
	end(&stay, &worker->spent[SHORT]);
}

__attribute__((noinline)) static void sleep_long(struct worker *worker)
{
	struct stay stay = begin();

	pause_ns(6000000);
	end(&stay, &worker->spent[LONG]);
}

__attribute__((noinline)) static void read_in(struct worker *worker)
{
	struct stay stay = begin();
	char byte;

	if (read(pipes[0], &byte, 1) < 0)
		atomic_fetch_add(&early, 1);
	end(&stay, &worker->spent[READ]);
}

__attribute__((noinline)) static void lock_in(struct worker *worker)
{
	struct stay stay = begin();

	pthread_mutex_lock(&lock);
	end(&stay, &worker->spent[LOCK]);
	pthread_mutex_unlock(&lock);
}

__attribute__((noinline)) static void burn(double seconds)
{
	double until = clock_of(CLOCK_THREAD_CPUTIME_ID) + seconds;
	unsigned long x = 1;

	while (clock_of(CLOCK_THREAD_CPUTIME_ID) < until) {
		for (unsigned i = 0; i < 20000; i++) {
			x = x * 6364136223846793005UL + 1;
			__asm__ volatile("" : "+r"(x));
		}
	}
}

static void turn_mixed(struct worker *worker)
{
	burn(0.003);
	sleep_short(worker);
	sleep_long(worker);
}

static void turn_quick(struct worker *worker)
{
	sleep_short(worker);
	burn(0.0005);
}

static void turn_reader(struct worker *worker)
{
	read_in(worker);
}

static void turn_writer(struct worker *worker)
{
	sleep_long(worker);
	sleep_long(worker);
	if (write(pipes[1], "", 1) < 0)
		atomic_fetch_add(&early, 1);
}

static void turn_holder(struct worker *worker)
{
	pthread_mutex_lock(&lock);
	sleep_long(worker);
	pthread_mutex_unlock(&lock);
	sleep_short(worker);
}

static void turn_waiter(struct worker *worker)
{
	lock_in(worker);
	sleep_short(worker);
}

static void turn_busy(struct worker *worker)
{
	(void)worker;
	burn(0.01);
}

static struct worker workers[] = { { .name = "mixed", .turn = turn_mixed },
	{ .name = "quick", .turn = turn_quick }, { .name = "reader", .turn = turn_reader },
	{ .name = "writer", .turn = turn_writer }, { .name = "holder", .turn = turn_holder },
	{ .name = "waiter", .turn = turn_waiter }, { .name = "busy", .turn = turn_busy } };

#define WORKERS (sizeof(workers) / sizeof(workers[0]))

static void *work(void *arg)
{
	struct worker *worker = arg;

	pthread_setname_np(pthread_self(), worker->name);
	counters = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	while (!atomic_load(&ended))
		worker->turn(worker);
	worker->spent[CPU] = clock_of(CLOCK_THREAD_CPUTIME_ID);
	worker->spent[READY] = ready();
	return NULL;
}

static void *only_sleep(void *arg)
{
	while (!atomic_load(&ended)) {
		if (poll(NULL, 0, 300) < 0)
			atomic_fetch_add(&early, 1);
	}
	return arg;
}

int main(int argc, char **argv)
{
	double seconds = argc == 3 ? atof(argv[1]) : 0;
	long sleepers = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
	pthread_t *threads = calloc((size_t)sleepers + 1, sizeof(*threads));

	if (!threads || pipe(pipes))
		return 1;
	for (long i = 0; i < sleepers; i++)
		pthread_create(&threads[i], NULL, only_sleep, NULL);
	for (size_t i = 0; i < WORKERS; i++)
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	for (double until = now() + seconds; now() < until;)
		pause_ns(50000000);
	atomic_store(&ended, true);
	for (size_t i = 0; i < WORKERS; i++) {
		if (workers[i].turn == turn_reader && write(pipes[1], "ends", 4) != 4)
			return 1;
		pthread_join(workers[i].thread, NULL);
		for (int k = 0; k < KINDS; k++)
			printf("%s %s %.4f\n", workers[i].name, kinds[k], workers[i].spent[k]);
	}
	for (long i = 0; i < sleepers; i++)
		pthread_join(threads[i], NULL);
	printf("early %lu\n", atomic_load(&early));
	return 0;
}
