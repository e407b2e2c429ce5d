#include "sampler/write/trace_table.h"

#define SLOTS_MIN 256

struct trace_cell *trace_table_find(const struct trace_table *table, uint64_t hash,
	bool (*is_same)(const struct trace_cell *cell, const void *key), const void *key)
{
	struct trace_cell *cell;

	if (table->cap == 0)
		return NULL;
	for (size_t at = hash & (table->cap - 1); (cell = table->slots[at]);
		at = (at + 1) & (table->cap - 1)) {
		if (cell->hash == hash && is_same(cell, key))
			return cell;
	}
	return NULL;
}

static void put(struct trace_table *table, struct trace_cell *cell)
{
	size_t at = cell->hash & (table->cap - 1);

	while (table->slots[at])
		at = (at + 1) & (table->cap - 1);
	table->slots[at] = cell;
}

/* The smaller tables stay in the arena: together they take as much as the last one. */
static int grow(struct trace_table *table, struct arena *arena)
{
	size_t cap = table->cap ? table->cap * 2 : SLOTS_MIN;
	struct trace_cell **slots = arena_alloc(arena, cap * sizeof(struct trace_cell *));

	if (!slots)
		return -1;
	table->slots = slots;
	table->cap = cap;
	for (struct trace_cell *cell = table->first; cell; cell = cell->next)
		put(table, cell);
	return 0;
}

int trace_table_add(struct trace_table *table, struct arena *arena, struct trace_cell *cell)
{
	if (table->len * 2 >= table->cap && grow(table, arena))
		return -1;
	cell->next = NULL;
	put(table, cell);
	if (table->last)
		table->last->next = cell;
	else
		table->first = cell;
	table->last = cell;
	table->len++;
	return 0;
}
