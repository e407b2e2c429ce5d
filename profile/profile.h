/*
 * profile.h - a pprof file in memory, from any runtime.
 *
 * Hostile files end in an error: sizes are bounded before they are believed, every index and id is
 * resolved once, the gzip stream may not unpack to more than PROFILE_BYTES_MAX.  What is handed out
 * holds array indices only, all of them in range.
 */
#ifndef PROFILE_PROFILE_H
#define PROFILE_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sv.h"

#define PROFILE_BYTES_MAX  ((size_t)1 << 30) /* unpacked */
#define PROFILE_MEMORY_MAX ((size_t)4 << 30) /* of all that is made of it */
#define PROFILE_NONE       UINT32_MAX        /* no mapping, no function */

struct profile_type {
	struct sv type, unit; /* "cpu", "nanoseconds" */
};

struct profile_mapping {
	uint64_t start, limit, offset;
	struct sv file, build_id;
	bool has_functions;
};

struct profile_function {
	struct sv name, system_name, file;
	int64_t start_line;
};

struct profile_line {
	uint32_t function; /* PROFILE_NONE: not known */
	int64_t line;
};

struct profile_location {
	uint64_t address;
	uint32_t mapping;                 /* PROFILE_NONE: not known */
	const struct profile_line *lines; /* innermost inlined frame first */
	size_t lines_len;
};

struct profile_sample {
	const uint32_t *locations; /* leaf first */
	size_t locations_len;
	const int64_t *values; /* one for each type */
};

/* To be read only. */
struct profile {
	struct profile_type *types;
	struct profile_sample *samples;
	struct profile_mapping *mappings;
	struct profile_location *locations;
	struct profile_function *functions;
	struct sv *comments;
	size_t types_len, samples_len, mappings_len, locations_len, functions_len, comments_len;
	size_t default_type; /* which type is shown when nobody says: named by the file, or last */
	struct profile_type period_type;
	int64_t period, time_ns, duration_ns;
	struct profile_parts *parts; /* private: what the above points into */
};

/* Read a profile.proto, gzipped or not. Copies what it keeps. */
int profile_parse(struct sv bytes, struct profile **out, struct err *err);
void profile_free(struct profile *profile);

/* The type of that name or number ("inuse_space", "1"; "" is the default one). */
int profile_find_type(
	const struct profile *profile, struct sv name, size_t *out, struct err *err);

#endif
