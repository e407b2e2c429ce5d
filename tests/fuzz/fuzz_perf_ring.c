/* Whatever stands in a ring: nothing outside of it is read, every record moves the tail on and not past the
 * head, and a stack lies in the ring or in the scratch memory.
 *
 * Input: 2 bytes of where the first record begins, the rest is the ring's bytes from there on. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/collect/perf_ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int fine)
{
	if (!fine)
		abort();
}

static int lies_in(const void *at, size_t len, const uint8_t *from, size_t size)
{
	const uint8_t *first = at;

	return first >= from && first <= from + size && len <= (size_t)(from + size - first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct perf_ring_record record;
	size_t ring_size = 64, records = 0;
	uint64_t tail, head;
	uint8_t *ring, *scratch;

	if (size < 2)
		return 0;
	size -= 2;
	while (ring_size < size)
		ring_size *= 2;
	ring = calloc(1, ring_size);
	scratch = malloc(PERF_RING_RECORD_MAX);
	check(ring && scratch);
	tail = UINT64_MAX / 2 + 1 + ((size_t)data[0] << 8 | data[1]);
	head = tail + size;
	for (size_t i = 0; i < size; i++)
		ring[(tail + i) & (ring_size - 1)] = data[2 + i];
	while (1) {
		uint64_t before = tail;

		if (!perf_ring_next(ring, ring_size, head, &tail, scratch, &record))
			break;
		check(tail > before && tail <= head && ++records <= size);
		if (record.kind != PERF_RING_TAKEN)
			continue;
		check(record.sample.stack_bytes == 0 ||
			lies_in(record.sample.stack, record.sample.stack_bytes, ring,
				ring_size) ||
			lies_in(record.sample.stack, record.sample.stack_bytes, scratch,
				PERF_RING_RECORD_MAX));
	}
	check(tail == head);
	free(ring);
	free(scratch);
	return 0;
}
