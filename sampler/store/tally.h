/*
 * tally.h - equal samples added together: what a profile is made of. Server thread only; memory from an
 * arena.
 */
#ifndef SAMPLER_TALLY_H
#define SAMPLER_TALLY_H

#include <stddef.h>
#include <stdint.h>

#include "sampler/memory/arena.h"

#define TALLY_VALUES 4

/* What must be equal; every byte counts, so set it to zero first. */
struct tally_key {
	uint32_t stack;  /* depot.h; 0: no stack is known */
	uint32_t labels; /* labels.h; 0: none */
	uint32_t other;  /* what the profile's own labels are made from; 0: none */
	uint32_t tid;    /* 0: threads are not told apart */
	uint64_t number; /* block size of a heap profile; 0: none */
};

struct tally_row {
	struct tally_key key;
	int64_t values[TALLY_VALUES];
};

struct tally {
	struct arena *arena;
	struct tally_row **slots; /* open addressing */
	size_t cap, len;
	uint64_t lost; /* samples that found no memory */
};

int tally_open(struct tally *tally, struct arena *arena);

/* Add these values (TALLY_VALUES of them) times `sign` to the row of this key. */
void tally_add(struct tally *tally, const struct tally_key *key,
	const int64_t values[static TALLY_VALUES], int sign);

/* The next row after `*at` (begin with 0); NULL at the end. */
const struct tally_row *tally_next(const struct tally *tally, size_t *at);

#endif
