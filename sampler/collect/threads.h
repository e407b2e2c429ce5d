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
	THREAD_READY, /* it would run, if there were a CPU for it */
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

/*
 * One thread, again and again: whoever sleeps, and where.  A thread that runs has no stack.
 */
struct thread_look {
	enum thread_state state;
	uint32_t stack; /* of who sleeps; 0: it could not be taken */
	bool sleeps;
	bool counted;               /* the next two are known */
	uint64_t cpu_ns, waited_ns; /* as task.h has them */
	uint64_t switches;          /* as before, and it slept: it has not run meanwhile */
};

struct reading; /* what looking takes: memory of an arena, and two descriptors */

struct reading *threads_open(struct arena *arena);
void threads_close(struct reading *reading);

/* `look` is that of the last time, or zeroes: the stack of who has slept on is not walked again. False when it is
 * gone. */
bool threads_look_again(struct reading *reading, uint32_t tid, struct thread_look *look);

/* The counters alone: state, stack and `sleeps` stay. */
bool threads_count_again(const struct reading *reading, uint32_t tid, struct thread_look *look);

/* Just how many there are. */
size_t threads_count(struct arena *arena);

#endif
