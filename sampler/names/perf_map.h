/*
 * perf_map.h - names of code that a program makes at run time: /tmp/perf-PID.map, which runtimes with
 * a just-in-time compiler write for perf (the kernel's tools/perf/Documentation/jit-interface.txt).
 * Lines of "START SIZE NAME", the numbers in hexadecimal, a name of any words.
 *
 * /tmp is everybody's: the file must be a regular one of our own user's or root's, and no link; lines
 * that make no sense are passed over.
 */
#ifndef SAMPLER_PERF_MAP_H
#define SAMPLER_PERF_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sv.h"
#include "sampler/memory/arena.h"

struct perf_map_entry {
	uint64_t start, size;
	const char *name;
};

struct perf_map {
	struct perf_map_entry *entries; /* sorted; of equal starts the last is the newest */
	size_t len;
};

/* Read this process's file; without one, the map is empty. */
void perf_map_read(struct arena *arena, struct perf_map *out);

/* The same of a text, which is left as it is. */
void perf_map_parse(struct sv text, struct arena *arena, struct perf_map *out);

/* NULL: it is in no piece of code that was listed. */
const struct perf_map_entry *perf_map_find(const struct perf_map *map, uint64_t address);

#endif
