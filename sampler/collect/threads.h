/*
 * threads.h - what every thread is doing now: its name, its state, its stack.
 *
 * A thread that sleeps in the kernel is never woken: the kernel tells where it stands, its stack is
 * copied, and the copy is walked (unwind_walk_copy()); what cannot be walked is shown as far as it goes.
 * A thread that runs is asked by a signal, which comes by a timer on the thread's own CPU time: one that
 * has gone to sleep meanwhile does not get it.  Server thread only.
 */
#ifndef SAMPLER_THREADS_H
#define SAMPLER_THREADS_H

#include "sampler/names/symbols.h"
#include "sampler/proc/task.h"
#include "sampler/store/depot.h"

enum thread_state {
	THREAD_RUNNING = 0,
	THREAD_WAITING, /* in the kernel, but in no system call */
	THREAD_SYSCALL,
	THREAD_IO,
	THREAD_SLEEP,
	THREAD_FUTEX,
	THREAD_STOPPED,
	THREAD_DEAD,
};

/* In Go's words, where there is one. A futex serves every kind of lock: which one it is, the names on the
 * stack tell. */
const char *thread_state_name(
	enum thread_state state, struct symbols *symbols, struct depot_stack stack);

struct thread {
	uint32_t tid;
	uint32_t stack; /* depot.h; 0: it could not be taken */
	enum thread_state state;
	uint64_t idle_ns; /* see threads_read_idle() */
	char name[TASK_NAME_SIZE];
};

/* All threads but the server, in the order in which they were made. Lives in the arena. -1 when they cannot be
 * listed. */
int threads_read(struct arena *arena, struct thread **out, size_t *len);

/* The same, but those that run are left alone: they have no stack. */
int threads_look(struct arena *arena, struct thread **out, size_t *len);

/* For how long each has been doing what it waits for; 0: it runs, or the kernel does not tell. */
void threads_read_idle(struct thread *threads, size_t len);

/* Just how many there are. */
size_t threads_count(struct arena *arena);

#endif
