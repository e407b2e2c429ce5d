/*
 * pprof.h - writing profile.proto, gzipped, as Go's runtime/pprof does.
 *
 * Source of the format: github.com/google/pprof/proto/profile.proto. Leaf frames first; the
 * address of a caller's location lies inside its call instruction (return address - 1); every
 * mapping that is used is marked as having functions, so that no client asks for symbols; as having
 * files, lines and inlined frames where all its locations have them.
 */
#ifndef SAMPLER_PPROF_H
#define SAMPLER_PPROF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "sampler/memory/arena.h"
#include "sampler/names/symbols.h"
#include "sampler/store/tally.h"

#define PPROF_VALUES_MAX   4
#define PPROF_LABELS_MAX   8
#define PPROF_COMMENTS_MAX 8

struct pprof_value_type {
	const char *type, *unit; /* "cpu", "nanoseconds" */
};

struct pprof_label {
	const char *key;
	const char *text; /* or NULL: `number` counts */
	int64_t number;
};

struct pprof_stack {
	const uintptr_t *pcs; /* innermost first; return addresses */
	size_t len;
	bool leaf_is_exact; /* but for the first, when a sample stopped there */
};

struct pprof_settings {
	struct pprof_value_type values[PPROF_VALUES_MAX];
	size_t values_len;
	struct pprof_value_type period_type;
	int64_t period;
	int64_t time_unix_ns, duration_ns;        /* duration 0: left out */
	const char *default_sample_type;          /* or NULL */
	const char *comments[PPROF_COMMENTS_MAX]; /* NULL after the last */
	/* Innermost frames of such functions are left out, unless none would stay; or NULL. */
	bool (*hides)(const char *name);
};

struct pprof;

struct pprof *pprof_open(
	struct arena *arena, struct symbols *symbols, const struct pprof_settings *settings);

/* Add one sample, with as many values as the settings name. */
void pprof_add(struct pprof *pprof, const struct pprof_stack *stack, const int64_t *values,
	const struct pprof_label *labels, size_t labels_len);

/* Add a row of a tally: its stack, its labels, and `extra` ones of the profile's own. */
void pprof_add_row(struct pprof *pprof, const struct tally_key *key, const int64_t *values,
	const struct pprof_label *extra, size_t extra_len);

/* A sample of one made-up frame, for what was lost or cannot be shown. */
void pprof_add_named(struct pprof *pprof, const char *function, const int64_t *values);

/* Write the whole profile, gzipped, into `out`. */
int pprof_finish(struct pprof *pprof, struct buf *out, struct err *err);

#endif
