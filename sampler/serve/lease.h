/*
 * lease.h - what a connection of the control socket holds while it lasts: the process is awake, and samples
 * at the rates that it asks for.
 *
 * Any number of them at once.  Of several that ask for the same rate the latest to ask counts; when it
 * ends, the one before it, and after the last one what the program itself asks for.  Server thread only.
 */
#ifndef SAMPLER_LEASE_H
#define SAMPLER_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/serve/rates.h"

struct lease { /* zeroed: none */
	bool is_held;
	struct rates rates;
	uint64_t turns[RATES_LEN]; /* when it asked for each */
	struct lease *next;        /* of those that are held */
};

/* Taking a lease that is held already is fine. */
void lease_take(struct lease *lease);

/* To be called before its memory goes away; fine if it is not held. */
void lease_end(struct lease *lease);

/* A held one asks for rates; those that it does not name stay as they are. */
void lease_rates(struct lease *lease, const struct rates *rates);

size_t leases_held(void);

/* In a forked child: what its parent's clients hold is not its own. */
void leases_forget(void);

#endif
