#include "sampler/store/ring.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define SLOTS ((size_t)8192) /* a power of two */

/*
 * `turn` says whose turn a slot is, counted in positions of the endless queue that the ring shows
 * a part of: equal to a position, the slot is free for the writer of that position; one more, it
 * is filled; SLOTS more, it was read and is free for the next round.  (The bounded queue of Dmitry
 * Vyukov, with one reader.)  Kept less the slot's own number, so that fresh memory is an empty ring
 * whose pages need not be touched.
 */
struct slot {
	atomic_size_t turn;
	struct record record;
};

static _Atomic(struct slot *) ring;
static atomic_size_t write_position;
static size_t read_position;
static atomic_ulong dropped;

static atomic_uint wanted_by[RECORD_KINDS];

bool ring_is_wanted_sigsafe(enum record_kind kind)
{
	return atomic_load_explicit(&wanted_by[kind], memory_order_relaxed) != 0;
}

void ring_want(enum record_kind kind, bool wanted)
{
	if (wanted)
		atomic_fetch_add(&wanted_by[kind], 1);
	else
		atomic_fetch_sub(&wanted_by[kind], 1);
}

int ring_open(void)
{
	struct slot *slots;

	if (atomic_load(&ring))
		return 0;
	slots = mmap(NULL, SLOTS * sizeof(*slots), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slots == MAP_FAILED)
		return -1;
	atomic_store(&ring, slots);
	return 0;
}

void ring_after_fork(void)
{
	struct slot *slots = atomic_load(&ring);

	/* A mapping of the parent's, half written: fresh pages in its place. */
	if (slots)
		(void)madvise(slots, SLOTS * sizeof(*slots), MADV_DONTNEED);
	atomic_store(&write_position, 0);
	read_position = 0;
	for (size_t i = 0; i < RECORD_KINDS; i++)
		atomic_store(&wanted_by[i], 0);
}

struct record *ring_claim_sigsafe(void)
{
	struct slot *slots = atomic_load_explicit(&ring, memory_order_acquire);
	size_t position = atomic_load_explicit(&write_position, memory_order_relaxed);

	while (slots) {
		size_t index = position & (SLOTS - 1);
		struct slot *slot = &slots[index];
		size_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire) + index;

		if (turn == position) {
			if (atomic_compare_exchange_weak_explicit(&write_position, &position,
				    position + 1, memory_order_relaxed, memory_order_relaxed))
				return &slot->record;
		} else if (turn < position) {
			break;
		} else {
			position = atomic_load_explicit(&write_position, memory_order_relaxed);
		}
	}
	atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
	return NULL;
}

void ring_commit_sigsafe(struct record *record)
{
	struct slot *slot =
		(struct slot *)(void *)((char *)record - offsetof(struct slot, record));

	/* Only the claimer changes the turn of a claimed slot. */
	atomic_fetch_add_explicit(&slot->turn, 1, memory_order_release);
}

bool ring_take(struct record *out)
{
	struct slot *slots = atomic_load(&ring);
	size_t index = read_position & (SLOTS - 1);

	if (!slots || atomic_load_explicit(&slots[index].turn, memory_order_acquire) + index !=
			      read_position + 1)
		return false;
	*out = slots[index].record;
	atomic_store_explicit(
		&slots[index].turn, read_position - index + SLOTS, memory_order_release);
	read_position++;
	return true;
}

uint64_t ring_dropped(void)
{
	return atomic_load_explicit(&dropped, memory_order_relaxed);
}
