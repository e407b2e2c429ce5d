/*
 * perf.h - the kernel's own records of the program's threads (perf_event_open(2)): where they are on a
 * CPU, when they go on one and off, when they begin and end.  No signal is ever sent for it.
 *
 * One event for each thread and CPU, inherited by the threads that it makes and not by forked children
 * (attr.inherit_thread, Linux 5.13); one ring for each CPU, mapped while it is open only.  Every user opens
 * rings of its own: what one wants does not change what another gets.  Needs descriptors: CPUs x (threads
 * + 1), in the server thread's own table, but of the process's RLIMIT_NOFILE; and locked memory, of which
 * each user has kernel.perf_event_mlock_kb per CPU before RLIMIT_MEMLOCK counts.
 *
 * Server thread only.
 */
#ifndef SAMPLER_PERF_H
#define SAMPLER_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/unwind/unwind.h"

#define PERF_STACK_MAX ((uint32_t)63 << 10) /* a record has 16 bits for its size */

struct perf_wanted {
	uint64_t period_ns;   /* a sample whenever a thread has run so long; 0: no samples */
	uint32_t stack_bytes; /* of its stack, with each sample; a multiple of 8 */
	bool user_only;       /* no samples while in the kernel: what everybody may have */
	bool switches;        /* tell when a thread goes on a CPU and off */
	size_t ring_bytes;    /* of each CPU, a power of two; a half, a quarter … where it is
	                         more than may be locked */
};

struct perf_sample {
	uint32_t tid;
	unsigned cpu;
	uint64_t time_ns;   /* CLOCK_MONOTONIC, as all times here */
	uint64_t period_ns; /* of CPU time, that it ends */
	bool in_kernel;     /* then the registers are those of the system call, or fault */
	bool has_regs;      /* a thread that is ending has none, and no stack */
	struct unwind_regs regs;
	const void *stack; /* from the stack pointer up; valid during the call */
	size_t stack_bytes;
	bool is_cut; /* the stack goes on behind these bytes */
};

/* A thread goes on a CPU or off it, by itself (it sleeps) or because another's turn has come. */
struct perf_switch {
	uint32_t tid;
	unsigned cpu;
	uint64_t time_ns;
	bool on;
	bool preempted; /* off, and still able to run */
};

struct perf_thread {
	uint32_t tid, parent; /* who made it */
	uint64_t time_ns;
	bool begins; /* else it ends */
};

/* What to tell, NULL: nothing.  Each CPU's records come in the order of their times, one CPU's after
 * another's: who wants all in order must sort. */
struct perf_told {
	void (*sample)(void *to, const struct perf_sample *sample);
	void (*switched)(void *to, const struct perf_switch *change);
	void (*thread)(void *to, const struct perf_thread *thread);
	void (*lost)(void *to, uint64_t records); /* the ring was full */
};

struct perf;

/*
 * Open the rings and begin, for the threads that there are and all that they make.  NULL when the kernel
 * does not allow it, or there are too few descriptors or too little memory for all threads.
 * Neither, and nothing is tried, where a seccomp filter may punish the attempt (perf_is_risky()).
 */
struct perf *perf_open(const struct perf_wanted *wanted, const struct perf_told *told, void *to,
	struct err *err);

/* Does the kernel allow it at all? */
int perf_probe(bool user_only, struct err *err);

/* Is this thread confined by a seccomp filter? It may answer perf_event_open() with death. */
bool perf_is_risky(void);

/* Hand out everything that is in the rings and happened before `until_ns`. */
void perf_poll(struct perf *perf, uint64_t until_ns);

/* A descriptor that poll(2) shows as readable when a ring is filling up; -1: look every few ms. */
int perf_descriptor(const struct perf *perf);

/* Another distance between samples, from now on. -1 when the kernel refuses. */
int perf_set_period(struct perf *perf, uint64_t period_ns);

/* End; what is in the rings still is handed out first. */
void perf_close(struct perf *perf);

/* In a forked child: close nothing (its table of descriptors is another), forget everything. */
void perf_after_fork(void);

#endif
