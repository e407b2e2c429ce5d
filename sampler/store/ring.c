#include "sampler/store/ring.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define SLOTS ((size_t)1024) /* a power of two */

/*
 * `turn` says whose turn a slot is, counted in positions of the endless queue that the ring shows
 * a part of: equal to a position, the slot is free for the writer of that position; one more, it
 * is filled; SLOTS more, it was read and is free for the next round.  (The bounded queue of Dmitry
 * Vyukov, with one reader.)
 */
struct slot {
	atomic_size_t turn;
	struct ring_sample sample;
};

static struct slot *slots;
static atomic_size_t write_position;
static size_t read_position;
static atomic_ulong dropped;

int ring_open(void)
{
	if (slots)
		return 0;
	slots = mmap(NULL, SLOTS * sizeof(*slots), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slots == MAP_FAILED) {
		slots = NULL;
		return -1;
	}
	ring_after_fork();
	return 0;
}

void ring_after_fork(void)
{
	for (size_t i = 0; slots && i < SLOTS; i++)
		atomic_store(&slots[i].turn, i);
	atomic_store(&write_position, 0);
	read_position = 0;
}

struct ring_sample *ring_claim_sigsafe(void)
{
	size_t position = atomic_load_explicit(&write_position, memory_order_relaxed);

	for (;;) {
		struct slot *slot = &slots[position & (SLOTS - 1)];
		size_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire);

		if (turn == position) {
			if (atomic_compare_exchange_weak_explicit(&write_position, &position,
				    position + 1, memory_order_relaxed, memory_order_relaxed))
				return &slot->sample;
		} else if (turn < position) {
			atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
			return NULL;
		} else {
			position = atomic_load_explicit(&write_position, memory_order_relaxed);
		}
	}
}

void ring_commit_sigsafe(struct ring_sample *sample)
{
	struct slot *slot =
		(struct slot *)(void *)((char *)sample - offsetof(struct slot, sample));

	/* Only the claimer changes the turn of a claimed slot. */
	atomic_fetch_add_explicit(&slot->turn, 1, memory_order_release);
}

bool ring_take(struct ring_sample *out)
{
	struct slot *slot = &slots[read_position & (SLOTS - 1)];

	if (atomic_load_explicit(&slot->turn, memory_order_acquire) != read_position + 1)
		return false;
	memcpy(out, &slot->sample, offsetof(struct ring_sample, pcs));
	memcpy(out->pcs, slot->sample.pcs, slot->sample.len * sizeof(out->pcs[0]));
	atomic_store_explicit(&slot->turn, read_position + SLOTS, memory_order_release);
	read_position++;
	return true;
}

uint64_t ring_dropped(void)
{
	return atomic_exchange_explicit(&dropped, 0, memory_order_relaxed);
}
