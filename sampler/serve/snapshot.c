#include "sampler/serve/snapshot.h"

#include "base/clock.h"
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

static int write_proto(struct arena *arena, const struct snapshot_kind *kind,
	struct tally *tally, uint64_t duration_ns, struct answer *answer)
{
	struct pprof_settings settings = kind->settings;
	struct symbols *symbols;
	const struct tally_row *row;
	struct pprof *pprof;
	struct err err;
	size_t at = 0;

	settings.period = kind->period ? kind->period() : 1;
	settings.time_unix_ns = clock_unix_us() * 1000;
	settings.duration_ns = (int64_t)duration_ns;
	settings.comments[0] = kind->comment ? kind->comment(arena) : NULL;
	if (duration_ns)
		settings.default_sample_type = NULL; /* Go's differences lose it */
	if (symbols_open(arena, &symbols, &err))
		return -1;
	if (kind->merge)
		kind->merge(tally, symbols);
	pprof = pprof_open(arena, symbols, &settings);
	while (pprof && (row = tally_next(tally, &at))) {
		struct pprof_label labels[PPROF_LABELS_MAX];
		bool any = false;
		size_t len;

		for (size_t i = 0; i < settings.values_len; i++)
			any |= row->values[i] != 0;
		if (!any)
			continue;
		len = kind->labels ? kind->labels(arena, symbols, row, labels) : 0;
		pprof_add_row(pprof, &row->key, row->values, labels, len);
	}
	return pprof ? pprof_finish(pprof, &answer->body, &err) : -1;
}

static void write_text(const struct snapshot_kind *kind, struct symbols *symbols,
	struct tally *tally, struct buf *out)
{
	if (kind->merge)
		kind->merge(tally, symbols);
	kind->text(out, symbols, tally);
}

static void end(struct capture *capture, struct arena *arena, struct answer *answer)
{
	struct delta *delta = capture->state;
	const struct tally_row *row;
	struct tally now;
	size_t at = 0;

	if (answer_attachment(arena, answer, delta->kind->delta_name))
		return;
	if (tally_open(&now, arena) || delta->kind->take(&now, delta->variant)) {
		answer_error(arena, answer, 500, "failed to collect profile");
		return;
	}
	while ((row = tally_next(&delta->tally, &at)))
		tally_add(&now, &row->key, row->values, -1);
	if (write_proto(arena, delta->kind, &now, clock_mono_ns() - delta->began_ns, answer))
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
	struct symbols *symbols;
	struct tally tally;
	struct err err;

	if (!kind->ignores_seconds && question_text(question, SV("seconds")).len > 0)
		return begin_delta(kind, question, answer, capture);
	if (debug)
		answer_text(question->arena, answer, ANSWER_BODY_MAX);
	else
		(void)answer_attachment(question->arena, answer, kind->name);
	if (answer->is_error)
		return ENDPOINT_ANSWERED;
	if (tally_open(&tally, question->arena) ||
		kind->take(&tally, kind->variant ? kind->variant(question) : 0))
		answer_error(question->arena, answer, 500, "failed to collect profile");
	else if (debug && symbols_open(question->arena, &symbols, &err))
		answer_error(question->arena, answer, 500, err.text);
	else if (debug)
		write_text(kind, symbols, &tally, &answer->body);
	else if (write_proto(question->arena, kind, &tally, 0, answer))
		answer_error(question->arena, answer, 500, "the profile is too large");
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
