/*
 * work MODE THREADS SECONDS - fixed kinds of work for measuring samplers; one line of JSON.
 *
 *   cpu    sorting, hashing, recursion: how many units get done a CPU-second
 *   truth  four functions with the same loop that use 50, 30, 15 and 5 % of the time, 12 frames
 *          deep: what a profile must say
 *   syscall  read() of /dev/zero, 4 KiB a time: a program that lives in the kernel
 *   small, large  malloc() and free() of 16 to 527 bytes (100 on average), or to 64 KiB (5 KB), 24 frames deep;
 *          a unit is a pair
 *   lock   a mutex that nobody else wants; a unit is a pair
 *
 * With 0 threads the first one works: a program that never had another.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#if defined(__clang__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif

struct worker {
	pthread_t thread;
	void (*unit)(struct worker *worker);
	uint64_t units, sink, random;
	double part[4]; /* CPU seconds in each of truth's functions, self-measured */
} __attribute__((aligned(128)));

static atomic_bool stop;

static double cpu_seconds(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t next_random(struct worker *worker)
{
	uint64_t x = worker->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return worker->random = x;
}

NOINLINE static int fibonacci(int n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static int by_value(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

NOINLINE static uint64_t sort_numbers(struct worker *worker)
{
	int numbers[2000];

	for (size_t i = 0; i < 2000; i++)
		numbers[i] = (int)(next_random(worker) & 0x7fffffff);
	qsort(numbers, 2000, sizeof(numbers[0]), by_value);
	return (uint64_t)numbers[1000];
}

NOINLINE static uint64_t hash_bytes(const unsigned char *bytes, size_t len)
{
	uint64_t hash = 1469598103934665603U;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * 1099511628211U;
	return hash;
}

NOINLINE static void cpu_unit(struct worker *worker)
{
	static const unsigned char bytes[65536];

	worker->sink += (uint64_t)fibonacci(21);
	worker->sink += sort_numbers(worker);
	worker->sink += hash_bytes(bytes, sizeof(bytes));
}

#define TRUTH(name, seed)                               \
	NOINLINE static uint64_t name(uint64_t n)       \
	{                                               \
		uint64_t x = n + (seed);                \
		for (uint64_t i = 0; i < n; i++) {      \
			x ^= x << 13;                   \
			x ^= x >> 7;                    \
			x ^= x << 17;                   \
			x += (seed);                    \
			__asm__ volatile("" : "+r"(x)); \
		}                                       \
		return x;                               \
	}
TRUTH(truth_50, 3)
TRUTH(truth_30, 5)
TRUTH(truth_15, 7)
TRUTH(truth_05, 9)

static uint64_t (*const truths[4])(uint64_t) = { truth_50, truth_30, truth_15, truth_05 };
static const uint64_t shares[4] = { 50, 30, 15, 5 };

NOINLINE static uint64_t chain(int depth, int which, uint64_t n) /* NOLINT(misc-no-recursion) */
{
	uint64_t result = depth > 0 ? chain(depth - 1, which, n) : truths[which](n);

	__asm__ volatile("" : "+r"(result)); /* a frame that is not a tail call */
	return result + 1;
}

NOINLINE static void truth_unit(struct worker *worker)
{
	for (int i = 0; i < 4; i++) {
		double before = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);

		worker->sink += chain(12, i, shares[i] * 1000);
		worker->part[i] += cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - before;
	}
}

NOINLINE static void syscall_unit(struct worker *worker)
{
	static _Thread_local int file = -1;
	static _Thread_local char bytes[4096];

	if (file < 0)
		file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < 256; i++)
		worker->sink += (uint64_t)read(file, bytes, sizeof(bytes));
}

#define SLOTS 2048
#define BATCH 256

NOINLINE static void *allocate(int depth, size_t size) /* NOLINT(misc-no-recursion) */
{
	char *object = depth > 0 ? allocate(depth - 1, size) : malloc(size);

	if (depth == 0 && object)
		object[0] = object[size - 1] = 1;
	__asm__ volatile("" : "+r"(object)); /* a frame that is not a tail call */
	return object;
}

static void allocate_batch(struct worker *worker, unsigned shifts)
{
	static _Thread_local void *slots[SLOTS];

	for (int i = 0; i < BATCH; i++) {
		uint64_t random = next_random(worker);
		size_t slot = random % SLOTS,
		       mask = ((size_t)16 << (random >> 20) % shifts) - 1;

		free(slots[slot]);
		slots[slot] = allocate(24, 16 + ((random >> 32) & mask));
	}
	worker->units += BATCH - 1;
}

NOINLINE static void small_unit(struct worker *worker)
{
	allocate_batch(worker, 6);
}

NOINLINE static void large_unit(struct worker *worker)
{
	allocate_batch(worker, 13);
}

NOINLINE static void lock_unit(struct worker *worker)
{
	static _Thread_local pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

	for (int i = 0; i < BATCH; i++) {
		(void)pthread_mutex_lock(&mutex);
		__asm__ volatile("" ::: "memory");
		(void)pthread_mutex_unlock(&mutex);
	}
	worker->units += BATCH - 1;
}

NOINLINE static void thread_root(struct worker *worker)
{
	while (!stop) {
		worker->unit(worker);
		worker->units++;
	}
	__asm__ volatile("");
}

static void *enter(void *worker)
{
	thread_root(worker);
	return NULL;
}

static const struct {
	const char *name;
	void (*unit)(struct worker *);
} modes[] = {
	{ "cpu", cpu_unit },
	{ "truth", truth_unit },
	{ "syscall", syscall_unit },
	{ "small", small_unit },
	{ "large", large_unit },
	{ "lock", lock_unit },
};

static void (*unit_of(const char *mode))(struct worker *)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(mode, modes[i].name) == 0)
			return modes[i].unit;
	}
	return NULL;
}

static void stop_at_alarm(int number)
{
	(void)number;
	stop = true;
}

/* In the first thread, and no other is made. */
static void work_alone(struct worker *worker, double seconds)
{
	struct itimerval timer = {
		.it_value = { (time_t)seconds,
			(suseconds_t)((seconds - (double)(time_t)seconds) * 1e6) }
	};

	(void)signal(SIGALRM, stop_at_alarm);
	(void)setitimer(ITIMER_REAL, &timer, NULL);
	thread_root(worker);
}

static int work_in_threads(struct worker *workers, size_t threads, double seconds)
{
	double began = cpu_seconds(CLOCK_MONOTONIC);

	for (size_t i = 0; i < threads; i++) {
		if (pthread_create(&workers[i].thread, NULL, enter, &workers[i]))
			return -1;
	}
	while (cpu_seconds(CLOCK_MONOTONIC) - began < seconds)
		(void)usleep(10000);
	stop = true;
	for (size_t i = 0; i < threads; i++)
		(void)pthread_join(workers[i].thread, NULL);
	return 0;
}

int main(int argc, char **argv)
{
	size_t threads = argc == 4 ? strtoul(argv[2], NULL, 10) : 0,
	       len = threads ? threads : 1;
	double seconds = argc == 4 ? strtod(argv[3], NULL) : 0, wall, part[4] = { 0 };
	void (*unit)(struct worker *) = argc == 4 ? unit_of(argv[1]) : NULL;
	struct worker *workers;
	struct rusage usage;
	uint64_t units = 0;

	if (!unit || seconds <= 0) {
		(void)fprintf(stderr,
			"usage: work cpu|truth|syscall|small|large|lock THREADS SECONDS\n");
		return 2;
	}
	workers = aligned_alloc(128, len * sizeof(*workers));
	if (!workers)
		return 1;
	memset(workers, 0, len * sizeof(*workers));
	wall = cpu_seconds(CLOCK_MONOTONIC);
	for (size_t i = 0; i < len; i++) {
		workers[i].unit = unit;
		workers[i].random = 88172645463325252U + i * 7919;
	}
	if (threads == 0)
		work_alone(workers, seconds);
	else if (work_in_threads(workers, threads, seconds))
		return 1;
	for (size_t i = 0; i < len; i++) {
		units += workers[i].units;
		for (int k = 0; k < 4; k++)
			part[k] += workers[i].part[k];
	}
	(void)getrusage(RUSAGE_SELF, &usage);
	printf("{\"units\":%lu,\"wall\":%.4f,\"cpu\":%.4f,\"maxrss_kb\":%ld,"
	       "\"part\":[%.4f,%.4f,%.4f,%.4f]}\n",
		(unsigned long)units, cpu_seconds(CLOCK_MONOTONIC) - wall,
		(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
		usage.ru_maxrss, part[0], part[1], part[2], part[3]);
	free(workers);
	return 0;
}
