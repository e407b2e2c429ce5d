#include "sampler/collect/contention.h"

#include <stddef.h>

/*
 * `sum` holds the number of waiters in the low 16 bits, and above them the sum of the times at which they
 * began, modulo 2^48 ns: so with N waiters, N times now less the sum is what they have waited together,
 * and one atomic addition enters or leaves.  That number only grows, and not by a jump when somebody
 * comes (at now) or goes (at now); what a release charges is its growth.
 *
 * An entry is found by the lock's address in a bucket of WAYS.  It belongs to the lock until another
 * needs the place and nobody waits in it; who enters looks again whether it is still the right one.
 */
#define WAYS         8
#define BUCKET_BITS  9
#define BUCKETS      (1 << BUCKET_BITS)
#define TRIES        4
#define TIME_SHIFT   16
#define WAITERS_MASK ((UINT64_C(1) << TIME_SHIFT) - 1)

struct contention {
	_Atomic uint64_t sum;
	_Atomic uint64_t charged; /* shifted as in `sum` */
	_Atomic uint64_t released_ns;
	_Atomic uint64_t who; /* of the last that entered */
};

static struct bucket {
	_Atomic(const void *) locks[WAYS]; /* a cache line: all that most releases look at */
	struct contention entries[WAYS];
} buckets[BUCKETS] __attribute__((aligned(64)));

atomic_uint contention_waiting;
static atomic_ulong lost;
static atomic_bool used;

static struct bucket *bucket_of(const void *lock)
{
	uint64_t hash = (uint64_t)(uintptr_t)lock * UINT64_C(0x9e3779b97f4a7c15);

	return &buckets[hash >> (64 - BUCKET_BITS)];
}

static uint64_t waiters_in(const struct contention *entry)
{
	return atomic_load(&entry->sum) & WAITERS_MASK;
}

/* Make a place that nobody waits in this lock's own. */
static bool claim_sigsafe(struct bucket *bucket, unsigned place, const void *lock)
{
	const void *other = atomic_load(&bucket->locks[place]);

	if (other && !atomic_compare_exchange_strong(&bucket->locks[place], &other, NULL))
		return false;
	/* Who entered just before it lost its name stays until it leaves. */
	if (waiters_in(&bucket->entries[place]) != 0)
		return false;
	other = NULL;
	return atomic_compare_exchange_strong(&bucket->locks[place], &other, lock);
}

/* The place of this lock; WAYS when there is none to be had. */
static unsigned place_sigsafe(struct bucket *bucket, const void *lock)
{
	for (unsigned i = 0; i < WAYS; i++) {
		if (atomic_load(&bucket->locks[i]) == lock)
			return i;
	}
	/* First the places that are free; then those of locks that nobody waits for. */
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < WAYS; i++) {
			if (waiters_in(&bucket->entries[i]) == 0 &&
				(pass == 1 || !atomic_load(&bucket->locks[i])) &&
				claim_sigsafe(bucket, i, lock))
				return i;
		}
	}
	return WAYS;
}

struct contention *contention_enter_sigsafe(const void *lock, uint64_t now, uint64_t who)
{
	struct bucket *bucket = bucket_of(lock);

	for (unsigned try = 0; try < TRIES; try++) {
		unsigned place = place_sigsafe(bucket, lock);
		struct contention *entry = &bucket->entries[place];

		if (place == WAYS || waiters_in(entry) == WAITERS_MASK)
			break;
		(void)atomic_fetch_add(&entry->sum, (now << TIME_SHIFT) + 1);
		if (atomic_load(&bucket->locks[place]) == lock) {
			(void)atomic_fetch_add(&contention_waiting, 1);
			atomic_store_explicit(&used, true, memory_order_relaxed);
			atomic_store_explicit(&entry->who, who, memory_order_relaxed);
			return entry;
		}
		(void)atomic_fetch_sub(&entry->sum, (now << TIME_SHIFT) + 1);
	}
	(void)atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
	return NULL;
}

void contention_leave_sigsafe(struct contention *entry, uint64_t began, uint64_t now)
{
	uint64_t since = atomic_load(&entry->released_ns);

	if (since < began)
		since = began; /* it was let go before anybody saw us wait */
	if (since < now)
		(void)atomic_fetch_add(&entry->charged, (now - since) << TIME_SHIFT);
	(void)atomic_fetch_sub(&entry->sum, (now << TIME_SHIFT) + 1);
	(void)atomic_fetch_sub(&contention_waiting, 1);
}

bool contention_is_there_sigsafe(const void *lock)
{
	struct bucket *bucket = bucket_of(lock);

	for (unsigned i = 0; i < WAYS; i++) {
		if (atomic_load_explicit(&bucket->locks[i], memory_order_relaxed) == lock &&
			waiters_in(&bucket->entries[i]) != 0)
			return true;
	}
	return false;
}

static uint64_t charge_sigsafe(struct contention *entry, uint64_t now)
{
	uint64_t sum = atomic_load(&entry->sum), waiters = sum & WAITERS_MASK;
	uint64_t total = ((waiters * now) << TIME_SHIFT) - (sum & ~WAITERS_MASK);
	int64_t delay = (int64_t)(total - atomic_exchange(&entry->charged, total));

	atomic_store(&entry->released_ns, now);
	/* Clocks of two cores may be some nanoseconds apart. */
	return delay > 0 ? (uint64_t)delay >> TIME_SHIFT : 0;
}

uint64_t contention_charge_sigsafe(const void *lock, uint64_t now, uint64_t *who)
{
	struct bucket *bucket = bucket_of(lock);
	uint64_t delay = 0;

	*who = 0;
	/* Two that entered at the same moment may have made two entries. */
	for (unsigned i = 0; i < WAYS; i++) {
		struct contention *entry = &bucket->entries[i];

		if (atomic_load_explicit(&bucket->locks[i], memory_order_relaxed) != lock ||
			waiters_in(entry) == 0)
			continue;
		delay += charge_sigsafe(entry, now);
		*who = atomic_load_explicit(&entry->who, memory_order_relaxed);
	}
	return delay;
}

void contention_after_fork(void)
{
	if (!atomic_load(&used))
		return;
	for (size_t b = 0; b < BUCKETS; b++) {
		for (unsigned i = 0; i < WAYS; i++) {
			atomic_store(&buckets[b].locks[i], NULL);
			atomic_store(&buckets[b].entries[i].sum, 0);
			atomic_store(&buckets[b].entries[i].charged, 0);
		}
	}
	atomic_store(&used, false);
	atomic_store(&contention_waiting, 0);
}

uint64_t contention_lost(void)
{
	return atomic_load_explicit(&lost, memory_order_relaxed);
}
