#include "sampler/store/intern.h"

#include <string.h>
#include <sys/mman.h>

/*
 * A key has a window of WINDOW slots in each level, by its hash; it stands in the first of them, level
 * by level, that was free when it came.  Slots are never emptied, so two threads that bring the same
 * key meet at the same free slot, and one of them wins it.  The small first level keeps a program with
 * few stacks from touching many pages.
 */
#define WINDOW   8
#define UNIT     sizeof(uint64_t) /* ids count these */
#define SIZE_MIN ((size_t)64 << 10)

static const unsigned level_bits[INTERN_LEVELS] = { 12, 15, 18, 21 };

static size_t slots_before(unsigned level)
{
	size_t slots = 0;

	for (unsigned i = 0; i < level; i++)
		slots += (size_t)1 << level_bits[i];
	return slots;
}

static void *map(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Several threads may come here first: one of them wins, the others give their memory back. */
static bool open_sigsafe(struct intern *table)
{
	size_t slots_bytes = slots_before(INTERN_LEVELS) * sizeof(uint32_t),
	       size = table->bytes;
	_Atomic uint32_t *no_slots = NULL;
	char *none = NULL, *base = NULL;
	void *slots;

	if (!atomic_load_explicit(&table->slots, memory_order_acquire)) {
		slots = map(slots_bytes);
		if (slots && !atomic_compare_exchange_strong(&table->slots, &no_slots, slots))
			(void)munmap(slots, slots_bytes);
	}
	for (; !base && size >= SIZE_MIN; size /= base ? 1 : 2)
		base = map(size);
	if (!base || !atomic_load(&table->slots))
		return false;
	if (atomic_compare_exchange_strong(&table->base, &none, base)) {
		atomic_store(&table->used, UNIT); /* id 0 is no id */
		atomic_store_explicit(&table->size, size, memory_order_release);
	} else {
		(void)munmap(base, size);
	}
	return true;
}

static uint32_t hash_of(const uint64_t *key, size_t words, uint16_t info)
{
	uint64_t hash = words << 16 | info;

	for (size_t i = 0; i < words; i++)
		hash = (hash ^ key[i]) * 0x9e3779b97f4a7c15U + (hash >> 29);
	hash ^= hash >> 32;
	return (uint32_t)(hash * 0x9e3779b1U);
}

static bool is_same(
	const struct intern_entry *entry, const struct intern_entry *head, const uint64_t *key)
{
	if (memcmp(entry, head, sizeof(*head)) != 0)
		return false;
	for (size_t i = 0; i < head->key_words; i++) {
		if (entry->words[i] != key[i])
			return false;
	}
	return true;
}

/* A copy of the key at the end of the memory; 0 without room. */
static uint32_t keep_sigsafe(
	struct intern *table, const struct intern_entry *head, const uint64_t *key)
{
	size_t bytes = sizeof(*head) + (head->key_words + (size_t)table->values) * UNIT, at;
	struct intern_entry *entry;

	at = atomic_load_explicit(&table->used, memory_order_relaxed);
	do {
		if (at + bytes > atomic_load_explicit(&table->size, memory_order_acquire) ||
			at / UNIT > UINT32_MAX)
			return 0;
	} while (!atomic_compare_exchange_weak(&table->used, &at, at + bytes));
	entry = (struct intern_entry *)(void *)(atomic_load(&table->base) + at);
	*entry = *head;
	for (size_t i = 0; i < head->key_words; i++)
		entry->words[i] = key[i];
	return (uint32_t)(at / UNIT); /* fresh pages: the counters are zero */
}

struct intern_entry *intern_get(const struct intern *table, uint32_t id)
{
	return (struct intern_entry *)(void *)(atomic_load_explicit(
						       &table->base, memory_order_relaxed) +
					       (size_t)id * UNIT);
}

struct putting {
	struct intern *table;
	const struct intern_entry *head;
	const uint64_t *key;
	uint32_t fresh; /* the entry, once it is kept; 0: not yet */
	bool is_full;
};

/* Find the key in this window, or put it there. 0: it is not here, and there is no place, or no memory. */
static uint32_t put_in_window_sigsafe(
	struct putting *putting, unsigned level, _Atomic uint32_t *window)
{
	for (unsigned i = 0; i < WINDOW; i++) {
		uint32_t id = atomic_load_explicit(&window[i], memory_order_acquire);

		if (id == 0) {
			if (putting->fresh == 0)
				putting->fresh = keep_sigsafe(
					putting->table, putting->head, putting->key);
			putting->is_full = putting->fresh == 0;
			if (putting->is_full)
				return 0;
			/* On failure `id` becomes what another thread has put there. */
			if (atomic_compare_exchange_strong(&window[i], &id, putting->fresh)) {
				atomic_fetch_add(&putting->table->level_len[level], 1);
				return putting->fresh;
			}
		}
		if (is_same(intern_get(putting->table, id), putting->head, putting->key))
			return id;
	}
	return 0;
}

uint32_t intern_put_sigsafe(
	struct intern *table, const uint64_t *key, size_t key_words, uint16_t info)
{
	struct intern_entry head = { .key_words = (uint16_t)key_words, .info = info };
	struct putting putting = { .table = table, .head = &head, .key = key };
	_Atomic uint32_t *slots;
	uint32_t id = 0;

	if (!atomic_load_explicit(&table->size, memory_order_acquire) && !open_sigsafe(table))
		return 0;
	head.hash = hash_of(key, key_words, info);
	slots = atomic_load_explicit(&table->slots, memory_order_acquire);
	for (unsigned level = 0; id == 0 && !putting.is_full && level < INTERN_LEVELS;
		level++) {
		uint32_t mask = ((uint32_t)1 << level_bits[level]) - 1;

		id = put_in_window_sigsafe(&putting, level,
			slots + slots_before(level) + (head.hash & mask & ~(WINDOW - 1U)));
	}
	if (id == 0)
		atomic_fetch_add_explicit(&table->refused, 1, memory_order_relaxed);
	return id;
}

bool intern_is_half_full_sigsafe(const struct intern *table)
{
	return atomic_load_explicit(&table->used, memory_order_relaxed) >
	       atomic_load_explicit(&table->size, memory_order_relaxed) / 2;
}

uint32_t intern_next(const struct intern *table, size_t *at)
{
	_Atomic uint32_t *slots = atomic_load_explicit(&table->slots, memory_order_acquire);

	if (!slots)
		return 0;
	for (unsigned level = 0; level < INTERN_LEVELS; level++) {
		size_t first = slots_before(level), after = slots_before(level + 1);

		if (*at >= after)
			continue;
		if (*at < first)
			*at = first;
		if (atomic_load(&table->level_len[level]) == 0) {
			*at = after;
			continue;
		}
		while (*at < after) {
			uint32_t id =
				atomic_load_explicit(&slots[(*at)++], memory_order_acquire);

			if (id)
				return id;
		}
	}
	return 0;
}

void intern_stats(const struct intern *table, size_t *len, size_t *bytes, uint64_t *refused)
{
	*len = 0;
	for (unsigned level = 0; level < INTERN_LEVELS; level++)
		*len += atomic_load(&table->level_len[level]);
	*bytes = atomic_load(&table->used);
	*refused = atomic_load(&table->refused);
}
