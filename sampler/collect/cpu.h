/*
 * cpu.h - the CPU profile: every thread has a timer on its own CPU time, whose signal records the
 * stack.  At most one capture at a time, as in Go.  Server thread only.
 *
 * POSIX CPU timers tick with the kernel (CONFIG_HZ, often 250 a second); a tick that comes late
 * stands for the periods that it missed, so shares stay right.
 */
#ifndef SAMPLER_CPU_H
#define SAMPLER_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/collect/collect.h"
#include "sampler/store/tally.h"

#define CPU_PERIOD_NS 10000000 /* 100 Hz, as Go's */

struct cpu_result {
	struct tally tally; /* values: samples, ns of CPU time */
	uint64_t samples, incomplete, dropped;
	uint64_t unseen_ns; /* CPU time of threads that were gone before they got a timer */
	int64_t began_unix_ns;
	uint64_t duration_ns;
};

bool cpu_is_running(void);

/* Begin. -1 when one runs already, or the signal is not to be had. */
int cpu_start(struct err *err);

#define CPU_POLL_MS 20

extern const struct collector cpu_collector;

/* End; the result is valid until the next start. */
const struct cpu_result *cpu_stop(void);

#endif
