/*
 * maps.h - the process's own memory, as /proc/self/maps tells it.
 */
#ifndef SAMPLER_MAPS_H
#define SAMPLER_MAPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sv.h"
#include "sampler/memory/arena.h"

struct mapping {
	uint64_t start, limit, file_offset;
	uint64_t inode;
	uint32_t device_major, device_minor;
	bool readable, writable, executable;
	struct sv path; /* without " (deleted)"; "" for memory without a name */
	bool deleted;
};

/* Read the whole text into the arena. -1 when it cannot be read. */
int maps_read(struct arena *arena, struct sv *text);

/* Cut the next line off `text` and read it. False at the end; lines that make no sense are passed
 * over. The path points into the text. */
bool maps_next(struct sv *text, struct mapping *out);

#endif
