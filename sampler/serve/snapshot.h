/*
 * snapshot.h - the endpoints whose profile is there at any moment: heap, allocs, mutex, block,
 * threadcreate.  With `seconds` the answer is the difference of two, as Go's (pprof.Handler).
 */
#ifndef SAMPLER_SNAPSHOT_H
#define SAMPLER_SNAPSHOT_H

#include "sampler/names/symbols.h"
#include "sampler/serve/endpoint.h"
#include "sampler/store/tally.h"
#include "sampler/write/pprof.h"

/* A row's own labels, beside those of its threads; returns how many. `arena` holds what they point to. */
typedef size_t snapshot_labels(struct arena *arena, struct symbols *symbols,
	const struct tally_row *row, struct pprof_label out[static PPROF_LABELS_MAX]);

struct snapshot_kind {
	const char *name, *delta_name;  /* of the attachment: "heap", "heap-delta" */
	struct pprof_settings settings; /* period and times are filled in later */
	bool ignores_seconds; /* a difference in itself: since it was last asked for */
	/* Add what is there now. `?peak=1` and the like are the kind's own to read from the question,
	 * which is NULL for the second look of a difference: `variant` is what the first returned. */
	int (*take)(struct tally *out, int variant);
	/* Which variant of the profile the question asks for; NULL: 0. */
	int (*variant)(const struct question *question);
	int64_t (*period)(void); /* NULL: 1 */
	/* Make one of rows that differ in nothing that is shown; NULL: there are none. */
	void (*merge)(struct tally *tally, struct symbols *symbols);
	snapshot_labels *labels; /* NULL: none */
	/* What the profile cannot know; NULL or a NULL result: nothing. */
	const char *(*comment)(struct arena *arena);
	/* debug=1 */
	void (*text)(struct buf *out, struct symbols *symbols, const struct tally *tally);
};

/* Answer a question for this profile: at once, or as a capture. */
enum endpoint_result snapshot_ask(const struct snapshot_kind *kind,
	const struct question *question, struct answer *answer, struct capture *capture);

/* The rows sorted by values[column], largest first; `*len` of them, in the arena. NULL without memory. */
const struct tally_row **snapshot_sorted(const struct tally *tally, size_t column, size_t *len);

/* debug=1 of profiles that count one thing: "NAME profile: total N", and each stack with its number. `labels` may be NULL. */
void snapshot_text_counts(struct buf *out, struct symbols *symbols, const struct tally *tally,
	const char *name, snapshot_labels *labels);

/* The label `state` of rows whose key.other is an enum thread_state. */
snapshot_labels snapshot_state_label;

#endif
