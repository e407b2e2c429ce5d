/*
 * waits.h - threads that sleep, or wait for input and output, while a trace is taken.
 *
 * hooks/waits.c tells.  Most such calls return at once, so nothing is recorded until one has waited: then
 * RECORD_UNBLOCK says for how long, with the stack, and there is no RECORD_BLOCK.  Who waits still, and
 * since when, is in a table, where each thread has a place.
 *
 * No state is kept for a thread that leaves a wait by a jump out of a signal handler or by being
 * cancelled, so that neither needs our help.
 */
#ifndef SAMPLER_WAITS_H
#define SAMPLER_WAITS_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/collect/collect.h"
#include "sampler/unwind/unwind.h"

#define WAITS_LEAST_NS 20000 /* what is shorter is no wait */

/* Somebody wants RECORD_UNBLOCK from here (this asks for it in the ring, too), or no longer. Those who want
 * count. */
void waits_trace(bool wanted);

/* Told of every change of that, and now. One such function. */
void waits_tell(void (*tell)(unsigned mode));

/* --- in the program's threads --- */

struct wait {
	uint64_t began_ns, ended_ns;
	struct wait_place *place; /* or NULL */
	uint8_t reason;           /* enum wait_reason */
};

/* A call that may wait begins. */
void waits_begin_sigsafe(struct wait *wait, enum wait_reason reason);

/* It has ended. True: it did wait, and waits_record_sigsafe() is to follow. `leaf` and `regs` as
 * depot_walk_below_sigsafe() wants them. */
bool waits_end_sigsafe(struct wait *wait);
void waits_record_sigsafe(
	const struct wait *wait, uintptr_t leaf, const struct unwind_regs *regs);

/* The thread ends. */
void waits_leave_sigsafe(void);

/* --- in the server's thread --- */

struct waiting {
	uint32_t tid;
	uint8_t reason;
	uint64_t since_ns;
};

/* Who waits now; begin with 0, false at the end. */
bool waits_next(size_t *at, struct waiting *out);

/* A thread is gone that may not have said so. */
void waits_forget(uint32_t tid);

extern const struct collector waits_collector;

#endif
