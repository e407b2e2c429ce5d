/*
 * cost.h - how long the program's own threads were held up by us: by a signal handler, or the slow path
 * of a hook.
 */
#ifndef SAMPLER_COST_H
#define SAMPLER_COST_H

#include <stdint.h>

/* One stop that began at `began_ns` (clock_mono_ns()) ends now. */
void cost_note_sigsafe(uint64_t began_ns);

struct cost {
	uint64_t stops, total_ns, longest_ns; /* since the process began */
};

struct cost cost_read(void);

#endif
