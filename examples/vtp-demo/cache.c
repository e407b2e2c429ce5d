#include <pthread.h>
#include <stdint.h>

#include "examples/vtp-demo/demo.h"

#define ENTRIES 2048

/* The least recently used entry is looked for in the whole table, with the lock held: a mistake
 * that is there to be found. */
static struct {
	pthread_mutex_t lock;
	uint64_t clock;

	struct {
		unsigned key;
		uint64_t used;
	} entries[ENTRIES];
} cache = { .lock = PTHREAD_MUTEX_INITIALIZER };

static __attribute__((noinline)) unsigned find_or_evict(unsigned key)
{
	unsigned oldest = 0;

	for (unsigned i = 0; i < ENTRIES; i++) {
		if (cache.entries[i].key == key)
			return i;
		if (cache.entries[i].used < cache.entries[oldest].used)
			oldest = i;
	}
	cache.entries[oldest].key = key;
	return oldest;
}

void cache_touch(unsigned key)
{
	(void)pthread_mutex_lock(&cache.lock);
	for (unsigned neighbour = 0; neighbour < 8; neighbour++)
		cache.entries[find_or_evict(key * 8 + neighbour)].used = ++cache.clock;
	(void)pthread_mutex_unlock(&cache.lock);
}
