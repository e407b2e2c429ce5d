/*
 * captured.h - the answer of a capture: its samples, copied out of the collector, and written as a profile when
 * their names are there.
 */
#ifndef SAMPLER_CAPTURED_H
#define SAMPLER_CAPTURED_H

#include "sampler/serve/endpoint.h"
#include "sampler/serve/snapshot.h"
#include "sampler/write/pprof.h"

struct captured {
	struct pprof_settings settings; /* its texts live in the arena, or for ever */
	const struct tally *tally;      /* the collector's; copied */
	snapshot_labels *labels;        /* NULL: none */
	const char
		*without_stack; /* what a sample is called that has none; NULL: as elsewhere */
	int64_t lost[PPROF_VALUES_MAX]; /* samples that found no room; all 0: none */
};

/* Begin the attachment `name`, to be written later. -1 when there is no memory: an error answer then. */
int captured_answer(const struct captured *captured, const char *name, struct arena *arena,
	struct answer *answer);

/* A text of the collector's own, copied; NULL for NULL, "", and without memory. */
const char *captured_text(struct arena *arena, const char *text);

#endif
