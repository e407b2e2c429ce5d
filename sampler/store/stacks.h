/*
 * stacks.h - equal stacks counted together. Server thread only; memory from an arena.
 */
#ifndef SAMPLER_STACKS_H
#define SAMPLER_STACKS_H

#include <stddef.h>
#include <stdint.h>

#include "sampler/memory/arena.h"

struct stack {
	const char *label; /* the thread's name */
	uint64_t count;
	size_t len;
	uintptr_t pcs[];
};

struct stacks {
	struct arena *arena;
	struct stack **slots; /* open addressing */
	size_t cap, len;
	uint64_t lost; /* counts that found no memory */
};

int stacks_open(struct stacks *stacks, struct arena *arena);

/* Count `count` more of this stack under this label. Copies what it keeps. */
void stacks_add(struct stacks *stacks, const uintptr_t *pcs, size_t len, const char *label,
	uint64_t count);

/* The next stack after `*at` (begin with 0); NULL at the end. */
const struct stack *stacks_next(const struct stacks *stacks, size_t *at);

#endif
