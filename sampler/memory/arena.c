#include "sampler/memory/arena.h"

#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT 16
#define SIZE_MIN  ((size_t)64 << 10)

int arena_open(struct arena *arena, size_t size)
{
	void *base = MAP_FAILED;

	*arena = (struct arena){ 0 };
	/* Where address space is short (RLIMIT_AS, strict overcommit) a part of it may do. */
	for (; size >= SIZE_MIN; size /= 2) {
		base = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (base != MAP_FAILED)
			break;
	}
	if (base == MAP_FAILED)
		return -1;
	*arena = (struct arena){ .base = base, .size = size };
	return 0;
}

void arena_close(struct arena *arena)
{
	if (arena->base)
		(void)munmap(arena->base, arena->size);
	*arena = (struct arena){ 0 };
}

void *arena_alloc(struct arena *arena, size_t size)
{
	size_t from = (arena->used + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1), to;

	if (__builtin_add_overflow(from, size, &to) || to > arena->size)
		return NULL;
	arena->used = to;
	return arena->base + from; /* fresh pages of the kernel are zero */
}

char *arena_strndup(struct arena *arena, const char *s, size_t len)
{
	char *copy = arena_alloc(arena, len + 1);

	if (copy)
		memcpy(copy, s, len);
	return copy;
}

int arena_buf(struct arena *arena, size_t size, struct buf *out)
{
	void *mem = arena_alloc(arena, size);

	if (!mem)
		return -1;
	buf_init_fixed(out, mem, size);
	return 0;
}
