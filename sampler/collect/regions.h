/*
 * regions.h - the program's own labels, regions and log lines (postern.h), and how long regions last.
 */
#ifndef SAMPLER_REGIONS_H
#define SAMPLER_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sv.h"

/* Upper bounds of the histogram's buckets, ns; the last bucket has none. */
#define REGION_BUCKETS 15
extern const uint64_t region_bounds_ns[REGION_BUCKETS - 1];

struct region_histogram {
	struct sv name;
	uint64_t counts[REGION_BUCKETS]; /* each bucket by itself */
	uint64_t sum_ns;
};

/* The histogram after `*at` (begin with 0); false at the end. */
bool regions_next(size_t *at, struct region_histogram *out);

/* Ends of regions that could not be counted: too many names. */
uint64_t regions_lost(void);

#endif
