/* A list of code made at run time, as anybody may write it: pieces come sorted, each is found at its
 * start unless a later one lies over it, and names are texts. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/names/perf_map.h"

#define ARENA_BYTES ((size_t)64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int fine)
{
	if (!fine)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena;
	struct perf_map map;

	if (arena_open(&arena, ARENA_BYTES))
		return 0;
	perf_map_parse((struct sv){ (const char *)data, size }, &arena, &map);
	for (size_t i = 0; i < map.len; i++) {
		const struct perf_map_entry *entry = &map.entries[i];

		check(i == 0 || map.entries[i - 1].start <= entry->start);
		check(entry->size > 0 && strlen(entry->name) > 0);
		for (const char *at = entry->name; *at; at++)
			check((unsigned char)*at >= 0x20 && *at != 0x7f);
		check(perf_map_find(&map, entry->start) != NULL);
	}
	(void)perf_map_find(&map, 0);
	(void)perf_map_find(&map, UINT64_MAX);
	arena_close(&arena);
	return 0;
}
