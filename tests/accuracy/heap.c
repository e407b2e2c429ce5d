/*
 * heap OBJECTS THREADS - allocates, grows and frees objects of mixed sizes, and knows what it did.
 *
 * Objects lie in a table of slots that all threads share: who puts one in frees what was there,
 * which mostly another thread had allocated.  At the end one line of numbers for each site: objects and
 * bytes allocated, objects and bytes that are there still, and the variances that an estimate of each of
 * these four has at one sample in RATE bytes.  Then it waits for the end of its input.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RATE      524288.0
#define SLOTS     40000
#define SITES_LEN 8

struct object {
	uint32_t site;
	size_t size;
};

struct truth {
	double objects, bytes, objects_variance, bytes_variance;
};

static _Atomic(struct object *) slots[SLOTS];
static struct truth allocated[SITES_LEN];
static pthread_mutex_t sum_lock = PTHREAD_MUTEX_INITIALIZER;

static void count(struct truth *truth, size_t size)
{
	double p = -expm1(-(double)size / RATE), variance = (1 - p) / p;

	truth->objects++;
	truth->bytes += (double)size;
	truth->objects_variance += variance;
	truth->bytes_variance += variance * (double)size * (double)size;
}

static uint64_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005U + 1442695040888963407U;
	return *state >> 33;
}

/* From `least` to four times that. */
static size_t spread(uint64_t *state, size_t least)
{
	return least + draw(state) % (3 * least);
}

#define SITE(name) __attribute__((noinline)) static void *name(uint64_t *state, size_t *size)
#define NOT_A_JUMP __asm__ volatile("" ::: "memory") /* the site stays on the stack */

SITE(site_tiny)
{
	void *object = malloc(*size = spread(state, sizeof(struct object)));

	NOT_A_JUMP;
	return object;
}

SITE(site_small)
{
	void *object = malloc(*size = spread(state, 200));

	NOT_A_JUMP;
	return object;
}

SITE(site_zeroed)
{
	size_t count_of = 1 + draw(state) % 50;
	void *object = calloc(count_of, 48);

	*size = count_of * 48;
	return object;
}

SITE(site_medium)
{
	void *object = malloc(*size = spread(state, 3000));

	NOT_A_JUMP;
	return object;
}

SITE(site_aligned)
{
	void *object = NULL;

	if (posix_memalign(&object, 256, *size = spread(state, 1000)))
		return NULL;
	return object;
}

SITE(site_large)
{
	void *object = malloc(*size = spread(state, 40000));

	NOT_A_JUMP;
	return object;
}

SITE(site_huge)
{
	void *object = malloc(*size = spread(state, 700000));

	NOT_A_JUMP;
	return object;
}

/* Grows what another site made, which mostly moves it. */
__attribute__((noinline)) static void *site_grown(void *object, size_t size)
{
	void *grown = realloc(object, size);

	NOT_A_JUMP;
	return grown;
}

#define GROWN (SITES_LEN - 1)

static const struct {
	const char *name;
	void *(*make)(uint64_t *state, size_t *size);
	unsigned share; /* of 10000 */
} sites[SITES_LEN] = {
	{ "site_tiny", site_tiny, 5000 },
	{ "site_small", site_small, 2000 },
	{ "site_zeroed", site_zeroed, 1500 },
	{ "site_medium", site_medium, 500 },
	{ "site_aligned", site_aligned, 480 },
	{ "site_large", site_large, 15 },
	{ "site_huge", site_huge, 5 },
	{ "site_grown", NULL, 500 },
};

static unsigned choose(uint64_t *state)
{
	unsigned at = (unsigned)(draw(state) % 10000), site = 0;

	while (at >= sites[site].share)
		at -= sites[site++].share;
	return site;
}

static void put(uint64_t *state, struct object *object, unsigned site, size_t size)
{
	*object = (struct object){ site, size };
	free(atomic_exchange(&slots[draw(state) % SLOTS], object));
}

static void make_one(uint64_t *state, struct truth *mine)
{
	unsigned site = choose(state);
	struct object *object;
	size_t size;

	if (site == GROWN) {
		object = atomic_exchange(&slots[draw(state) % SLOTS], NULL);
		size = object && object->size < 20000 ? object->size * 2 : 2500;
		object = site_grown(object, size);
	} else {
		object = sites[site].make(state, &size);
	}
	if (!object)
		abort();
	count(&mine[site], size);
	put(state, object, site, size);
}

struct work {
	pthread_t thread;
	uint64_t state, objects;
};

static void *work_off(void *argument)
{
	struct work *work = argument;
	struct truth mine[SITES_LEN] = { { 0 } };

	while (work->objects-- > 0)
		make_one(&work->state, mine);
	(void)pthread_mutex_lock(&sum_lock);
	for (unsigned i = 0; i < SITES_LEN; i++) {
		allocated[i].objects += mine[i].objects;
		allocated[i].bytes += mine[i].bytes;
		allocated[i].objects_variance += mine[i].objects_variance;
		allocated[i].bytes_variance += mine[i].bytes_variance;
	}
	(void)pthread_mutex_unlock(&sum_lock);
	return NULL;
}

static void say(const struct truth *live)
{
	for (unsigned i = 0; i < SITES_LEN; i++)
		printf("%s %.0f %.0f %.0f %.0f %g %g %g %g\n", sites[i].name,
			allocated[i].objects, allocated[i].bytes, live[i].objects,
			live[i].bytes, allocated[i].objects_variance,
			allocated[i].bytes_variance, live[i].objects_variance,
			live[i].bytes_variance);
	printf("end\n");
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	struct truth live[SITES_LEN] = { { 0 } };
	unsigned long objects, threads;
	struct work *works;
	char byte;

	if (argc != 3)
		return 2;
	objects = strtoul(argv[1], NULL, 10);
	threads = strtoul(argv[2], NULL, 10);
	works = calloc(threads, sizeof(*works));
	for (unsigned long i = 0; works && i < threads; i++) {
		works[i].objects = objects / threads;
		works[i].state = i * 12345 + (uint64_t)getpid();
		if (pthread_create(&works[i].thread, NULL, work_off, &works[i]))
			return 1;
	}
	for (unsigned long i = 0; works && i < threads; i++)
		(void)pthread_join(works[i].thread, NULL);
	for (size_t i = 0; i < SLOTS; i++) {
		if (slots[i])
			count(&live[slots[i]->site], slots[i]->size);
	}
	say(live);
	return read(STDIN_FILENO, &byte, 1) < 0;
}
