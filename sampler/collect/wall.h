/*
 * wall.h - where threads spend their time, running or not: the wall-clock and off-CPU profiles.
 *
 * Nobody is woken or interrupted.  Threads are looked at by turns: who sleeps has its stack walked as
 * threads.h does it, once for each sleep; between two looks the kernel's own counters say for how long the thread
 * was on a CPU, waited for one, and did neither.  So the sums are exact, and only what of the last goes to
 * which stack is an estimate where a thread sleeps often between two looks: each look stands for half of the time
 * on both of its sides.  What runs is seen by the CPU profile's samples.
 *
 * Any number of captures at once, from one stream of looks.  The looks of a second may take WALL_COST_PERCENT of it,
 * whatever was asked for and how many threads there may be: then each is looked at less often.
 * Server thread only.
 */
#ifndef SAMPLER_WALL_H
#define SAMPLER_WALL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/collect/collect.h"
#include "sampler/collect/threads.h"
#include "sampler/store/tally.h"

#define WALL_HZ           100U
#define WALL_HZ_MAX       100U
#define WALL_COST_PERCENT 5U
#define WALL_CAPTURES_MAX 16 /* as many as the server has connections */

struct wall_capture;

struct wall_result {
	/* values: looks (or samples), ns; key.other: enum thread_state, key.labels: the thread's name */
	struct tally tally;
	unsigned hz; /* asked for: looks at each thread a second */
	int64_t began_unix_ns;
	uint64_t duration_ns;
	uint64_t looks, threads; /* threads: that were looked at, ever */
	uint64_t cost_ns; /* CPU time that looking took, for all captures that ran meanwhile */
	uint64_t
		thread_ns; /* that the threads were there, together: what all rows should add up to */
	const char *note; /* what is not as it should be; or NULL */
};

/* Begin. `runs` asks for what runs, too: the wall clock. NULL when it cannot be had. */
struct wall_capture *wall_start(unsigned hz, bool runs, struct err *err);

/* End it; the result is valid until wall_release(), which must follow, and may without it. */
const struct wall_result *wall_stop(struct wall_capture *capture);
void wall_release(struct wall_capture *capture);

extern const struct collector wall_collector;

#endif
