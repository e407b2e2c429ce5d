#include "sampler/store/stacks.h"

#include <stdbool.h>
#include <string.h>

#define FIRST_SLOTS ((size_t)1024)

int stacks_open(struct stacks *stacks, struct arena *arena)
{
	*stacks = (struct stacks){ .arena = arena, .cap = FIRST_SLOTS };
	stacks->slots = arena_alloc(arena, stacks->cap * sizeof(struct stack *));
	return stacks->slots ? 0 : -1;
}

static uint64_t hash_of(const uintptr_t *pcs, size_t len, const char *label)
{
	uint64_t hash = len;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ pcs[i]) * 0x9e3779b97f4a7c15U + (hash >> 29);
	for (; *label; label++)
		hash = (hash ^ (unsigned char)*label) * 1099511628211U;
	return hash ^ hash >> 32;
}

static bool is_same(
	const struct stack *stack, const uintptr_t *pcs, size_t len, const char *label)
{
	return stack->len == len && memcmp(stack->pcs, pcs, len * sizeof(pcs[0])) == 0 &&
	       strcmp(stack->label, label) == 0;
}

/* The slot of a stack: its own, or the empty one where it belongs. */
static struct stack **find(
	struct stack **slots, size_t cap, const uintptr_t *pcs, size_t len, const char *label)
{
	size_t at = (size_t)hash_of(pcs, len, label) & (cap - 1);

	while (slots[at] && !is_same(slots[at], pcs, len, label))
		at = (at + 1) & (cap - 1);
	return &slots[at];
}

static bool grow(struct stacks *stacks)
{
	size_t cap = stacks->cap * 2;
	struct stack **slots = arena_alloc(stacks->arena, cap * sizeof(struct stack *));

	if (!slots)
		return false;
	for (size_t i = 0; i < stacks->cap; i++) {
		struct stack *stack = stacks->slots[i];

		if (stack)
			*find(slots, cap, stack->pcs, stack->len, stack->label) = stack;
	}
	stacks->slots = slots;
	stacks->cap = cap;
	return true;
}

void stacks_add(struct stacks *stacks, const uintptr_t *pcs, size_t len, const char *label,
	uint64_t count)
{
	struct stack **slot, *stack;
	const char *kept;

	if (stacks->len * 2 >= stacks->cap && !grow(stacks)) {
		stacks->lost += count;
		return;
	}
	slot = find(stacks->slots, stacks->cap, pcs, len, label);
	if (*slot) {
		(*slot)->count += count;
		return;
	}
	stack = arena_alloc(stacks->arena, sizeof(*stack) + len * sizeof(pcs[0]));
	kept = arena_strndup(stacks->arena, label, strlen(label));
	if (!stack || !kept) {
		stacks->lost += count;
		return;
	}
	*stack = (struct stack){ .label = kept, .count = count, .len = len };
	memcpy(stack->pcs, pcs, len * sizeof(pcs[0]));
	*slot = stack;
	stacks->len++;
}

const struct stack *stacks_next(const struct stacks *stacks, size_t *at)
{
	while (*at < stacks->cap) {
		const struct stack *stack = stacks->slots[(*at)++];

		if (stack)
			return stack;
	}
	return NULL;
}
