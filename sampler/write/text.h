/*
 * text.h - the pieces of Go's text formats (debug=1, debug=2).
 */
#ifndef SAMPLER_TEXT_H
#define SAMPLER_TEXT_H

#include "base/buf.h"
#include "sampler/names/symbols.h"
#include "sampler/store/depot.h"
#include "sampler/write/pprof.h"

/* "0x" and lower-case digits. */
void text_hex(struct buf *out, uint64_t value);

/* As a JSON string; control characters become "?". */
void text_quoted(struct buf *out, struct sv text);

/* " @ 0x… 0x…": the return addresses of a stack, on their made-up bases. */
void text_addresses(struct buf *out, struct symbols *symbols, struct depot_stack stack);

/* Go's "#	0xPC	func+0xOFF	file:line", a line for each frame, also for inlined ones. */
void text_frames(struct buf *out, struct symbols *symbols, struct depot_stack stack);

/* Go's "# labels: {"key":"text", …}", sorted by key, of a set (labels.h) and `extra` ones, which have texts;
 * nothing when there are none. */
void text_labels(
	struct buf *out, uint32_t labels, const struct pprof_label *extra, size_t extra_len);

/* "file:line" of one line of a symbol; "module:0" where that is not known. */
void text_place(struct buf *out, struct symbols *symbols, const struct symbol *symbol,
	const struct symbol_line *line);

/* The module of a symbol, or what stands for it. */
const char *text_path(struct symbols *symbols, const struct symbol *symbol);

#endif
