/*
 * trace.h - writing Go's execution trace, in the form that all versions of `go tool trace` read:
 * "go 1.19 trace".
 *
 * Source of the format: Go's src/internal/trace (parser.go of 1.19; tracev1 of the later ones).  Threads
 * stand in the place of goroutines.  What runs must have a P there, so a running thread gets a made-up
 * one, by the CPU's number where that is known.  The readers' programs trust more than their parsers check;
 * what they want beyond the format is written down at the functions that see to it.
 *
 * The trace is written as it comes: at any time the bytes in `out` may be sent and dropped.
 */
#ifndef SAMPLER_TRACE_H
#define SAMPLER_TRACE_H

#include "sampler/collect/trace_event.h"
#include "sampler/names/symbols.h"

struct trace_writer;

/* Room that `out` must have before each of the calls below. */
#define TRACE_ROOM ((size_t)32 << 10)

/* `cpus`: of the machine; more Ps are made up when more threads than that run at once. NULL without
 * memory. */
struct trace_writer *trace_begin(
	struct arena *arena, unsigned cpus, uint64_t start_ns, struct buf *out);

/* Events in the order of time; one that lies before the last is moved up to it. */
void trace_add(struct trace_writer *writer, const struct trace_event *event, struct buf *out);

/*
 * End the trace at `end_ns`: what runs is stopped, what is open closed, and stacks and names follow.  To be
 * called again, when `out` was emptied, until it returns true.
 */
bool trace_finish(
	struct trace_writer *writer, struct symbols *symbols, uint64_t end_ns, struct buf *out);

/* Events that found no memory, and are missing. */
uint64_t trace_lost(const struct trace_writer *writer);

#endif
