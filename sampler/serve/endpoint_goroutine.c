#include "sampler/serve/endpoint.h"

#include <string.h>

#include "base/clock.h"
#include "sampler/collect/threads.h"
#include "sampler/write/pprof.h"

/* Threads with one stack and one name, counted together. */
struct group {
	const struct thread *first;
	uint64_t count;
};

static const char *path_of(struct symbols *symbols, const struct symbol *symbol)
{
	if (symbol->module == symbols_modules(symbols))
		return "?";
	return symbols_module(symbols, symbol->module)->path;
}

/* Go's "#	0xPC	func+0xOFF	file:line"; the module stands for the file. */
static void add_frame(struct buf *out, struct symbols *symbols, uintptr_t pc)
{
	struct symbol symbol;

	symbols_find(symbols, pc, &symbol);
	buf_add_cstr(out, "#\t");
	add_hex(out, symbol.address);
	buf_add_byte(out, '\t');
	buf_add_cstr(out, symbol.name);
	buf_add_byte(out, '+');
	add_hex(out, symbol.offset);
	buf_add_byte(out, '\t');
	buf_add_cstr(out, path_of(symbols, &symbol));
	buf_add_cstr(out, ":0\n");
}

/* Inside a JSON string in a comment line; thread names may hold anything. */
static void add_quoted(struct buf *out, const char *text)
{
	buf_add_byte(out, '"');
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			buf_add_byte(out, '?');
		else {
			if (*text == '"' || *text == '\\')
				buf_add_byte(out, '\\');
			buf_add_byte(out, *text);
		}
	}
	buf_add_byte(out, '"');
}

static void add_group(struct buf *out, struct symbols *symbols, const struct group *group)
{
	const struct thread *thread = group->first;
	struct symbol symbol;

	buf_add_u64(out, group->count);
	buf_add_cstr(out, " @");
	for (size_t i = 0; i < thread->len; i++) {
		buf_add_byte(out, ' ');
		symbols_find(symbols, thread->pcs[i], &symbol);
		add_hex(out, symbol.address);
	}
	buf_add_cstr(out, "\n# labels: {\"thread\":");
	add_quoted(out, thread->name);
	buf_add_cstr(out, "}\n");
	for (size_t i = 0; i < thread->len; i++)
		add_frame(out, symbols, thread->pcs[i] - (i > 0));
	buf_add_byte(out, '\n');
}

static bool is_alike(const struct thread *a, const struct thread *b)
{
	return a->len == b->len && strcmp(a->name, b->name) == 0 &&
	       memcmp(a->pcs, b->pcs, a->len * sizeof(a->pcs[0])) == 0;
}

static size_t group_threads(const struct thread *threads, size_t len, struct group *groups)
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
	const struct thread *threads, size_t len, struct buf *out)
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
	struct symbols *symbols, const struct thread *threads, size_t len, struct buf *out)
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

			symbols_find(symbols, threads[i].pcs[k] - (k > 0), &symbol);
			buf_add_cstr(out, symbol.name);
			buf_add_cstr(out, "(...)\n\t");
			buf_add_cstr(out, path_of(symbols, &symbol));
			buf_add_cstr(out, ":0 +");
			add_hex(out, symbol.offset + (k > 0));
			buf_add_byte(out, '\n');
		}
	}
}

static int write_proto(const struct question *question, struct symbols *symbols,
	const struct thread *threads, size_t len, struct buf *out)
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
				&(struct pprof_stack){ threads[i].pcs, threads[i].len, true },
				&one, labels, 2);
		else
			pprof_add_named(pprof, "[no stack]", &one);
	}
	return pprof ? pprof_finish(pprof, out, &err) : -1;
}

void endpoint_goroutine(const struct question *question, int64_t debug, struct answer *answer)
{
	struct symbols *symbols;
	struct thread *threads;
	struct err err;
	size_t len;

	*answer = (struct answer){ .status = 200, .content_type = "text/plain; charset=utf-8" };
	if (arena_buf(question->arena, ANSWER_BODY_MAX, &answer->body) ||
		symbols_open(question->arena, &symbols, &err) ||
		threads_read(question->arena, symbols, &threads, &len)) {
		answer_error(question->arena, answer, 500, "the threads cannot be read");
		return;
	}
	if (debug >= 2) {
		write_each(symbols, threads, len, &answer->body);
	} else if (debug != 0) {
		write_groups(question, symbols, threads, len, &answer->body);
	} else {
		answer->content_type = "application/octet-stream";
		answer->filename = "goroutine";
		if (write_proto(question, symbols, threads, len, &answer->body))
			answer_error(question->arena, answer, 500, "the profile is too large");
	}
}
