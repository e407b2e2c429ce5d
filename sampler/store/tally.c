#include "sampler/store/tally.h"

#include <string.h>

#define FIRST_SLOTS ((size_t)1024)

_Static_assert(sizeof(struct tally_key) == 3 * sizeof(uint64_t), "keys have no padding");

int tally_open(struct tally *tally, struct arena *arena)
{
	*tally = (struct tally){ .arena = arena, .cap = FIRST_SLOTS };
	tally->slots = arena_alloc(arena, tally->cap * sizeof(struct tally_row *));
	return tally->slots ? 0 : -1;
}

static uint64_t hash_of(const struct tally_key *key)
{
	uint64_t words[3], hash = 0;

	memcpy(words, key, sizeof(words));
	for (size_t i = 0; i < 3; i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15U + (hash >> 29);
	return hash ^ hash >> 32;
}

/* The slot of a row: its own, or the empty one where it belongs. */
static struct tally_row **find(
	struct tally_row **slots, size_t cap, const struct tally_key *key)
{
	size_t at = (size_t)hash_of(key) & (cap - 1);

	while (slots[at] && memcmp(&slots[at]->key, key, sizeof(*key)) != 0)
		at = (at + 1) & (cap - 1);
	return &slots[at];
}

static bool grow(struct tally *tally)
{
	size_t cap = tally->cap * 2;
	struct tally_row **slots = arena_alloc(tally->arena, cap * sizeof(struct tally_row *));

	if (!slots)
		return false;
	for (size_t i = 0; i < tally->cap; i++) {
		if (tally->slots[i])
			*find(slots, cap, &tally->slots[i]->key) = tally->slots[i];
	}
	tally->slots = slots;
	tally->cap = cap;
	return true;
}

void tally_add(struct tally *tally, const struct tally_key *key,
	const int64_t values[static TALLY_VALUES], int sign)
{
	struct tally_row **slot;

	if (tally->len * 2 >= tally->cap && !grow(tally)) {
		tally->lost++;
		return;
	}
	slot = find(tally->slots, tally->cap, key);
	if (!*slot) {
		*slot = arena_alloc(tally->arena, sizeof(**slot));
		if (!*slot) {
			tally->lost++;
			return;
		}
		(*slot)->key = *key;
		tally->len++;
	}
	for (size_t i = 0; i < TALLY_VALUES; i++)
		(*slot)->values[i] += sign * values[i];
}

const struct tally_row *tally_next(const struct tally *tally, size_t *at)
{
	while (*at < tally->cap) {
		const struct tally_row *row = tally->slots[(*at)++];

		if (row)
			return row;
	}
	return NULL;
}
