/*
 * perf_ring.h - the kernel's records, byte by byte: what perf.c asks for, and nothing else.
 *
 * Source of the format: perf_event_open(2), linux/perf_event.h.  Every record ends with what
 * PERF_RING_FIELDS says of where and when (attr.sample_id_all).  Nothing is believed: a record that does
 * not fit its own size, or the ring, is passed over.
 */
#ifndef SAMPLER_PERF_RING_H
#define SAMPLER_PERF_RING_H

#include <linux/perf_event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/collect/perf.h"

/* attr.sample_type: of all records, and of samples. */
#define PERF_RING_FIELDS                                                         \
	((uint64_t)PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | \
		PERF_SAMPLE_CPU)
#define PERF_RING_SAMPLE                                                                  \
	(PERF_RING_FIELDS | PERF_SAMPLE_IP | PERF_SAMPLE_PERIOD | PERF_SAMPLE_REGS_USER | \
		PERF_SAMPLE_STACK_USER)

#define PERF_RING_RECORD_MAX ((size_t)64 << 10) /* more than any record */

enum perf_ring_kind {
	PERF_RING_OTHER = 0, /* nothing that was asked for */
	PERF_RING_TAKEN,     /* a sample */
	PERF_RING_SWITCH,
	PERF_RING_THREAD,
	PERF_RING_LOST,
};

struct perf_ring_record {
	enum perf_ring_kind kind;
	uint32_t pid;
	uint64_t event;   /* PERF_EVENT_IOC_ID of the event */
	uint64_t time_ns; /* 0: not known */

	union {
		struct perf_sample sample;
		struct perf_switch change;
		struct perf_thread thread;
		uint64_t lost; /* records */
	};
};

/*
 * The record at `*tail`, which moves behind it, at most to `head`; positions are counted from the ring's first
 * use on, `size` is a power of two.  False at the end.  `scratch` (PERF_RING_RECORD_MAX bytes) is where a
 * record is put together that lies across the end; what `out` points to is valid until the next
 * call, and as long as the kernel has not been told the new tail.
 */
bool perf_ring_next(const void *data, size_t size, uint64_t head, uint64_t *tail, void *scratch,
	struct perf_ring_record *out);

#endif
