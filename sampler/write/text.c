#include "sampler/write/text.h"

#include <string.h>

#include "sampler/store/labels.h"

void text_hex(struct buf *out, uint64_t value)
{
	char digits[16];
	size_t at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value);
	buf_add_cstr(out, "0x");
	buf_add(out, digits + at, sizeof(digits) - at);
}

void text_quoted(struct buf *out, struct sv text)
{
	buf_add_byte(out, '"');
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];

		if ((unsigned char)c < 0x20 || c == 0x7f) {
			buf_add_byte(out, '?');
			continue;
		}
		if (c == '"' || c == '\\')
			buf_add_byte(out, '\\');
		buf_add_byte(out, c);
	}
	buf_add_byte(out, '"');
}

struct text_label {
	struct sv key, value;
};

static bool sorts_before(struct sv a, struct sv b)
{
	int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);

	return order < 0 || (order == 0 && a.len < b.len);
}

static void insert_label(struct text_label *labels, size_t len, struct text_label added)
{
	while (len > 0 && sorts_before(added.key, labels[len - 1].key)) {
		labels[len] = labels[len - 1];
		len--;
	}
	labels[len] = added;
}

void text_labels(
	struct buf *out, uint32_t labels, const struct pprof_label *extra, size_t extra_len)
{
	struct text_label sorted[LABELS_SET_MAX + PPROF_LABELS_MAX];
	struct label_pair pairs[LABELS_SET_MAX];
	size_t len = labels_of(labels, pairs), pairs_len = len;

	for (size_t i = 0; i < pairs_len; i++)
		insert_label(sorted, i,
			(struct text_label){
				labels_text_of(pairs[i].key), labels_text_of(pairs[i].value) });
	for (size_t i = 0; i < extra_len && i < PPROF_LABELS_MAX; i++)
		insert_label(sorted, len++,
			(struct text_label){
				sv_from_cstr(extra[i].key), sv_from_cstr(extra[i].text) });
	for (size_t i = 0; i < len; i++) {
		buf_add_cstr(out, i == 0 ? "# labels: {" : ", ");
		text_quoted(out, sorted[i].key);
		buf_add_byte(out, ':');
		text_quoted(out, sorted[i].value);
	}
	if (len > 0)
		buf_add_cstr(out, "}\n");
}

void text_place(struct buf *out, struct symbols *symbols, const struct symbol *symbol,
	const struct symbol_line *line)
{
	buf_add_cstr(out, line->file ? line->file : text_path(symbols, symbol));
	buf_add_byte(out, ':');
	buf_add_u64(out, line->line);
}

const char *text_path(struct symbols *symbols, const struct symbol *symbol)
{
	if (symbol->module == symbols_modules(symbols))
		return "?";
	return symbols_module(symbols, symbol->module)->path;
}

void text_addresses(struct buf *out, struct symbols *symbols, struct depot_stack stack)
{
	struct symbol symbol;

	buf_add_cstr(out, stack.len > 0 ? " @" : " @ 0x1"); /* readers want an address */
	for (size_t i = 0; i < stack.len; i++) {
		symbols_find(symbols, stack.pcs[i] - 1, &symbol);
		buf_add_byte(out, ' ');
		text_hex(out, symbol.address + 1);
	}
}

void text_frames(struct buf *out, struct symbols *symbols, struct depot_stack stack)
{
	if (stack.len == 0)
		buf_add_cstr(out, "#\t0x1\t[no stack]+0x0\t?:0\n");
	for (size_t i = 0; i < stack.len; i++) {
		struct symbol symbol;

		symbols_find(symbols, stack.pcs[i] - 1, &symbol);
		for (size_t k = 0; k < symbol.lines_len; k++) {
			buf_add_cstr(out, "#\t");
			text_hex(out, symbol.address);
			buf_add_byte(out, '\t');
			buf_add_cstr(out, symbol.lines[k].function);
			buf_add_byte(out, '+');
			text_hex(out, symbol.offset);
			buf_add_byte(out, '\t');
			text_place(out, symbols, &symbol, &symbol.lines[k]);
			buf_add_byte(out, '\n');
		}
	}
}
