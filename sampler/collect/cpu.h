/*
 * cpu.h - the CPU profile: any number of captures at once, of any rate and length, from one stream of samples.
 *
 * The stream comes from a source (cpu_source.h), which runs while there is a capture, as often as the one
 * that asks for most.  A capture takes from it, thread by thread, a sample for every period of its own
 * that the stream's samples stand for; so its CPU time is right whatever the stream's rate, which may
 * change meanwhile.  Server thread only.
 */
#ifndef SAMPLER_CPU_H
#define SAMPLER_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "sampler/collect/collect.h"
#include "sampler/settings.h"
#include "sampler/store/tally.h"

#define CPU_HZ           100U /* as Go's */
#define CPU_HZ_MAX       4000U
#define CPU_CAPTURES_MAX 32 /* more than the server has connections */

/* Which source is used from the next stream on; AUTO is the default: the best that can be had, and that hides no
 * more than 5 % of the process's CPU time. */
void cpu_choose(enum settings_cpu_source source);

/* A sample, as it is taken. */
struct cpu_sample {
	uint32_t tid;
	uint32_t stack;   /* depot.h; 0: of a thread that is ending */
	uint32_t labels;  /* of the thread, and its name as `thread` */
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t count;   /* periods that it stands for */
};

struct cpu_wanted {
	unsigned hz; /* 1 to CPU_HZ_MAX */
	/* Called for each sample, or NULL. */
	void (*take)(void *to, const struct cpu_sample *sample);
	void *to;
	bool only_take; /* no tally is kept */
};

struct cpu_capture;

/* Begin. NULL when the source is not to be had. */
struct cpu_capture *cpu_start(const struct cpu_wanted *wanted, struct err *err);

struct cpu_result {
	struct tally tally; /* values: samples, ns of CPU time */
	uint64_t period_ns; /* that each sample stands for */
	unsigned hz;        /* asked for */
	uint64_t samples, incomplete;
	uint64_t hits; /* times that a thread was looked at; a late sample stands for several */
	uint64_t lost; /* samples that found no room */
	uint64_t used_ns;   /* CPU time of the process meanwhile, without the server thread's */
	uint64_t unseen_ns; /* and how much of it neither samples nor lost ones stand for */
	int64_t began_unix_ns;
	uint64_t duration_ns;
	const char *source; /* name; of the last one, if it was changed */
	unsigned limit_hz;  /* more than this the source cannot do; 0: it can */
	const char *note;   /* why it is not another source, and so on; "" */
};

/* End it; the result is valid until cpu_release(), which must follow. */
const struct cpu_result *cpu_stop(struct cpu_capture *capture);
void cpu_release(struct cpu_capture *capture);

/* The source that is used now, or would be: one line for the index page. */
void cpu_describe(struct buf *out);

extern const struct collector cpu_collector;

#endif
