/*
 * trace_table.h - the index that the two trace formats need: entries found by a hash, met again in the
 * order in which they came. Memory from an arena.
 */
#ifndef SAMPLER_TRACE_TABLE_H
#define SAMPLER_TRACE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/memory/arena.h"

/* The head of an entry. */
struct trace_cell {
	uint64_t hash;
	struct trace_cell *next; /* that came after it; NULL: the last */
};

struct trace_table {
	struct trace_cell **slots; /* open addressing */
	size_t cap, len;
	struct trace_cell *first, *last;
};

/* The first entry with this hash that `is_same`. */
struct trace_cell *trace_table_find(const struct trace_table *table, uint64_t hash,
	bool (*is_same)(const struct trace_cell *cell, const void *key), const void *key);

/* Put an entry in; its hash is set. -1 without memory. */
int trace_table_add(struct trace_table *table, struct arena *arena, struct trace_cell *cell);

static inline uint64_t trace_hash(uint64_t value)
{
	value *= UINT64_C(0x9e3779b97f4a7c15); /* 2^64 over the golden ratio */
	return value ^ value >> 29;
}

#endif
