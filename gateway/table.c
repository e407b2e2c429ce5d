#include "gateway/table.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/siphash.h"

/*
 * Everything is found through sets of eight words, one cache line each: the keyed hash of a key
 * names the set, its upper bits are the tag.
 *
 *   rate words  tag 16 | 48 bits of time in units of 10 us: the theoretical arrival time of GCRA.
 *               Seven ways; the eighth word is the bucket that all share who find no room. A word
 *               whose time has passed is a full bucket and may be taken over.
 *   term words  tag 32 | 32 bits of seconds. A word whose time has passed is free.
 *   slot words  tag 24 | worker + 1 in 8 bits | 32 bits of seconds. 0 is free; not in sets, there
 *               are few.
 *   connection words, a column for each worker, written by it alone: tag 32 | count 32.
 *
 * Times are CLOCK_BOOTTIME's: 2^48 units are 89 years, 2^32 seconds 136.
 */
typedef _Atomic uint64_t word;

#define WAYS            8
#define RATE_SETS       4096
#define TERM_SETS       1024
#define SLOTS           256
#define CONNECTION_SETS 512

#define UNITS_PER_MS     100U
#define UNITS_PER_SECOND 100000.0
#define RATE_TIME_BITS   48
#define RATE_TIME_MASK   (((uint64_t)1 << RATE_TIME_BITS) - 1)
#define LOW32            0xffffffffU

struct column {
	_Atomic uint32_t connections;
	word sets[CONNECTION_SETS][WAYS];
};

struct table {
	uint8_t key[16];
	_Alignas(64) word rates[RATE_SETS][WAYS];
	word terms[TERM_SETS][WAYS];
	word slots[SLOTS];
	struct column columns[TABLE_WORKERS_MAX];
};

static struct table *map(int fd, struct err *err)
{
	struct stat size;
	void *at;

	if (fstat(fd, &size) || size.st_size != (off_t)sizeof(struct table)) {
		(void)err_set(err, ERR_SYSTEM, "the shared table is not of this version");
		return NULL;
	}
	at = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED) {
		(void)err_sys(err, "map the shared table");
		return NULL;
	}
	return at;
}

struct table *table_create(int *fd, struct err *err)
{
	struct table *table = NULL;

	*fd = memfd_create("postern-table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0) {
		(void)err_sys(err, "memfd_create");
		return NULL;
	}
	/* Nobody may cut it under the others' feet. */
	if (ftruncate(*fd, (off_t)sizeof(struct table)) ||
		fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		(void)err_sys(err, "the shared table");
	else
		table = map(*fd, err);
	if (table &&
		getrandom(table->key, sizeof(table->key), 0) != (ssize_t)sizeof(table->key)) {
		(void)err_sys(err, "getrandom");
		table_unmap(table);
		table = NULL;
	}
	if (!table) {
		(void)close(*fd);
		*fd = -1;
	}
	return table;
}

struct table *table_map(int fd, struct err *err)
{
	return map(fd, err);
}

void table_unmap(struct table *table)
{
	if (table)
		(void)munmap(table, sizeof(*table));
}

/* One hash for a key in one kind's role. Keys are addresses and hashes of identities: short. */
static uint64_t hash(const struct table *table, unsigned kind, struct sv key)
{
	char bytes[128];
	size_t len = key.len < sizeof(bytes) - 1 ? key.len : sizeof(bytes) - 1;

	bytes[0] = (char)kind;
	memcpy(bytes + 1, key.ptr, len);
	return siphash(table->key, (struct sv){ bytes, len + 1 });
}

static uint64_t load(word *at)
{
	return atomic_load_explicit(at, memory_order_acquire);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): it is written when the swap fails */
static bool swap(word *at, uint64_t *seen, uint64_t wanted)
{
	return atomic_compare_exchange_weak_explicit(
		at, seen, wanted, memory_order_acq_rel, memory_order_acquire);
}

/* The way in the set that belongs to the tag: its own, else one whose time has passed (then the
 * word's tag is another), else the shared last one. */
static word *find_rate(word *set, uint64_t tag, uint64_t now)
{
	word *full = NULL;

	for (unsigned i = 0; i < WAYS - 1; i++) {
		uint64_t value = load(&set[i]);

		if (value != 0 && value >> RATE_TIME_BITS == tag)
			return &set[i];
		if (!full && (value & RATE_TIME_MASK) <= now)
			full = &set[i];
	}
	return full ? full : &set[WAYS - 1];
}

uint64_t table_take(struct table *table, enum table_rate kind, struct sv key, double rate,
	uint32_t burst, uint64_t now_ms)
{
	uint64_t number = hash(table, kind, key);
	uint64_t tag = number >> RATE_TIME_BITS, now = now_ms * UNITS_PER_MS;
	uint64_t step = rate > 0 ? (uint64_t)(UNITS_PER_SECOND / rate) : RATE_TIME_MASK >> 24;
	uint64_t slack = step * (burst > 0 ? burst - 1 : 0);
	word *set = table->rates[number % RATE_SETS];

	if (step == 0)
		step = 1;
	for (;;) {
		word *at = find_rate(set, tag, now);
		uint64_t seen = load(at), arrival = seen & RATE_TIME_MASK;
		bool is_shared = at == &set[WAYS - 1];

		/* Between looking and loading another may have taken it: look again. */
		if (!is_shared && seen >> RATE_TIME_BITS != tag && arrival > now)
			continue;
		if (arrival < now || (!is_shared && seen >> RATE_TIME_BITS != tag))
			arrival = now;
		if (arrival - now > slack)
			return (arrival - now - slack + UNITS_PER_MS - 1) / UNITS_PER_MS;
		if (swap(at, &seen,
			    tag << RATE_TIME_BITS | ((arrival + step) & RATE_TIME_MASK)))
			return 0;
	}
}

static uint64_t seconds_up(uint64_t ms)
{
	return (ms + 999) / 1000;
}

/* Its own word; else (`to_write`) a free one, else that which ends first; else NULL. */
static word *find_term(word *set, uint64_t tag, uint64_t now_s, bool to_write)
{
	word *best = NULL;
	uint64_t best_until = UINT64_MAX;

	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t value = load(&set[i]), until = value & LOW32;

		if (value != 0 && value >> 32 == tag)
			return &set[i];
		if (until < now_s)
			until = 0;
		if (until < best_until) {
			best = &set[i];
			best_until = until;
		}
	}
	return to_write ? best : NULL;
}

void table_set_until(struct table *table, enum table_term kind, struct sv key,
	uint64_t until_ms, uint64_t now_ms)
{
	uint64_t number = hash(table, kind, key), tag = number >> 32;
	word *at =
		find_term(table->terms[number % TERM_SETS], tag, now_ms / 1000, until_ms > 0);
	uint64_t seconds = seconds_up(until_ms);

	if (at)
		atomic_store_explicit(at,
			until_ms > 0 ? tag << 32 | (seconds < LOW32 ? seconds : LOW32) : 0,
			memory_order_release);
}

uint64_t table_left_ms(
	struct table *table, enum table_term kind, struct sv key, uint64_t now_ms)
{
	uint64_t number = hash(table, kind, key);
	word *at = find_term(table->terms[number % TERM_SETS], number >> 32, 0, false);
	uint64_t value = at ? load(at) : 0, until_ms = (value & LOW32) * 1000;

	/* It may have become another's meanwhile. */
	if (value >> 32 != number >> 32 || until_ms <= now_ms)
		return 0;
	return until_ms - now_ms;
}

#define SLOT_TAG(number)  ((number) >> 40)
#define SLOT_OWNER(value) ((value) >> 32 & 0xff)

/* How many slots the tag has, and the soonest end among them. */
static uint32_t count_slots(struct table *table, uint64_t tag, uint64_t *soonest_s)
{
	uint32_t count = 0;

	*soonest_s = UINT64_MAX;
	for (unsigned i = 0; i < SLOTS; i++) {
		uint64_t value = load(&table->slots[i]);

		if (value == 0 || value >> 40 != tag)
			continue;
		count++;
		if ((value & LOW32) < *soonest_s)
			*soonest_s = value & LOW32;
	}
	return count;
}

int table_slot_take(struct table *table, uint32_t worker, const struct table_capture *capture,
	uint64_t now_ms, uint64_t *left_ms)
{
	uint64_t tag = SLOT_TAG(hash(table, 0, capture->key)), soonest_s;
	uint64_t value = tag << 40 | (uint64_t)(worker + 1) << 32 |
			 (seconds_up(capture->until_ms) & LOW32);
	int slot = -1;

	assert(worker < TABLE_WORKERS_MAX);
	*left_ms = 1000;
	if (count_slots(table, tag, &soonest_s) < capture->max) {
		for (int i = 0; i < SLOTS && slot < 0; i++) {
			uint64_t seen = 0;

			if (atomic_compare_exchange_strong(&table->slots[i], &seen, value))
				slot = i;
		}
		if (slot < 0)
			return -1;
		/* Two that came at once may both have counted too few: then neither has it. */
		if (count_slots(table, tag, &soonest_s) <= capture->max)
			return slot;
		table_slot_free(table, worker, slot);
		return -1;
	}
	if (soonest_s != UINT64_MAX && soonest_s * 1000 > now_ms + 1000)
		*left_ms = soonest_s * 1000 - now_ms;
	return -1;
}

void table_slot_free(struct table *table, uint32_t worker, int slot)
{
	uint64_t value;

	assert(slot >= 0 && slot < SLOTS);
	value = load(&table->slots[slot]);
	assert(SLOT_OWNER(value) == worker + 1);
	atomic_store_explicit(&table->slots[slot], 0, memory_order_release);
}

/* The key's word in a column; else, with `to_write`, a free one; else NULL. */
static word *find_connections(struct column *column, uint64_t number, bool to_write)
{
	word *set = column->sets[number % CONNECTION_SETS], *unused = NULL;

	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t value = load(&set[i]);

		if ((value & LOW32) == 0)
			unused = &set[i];
		else if (value >> 32 == number >> 32)
			return &set[i];
	}
	return to_write ? unused : NULL;
}

uint32_t table_connections(const struct table *table, uint32_t worker)
{
	return atomic_load_explicit(&table->columns[worker].connections, memory_order_acquire);
}

uint32_t table_connections_all(const struct table *table)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < TABLE_WORKERS_MAX; i++)
		sum += table_connections(table, i);
	return sum;
}

/* Of all workers, those that have any connection at all. */
static uint64_t count_of_key(struct table *table, uint64_t number)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < TABLE_WORKERS_MAX; i++) {
		word *at = table_connections(table, i) > 0
				   ? find_connections(&table->columns[i], number, false)
				   : NULL;

		sum += at ? load(at) & LOW32 : 0;
	}
	return sum;
}

/* Counted first and looked at then: of two that come at once at most both are turned away. */
bool table_connection_add(
	struct table *table, uint32_t worker, struct sv key, uint32_t max_all, uint32_t max_key)
{
	uint64_t number = hash(table, 0, key);
	struct column *column = &table->columns[worker];
	word *at;

	assert(worker < TABLE_WORKERS_MAX);
	at = find_connections(column, number, true);
	if (!at)
		return false;
	atomic_store(at, (number >> 32) << 32 | ((load(at) & LOW32) + 1));
	atomic_fetch_add(&column->connections, 1);
	if (table_connections_all(table) <= max_all && count_of_key(table, number) <= max_key)
		return true;
	table_connection_remove(table, worker, key);
	return false;
}

void table_connection_remove(struct table *table, uint32_t worker, struct sv key)
{
	struct column *column = &table->columns[worker];
	word *at = find_connections(column, hash(table, 0, key), false);

	assert(at);
	atomic_store(at, load(at) - 1);
	atomic_fetch_sub(&column->connections, 1);
}

void table_free_worker(struct table *table, uint32_t worker)
{
	struct column *column = &table->columns[worker];

	assert(worker < TABLE_WORKERS_MAX);
	for (unsigned i = 0; i < CONNECTION_SETS; i++) {
		for (unsigned way = 0; way < WAYS; way++)
			atomic_store(&column->sets[i][way], 0);
	}
	atomic_store(&column->connections, 0);
	for (unsigned i = 0; i < SLOTS; i++) {
		uint64_t value = load(&table->slots[i]);

		if (SLOT_OWNER(value) == worker + 1)
			(void)atomic_compare_exchange_strong(&table->slots[i], &value, 0);
	}
}
