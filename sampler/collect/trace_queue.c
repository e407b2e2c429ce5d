#include "sampler/collect/trace_queue.h"

#define QUEUED_MAX ((size_t)1 << 17)

struct trace_queued {
	uint64_t number;
	struct record record;
};

int trace_queue_open(struct trace_queue *queue, struct arena *arena)
{
	*queue = (struct trace_queue){ .queued = arena_alloc(arena,
					       (QUEUED_MAX + 1) * sizeof(queue->queued[0])) };
	return queue->queued ? 0 : -1;
}

bool trace_queue_is_full(const struct trace_queue *queue)
{
	return queue->len == QUEUED_MAX;
}

static bool is_before(const struct trace_queued *a, const struct trace_queued *b)
{
	if (a->record.time_ns != b->record.time_ns)
		return a->record.time_ns < b->record.time_ns;
	return a->number < b->number;
}

void trace_queue_put(struct trace_queue *queue, const struct record *record)
{
	struct trace_queued *heap = queue->queued;
	struct trace_queued put = { queue->next_number++, *record };
	size_t at = queue->len++;

	while (at > 0 && is_before(&put, &heap[(at - 1) / 2])) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = put;
}

const struct record *trace_queue_take(struct trace_queue *queue, uint64_t until_ns)
{
	struct trace_queued *heap = queue->queued, taken, last;
	size_t at = 0, child;

	if (queue->len == 0 || heap[0].record.time_ns > until_ns)
		return NULL;
	taken = heap[0];
	last = heap[--queue->len];
	while ((child = 2 * at + 1) < queue->len) {
		if (child + 1 < queue->len && is_before(&heap[child + 1], &heap[child]))
			child++;
		if (!is_before(&heap[child], &last))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = last;
	/* Kept where nothing is: behind the last. */
	heap[queue->len] = taken;
	return &heap[queue->len].record;
}
