/* Rows 3, 4, 15, 22, 23: the heap, and what profiles say of it. */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/stress/stress.h"

#define KEPT_BYTES  ((size_t)128 << 20) /* as run.py knows */
#define OTHER_BYTES ((size_t)96 << 20)  /* mapped, and not of the heap */
#define SIZES       8

/* Objects of many sizes, some of them handed to other threads to free: what was written is there. */
static _Atomic(unsigned char *) handed[64];

/* As malloc(), realloc(), calloc() and those that align; whatever is freed is free()'s. */
static void *take(unsigned how, void *before, size_t size)
{
	void *taken = NULL;

	if (how == 0)
		return realloc(before, size);
	free(before);
	switch (how) {
	case 1:
		return calloc(1, size);
	case 2:
		return posix_memalign(&taken, 64, size) ? NULL : taken;
	case 3:
		return aligned_alloc(32, (size + 31) & ~(size_t)31);
	default:
		return malloc(size);
	}
}

void *allocate_on(void *seed)
{
	unsigned long x = (unsigned long)seed;
	unsigned char *kept[256] = { NULL };

	while (goes_on()) {
		for (unsigned i = 0; i < 2000; i++) {
			x = x * 6364136223846793005UL + 1442695040888963407UL;
			size_t at = x >> 32 & 255,
			       size = 2 + (x >> 40) % (x >> 62 ? 300 : 100000);

			if (kept[at] && kept[at][0] != (unsigned char)at)
				wrong("an object changed");
			kept[at] = atomic_exchange(&handed[at & 63], kept[at]);
			kept[at] = take(x >> 20 & 7, kept[at], size);
			if (!kept[at] || malloc_usable_size(kept[at]) < size) {
				wrong("no memory");
				return NULL;
			}
			kept[at][0] = (unsigned char)at;
			kept[at][size - 1] = kept[at][0];
		}
		(void)atomic_fetch_add(&stress_rounds, 2000);
	}
	for (size_t i = 0; i < COUNT(kept); i++)
		free(kept[i]);
	return NULL;
}

static void heap_of_three(void)
{
	for (size_t i = 1; i <= 3; i++)
		start(allocate_on, (void *)i);
	join_all();
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t shared = PTHREAD_RWLOCK_INITIALIZER;
static unsigned long guarded;

static void *lock_and_take(void *counted)
{
	while (goes_on()) {
		void *taken;

		(void)pthread_mutex_lock(&lock);
		taken = malloc(100 + guarded % 4000);
		guarded++;
		(void)pthread_cond_signal(&changed);
		(void)pthread_mutex_unlock(&lock);
		if (pthread_rwlock_rdlock(&shared) || pthread_rwlock_unlock(&shared))
			wrong("a read-write lock");
		free(taken);
		++*(unsigned long *)counted;
	}
	return NULL;
}

/* Locks, among them those of an allocator of the program's own (stress_own_malloc). */
static void locks_and_memory(void)
{
	unsigned long counted[4] = { 0 }, sum = 0;

	for (size_t i = 0; i < COUNT(counted); i++)
		start(lock_and_take, &counted[i]);
	join_all();
	for (size_t i = 0; i < COUNT(counted); i++)
		sum += counted[i];
	if (sum != guarded)
		wrong("a lock did not exclude");
	atomic_store(&stress_rounds, sum);
}

/* Keep KEPT_BYTES in objects of mixed sizes, made in every way; some of them are made anew all the time. */
static void keep_known_bytes(void (*now_and_then)(unsigned round))
{
	static const size_t sizes[SIZES] = { 32, 96, 512, 3008, 4096, 20000, 131072, 1 << 20 };
	size_t each = KEPT_BYTES / SIZES, len = 0, cap = 0;
	void **objects, *volatile passing;
	unsigned round = 0;

	for (size_t s = 0; s < SIZES; s++)
		cap += each / sizes[s];
	objects = mmap(NULL, cap * sizeof(void *), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (objects == MAP_FAILED) {
		wrong("mmap");
		return;
	}
	for (size_t s = 0; s < SIZES; s++) {
		for (size_t i = 0; i < each / sizes[s]; i++) {
			objects[len] = take(1 + (unsigned)(i & 3), NULL, sizes[s]);
			if (!objects[len++])
				wrong("no memory");
			if (len % 20000 == 0)
				now_and_then(round++);
		}
	}
	puts("kept");
	while (goes_on()) {
		for (unsigned i = 0; i < 1000; i++) {
			passing = malloc(50000);
			free(passing);
		}
		now_and_then(round++);
		(void)atomic_fetch_add(&stress_rounds, 1000);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	for (size_t i = 0; i < len; i++)
		free(objects[i]);
}

static void nothing(unsigned round)
{
	(void)round;
}

static void known_bytes(void)
{
	keep_known_bytes(nothing);
}

static void known_bytes_beside_others(void)
{
	char *other = mmap(
		NULL, OTHER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (other == MAP_FAILED)
		wrong("mmap");
	else
		memset(other, 1, OTHER_BYTES);
	keep_known_bytes(nothing);
}

static void change_rate(unsigned round)
{
	static const uint64_t rates[] = { 16 << 10, 128 << 10, 32 << 10, 64 << 10 };
	static void (*set_rate)(uint64_t);

	if (!set_rate)
		*(void **)&set_rate = dlsym(RTLD_DEFAULT, "postern_set_heap_rate");
	if (set_rate)
		set_rate(rates[round % COUNT(rates)]);
}

static void known_bytes_at_many_rates(void)
{
	keep_known_bytes(change_rate);
}

const struct mode modes_memory[] = { { "03-malloc", heap_of_three },
	{ "04-locks", locks_and_memory }, { "15-malloc", heap_of_three },
	{ "15-known", known_bytes }, { "22-known", known_bytes_beside_others },
	{ "23-rates", known_bytes_at_many_rates }, { NULL, NULL } };
