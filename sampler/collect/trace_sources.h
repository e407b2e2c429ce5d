/*
 * trace_sources.h - what a trace is told beside the ring's records: when the kernel puts a thread on a CPU
 * and takes it off, and samples of what uses the CPU.  Server thread only.
 */
#ifndef SAMPLER_TRACE_SOURCES_H
#define SAMPLER_TRACE_SOURCES_H

#include <stdbool.h>

#include "sampler/store/ring.h"

/* Begin or end; what is not to be had is gone without. `put` gets QUEUED_SWITCH (trace_queue.h) and
 * RECORD_CPU, in any order of time. */
void trace_sources_follow(bool wanted, void (*put)(const struct record *record));

/* Hand out what has come. */
void trace_sources_poll(uint64_t now);

/* Switches that were lost since the process began. */
uint64_t trace_sources_lost(void);

/* In a forked child: the parent's are none of its. */
void trace_sources_after_fork(void);

#endif
