/*
 * trace_names.h - the texts and stacks of a Go trace: numbers while it is written, told at its end.
 */
#ifndef SAMPLER_TRACE_NAMES_H
#define SAMPLER_TRACE_NAMES_H

#include <stdbool.h>

#include "base/buf.h"
#include "sampler/names/symbols.h"
#include "sampler/write/trace_table.h"

struct trace_names {
	struct arena *arena;
	struct trace_table stacks, strings;
	struct trace_cell *at;
	unsigned stage;
};

struct trace_stack;

/* Unsigned LEB128, at most 10 bytes; returns how many. */
size_t trace_varint(unsigned char *to, uint64_t value);

/* The number of a text, which must stay; 0 is the empty one. */
uint64_t trace_names_string(struct trace_names *names, struct sv text);

/* The number of a stack (depot.h) with a thread's name below it, `root`. */
uint64_t trace_names_stack(struct trace_names *names, uint32_t depot, uint32_t root);

/* Likewise, but its frames may be set later. NULL without memory. */
struct trace_stack *trace_names_late(struct trace_names *names, uint32_t root, uint64_t *id);
void trace_names_set(struct trace_stack *stack, uint32_t depot);

/* Write all of them; again with an emptied buffer until it returns true. */
bool trace_names_write(struct trace_names *names, struct symbols *symbols, struct buf *out);

#endif
