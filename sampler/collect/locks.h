/*
 * locks.h - who waits for whom: the block and mutex profiles, and the trace's records of waits.
 *
 * `block` counts the time that a thread waits, on the stack of the waiter; `mutex` the time that the holder
 * of a lock makes others wait, on the stack that unlocks it: both as Go's runtime/mprof.go and sema.go.
 * hooks/locks.c tells what happens; nothing here allocates, locks or waits, and all of it may be
 * called in a signal handler (sem_post() may).
 */
#ifndef SAMPLER_LOCKS_H
#define SAMPLER_LOCKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sampler/collect/collect.h"
#include "sampler/store/tally.h"
#include "sampler/unwind/unwind.h"

/* What is recorded now. */
enum locks_mode {
	LOCKS_MUTEX = 1,
	LOCKS_BLOCK = 2,
	LOCKS_TRACE = 4,
};

/* One in `fraction` events is recorded, 0 is off. Returns what it was before; a negative one
 * changes nothing (SetMutexProfileFraction). */
int locks_set_mutex_fraction(int fraction);

/* One sample for each `ns` nanoseconds waited: 1 is everything, 0 and less is off (SetBlockProfileRate).
 * Returns what it was before. */
int64_t locks_set_block_rate(int64_t ns);

int locks_mutex_fraction(void);
int64_t locks_block_rate(void);

/* Somebody wants RECORD_BLOCK, RECORD_UNBLOCK and RECORD_WAKE from the ring (this asks for them there,
 * too), or no longer. Those who want count. */
void locks_trace(bool wanted);

/* Told of every change of mode, by the thread that makes it, and now. One such function. */
void locks_tell(void (*tell)(unsigned mode));

/* --- in the program's threads --- */

/* How a wait ended. */
enum lock_end {
	LOCK_GOT = 0,
	LOCK_GAVE_UP, /* timed out, interrupted, cancelled */
	LOCK_REFUSED, /* an error: there was no wait */
};

struct lock_wait {
	const void *lock;
	enum wait_reason reason;
	uintptr_t leaf;                 /* as depot_walk_below_sigsafe() wants it */
	const struct unwind_regs *regs; /* of the caller of the interposed function */

	/* filled in by locks_wait_sigsafe() */
	struct contention *contention; /* or NULL */
	uint32_t stack;                /* 0: not walked yet */
	uint64_t holder;
	uint64_t began_ns;
};

/* The thread begins to wait, and has ended: with the same `wait`, whatever was switched meanwhile. */
void locks_wait_sigsafe(struct lock_wait *wait);
void locks_waited_sigsafe(struct lock_wait *wait, enum lock_end end);

/* The lock is this thread's now, from a call that returns to `pc`. One store. */
void locks_got_sigsafe(const void *lock, uintptr_t pc);

struct lock_release {
	const void *lock;
	enum wait_reason reason;
	uint64_t delay_ns;       /* that others lost since the last release */
	uint64_t waiter, holder; /* the one of them; where this thread got the lock */
	uint64_t now_ns;
};

/*
 * A lock is about to be let go, or a condition or semaphore to be signalled. False when nobody waits
 * for it.  Else follow with locks_released_sigsafe() once that is done: it takes the time of a walk,
 * which those who wait need not lose.
 */
bool locks_release_sigsafe(
	struct lock_release *release, const void *lock, enum wait_reason reason);
void locks_released_sigsafe(
	const struct lock_release *release, uintptr_t leaf, const struct unwind_regs *regs);

/* In a forked child, before its own thread goes on: who waited there does not. */
void locks_after_fork(void);

/* --- in the server's thread --- */

enum locks_profile {
	LOCKS_PROFILE_MUTEX = 0,
	LOCKS_PROFILE_BLOCK,
};

/* Add all that was recorded, values: contentions, nanoseconds. key.other is a stack of the other side,
 * or 0; key.number, of the mutex profile, one of where the lock was taken that is let go here.  `since_last`: only what came since the last call with it. */
int locks_take(enum locks_profile profile, bool since_last, struct tally *out);

/* Counts of the block profile are kept in parts of one. */
#define LOCKS_COUNT_ONE (1 << 16)

/* What a wait of `ns` counts for, given a random number: as Go's blocksampled() and
 * saveBlockEventStack(), a delay shorter than the rate is kept with probability delay/rate, and then
 * counts for as many as it stands for. False: not kept. */
bool locks_scale_block(
	uint64_t ns, uint64_t rate, uint64_t random, int64_t *count, int64_t *delay);

/* How many different stacks there are. */
size_t locks_count(enum locks_profile profile);

/* Waits seen and their time, while anything was recorded; and samples, or waits for a lock, that found
 * no room in the tables. */
void locks_stats(uint64_t *waits, uint64_t *wait_ns, uint64_t *lost);

extern const struct collector locks_collector;

#endif
