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
#include "sampler/store/stacks.h"

#define CPU_PERIOD_NS 10000000 /* 100 Hz, as Go's */

struct cpu_result {
	struct stacks stacks;
	uint64_t samples, incomplete, dropped;
	uint64_t unseen_ns; /* CPU time of threads that were gone before they got a timer */
	int64_t began_unix_ns;
	uint64_t duration_ns;
};

bool cpu_is_running(void);

/* Begin. -1 when one runs already, or the signal is not to be had. */
int cpu_start(struct err *err);

/* Take what was recorded, and look for new threads. To be called every CPU_POLL_MS. */
void cpu_poll(void);
#define CPU_POLL_MS 20

/* End; the result is valid until the next start. */
const struct cpu_result *cpu_stop(void);

/* In a forked child: its parent's capture is not its own. */
void cpu_after_fork(void);

#endif
