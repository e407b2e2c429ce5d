#include "sampler/serve/endpoint.h"

#include <string.h>

#include "base/clock.h"
#include "sampler/collect/threads.h"
#include "sampler/write/pprof.h"
#include "sampler/write/text.h"

/* Threads with one stack and one name, counted together. */
struct group {
	struct thread *first;
	uint64_t count;
};

/* As the depot has it: the exact pc one further, like a return address. */
static struct depot_stack stack_of(struct thread *thread)
{
	struct depot_stack stack = { .len = thread->len, .pcs = thread->pcs };

	return stack;
}

static void add_group(struct buf *out, struct symbols *symbols, const struct group *group)
{
	struct depot_stack stack = stack_of(group->first);

	buf_add_u64(out, group->count);
	text_addresses(out, symbols, stack);
	buf_add_cstr(out, "\n# labels: {\"thread\":");
	text_quoted(out, sv_from_cstr(group->first->name));
	buf_add_cstr(out, "}\n");
	text_frames(out, symbols, stack);
	buf_add_byte(out, '\n');
}

static bool is_alike(const struct thread *a, const struct thread *b)
{
	return a->len == b->len && strcmp(a->name, b->name) == 0 &&
	       memcmp(a->pcs, b->pcs, a->len * sizeof(a->pcs[0])) == 0;
}

static size_t group_threads(struct thread *threads, size_t len, struct group *groups)
{
	size_t groups_len = 0;

	for (size_t i = 0; i < len; i++) {
		size_t at = 0;

		while (at < groups_len && !is_alike(groups[at].first, &threads[i]))
			at++;
		if (at == groups_len)
			groups[groups_len++] = (struct group){ &threads[i], 0 };
		groups[at].count++;
	}
	/* Most frequent first: few groups, and already nearly in order. */
	for (size_t i = 1; i < groups_len; i++) {
		struct group moving = groups[i];
		size_t at = i;

		for (; at > 0 && groups[at - 1].count < moving.count; at--)
			groups[at] = groups[at - 1];
		groups[at] = moving;
	}
	return groups_len;
}

static void write_groups(const struct question *question, struct symbols *symbols,
	struct thread *threads, size_t len, struct buf *out)
{
	struct group *groups = arena_alloc(question->arena, (len + 1) * sizeof(*groups));
	size_t groups_len;

	buf_add_cstr(out, "goroutine profile: total ");
	buf_add_u64(out, len);
	buf_add_byte(out, '\n');
	if (!groups)
		return;
	groups_len = group_threads(threads, len, groups);
	for (size_t i = 0; i < groups_len; i++)
		add_group(out, symbols, &groups[i]);
}

static void write_each(
	struct symbols *symbols, struct thread *threads, size_t len, struct buf *out)
{
	for (size_t i = 0; i < len; i++) {
		buf_add_cstr(out, i > 0 ? "\ngoroutine " : "goroutine ");
		buf_add_u64(out, threads[i].tid);
		buf_add_cstr(out, " [");
		buf_add_cstr(out, threads[i].state);
		buf_add_cstr(out, ", thread ");
		for (const char *c = threads[i].name; *c; c++)
			buf_add_byte(out, (unsigned char)*c < 0x20 || *c == ']' ? '?' : *c);
		buf_add_cstr(out, "]:\n");
		for (size_t k = 0; k < threads[i].len; k++) {
			struct symbol symbol;

			symbols_find(symbols, threads[i].pcs[k] - 1, &symbol);
			buf_add_cstr(out, symbol.name);
			buf_add_cstr(out, "(...)\n\t");
			buf_add_cstr(out, text_path(symbols, &symbol));
			buf_add_cstr(out, ":0 +");
			text_hex(out, symbol.offset + 1);
			buf_add_byte(out, '\n');
		}
	}
}

static int write_proto(const struct question *question, struct symbols *symbols,
	struct thread *threads, size_t len, struct buf *out)
{
	static const int64_t one = 1;
	struct pprof_settings settings = {
		.values = { { "goroutine", "count" } },
		.values_len = 1,
		.period_type = { "goroutine", "count" },
		.period = 1,
		.time_unix_ns = clock_unix_us() * 1000,
	};
	struct pprof *pprof = pprof_open(question->arena, symbols, &settings);
	struct err err;

	for (size_t i = 0; pprof && i < len; i++) {
		struct pprof_label labels[2] = { { .key = "thread", .text = threads[i].name },
			{ .key = "state", .text = threads[i].state } };

		if (threads[i].len > 0)
			pprof_add(pprof,
				&(struct pprof_stack){ threads[i].pcs, threads[i].len, false },
				&one, labels, 2);
		else
			pprof_add_named(pprof, "[no stack]", &one);
	}
	return pprof ? pprof_finish(pprof, out, &err) : -1;
}

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	bool present;
	int64_t debug = question_int(question, SV("debug"), &present);
	struct symbols *symbols;
	struct thread *threads;
	struct err err;
	size_t len;

	(void)capture;
	if (debug)
		answer_text(question->arena, answer, ANSWER_BODY_MAX);
	else
		(void)answer_attachment(question->arena, answer, "goroutine");
	if (answer->is_error)
		return ENDPOINT_ANSWERED;
	if (symbols_open(question->arena, &symbols, &err) ||
		threads_read(question->arena, symbols, &threads, &len))
		answer_error(question->arena, answer, 500, "the threads cannot be read");
	else if (debug >= 2)
		write_each(symbols, threads, len, &answer->body);
	else if (debug != 0)
		write_groups(question, symbols, threads, len, &answer->body);
	else if (write_proto(question, symbols, threads, len, &answer->body))
		answer_error(question->arena, answer, 500, "the profile is too large");
	return ENDPOINT_ANSWERED;
}

const struct endpoint endpoint_goroutine = {
	.name = "goroutine",
	.description = "Stacks of all threads; debug=2 shows each with its state",
	.count = threads_count,
	.ask = ask,
};

const struct endpoint endpoint_threads = { .name = "threads", .ask = ask };
