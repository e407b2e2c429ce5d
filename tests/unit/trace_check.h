/*
 * trace_check.h - reading a trace as strictly as `go tool trace` of any version does, and more so where its
 * pages would end in a panic: what the tests of the writer look through.
 *
 * The rules that have a number are those of docs/trace.md.
 */
#ifndef TESTS_UNIT_TRACE_CHECK_H
#define TESTS_UNIT_TRACE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sv.h"

struct go_event {
	unsigned type;
	uint64_t proc; /* UINT64_MAX: none */
	uint64_t time, g;
	uint64_t args[6];
	size_t len;
	size_t batch; /* number of its batch in the file */
	struct sv log;
};

struct go_trace {
	struct go_event *events; /* in a consistent order, but for samples */
	size_t len, samples;
	struct sv strings[4096];

	struct go_stack {
		size_t len;
		const uint64_t *frames; /* pc, function, file, line of each */
	} stacks[4096];

	char why[256]; /* what is wrong with it; "" if nothing is */
};

/* `late`: of events of one tick, take those of the last P first; the order is up to the reader. */
bool go_trace_read(struct sv bytes, bool late, struct go_trace *out);
void go_trace_free(struct go_trace *trace);

/* A line for each event: "TICKS P G Name args". */
char *go_trace_text(const struct go_trace *trace);

#endif
