#include "sampler/serve/snapshot.h"

#include "base/clock.h"
#include "sampler/collect/threads.h"
#include "sampler/store/depot.h"
#include "sampler/store/labels.h"
#include "sampler/write/text.h"

#define SECONDS_MAX ((int64_t)7 * 24 * 3600)

/* What is kept between the two looks of a difference. */
struct delta {
	const struct snapshot_kind *kind;
	int variant;
	uint64_t began_ns;
	struct tally tally;
};

/* What was taken, until it is written. */
struct taken {
	const struct snapshot_kind *kind;
	struct symbols *symbols;
	struct pprof_settings settings;
	struct tally tally;
};

static bool has_values(const struct taken *taken, const struct tally_row *row)
{
	bool any = false;

	for (size_t i = 0; i < taken->settings.values_len; i++)
		any |= row->values[i] != 0;
	return any;
}

static size_t labels_of_row(struct taken *taken, const struct tally_row *row,
	struct pprof_label out[static PPROF_LABELS_MAX])
{
	const struct snapshot_kind *kind = taken->kind;

	return kind->labels ? kind->labels(taken->tally.arena, taken->symbols, row, out) : 0;
}

static void write_proto(void *state, struct arena *arena, struct answer *answer)
{
	struct taken *taken = state;
	struct pprof *pprof = pprof_open(arena, taken->symbols, &taken->settings);
	const struct tally_row *row;
	struct err err;
	size_t at = 0;

	while (pprof && (row = tally_next(&taken->tally, &at))) {
		struct pprof_label labels[PPROF_LABELS_MAX];

		if (has_values(taken, row))
			pprof_add_row(pprof, &row->key, row->values, labels,
				labels_of_row(taken, row, labels));
	}
	if (!pprof || pprof_finish(pprof, &answer->body, &err))
		answer_error(arena, answer, 500, "the profile is too large");
}

static void write_text(void *state, struct arena *arena, struct answer *answer)
{
	struct taken *taken = state;

	(void)arena;
	taken->kind->text(&answer->body, taken->symbols, &taken->tally);
}

/* Everything that will be written is asked for now, so that lines can be looked for meanwhile. */
static void ask_for_names(struct taken *taken)
{
	const struct tally_row *row;
	size_t at = 0;

	while ((row = tally_next(&taken->tally, &at))) {
		struct pprof_label labels[PPROF_LABELS_MAX];
		struct depot_stack stack;

		if (!has_values(taken, row))
			continue;
		stack = depot_get(row->key.stack);
		symbols_ask_stack(taken->symbols, stack.pcs, stack.len);
		(void)labels_of_row(taken, row, labels);
	}
}

static int write_later(struct taken *taken, bool as_text, uint64_t duration_ns,
	struct arena *arena, struct answer *answer)
{
	const struct snapshot_kind *kind = taken->kind;
	struct err err;

	taken->settings = kind->settings;
	taken->settings.period = kind->period ? kind->period() : 1;
	taken->settings.time_unix_ns = clock_unix_us() * 1000;
	taken->settings.duration_ns = (int64_t)duration_ns;
	taken->settings.comments[0] = kind->comment ? kind->comment(arena) : NULL;
	if (duration_ns)
		taken->settings.default_sample_type = NULL; /* Go's differences lose it */
	if (symbols_open(arena, &taken->symbols, &err))
		return -1;
	if (kind->merge)
		kind->merge(&taken->tally, taken->symbols);
	ask_for_names(taken);
	answer->late = (struct late){ .symbols = taken->symbols,
		.write = as_text ? write_text : write_proto,
		.state = taken };
	return 0;
}

static void end(struct capture *capture, struct arena *arena, struct answer *answer)
{
	struct delta *delta = capture->state;
	struct taken *taken = arena_alloc(arena, sizeof(*taken));
	const struct tally_row *row;
	size_t at = 0;

	if (answer_attachment(arena, answer, delta->kind->delta_name))
		return;
	if (!taken || tally_open(&taken->tally, arena) ||
		delta->kind->take(&taken->tally, delta->variant)) {
		answer_error(arena, answer, 500, "failed to collect profile");
		return;
	}
	taken->kind = delta->kind;
	while ((row = tally_next(&delta->tally, &at)))
		tally_add(&taken->tally, &row->key, row->values, -1);
	if (write_later(taken, false, clock_mono_ns() - delta->began_ns, arena, answer))
		answer_error(arena, answer, 500, "failed to compute delta");
}

static void cut(struct capture *capture)
{
	(void)capture; /* all of it lies in the connection's arena */
}

static const struct capture_kind delta_capture = { .end = end, .cut = cut };

static enum endpoint_result begin_delta(const struct snapshot_kind *kind,
	const struct question *question, struct answer *answer, struct capture *capture)
{
	struct delta *delta = arena_alloc(question->arena, sizeof(*delta));
	bool present;
	int64_t seconds = question_int(question, SV("seconds"), &present);

	if (seconds <= 0) {
		answer_error(question->arena, answer, 400,
			"invalid value for \"seconds\" - must be a positive integer");
		return ENDPOINT_ANSWERED;
	}
	if (question_int(question, SV("debug"), &present) != 0) {
		answer_error(question->arena, answer, 400,
			"seconds and debug params are incompatible");
		return ENDPOINT_ANSWERED;
	}
	if (seconds > SECONDS_MAX)
		seconds = SECONDS_MAX;
	if (delta)
		*delta = (struct delta){ .kind = kind,
			.variant = kind->variant ? kind->variant(question) : 0,
			.began_ns = question->now_ns };
	if (!delta || tally_open(&delta->tally, question->arena) ||
		kind->take(&delta->tally, delta->variant)) {
		answer_error(question->arena, answer, 500, "failed to collect profile");
		return ENDPOINT_ANSWERED;
	}
	*capture = (struct capture){ .kind = &delta_capture,
		.state = delta,
		.until_ns = question->now_ns + (uint64_t)seconds * 1000000000 };
	return ENDPOINT_CAPTURE;
}

enum endpoint_result snapshot_ask(const struct snapshot_kind *kind,
	const struct question *question, struct answer *answer, struct capture *capture)
{
	bool present;
	int64_t debug = question_int(question, SV("debug"), &present);
	struct taken *taken;

	if (!kind->ignores_seconds && question_text(question, SV("seconds")).len > 0)
		return begin_delta(kind, question, answer, capture);
	if (debug)
		answer_text(question->arena, answer, ANSWER_BODY_MAX);
	else
		(void)answer_attachment(question->arena, answer, kind->name);
	if (answer->is_error)
		return ENDPOINT_ANSWERED;
	taken = arena_alloc(question->arena, sizeof(*taken));
	if (taken)
		taken->kind = kind;
	if (!taken || tally_open(&taken->tally, question->arena) ||
		kind->take(&taken->tally, kind->variant ? kind->variant(question) : 0))
		answer_error(question->arena, answer, 500, "failed to collect profile");
	else if (write_later(taken, debug != 0, 0, question->arena, answer))
		answer_error(question->arena, answer, 500, "the modules cannot be read");
	return ENDPOINT_ANSWERED;
}

/* Heap sort: qsort() may take memory from the program's heap. */
static void sift(const struct tally_row **rows, size_t at, size_t len, size_t column)
{
	for (;;) {
		size_t child = 2 * at + 1;
		const struct tally_row *moving = rows[at];

		if (child >= len)
			return;
		if (child + 1 < len &&
			rows[child + 1]->values[column] < rows[child]->values[column])
			child++;
		if (moving->values[column] <= rows[child]->values[column])
			return;
		rows[at] = rows[child];
		rows[child] = moving;
		at = child;
	}
}

const struct tally_row **snapshot_sorted(const struct tally *tally, size_t column, size_t *len)
{
	const struct tally_row **rows =
		arena_alloc(tally->arena, (tally->len + 1) * sizeof(struct tally_row *));
	const struct tally_row *row;
	size_t at = 0;

	*len = 0;
	while (rows && (row = tally_next(tally, &at)))
		rows[(*len)++] = row;
	for (size_t i = *len / 2; rows && i > 0; i--)
		sift(rows, i - 1, *len, column);
	for (size_t last = *len; rows && last > 1; last--) {
		const struct tally_row *smallest = rows[0];

		rows[0] = rows[last - 1];
		rows[last - 1] = smallest;
		sift(rows, 0, last - 1, column);
	}
	return rows;
}

void snapshot_text_counts(struct buf *out, struct symbols *symbols, const struct tally *tally,
	const char *name, snapshot_labels *labels)
{
	size_t len;
	const struct tally_row **rows = snapshot_sorted(tally, 0, &len);
	uint64_t total = 0;

	for (size_t i = 0; rows && i < len; i++)
		total += (uint64_t)rows[i]->values[0];
	buf_add_cstr(out, name);
	buf_add_cstr(out, " profile: total ");
	buf_add_u64(out, total);
	buf_add_byte(out, '\n');
	for (size_t i = 0; rows && i < len; i++) {
		struct depot_stack stack = depot_get(rows[i]->key.stack);
		struct pprof_label own[PPROF_LABELS_MAX];

		buf_add_u64(out, (uint64_t)rows[i]->values[0]);
		text_addresses(out, symbols, stack);
		buf_add_byte(out, '\n');
		text_labels(out, rows[i]->key.labels, own,
			labels ? labels(tally->arena, symbols, rows[i], own) : 0);
		text_frames(out, symbols, stack);
		buf_add_byte(out, '\n');
	}
}

size_t snapshot_state_label(struct arena *arena, struct symbols *symbols,
	const struct tally_row *row, struct pprof_label out[static PPROF_LABELS_MAX])
{
	(void)arena;
	out[0] = (struct pprof_label){ .key = "state",
		.text = thread_state_name((enum thread_state)row->key.other, symbols,
			depot_get(row->key.stack)) };
	return 1;
}
