/*
 * starts.h - the threads that the program makes: from which stack, and when they begin and end.
 *
 * hooks/threads.c tells.  A thread that it makes begins in a function of ours, which finds what it is to run
 * in a place that was reserved for it here, and tells of its end, however it comes.  Without a free place
 * the thread is made as if we were not there, and only counted.
 */
#ifndef SAMPLER_STARTS_H
#define SAMPLER_STARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/collect/collect.h"
#include "sampler/store/tally.h"
#include "sampler/unwind/unwind.h"

/* Are creations looked at? */
void starts_watch(bool on);

/* Told of every change of that, and now. One such function. */
void starts_tell(void (*tell)(unsigned mode));

/* --- in the program's threads --- */

struct start_place;

/* What the new thread is to run. */
struct start_call {
	union {
		void *(*posix)(void *);
		int (*c11)(void *);
	} run;

	void *argument;
};

struct start {
	struct start_place *place; /* for the new thread; NULL: there is none */
	uint32_t stack;            /* of the creator; later.h */
};

/* A thread is about to be made; then it was, or was not. `regs` are the creator's. */
void starts_making_sigsafe(
	struct start *start, const struct start_call *call, const struct unwind_regs *regs);
void starts_made_sigsafe(const struct start *start, bool is_made);

/* First thing in the new thread: what it is to run. And the last: it ends. */
struct start_call starts_begin_sigsafe(struct start_place *place);
void starts_end_sigsafe(void);

/* --- in the server's thread --- */

/* Add all threads since the start by their creators' stacks; value: how many.  Those that we did not see
 * being made have none: what was there before, and what came without the C library. */
int starts_take(struct tally *out);

/* How many there were. */
size_t starts_count(struct arena *arena);

extern const struct collector starts_collector;

#endif
