#include "sampler/store/labels.h"

#include <string.h>

#include "sampler/store/intern.h"

#define TEXT_BYTES ((size_t)16 << 20)
#define SET_BYTES  ((size_t)4 << 20)

static struct intern texts = INTERN_INIT(TEXT_BYTES, 0);
static struct intern sets = INTERN_INIT(SET_BYTES, 0);

/* A text's own length is in the entry's `info`. */
uint32_t labels_text_sigsafe(struct sv text)
{
	uint64_t words[(LABELS_TEXT_MAX + 8) / 8] = { 0 };
	size_t len = text.len < LABELS_TEXT_MAX ? text.len : LABELS_TEXT_MAX;

	if (len == 0)
		return 0;
	memcpy(words, text.ptr, len);
	return intern_put_sigsafe(&texts, words, (len + 7) / 8, (uint16_t)len);
}

struct sv labels_text_of(uint32_t id)
{
	const struct intern_entry *entry;

	if (id == 0)
		return SV("");
	entry = intern_get(&texts, id);
	return (struct sv){ (const char *)entry->words, entry->info };
}

size_t labels_of(uint32_t set, struct label_pair out[static LABELS_SET_MAX])
{
	const struct intern_entry *entry;

	if (set == 0)
		return 0;
	entry = intern_get(&sets, set);
	for (size_t i = 0; i < entry->key_words; i++)
		out[i] = (struct label_pair){ (uint32_t)(entry->words[i] >> 32),
			(uint32_t)entry->words[i] };
	return entry->key_words;
}

uint32_t labels_with_sigsafe(uint32_t before, uint32_t key, uint32_t value)
{
	struct label_pair pairs[LABELS_SET_MAX];
	size_t before_len = labels_of(before, pairs), len = 0, at = 0;
	uint64_t words[LABELS_SET_MAX + 1];

	if (key == 0)
		return before;
	while (at < before_len && pairs[at].key < key) {
		words[len++] = (uint64_t)pairs[at].key << 32 | pairs[at].value;
		at++;
	}
	if (value)
		words[len++] = (uint64_t)key << 32 | value;
	if (at < before_len && pairs[at].key == key)
		at++;
	for (; at < before_len; at++)
		words[len++] = (uint64_t)pairs[at].key << 32 | pairs[at].value;
	if (len > LABELS_SET_MAX)
		return before;
	return len ? intern_put_sigsafe(&sets, words, len, 0) : 0;
}
