/*
 * rate.h - how much is sampled now: what the program or its environment asks for; in its place, while a
 * lease lasts, what that asks for; and nothing while the process is asleep.
 *
 * Every function may be called from any thread.  Whoever changes one of the reasons last, all of them hold
 * in the end.
 */
#ifndef SAMPLER_RATE_H
#define SAMPLER_RATE_H

#include <stdbool.h>
#include <stdint.h>

enum rate {
	RATE_HEAP = 0, /* bytes between two samples; 0: off, as for the others */
	RATE_MUTEX,    /* one in how many */
	RATE_BLOCK,    /* nanoseconds */
	RATES_LEN,
};

#define RATE_NOT_SET UINT64_MAX

/* What the environment says: holds where the program has asked for nothing itself. */
void rate_default(enum rate rate, uint64_t value);

/* The program asks (postern.h). Returns what it asked for before, or its environment did. */
uint64_t rate_ask(enum rate rate, uint64_t value);
uint64_t rate_asked(enum rate rate);

/* A lease asks; RATE_NOT_SET: none does any more. */
void rate_lease(enum rate rate, uint64_t value);

/* Asleep nothing is sampled, whoever asks, and no thread's start looked at; it holds again afterwards. */
void rate_sleep(bool asleep);

/* What is sampled at this moment. */
uint64_t rate_now(enum rate rate);

#endif
