/* heap, allocs, delta_heap: one profile, shown first by what is in use or by what was allocated. */
#include <string.h>

#include "base/clock.h"
#include "sampler/collect/heap.h"
#include "sampler/proc/process.h"
#include "sampler/serve/snapshot.h"
#include "sampler/write/text.h"

#define COMMENT_MAX 512

static int view_of(const struct question *question)
{
	bool present;
	int view = HEAP_NOW;

	if (question_int(question, SV("peak"), &present) > 0)
		view |= HEAP_PEAK;
	if (question_int(question, SV("debug"), &present) != 0)
		view |= HEAP_RAW;
	return view;
}

static int view_since(const struct question *question)
{
	return view_of(question) | HEAP_SINCE;
}

static int64_t period(void)
{
	struct heap_state state;

	heap_read(&state);
	return (int64_t)state.last_rate;
}

/* "bytes": the size of each, as Go's, without a unit. */
static size_t size_label(struct arena *arena, struct symbols *symbols,
	const struct tally_row *row, struct pprof_label out[static PPROF_LABELS_MAX])
{
	(void)arena;
	(void)symbols;
	out[0] = (struct pprof_label){ .key = "bytes", .number = (int64_t)row->key.number };
	return 1;
}

/* What allocates, seen from inside: the allocator's and the C++ library's own functions. */
static bool is_allocator(const char *name)
{
	static const char *const whole[] = { "malloc", "calloc", "realloc", "reallocarray",
		"memalign", "aligned_alloc", "posix_memalign", "valloc", "pvalloc",
		"__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_memalign" };
	static const char *const begins[] = { "_Znw", "_Zna", "operator new",
		"_ZNSt16allocator_traitsI", "_ZNSt15__new_allocatorI", "_ZNSaI",
		"_ZN9__gnu_cxx13new_allocatorI", "_ZN9__gnu_cxx14__alloc_traitsI",
		"std::allocator_traits<", "std::__new_allocator<", "std::allocator<",
		"__gnu_cxx::new_allocator<", "__gnu_cxx::__alloc_traits<" };

	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
		if (strcmp(name, whole[i]) == 0)
			return true;
	}
	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
		if (strncmp(name, begins[i], strlen(begins[i])) == 0)
			return true;
	}
	return false;
}

static const char *comment(struct arena *arena)
{
	char when[CLOCK_RFC3339_SIZE];
	struct heap_state state;
	struct buf text;

	heap_read(&state);
	if (arena_buf(arena, COMMENT_MAX, &text))
		return NULL;
	if (state.rate)
		buf_printf(&text, "heap sampling: once in %lu bytes on average",
			(unsigned long)state.rate);
	else
		buf_add_cstr(&text, "heap sampling is off now");
	if (state.blind_until_us) {
		clock_rfc3339(state.blind_until_us, when);
		buf_printf(&text,
			"; it was off until %s: what was allocated before and is in "
			"use is not in here",
			when);
	}
	buf_printf(&text,
		"; samples: %lu; without room: %lu; with a part of their stack only: %lu",
		(unsigned long)state.samples, (unsigned long)state.lost,
		(unsigned long)state.cut);
	buf_printf(&text, "; most in use so far (bytes): %ld", (long)state.peak);
	buf_add_byte(&text, '\0');
	return text.failed ? NULL : text.ptr;
}

static void add_values(struct buf *out, const int64_t *values)
{
	static const char *const after[] = { ": ", " [", ": ", "]" };
	static const int order[] = { 2, 3, 0, 1 };

	for (size_t i = 0; i < 4; i++) {
		int64_t value = values[order[i]];

		if (value < 0)
			buf_add_byte(out, '-');
		buf_add_u64(out, (uint64_t)(value < 0 ? -value : value));
		buf_add_cstr(out, after[i]);
	}
}

static struct depot_stack without_allocator(struct symbols *symbols, struct depot_stack stack)
{
	size_t hidden = 0;
	struct symbol symbol;

	while (hidden < stack.len) {
		symbols_find(symbols, stack.pcs[hidden] - 1, &symbol);
		if (!is_allocator(symbol.name))
			break;
		hidden++;
	}
	if (hidden < stack.len) {
		stack.pcs += hidden;
		stack.len -= hidden;
	}
	return stack;
}

static void add_line(struct buf *out, const char *key, uint64_t value)
{
	buf_add_cstr(out, "# ");
	buf_add_cstr(out, key);
	buf_add_cstr(out, " = ");
	buf_add_u64(out, value);
	buf_add_byte(out, '\n');
}

/* Those of Go's lines that a native process has an answer to: what is allocated is estimated. */
static void add_statistics(struct buf *out, const struct tally *tally)
{
	struct process_state process;
	struct heap_state state;

	heap_read(&state);
	process_read(tally->arena, &process);
	buf_add_cstr(out, "\n# runtime.MemStats\n");
	add_line(out, "Alloc", (uint64_t)(state.inuse > 0 ? state.inuse : 0));
	add_line(out, "TotalAlloc", (uint64_t)state.allocated);
	add_line(out, "Sys", process.resident_bytes);
	add_line(out, "HeapAlloc", (uint64_t)(state.inuse > 0 ? state.inuse : 0));
	add_line(out, "HeapSys", process.resident_anonymous_bytes);
	add_line(out, "HeapInuse", (uint64_t)(state.inuse > 0 ? state.inuse : 0));
	add_line(out, "HeapPeak", (uint64_t)state.peak);
	add_line(out, "RSS", process.resident_bytes);
	add_line(out, "MaxRSS", process.resident_peak_bytes);
}

static void write_text(struct buf *out, struct symbols *symbols, const struct tally *tally)
{
	int64_t total[TALLY_VALUES] = { 0 };
	const struct tally_row **rows;
	size_t len;

	rows = snapshot_sorted(tally, 3, &len);
	if (!rows)
		return;
	for (size_t i = 0; i < len; i++) {
		for (size_t k = 0; k < TALLY_VALUES; k++)
			total[k] += rows[i]->values[k];
	}
	/* pprof takes a profile without frees for another kind. */
	if (total[1] == total[3])
		total[1]++;
	buf_add_cstr(out, "heap profile: ");
	add_values(out, total);
	buf_add_cstr(out, " @ heap/");
	buf_add_u64(out, 2 * (uint64_t)period());
	buf_add_byte(out, '\n');
	for (size_t i = 0; i < len; i++) {
		struct depot_stack stack = depot_get(rows[i]->key.stack);

		add_values(out, rows[i]->values);
		text_addresses(out, symbols, stack);
		buf_add_byte(out, '\n');
		text_frames(out, symbols, without_allocator(symbols, stack));
		buf_add_byte(out, '\n');
	}
	add_statistics(out, tally);
}

#define HEAP_SETTINGS                                                         \
	.values = { { "alloc_objects", "count" }, { "alloc_space", "bytes" }, \
		{ "inuse_objects", "count" }, { "inuse_space", "bytes" } },   \
	.values_len = 4, .period_type = { "space", "bytes" }, .hides = is_allocator

#define HEAP_KIND                                                                       \
	.take = heap_tally, .period = period, .labels = size_label, .comment = comment, \
	.text = write_text

static const struct snapshot_kind heap_kind = { .name = "heap",
	.delta_name = "heap-delta",
	.settings = { HEAP_SETTINGS },
	.variant = view_of,
	HEAP_KIND };

static const struct snapshot_kind allocs_kind = { .name = "allocs",
	.delta_name = "allocs-delta",
	.settings = { HEAP_SETTINGS, .default_sample_type = "alloc_space" },
	.variant = view_of,
	HEAP_KIND };

static const struct snapshot_kind delta_kind = { .name = "delta_heap",
	.delta_name = "delta_heap-delta",
	.settings = { HEAP_SETTINGS },
	.variant = view_since,
	HEAP_KIND };

static enum endpoint_result ask_heap(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&heap_kind, question, answer, capture);
}

static enum endpoint_result ask_allocs(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&allocs_kind, question, answer, capture);
}

static enum endpoint_result ask_delta(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&delta_kind, question, answer, capture);
}

static size_t count(struct arena *arena)
{
	(void)arena;
	return heap_buckets();
}

const struct endpoint endpoint_heap = {
	.name = "heap",
	.description =
		"What is allocated and in use, sampled. gc= is taken and does nothing; peak=1 "
		"is what was in use when that was the most",
	.count = count,
	.ask = ask_heap,
};

const struct endpoint endpoint_allocs = {
	.name = "allocs",
	.description = "What was allocated since the start of the process, sampled",
	.count = count,
	.ask = ask_allocs,
};

/* For Alloy and godeltaprof: not on the index page. */
const struct endpoint endpoint_delta_heap = { .name = "delta_heap", .ask = ask_delta };
