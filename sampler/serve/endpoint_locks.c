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

/* The function that one side was in: of its innermost frame that is the program's. False: not known. */
static bool find_function(struct symbols *symbols, uint32_t id, struct symbol *out)
{
	struct depot_stack stack = depot_get(id);

	for (size_t i = 0; i < stack.len; i++) {
		symbols_find(symbols, stack.pcs[i] - 1, out);
		if (!is_lock_library(out->name))
			break;
	}
	return stack.len > 0;
}

static const char *function_of(struct symbols *symbols, uint32_t id)
{
	struct symbol symbol;

	return find_function(symbols, id, &symbol) ? symbol.lines[symbol.lines_len - 1].function
						   : NULL;
}

/* One stack for each function that a label shows. */
struct sides {
	struct {
		uint64_t function; /* where it starts; 0: empty */
		uint32_t stack;
	} * slots; /* open addressing */

	size_t cap;
};

static uint32_t side_of(struct sides *sides, struct symbols *symbols, uint32_t id)
{
	struct symbol symbol;
	uint64_t function;
	size_t at;

	if (!find_function(symbols, id, &symbol))
		return 0;
	function = symbol.address - symbol.offset;
	at = (size_t)(function * 0x9e3779b97f4a7c15U >> 32) & (sides->cap - 1);
	while (sides->slots[at].function && sides->slots[at].function != function)
		at = (at + 1) & (sides->cap - 1);
	if (!sides->slots[at].function) {
		sides->slots[at].function = function;
		sides->slots[at].stack = id;
	}
	return sides->slots[at].stack;
}

/* A stack waits for another in many ways, of which the labels show the functions only. */
static void merge(struct tally *tally, struct symbols *symbols)
{
	struct sides sides = { .cap = 16 };
	const struct tally_row *row;
	struct tally merged;
	size_t at = 0;

	while (sides.cap < 4 * (tally->len + 1)) /* two sides, half of the slots empty */
		sides.cap *= 2;
	sides.slots = arena_alloc(tally->arena, sides.cap * sizeof(sides.slots[0]));
	if (!sides.slots || tally_open(&merged, tally->arena))
		return;
	while ((row = tally_next(tally, &at))) {
		struct tally_key key = row->key;

		key.other = side_of(&sides, symbols, key.other);
		key.number = side_of(&sides, symbols, (uint32_t)key.number);
		tally_add(&merged, &key, row->values, 1);
	}
	merged.lost += tally->lost;
	*tally = merged;
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
		text_labels(out, rows[i]->key.labels, labels,
			labels_of_row(tally->arena, symbols, rows[i], labels));
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
	.merge = merge,
	.labels = block_labels,
	.text = block_text,
};

static const struct snapshot_kind mutex = {
	.name = "mutex",
	.delta_name = "mutex-delta",
	.settings = SHAPE,
	.take = take_mutex,
	.merge = merge,
	.labels = mutex_labels,
	.text = mutex_text,
};

static const struct snapshot_kind delta_block = {
	.name = "delta_block",
	.ignores_seconds = true,
	.settings = SHAPE,
	.take = take_block,
	.variant = since_last,
	.merge = merge,
	.labels = block_labels,
	.text = block_text,
};

static const struct snapshot_kind delta_mutex = {
	.name = "delta_mutex",
	.ignores_seconds = true,
	.settings = SHAPE,
	.take = take_mutex,
	.variant = since_last,
	.merge = merge,
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
