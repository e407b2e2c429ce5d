/* goroutine, and by another name threads: Go's goroutines are here the threads. */
#include "sampler/collect/threads.h"
#include "sampler/serve/snapshot.h"
#include "sampler/store/labels.h"
#include "sampler/write/text.h"

#define MINUTE_NS UINT64_C(60000000000)

static int take(struct tally *out, int variant)
{
	static const int64_t one[TALLY_VALUES] = { 1 };
	uint32_t name_key = labels_text_sigsafe(SV("thread"));
	struct thread *threads;
	size_t len;

	(void)variant;
	if (threads_read(out->arena, &threads, &len))
		return -1;
	for (size_t i = 0; i < len; i++) {
		struct sv name = sv_from_cstr(threads[i].name);
		struct tally_key key = { .stack = threads[i].stack,
			.labels = labels_with_sigsafe(0, name_key, labels_text_sigsafe(name)),
			.other = threads[i].state };

		tally_add(out, &key, one, 1);
	}
	return 0;
}

static void write_groups(struct buf *out, struct symbols *symbols, const struct tally *tally)
{
	snapshot_text_counts(out, symbols, tally, "goroutine", snapshot_state_label);
}

static void write_frame(struct buf *out, struct symbols *symbols, uintptr_t pc)
{
	struct symbol symbol;

	symbols_find(symbols, pc - 1, &symbol);
	for (size_t i = 0; i < symbol.lines_len; i++) {
		buf_add_cstr(out, symbol.lines[i].function);
		buf_add_cstr(out, "(...)\n\t");
		text_place(out, symbols, &symbol, &symbol.lines[i]);
		/* As Go's: an inlined function has no code to be an offset in. */
		if (i + 1 == symbol.lines_len) {
			buf_add_cstr(out, " +");
			text_hex(out, symbol.offset + 1);
		}
		buf_add_byte(out, '\n');
	}
}

static void write_thread(struct buf *out, struct symbols *symbols, const struct thread *thread)
{
	struct depot_stack stack = depot_get(thread->stack);

	buf_add_cstr(out, "goroutine ");
	buf_add_u64(out, thread->tid);
	buf_add_cstr(out, " [");
	buf_add_cstr(out, thread_state_name(thread->state, symbols, stack));
	if (thread->idle_ns >= MINUTE_NS) {
		buf_add_cstr(out, ", ");
		buf_add_u64(out, thread->idle_ns / MINUTE_NS);
		buf_add_cstr(out, " minutes");
	}
	buf_add_cstr(out, ", thread ");
	for (const char *c = thread->name; *c; c++)
		buf_add_byte(out, (unsigned char)*c < 0x20 || *c == ']' ? '?' : *c);
	buf_add_cstr(out, "]:\n");
	for (size_t i = 0; i < stack.len; i++)
		write_frame(out, symbols, stack.pcs[i]);
}

/* What was read, until it is written. */
struct each {
	struct symbols *symbols;
	struct thread *threads;
	size_t len;
};

static void write_each(void *state, struct arena *arena, struct answer *answer)
{
	const struct each *each = state;

	(void)arena;
	for (size_t i = 0; i < each->len; i++) {
		if (i > 0)
			buf_add_byte(&answer->body, '\n');
		write_thread(&answer->body, each->symbols, &each->threads[i]);
	}
}

/* debug=2: each by itself, as Go's panics show goroutines. */
static enum endpoint_result ask_each(const struct question *question, struct answer *answer)
{
	struct each *each = arena_alloc(question->arena, sizeof(*each));
	struct err err;

	answer_text(question->arena, answer, ANSWER_BODY_MAX);
	if (answer->is_error)
		return ENDPOINT_ANSWERED;
	if (!each || threads_read(question->arena, &each->threads, &each->len) ||
		symbols_open(question->arena, &each->symbols, &err)) {
		answer_error(question->arena, answer, 500, "the threads cannot be read");
		return ENDPOINT_ANSWERED;
	}
	threads_read_idle(each->threads, each->len);
	for (size_t i = 0; i < each->len; i++) {
		struct depot_stack stack = depot_get(each->threads[i].stack);

		symbols_ask_stack(each->symbols, stack.pcs, stack.len);
	}
	answer->late =
		(struct late){ .symbols = each->symbols, .write = write_each, .state = each };
	return ENDPOINT_ANSWERED;
}

static const struct snapshot_kind goroutine = {
	.name = "goroutine",
	.delta_name = "goroutine-delta",
	.settings = {
		.values = { { "goroutine", "count" } },
		.values_len = 1,
		.period_type = { "goroutine", "count" },
	},
	.take = take,
	.labels = snapshot_state_label,
	.text = write_groups,
};

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	bool present;

	if (question_int(question, SV("debug"), &present) >= 2 &&
		question_text(question, SV("seconds")).len == 0)
		return ask_each(question, answer);
	return snapshot_ask(&goroutine, question, answer, capture);
}

const struct endpoint endpoint_goroutine = {
	.name = "goroutine",
	.description = "Stacks of all threads; debug=2 shows each with its state",
	.count = threads_count,
	.ask = ask,
};

const struct endpoint endpoint_threads = { .name = "threads", .ask = ask };
