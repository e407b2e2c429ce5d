/*
 * top.h - what a profile's functions cost, flat and with what they call, as `pprof -top` counts.
 *
 * Frames are merged by function name (frames without one by their mapping); a function that is on
 * a stack twice counts once for `cum`; what makes less than half a percent of the total is dropped.
 */
#ifndef PROFILE_TOP_H
#define PROFILE_TOP_H

#include "profile/profile.h"

enum top_inline {
	TOP_NOT_INLINED = 0,
	TOP_INLINED,
	TOP_PARTLY_INLINED,
};

struct top_row {
	struct sv name;    /* of the function; else of the mapping, without its folders */
	bool is_mapping;   /* the name is a mapping's: shown in brackets */
	int64_t flat, cum; /* in the type's unit */
	enum top_inline inlined;
};

struct top {
	struct top_row *rows; /* largest flat first */
	size_t rows_len;      /* after dropping, and after the limit */
	size_t dropped;       /* functions below the cutoff */
	size_t kept;          /* functions above it: rows_len before the limit */
	int64_t total;        /* of the samples' magnitudes */
	int64_t shown;        /* of the rows' flat values */
	int64_t cutoff;       /* of cum, below which rows were dropped */
	struct sv unit;       /* of the values */
	struct sv unit_shown; /* in which to print them */
};

/* `limit` rows at most, 0: all. Borrows from the profile. To be freed by top_free(). */
int top_new(const struct profile *profile, size_t type, size_t limit, struct top **out,
	struct err *err);
void top_free(struct top *top);

#endif
