/*
 * trace_chrome.h - writing a trace in Chrome's JSON format, which ui.perfetto.dev, chrome://tracing and others
 * open.
 *
 * Source of the format: "Trace Event Format" (the Chromium project's).  A thread's track holds its
 * regions and its waits (with their stacks), one within the other; where there is no wait it runs, as far as
 * is known.  Arrows lead from who woke a thread to the wait that it ended.
 *
 * As with trace.h, the bytes in `out` may be sent and dropped at any time, and it must have TRACE_ROOM
 * before each call.
 */
#ifndef SAMPLER_TRACE_CHROME_H
#define SAMPLER_TRACE_CHROME_H

#include "sampler/collect/trace_event.h"
#include "sampler/memory/arena.h"

struct trace_chrome;

/* `name` is the process's. NULL without memory. */
struct trace_chrome *trace_chrome_begin(
	struct arena *arena, const char *name, uint64_t start_ns, struct buf *out);

/* Events in the order of time; one that lies before the last is moved up to it. */
void trace_chrome_add(
	struct trace_chrome *writer, const struct trace_event *event, struct buf *out);

/* To be called again, when `out` was emptied, until it returns true. */
bool trace_chrome_finish(struct trace_chrome *writer, uint64_t end_ns, struct buf *out);

#endif
