/*
 * ring.h - records on their way from signal handlers and hooks to the server thread.
 *
 * A bounded queue of small fixed slots, many writers, one reader, no locks: a writer claims a slot, fills
 * it in place and commits it.  When all slots are taken the record is counted as dropped.  The memory
 * is mapped once and never unmapped, since a signal may arrive late.  Stacks are in the depot.
 */
#ifndef SAMPLER_RING_H
#define SAMPLER_RING_H

#include <stdbool.h>
#include <stdint.h>

enum record_kind {
	RECORD_CPU =
		1, /* value: CPU time that it stands for, ns; other: the timer's capture number */
	RECORD_THREAD_START, /* value: its creator's tid; stack: the creator's */
	RECORD_THREAD_END,
	RECORD_BLOCK, /* the thread begins to wait; detail: enum wait_reason; other: what for */
	RECORD_UNBLOCK,      /* it goes on; value: ns waited; detail, other: as before */
	RECORD_WAKE,         /* it wakes `value`, a tid, or 0 for who waits for `other` */
	RECORD_REGION_BEGIN, /* value: region id; other: id of its name */
	RECORD_REGION_END,
	RECORD_LOG,    /* value: id of the text */
	RECORD_LABELS, /* its labels changed: `labels` are the new ones */
	RECORD_HEAP,   /* value: bytes in use, estimated */
	RECORD_KINDS,
};

/* Why a thread waits. */
enum wait_reason {
	WAIT_MUTEX = 1,
	WAIT_RWLOCK,
	WAIT_COND,
	WAIT_SEMAPHORE,
	WAIT_SLEEP,
	WAIT_IO,
	WAIT_JOIN,
	WAIT_OTHER,
};

struct record {
	uint8_t kind; /* enum record_kind */
	uint8_t detail;
	uint32_t tid;
	uint32_t stack;   /* depot.h; 0: none */
	uint32_t labels;  /* of the thread at that moment; 0: none */
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t value, other;
};

/*
 * Which kinds somebody wants now.  Writers of anything but RECORD_CPU ask first: what nobody reads is not
 * written.  Readers count: each that said true says false later.
 */
bool ring_is_wanted_sigsafe(enum record_kind kind);
void ring_want(enum record_kind kind, bool wanted);

/* Map the memory, at the first call. -1 without memory. */
int ring_open(void);

/* Claim a slot; NULL (and one more dropped) when there is none, or the ring is not open. Its fields hold
 * anything. Follow with ring_commit_sigsafe(). */
struct record *ring_claim_sigsafe(void);
void ring_commit_sigsafe(struct record *record);

/* Copy the oldest record out. False when there is none that is whole. Server thread only. */
bool ring_take(struct record *out);

/* Records dropped since the process began. */
uint64_t ring_dropped(void);

/* In a forked child: forget what its parent had under way. */
void ring_after_fork(void);

#endif
