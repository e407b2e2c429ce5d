/*
 * endpoint_locks.c - block and mutex, in Go's shapes; delta_block and delta_mutex: what came since the last
 * such request, as godeltaprof's.
 */
#include <string.h>

#include "sampler/collect/locks.h"
#include "sampler/serve/endpoint.h"
#include "sampler/serve/snapshot.h"
#include "sampler/write/text.h"

/* What stands between a program's function and a lock: the C library's own, and C++'s classes. */
static bool is_lock_library(const char *name)
{
	static const char *const prefixes[] = { "pthread_", "__pthread_", "___pthread_", "mtx_",
		"cnd_", "sem_", "__gthread_", "std::", "__gnu_cxx::", "_ZNSt", "_ZNKSt", "_ZSt",
		"_ZN9__gnu_cxx", "_ZNK9__gnu_cxx" };

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	}
	return strstr(name, "__gthread_") != NULL;
}

/* The function that one side was in: of its innermost frame that is the program's. NULL: not known. */
static const char *function_of(struct symbols *symbols, uint32_t id)
{
	struct depot_stack stack = depot_get(id);
	const char *name = NULL;

	for (size_t i = 0; i < stack.len; i++) {
		struct symbol symbol;

		symbols_find(symbols, stack.pcs[i] - 1, &symbol);
		name = symbol.name;
		if (!is_lock_library(name))
			break;
	}
	return name;
}

static void add_label(const char *key, const char *name, struct pprof_label *out, size_t *len)
{
	if (name)
		out[(*len)++] = (struct pprof_label){ .key = key, .text = name };
}

static size_t block_labels(struct arena *arena, struct symbols *symbols,
	const struct tally_row *row, struct pprof_label out[static PPROF_LABELS_MAX])
{
	size_t len = 0;

	(void)arena;
	add_label("holder", function_of(symbols, row->key.other), out, &len);
	return len;
}

/* Compilers like to leave a function by jumping to the unlock, and then it is not on that stack: so its name
 * is there as well. */
static size_t mutex_labels(struct arena *arena, struct symbols *symbols,
	const struct tally_row *row, struct pprof_label out[static PPROF_LABELS_MAX])
{
	size_t len = 0;

	(void)arena;
	add_label("waiter", function_of(symbols, row->key.other), out, &len);
	add_label("holder", function_of(symbols, (uint32_t)row->key.number), out, &len);
	return len;
}

static void add_number(struct buf *out, int64_t number)
{
	buf_add_u64(out, number > 0 ? (uint64_t)number : 0);
}

typedef size_t labels_function(struct arena *, struct symbols *, const struct tally_row *,
	struct pprof_label out[static PPROF_LABELS_MAX]);

static void add_labels(struct buf *out, const struct pprof_label *labels, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		buf_add_cstr(out, i == 0 ? "# labels: {" : ", ");
		text_quoted(out, sv_from_cstr(labels[i].key));
		buf_add_byte(out, ':');
		text_quoted(out, sv_from_cstr(labels[i].text));
	}
	if (len > 0)
		buf_add_cstr(out, "}\n");
}

/* The clock ticks in nanoseconds. */
static void add_rows(struct buf *out, struct symbols *symbols, const struct tally *tally,
	labels_function *labels_of_row)
{
	size_t len;
	const struct tally_row **rows = snapshot_sorted(tally, 1, &len);

	for (size_t i = 0; rows && i < len; i++) {
		struct depot_stack stack = depot_get(rows[i]->key.stack);
		struct pprof_label labels[PPROF_LABELS_MAX];

		if (rows[i]->values[0] == 0 && rows[i]->values[1] == 0)
			continue;
		add_number(out, rows[i]->values[1]);
		buf_add_byte(out, ' ');
		add_number(out, rows[i]->values[0]);
		text_addresses(out, symbols, stack);
		buf_add_byte(out, '\n');
		add_labels(out, labels, labels_of_row(tally->arena, symbols, rows[i], labels));
		text_frames(out, symbols, stack);
		buf_add_byte(out, '\n');
	}
}

static void block_text(struct buf *out, struct symbols *symbols, const struct tally *tally)
{
	buf_add_cstr(out, "--- contention:\ncycles/second=1000000000\n");
	add_rows(out, symbols, tally, block_labels);
}

static void mutex_text(struct buf *out, struct symbols *symbols, const struct tally *tally)
{
	buf_add_cstr(out, "--- mutex:\ncycles/second=1000000000\nsampling period=");
	add_number(out, locks_mutex_fraction());
	buf_add_byte(out, '\n');
	add_rows(out, symbols, tally, mutex_labels);
}

static int take_block(struct tally *out, int since_last)
{
	return locks_take(LOCKS_PROFILE_BLOCK, since_last != 0, out);
}

static int take_mutex(struct tally *out, int since_last)
{
	return locks_take(LOCKS_PROFILE_MUTEX, since_last != 0, out);
}

static int since_last(const struct question *question)
{
	(void)question;
	return 1;
}

#define SHAPE                                                                         \
	{                                                                             \
		.values = { { "contentions", "count" }, { "delay", "nanoseconds" } }, \
		.values_len = 2, .period_type = { "contentions", "count" },           \
	}

static const struct snapshot_kind block = {
	.name = "block",
	.delta_name = "block-delta",
	.settings = SHAPE,
	.take = take_block,
	.labels = block_labels,
	.text = block_text,
};

static const struct snapshot_kind mutex = {
	.name = "mutex",
	.delta_name = "mutex-delta",
	.settings = SHAPE,
	.take = take_mutex,
	.labels = mutex_labels,
	.text = mutex_text,
};

static const struct snapshot_kind delta_block = {
	.name = "delta_block",
	.ignores_seconds = true,
	.settings = SHAPE,
	.take = take_block,
	.variant = since_last,
	.labels = block_labels,
	.text = block_text,
};

static const struct snapshot_kind delta_mutex = {
	.name = "delta_mutex",
	.ignores_seconds = true,
	.settings = SHAPE,
	.take = take_mutex,
	.variant = since_last,
	.labels = mutex_labels,
	.text = mutex_text,
};

static enum endpoint_result ask_block(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&block, question, answer, capture);
}

static enum endpoint_result ask_mutex(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&mutex, question, answer, capture);
}

static enum endpoint_result ask_delta_block(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&delta_block, question, answer, capture);
}

static enum endpoint_result ask_delta_mutex(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&delta_mutex, question, answer, capture);
}

static size_t count_block(struct arena *arena)
{
	(void)arena;
	return locks_count(LOCKS_PROFILE_BLOCK);
}

static size_t count_mutex(struct arena *arena)
{
	(void)arena;
	return locks_count(LOCKS_PROFILE_MUTEX);
}

const struct endpoint endpoint_block = {
	.name = "block",
	.description = "Stack traces that led to blocking on locks, conditions and semaphores",
	.count = count_block,
	.ask = ask_block,
};

const struct endpoint endpoint_mutex = {
	.name = "mutex",
	.description = "Stack traces of holders of contended locks",
	.count = count_mutex,
	.ask = ask_mutex,
};

const struct endpoint endpoint_delta_block = { .name = "delta_block", .ask = ask_delta_block };
const struct endpoint endpoint_delta_mutex = { .name = "delta_mutex", .ask = ask_delta_mutex };
