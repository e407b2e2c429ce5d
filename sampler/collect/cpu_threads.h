/*
 * cpu_threads.h - the threads that the CPU profile knows: their names, their labels and since when, and what
 * sources and captures keep for each. Private to cpu*.c.
 */
#ifndef SAMPLER_CPU_THREADS_H
#define SAMPLER_CPU_THREADS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/collect/cpu.h"
#include "sampler/memory/arena.h"
#include "sampler/proc/task.h"
#include "sampler/store/ring.h"

struct cpu_thread {
	uint32_t tid; /* 0: a free entry */
	uint32_t next;
	uint32_t name; /* text; 0: not known */
	uint32_t first_labels;
	uint64_t last_change; /* of its labels; 0: none */
	uint32_t phases_of;   /* which start of the periods `phases` is about */
	uint64_t phases;      /* bits: CPUs on which the first period is over */
	int timer;
	bool has_timer;
	bool seen;
	uint16_t scans;                  /* that have met it */
	uint32_t drawn;                  /* bits: captures for which `left` was begun */
	uint32_t left[CPU_CAPTURES_MAX]; /* cpu_thin() */
};

int cpu_threads_open(void);
void cpu_threads_close(void);

/* The thread's entry; made, if it is a new one; NULL when there is no room. `is_new` may be NULL. */
struct cpu_thread *cpu_threads_get(uint32_t tid, bool *is_new);

/* Read the list of threads. Each one's `meet` is called, and `leave` of those that are gone. Names are read again
 * after 1, 2, 4 … scans: most threads are given theirs when they have begun, and keep it. */
void cpu_threads_scan(void (*meet)(struct cpu_thread *), void (*leave)(struct cpu_thread *));

/* Every thread that is known. */
void cpu_threads_each(void (*call)(struct cpu_thread *));

/* RECORD_LABELS. */
void cpu_threads_take(const struct record *record);

/* What a thread's labels were; of times up to now, and after the last records were taken. */
uint32_t cpu_threads_labels(const struct cpu_thread *thread, uint64_t time_ns);

/* Records were lost: look at what all threads' labels are now. */
void cpu_threads_look_at_labels(void);

/* These labels and the thread's name. */
uint32_t cpu_threads_named(const struct cpu_thread *thread, uint32_t labels);

#endif
