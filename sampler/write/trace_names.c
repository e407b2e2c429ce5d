#include "sampler/write/trace_names.h"

#include <string.h>

#include "sampler/store/depot.h"
#include "sampler/store/labels.h"
#include "sampler/write/text.h"

#define STRING_MAX  4096
#define STACK_BODY  2048 /* later parsers take no longer record */
#define FRAME_MAX   25   /* the longest frame: four numbers, the first of 64 bits */
#define RECORD_ROOM ((size_t)8 << 10)
#define ROOTS       (UINT64_C(0xffffff) << 40) /* made-up addresses of the outermost frames */

enum {
	GO_STACK = 3,
	GO_STRING = 37,
};

enum {
	AT_BEGINNING = 0,
	AT_STACKS,
	AT_STRINGS,
};

struct trace_stack {
	struct trace_cell cell;
	uint64_t id;
	uint32_t depot, root;
	bool is_late; /* of one wait, whose stack may be told yet */
};

struct string {
	struct trace_cell cell;
	uint64_t id;
	struct sv text;
};

size_t trace_varint(unsigned char *to, uint64_t value)
{
	size_t len = 0;

	for (; value >= 0x80; value >>= 7)
		to[len++] = (unsigned char)(value | 0x80);
	to[len++] = (unsigned char)value;
	return len;
}

static bool is_string(const struct trace_cell *cell, const void *key)
{
	const struct sv *wanted = key;

	return sv_is(((const struct string *)(const void *)cell)->text, *wanted);
}

uint64_t trace_names_string(struct trace_names *names, struct sv text)
{
	struct string *string;
	uint64_t hash = 1;

	if (text.len > STRING_MAX)
		text.len = STRING_MAX;
	if (text.len == 0)
		return 0;
	for (size_t i = 0; i < text.len; i++)
		hash = (hash ^ (unsigned char)text.ptr[i]) * UINT64_C(0x100000001b3); /* FNV */
	hash = trace_hash(hash);
	string = (void *)trace_table_find(&names->strings, hash, is_string, &text);
	if (string)
		return string->id;
	string = arena_alloc(names->arena, sizeof(*string));
	if (!string)
		return 0;
	string->cell.hash = hash;
	string->text = text;
	string->id = names->strings.len + 1;
	return trace_table_add(&names->strings, names->arena, &string->cell) ? 0 : string->id;
}

static bool is_stack(const struct trace_cell *cell, const void *key)
{
	const struct trace_stack *stack = (const void *)cell, *wanted = key;

	return !stack->is_late && stack->depot == wanted->depot && stack->root == wanted->root;
}

static struct trace_stack *add_stack(
	struct trace_names *names, const struct trace_stack *wanted, uint64_t hash)
{
	struct trace_stack *stack = arena_alloc(names->arena, sizeof(*stack));

	if (!stack)
		return NULL;
	*stack = *wanted;
	stack->cell.hash = hash;
	stack->id = names->stacks.len + 1;
	return trace_table_add(&names->stacks, names->arena, &stack->cell) ? NULL : stack;
}

/* The tools group threads by the outermost frame, or by the only frame of the stack that a thread is created
 * with. */
uint64_t trace_names_stack(struct trace_names *names, uint32_t depot, uint32_t root)
{
	struct trace_stack wanted = { .depot = depot, .root = root };
	uint64_t hash = trace_hash((uint64_t)root << 32 | depot);
	struct trace_stack *stack =
		(void *)trace_table_find(&names->stacks, hash, is_stack, &wanted);

	if (!stack)
		stack = add_stack(names, &wanted, hash);
	return stack ? stack->id : 0;
}

struct trace_stack *trace_names_late(struct trace_names *names, uint32_t root, uint64_t *id)
{
	struct trace_stack late = { .root = root, .is_late = true };
	struct trace_stack *stack = add_stack(names, &late, trace_hash(root));

	*id = stack ? stack->id : 0;
	return stack;
}

void trace_names_set(struct trace_stack *stack, uint32_t depot)
{
	stack->depot = depot;
}

static size_t put_frame(unsigned char *to, uint64_t pc, uint64_t function, uint64_t file)
{
	size_t len = trace_varint(to, pc);

	len += trace_varint(to + len, function);
	len += trace_varint(to + len, file);
	len += trace_varint(to + len, 0);
	return len;
}

/* The thread's name, as the outermost frame: "runtime.…" would count as Go's own. */
static uint64_t root_name(struct trace_names *names, uint32_t root)
{
	struct sv name = labels_text_of(root);
	struct buf text;

	if (name.len == 0)
		return trace_names_string(names, SV("[thread without a name]"));
	if (!sv_starts_with(name, SV("runtime.")))
		return trace_names_string(names, name);
	if (arena_buf(names->arena, name.len + 8, &text))
		return 0;
	buf_add_cstr(&text, "thread ");
	buf_add_sv(&text, name);
	return trace_names_string(names, buf_sv(&text));
}

static void put_stack(struct trace_names *names, struct symbols *symbols,
	const struct trace_stack *stack, struct buf *out)
{
	struct depot_stack frames = depot_get(stack->depot);
	unsigned char body[STACK_BODY], head[16], ids[32], *at = body;
	size_t len = 0, size, head_len, ids_len;

	/* Room for the root, and for what is before the frames. */
	while (len < frames.len && (size_t)(at - body) + (size_t)3 * FRAME_MAX < sizeof(body)) {
		struct symbol symbol;

		symbols_find(symbols, frames.pcs[len] - 1, &symbol);
		at += put_frame(at, symbol.address + 1,
			trace_names_string(names, sv_from_cstr(symbol.name)),
			trace_names_string(names, sv_from_cstr(text_path(symbols, &symbol))));
		len++;
	}
	at += put_frame(at, ROOTS + stack->root, root_name(names, stack->root), 0);
	size = (size_t)(at - body);
	ids_len = trace_varint(ids, stack->id);
	ids_len += trace_varint(ids + ids_len, len + 1);
	head[0] = GO_STACK | 3 << 6;
	head_len = 1 + trace_varint(head + 1, ids_len + size);
	buf_add(out, head, head_len);
	buf_add(out, ids, ids_len);
	buf_add(out, body, size);
}

static void put_string(const struct string *string, struct buf *out)
{
	unsigned char head[32];
	size_t len = 0;

	head[len++] = GO_STRING;
	len += trace_varint(head + len, string->id);
	len += trace_varint(head + len, string->text.len);
	buf_add(out, head, len);
	buf_add_sv(out, string->text);
}

/* Stacks first: they name more strings. */
bool trace_names_write(struct trace_names *names, struct symbols *symbols, struct buf *out)
{
	if (names->stage == AT_BEGINNING) {
		names->at = names->stacks.first;
		names->stage = AT_STACKS;
	}
	for (;;) {
		if (!names->at && names->stage == AT_STRINGS)
			return true;
		if (!names->at) {
			names->at = names->strings.first;
			names->stage = AT_STRINGS;
			continue;
		}
		if (out->max - out->len < RECORD_ROOM)
			return false;
		if (names->stage == AT_STACKS)
			put_stack(names, symbols, (void *)names->at, out);
		else
			put_string((void *)names->at, out);
		names->at = names->at->next;
	}
}
