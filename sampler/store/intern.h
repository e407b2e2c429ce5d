/*
 * intern.h - keys of a few words, each kept once and named by a small number, with counters beside it.
 *
 * Written from signal handlers and interposed functions of any thread, read by the server thread: no
 * lock, no allocation but from one reserved mapping, nothing is ever moved or taken out, so an entry
 * that was found stays where it is for the life of the process.  When the mapping is full, new keys
 * are refused and counted.
 */
#ifndef SAMPLER_INTERN_H
#define SAMPLER_INTERN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INTERN_LEVELS    4
#define INTERN_WORDS_MAX 0xffff

/* One kept key: `key_words` words of key, then `values` counters. */
struct intern_entry {
	uint32_t hash;
	uint16_t key_words;
	uint16_t info; /* part of the key: whatever the owner wants to tell apart by */
	uint64_t words[];
};

/* To be defined with INTERN_INIT; the memory is mapped at the first use. */
struct intern {
	size_t bytes; /* to reserve for entries; a half, a quarter … of it when there is less */
	uint16_t values; /* counters of each entry */
	_Atomic(char *) base;
	_Atomic(_Atomic uint32_t *) slots;
	atomic_size_t used, size;
	atomic_size_t level_len[INTERN_LEVELS];
	atomic_ulong refused;
};

#define INTERN_INIT(bytes_, values_)                   \
	{                                              \
		.bytes = (bytes_), .values = (values_) \
	}

/* The number of this key, which is kept from now on; 0 when there is no room. */
uint32_t intern_put_sigsafe(
	struct intern *table, const uint64_t *key, size_t key_words, uint16_t info);

/* Is more than half of the memory used? Who sees that can bring fewer different keys. */
bool intern_is_half_full_sigsafe(const struct intern *table);

/* `id` is one that intern_put_sigsafe() gave, and not 0. */
struct intern_entry *intern_get(const struct intern *table, uint32_t id);

/* The counters of an entry. */
static inline _Atomic int64_t *intern_values(struct intern_entry *entry)
{
	return (_Atomic int64_t *)&entry->words[entry->key_words];
}

/* The id of the next entry after `*at` (begin with 0), or 0. Entries that come meanwhile may or may not
 * be met. */
uint32_t intern_next(const struct intern *table, size_t *at);

/* Entries, bytes of memory used for them, and keys refused. */
void intern_stats(const struct intern *table, size_t *len, size_t *bytes, uint64_t *refused);

#endif
