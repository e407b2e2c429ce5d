#include "sampler/collect/trace_wakes.h"

#include <stddef.h>
#include <string.h>

#define KEPT  4096 /* a power of two */
#define TRIES 64

/* Numbers count on without end; the last KEPT are there. Chained by the lock's hash, the latest first. */
static struct {
	uint64_t len;
	uint64_t heads[KEPT]; /* number + 1; 0: none */
	uint64_t before[KEPT];
	struct record wakes[KEPT];
} kept;

static size_t chain_of(uint64_t lock)
{
	return (lock * UINT64_C(0x9e3779b97f4a7c15)) >> 52;
}

void trace_wakes_note(const struct record *wake)
{
	uint64_t number = kept.len++;
	uint64_t *head = &kept.heads[chain_of(wake->other)];

	kept.wakes[number % KEPT] = *wake;
	kept.before[number % KEPT] = *head;
	*head = number + 1;
}

const struct record *trace_wakes_find(const struct record *unblock)
{
	uint64_t at = kept.heads[chain_of(unblock->other)];
	uint64_t began_ns = unblock->time_ns - unblock->value;

	for (int i = 0; i < TRIES && at > 0 && at + KEPT > kept.len; i++) {
		const struct record *wake = &kept.wakes[(at - 1) % KEPT];

		if (wake->other == unblock->other && wake->tid != unblock->tid &&
			wake->time_ns >= began_ns && wake->time_ns <= unblock->time_ns)
			return wake;
		at = kept.before[(at - 1) % KEPT];
	}
	return NULL;
}

void trace_wakes_forget(void)
{
	if (kept.len > 0)
		memset(&kept, 0, sizeof(kept));
}
