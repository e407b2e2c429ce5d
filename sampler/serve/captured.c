#include "sampler/serve/captured.h"

#include <string.h>

#include "sampler/store/depot.h"

struct kept {
	struct captured captured;
	struct symbols *symbols;
	struct tally tally;
};

static size_t labels_of_row(struct kept *kept, const struct tally_row *row,
	struct pprof_label out[static PPROF_LABELS_MAX])
{
	if (!kept->captured.labels)
		return 0;
	return kept->captured.labels(kept->tally.arena, kept->symbols, row, out);
}

static void add_row(struct pprof *pprof, struct kept *kept, const struct tally_row *row)
{
	struct pprof_label labels[PPROF_LABELS_MAX];

	if (row->key.stack || !kept->captured.without_stack)
		pprof_add_row(pprof, &row->key, row->values, labels,
			labels_of_row(kept, row, labels));
	else
		pprof_add_named(pprof, kept->captured.without_stack, row->values);
}

static void write_profile(void *state, struct arena *arena, struct answer *answer)
{
	struct kept *kept = state;
	struct pprof *pprof = pprof_open(arena, kept->symbols, &kept->captured.settings);
	struct err err = { .text = "out of memory for the profile" };
	const struct tally_row *row;
	size_t at = 0;

	while (pprof && (row = tally_next(&kept->tally, &at))) {
		if (row->values[1] > 0) /* else it stands for no time */
			add_row(pprof, kept, row);
	}
	if (pprof && kept->captured.lost[0] > 0)
		pprof_add_named(pprof, "[samples lost]", kept->captured.lost);
	if (!pprof || pprof_finish(pprof, &answer->body, &err))
		answer_error(arena, answer, 500, err.text);
}

/* The collector's own may be another by the time it is written. Everything is asked for now, so that lines can
 * be looked for meanwhile. */
static int keep_rows(struct kept *kept, const struct tally *tally, struct arena *arena)
{
	const struct tally_row *row;
	size_t at = 0;

	if (tally_open(&kept->tally, arena))
		return -1;
	while ((row = tally_next(tally, &at))) {
		struct depot_stack stack = depot_get(row->key.stack);
		struct pprof_label labels[PPROF_LABELS_MAX];

		tally_add(&kept->tally, &row->key, row->values, 1);
		symbols_ask_stack(kept->symbols, stack.pcs, stack.len);
		(void)labels_of_row(kept, row, labels);
	}
	return kept->tally.lost ? -1 : 0;
}

int captured_answer(const struct captured *captured, const char *name, struct arena *arena,
	struct answer *answer)
{
	struct kept *kept = arena_alloc(arena, sizeof(*kept));
	struct err err = { .text = "out of memory for the profile" };

	if (kept)
		kept->captured = *captured;
	if (!kept || answer_attachment(arena, answer, name) ||
		symbols_open(arena, &kept->symbols, &err) ||
		keep_rows(kept, captured->tally, arena)) {
		answer_error(arena, answer, 500, err.text);
		return -1;
	}
	answer->late = (struct late){
		.symbols = kept->symbols, .write = write_profile, .state = kept
	};
	return 0;
}

const char *captured_text(struct arena *arena, const char *text)
{
	return text && text[0] ? arena_strndup(arena, text, strlen(text)) : NULL;
}
