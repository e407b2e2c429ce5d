/*
 * collect.h - what the server thread does for all collectors: hand the records of the ring out, and give
 * each its turn.
 *
 * A collector is a module of this room: what it records in the program's threads goes into tables of its
 * own (heap, locks) or through the ring (CPU, trace).  Every function here is the server thread's.
 */
#ifndef SAMPLER_COLLECT_H
#define SAMPLER_COLLECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/store/ring.h"

struct collector {
	const char *name;
	/* How often poll() shall be called now, in milliseconds; 0: not at all. */
	unsigned (*period_ms)(void);
	void (*poll)(uint64_t now);                /* or NULL */
	void (*take)(const struct record *record); /* every record of the ring; or NULL */
	int (*descriptor)(
		void); /* poll() is due, too, when it is readable; -1: none. Or NULL */
	void (*after_fork)(void); /* in a forked child, in its only thread; or NULL */
};

/* Take what is in the ring, and let every collector that wants it have its turn. */
void collect_poll(uint64_t now);

/* How long the server may sleep at most, in milliseconds; 0: for ever. */
unsigned collect_wait_ms(void);

/* Descriptors to wait for; returns how many. */
#define COLLECT_DESCRIPTORS_MAX 8
size_t collect_descriptors(int out[static COLLECT_DESCRIPTORS_MAX]);

/* Everything in store/ and here, in a forked child. */
void collect_after_fork(void);

#endif
