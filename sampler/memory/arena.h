/*
 * arena.h - memory of our own, straight from the kernel.
 *
 * The server thread never uses the program's heap: a program thread must not wait for our lock in
 * malloc, and our allocations must not show up in the program's profiles.  An arena is one large
 * reserved mapping, filled from the front, given back whole.
 */
#ifndef SAMPLER_ARENA_H
#define SAMPLER_ARENA_H

#include <stddef.h>

#include "base/buf.h"

struct arena {
	char *base;
	size_t used, size;
};

/* Reserve address space, or a half, a quarter … of it when there is less; memory is taken page by
 * page as it is used. -1 when there is none. */
int arena_open(struct arena *arena, size_t size);
void arena_close(struct arena *arena);

/* Zeroed, aligned to 16. NULL when full. */
void *arena_alloc(struct arena *arena, size_t size);
char *arena_strndup(struct arena *arena, const char *s, size_t len);

/* A fixed buffer of `size` bytes in the arena; pages that are never written cost nothing. */
int arena_buf(struct arena *arena, size_t size, struct buf *out);

#endif
