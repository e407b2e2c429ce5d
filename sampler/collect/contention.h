/*
 * contention.h - which locks are waited for now, and what those who wait have lost since it was last charged
 * to a holder.
 *
 * As Go 1.22 and later count it (semrelease1 in runtime/sema.go): each release is charged what all waiters
 * together lost since they began, or since the release before.  Go takes the mean of its first and last
 * waiter for the others; here it is exact.  Fixed size, no locks: an entry is found by the lock's
 * address, and one word of it says how many wait and since when.
 */
#ifndef SAMPLER_CONTENTION_H
#define SAMPLER_CONTENTION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct contention; /* a lock that is waited for */

/* How many wait, for whatever lock; while nobody does, a release need not ask further. */
extern atomic_uint contention_waiting;

/* The calling thread begins to wait for `lock`; `who` is shown to who releases it. NULL (and one more lost)
 * when there is no room: nobody is charged for this wait then. */
struct contention *contention_enter_sigsafe(const void *lock, uint64_t now, uint64_t who);

/* It has ended a wait that began at `began`. What came after the last release is charged to nobody: that
 * is the time that it took to wake up. */
void contention_leave_sigsafe(struct contention *entry, uint64_t began, uint64_t now);

/* Does anybody wait for it? */
bool contention_is_there_sigsafe(const void *lock);

/* It is released: what is to be charged, in nanoseconds, and who was the last that began to wait. */
uint64_t contention_charge_sigsafe(const void *lock, uint64_t now, uint64_t *who);

/* In a forked child, before its own thread goes on: who waited there does not. */
void contention_after_fork(void);

/* Waits that found no room. */
uint64_t contention_lost(void);

#endif
