/*
 * cpu_source.h - where the samples of the CPU profile come from. Private to cpu*.c.
 *
 * A source looks at every thread of the process again and again, whenever it has run for a period of CPU
 * time, and tells cpu.c what it saw.  One runs at a time.
 */
#ifndef SAMPLER_CPU_SOURCE_H
#define SAMPLER_CPU_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/collect/cpu_threads.h"
#include "sampler/store/ring.h"

struct cpu_source {
	const char *name;
	/* How many samples a CPU-second it can do at most. */
	unsigned (*limit_hz)(void);
	/* Could it be started now? Changes nothing. */
	int (*probe)(struct err *err);
	int (*start)(uint64_t period_ns, struct err *err);
	int (*set_period)(uint64_t period_ns, struct err *err);
	void (*stop)(void); /* tells what it has still */
	/* The rest may be NULL. */
	/* Tell what has happened up to a moment; -1: it cannot go on. */
	int (*poll)(uint64_t now, struct err *err);
	int (*descriptor)(void);                  /* readable when poll() is due; -1 */
	void (*meet)(struct cpu_thread *thread);  /* a thread is there */
	void (*leave)(struct cpu_thread *thread); /* it is gone */
	/* A record of the ring, RECORD_CPU. */
	void (*take)(const struct record *record);
	/* Its hits do not say the thread's labels: they are looked up by time. */
	bool needs_labels;
};

extern const struct cpu_source cpu_perf, cpu_timer, cpu_itimer;

/* Was it asked for by name? Then what it can do is better than nothing. */
bool cpu_is_forced(void);

/* What a source tells. */

void cpu_note(const char *text); /* for the profile's comments */

struct cpu_hit {
	uint32_t tid, stack, labels;
	uint64_t time_ns;
	uint64_t ns; /* of CPU time, that it stands for */
	/* Of a source whose first period begins when the thread does, or the stream: the CPU that it counts
	 * on, plus 1.  0: of a source that begins anywhere in a period. */
	uint32_t phase;
};

void cpu_take_hit(const struct cpu_hit *hit);
void cpu_take_lost(uint64_t ns); /* that what found no room stands for */

/* Such a source begins all periods anew. */
void cpu_begin_phases(void);

/*
 * How many samples of `period_ns` there are in `ns` more of a thread's CPU time; `*left` is what there was
 * over before, less than a period, and what there is now.
 */
static inline uint64_t cpu_thin(uint64_t ns, uint64_t period_ns, uint32_t *left)
{
	uint64_t sum = *left + ns;

	*left = (uint32_t)(sum % period_ns);
	return sum / period_ns;
}

#endif
