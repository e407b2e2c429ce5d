/*
 * threads.h - what every thread is doing now: its name, its state in Go's words, its stack.
 *
 * A thread that sleeps in the kernel is read without waking it: the kernel tells where it stands,
 * its stack is copied, and the copy is walked.  Where that does not lead to the thread's start (a
 * frame pointer would be needed that only the thread itself has), and for threads that run, it is
 * asked by a signal.  Server thread only.
 */
#ifndef SAMPLER_THREADS_H
#define SAMPLER_THREADS_H

#include "sampler/names/symbols.h"
#include "sampler/proc/task.h"
#include "sampler/unwind/unwind.h"

struct thread {
	uint32_t tid;
	char name[TASK_NAME_SIZE];
	const char *state;               /* "running", "IO wait", "sync.Mutex.Lock", … */
	size_t len;                      /* of the stack; 0: it could not be taken */
	uintptr_t pcs[UNWIND_DEPTH_MAX]; /* as in depot.h */
};

/* All threads but the server, the calling request's own order being that of their ids. Lives in the
 * arena. -1 when they cannot be listed. */
int threads_read(
	struct arena *arena, struct symbols *symbols, struct thread **out, size_t *len);

/* Just how many there are. */
size_t threads_count(struct arena *arena);

#endif
