/*
 * trace_event.h - what an execution trace is made of: one moment in the life of one thread.
 *
 * Texts and stacks are numbers (store/labels.h, store/depot.h), so that a ring of these is the flight
 * recorder.  Readers take any sequence of them: what does not fit together (a thread that goes on twice,
 * after a record was lost) is put right there.
 */
#ifndef SAMPLER_TRACE_EVENT_H
#define SAMPLER_TRACE_EVENT_H

#include <stdint.h>

enum trace_kind {
	TRACE_THREAD = 1, /* it appears; text: its name; value: its creator's tid, or 0 */
	TRACE_END,        /* it is gone */
	TRACE_ON,         /* it runs */
	TRACE_OFF,        /* it stops running; detail: enum trace_off */
	TRACE_STACK,      /* the stack of its last TRACE_OFF, which had none: it is known now */
	TRACE_WAKE,       /* it could run again; value: the tid of who woke it, or 0 */
	TRACE_REGION_BEGIN, /* text: its name; value: the task that it is part of, or 0 */
	TRACE_REGION_END,   /* likewise */
	TRACE_TASK_BEGIN,   /* text: its name; value: its id, which is used once */
	TRACE_TASK_END,     /* value: its id */
	TRACE_LOG,          /* text: the key; value: number of the line (store/log.h) */
	TRACE_SAMPLE,       /* it was using the CPU */
	TRACE_HEAP,         /* of the whole process; value: bytes in use */
};

/* Why a thread does not run. */
enum trace_off {
	TRACE_OFF_UNKNOWN = 0, /* it waits, for what is not known */
	TRACE_OFF_READY,       /* it would run, if there were a CPU for it */
	TRACE_OFF_SYNC, /* a mutex, a read-write lock, a semaphore, another thread's end */
	TRACE_OFF_COND,
	TRACE_OFF_SLEEP,
	TRACE_OFF_IO,
	TRACE_OFF_CALL, /* another system call */
	TRACE_OFFS,
};

struct trace_event {
	uint8_t kind, detail;
	uint16_t cpu;     /* of TRACE_ON: its number plus 1; 0: not known */
	uint32_t tid;     /* of TRACE_HEAP: 0 */
	uint32_t stack;   /* 0: none */
	uint32_t text;    /* 0: none */
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t value;
};

#endif
