/*
 * unwind_table.h - the published set of tables. Private to the unwinder.
 */
#ifndef SAMPLER_UNWIND_TABLE_H
#define SAMPLER_UNWIND_TABLE_H

#include <stdatomic.h>

#include "sampler/unwind/eh_frame.h"

#define TABLE_PAGE_SHIFT 8

/*
 * Rows of one executable mapping. rows[index[p]] is the last row at or before byte p * 256 of it,
 * so the row of a pc lies between index[p] and index[p + 1]. rows[0] stands at offset 0.
 */
struct table {
	uintptr_t start, limit;
	uint64_t inode;
	const struct unwind_row *rows;
	const uint32_t *index;
	size_t rows_len, bytes; /* of the whole allocation */
	uint64_t frame_header;  /* the object's .eh_frame_hdr, in memory */
	uint32_t functions;     /* how many it lists */
};

/*
 * What was found for the last program counters: a walk passes mostly where others have, and then this line of
 * memory is all it has to look at.  Writers do not wait for each other: a pair of which each wrote half is known
 * by its first word, which is the pc xor the second (0: nothing here).  It goes with its set.
 */
#define CACHE_BITS 11

struct row_cache {
	struct {
		_Atomic uint64_t check, rule;
	} at[1U << CACHE_BITS];
};

struct table_set {
	size_t len;
	size_t bytes;           /* of this set's own allocation */
	struct row_cache *rows; /* in it; walks write there */
	struct table *tables[]; /* sorted by start */
};

/* Read between table_set_enter_sigsafe() and table_set_leave_sigsafe(). May be NULL. */
const struct table_set *table_set_enter_sigsafe(void);
void table_set_leave_sigsafe(void);

/* The row that holds at `pc`; NULL when no table covers it. `*table` is where the last look-up ended,
 * NULL at first: most callers are in the same object. */
const struct unwind_row *table_set_find_sigsafe(
	const struct table_set *set, uintptr_t pc, const struct table **table);

/* What holds at a pc. */
struct rule {
	struct unwind_row row; /* without its pc */
	bool next_begins;      /* at pc + 1 another row does */
};

/* The same as the cache has it; 0 when no table covers `pc`. */
#define RULE_IS_THERE    (UINT64_C(1) << 56)
#define RULE_NEXT_BEGINS (UINT64_C(1) << 57)
uint64_t table_set_find_rule_sigsafe(
	const struct table_set *set, uintptr_t pc, const struct table **table);

/* Look in the cache first. False when no table covers `pc`. */
static inline bool table_set_rule_sigsafe(
	const struct table_set *set, uintptr_t pc, const struct table **table, struct rule *out)
{
	size_t slot = (pc * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - CACHE_BITS);
	_Atomic uint64_t *check = &set->rows->at[slot].check, *kept = &set->rows->at[slot].rule;
	uint64_t rule = atomic_load_explicit(kept, memory_order_relaxed);

	if (rule == 0 || (atomic_load_explicit(check, memory_order_relaxed) ^ rule) != pc) {
		rule = table_set_find_rule_sigsafe(set, pc, table);
		if (rule == 0)
			return false;
		atomic_store_explicit(check, pc ^ rule, memory_order_relaxed);
		atomic_store_explicit(kept, rule, memory_order_relaxed);
	}
	out->row.cfa = (int16_t)rule;
	out->row.fp = (arch_slot)(rule >> 16);
#if ARCH_HAS_LR
	out->row.ra = (arch_slot)(rule >> 32);
#endif
	out->row.kind = (uint8_t)(rule >> 48);
	out->next_begins = rule & RULE_NEXT_BEGINS;
	return true;
}

/* The function that an address is in, [start, limit), as the object's own list has it. Server thread only. */
bool table_find_function(
	const struct table *table, uintptr_t pc, uintptr_t *start, uintptr_t *limit);

/* Is this address in an object that has a table? */
bool table_set_covers_sigsafe(const struct table_set *set, uintptr_t pc);

/* An address just above the first thread's first frame. */
uintptr_t table_set_first_stack_sigsafe(void);

/* Note that code without a table was met. */
void table_set_note_miss_sigsafe(void);

#endif
