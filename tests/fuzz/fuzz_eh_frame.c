/* .eh_frame from anywhere: whatever the bytes, rows come sorted, inside their function, or not at all;
 * what a refused entry appended is gone again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/unwind/eh_frame.h"

#define ROWS_MAX   512
#define TEXT_LIMIT 0x7fffffff
#define ADDRESS    0x40000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int fine)
{
	if (!fine)
		abort();
}

static void check_rows(
	const struct row_list *list, size_t from, const struct eh_frame_range *range)
{
	check(list->len <= list->max);
	for (size_t i = 1; i < list->len; i++)
		check(list->rows[i - 1].pc < list->rows[i].pc);
	for (size_t i = from; i < list->len; i++)
		check(list->rows[i].pc >= range->start && list->rows[i].pc <= range->limit);
	check(list->full || list->rows[list->len - 1].kind == ROW_NONE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct unwind_row rows[ROWS_MAX];
	const struct eh_frame frame = {
		.bytes = data, .len = size, .address = ADDRESS, .text_limit = TEXT_LIMIT
	};
	struct row_list list = { .rows = rows, .max = ROWS_MAX };
	uint64_t done = 0;

	rows[list.len++] = (struct unwind_row){ .kind = ROW_NONE };
	for (size_t offset = 0; offset < size && !list.full; offset++) {
		struct eh_frame_range range = { .start = done };
		struct unwind_row before[ROWS_MAX];
		size_t len = list.len;

		memcpy(before, rows, len * sizeof(rows[0]));
		if (eh_frame_compile_one(&frame, offset, &list, &range)) {
			check(range.start >= done && range.limit > range.start);
			check_rows(&list, len, &range);
			done = range.limit;
		} else {
			check(list.len == len);
			check(memcmp(before, rows, len * sizeof(rows[0])) == 0);
		}
	}
	return 0;
}
