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

struct table_set {
	size_t len;
	size_t bytes;           /* of this set's own allocation */
	struct table *tables[]; /* sorted by start */
};

/* Read between table_set_enter_sigsafe() and table_set_leave_sigsafe(). May be NULL. */
const struct table_set *table_set_enter_sigsafe(void);
void table_set_leave_sigsafe(void);

/* The row that holds at `pc`; NULL when no table covers it. `*table` is where the last look-up ended,
 * NULL at first: most callers are in the same object. */
const struct unwind_row *table_set_find_sigsafe(
	const struct table_set *set, uintptr_t pc, const struct table **table);

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
