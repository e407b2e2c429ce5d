/*
 * task.h - the process's threads, as /proc/self/task tells of them. Server thread only.
 */
#ifndef SAMPLER_TASK_H
#define SAMPLER_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/memory/arena.h"

#define TASK_NAME_SIZE 16

/* All thread ids but the server thread's own, in the arena. -1 when they cannot be read. */
int task_list(struct arena *arena, uint32_t **tids, size_t *len);

/* The thread's name; "" when it is gone. */
void task_name(uint32_t tid, char out[static TASK_NAME_SIZE]);

/* Letter of proc(5): R, S, D, T, Z; '\0' when it is gone. */
char task_state(uint32_t tid);

/* Does it block this signal, or is it in the strict confinement in which a handler may do nothing, not even
 * look at the clock (or is it gone)? */
bool task_blocks(uint32_t tid, int signal);

/*
 * A look at a thread, without any effect on it.  While the look lasts, task_look_holds() tells whether the
 * thread has run since; then nothing that was read of its stack meanwhile is to be believed.
 */
struct task_look {
	bool sleeps; /* in the kernel: the next three are known */
	long call;   /* the system call that it is in, or -1 */
	uintptr_t sp, pc;
	bool counted;               /* the next two are known */
	uint64_t cpu_ns, waited_ns; /* since its start: on a CPU, and ready for one */
	uint64_t switches;          /* how often it went to sleep or was put on a CPU */
	int file;                   /* private */
};

/* A descriptor for the calls below, to be closed by close(2); -1. */
int task_folder(void);

/* False when the thread is gone; else task_look_end() must follow. */
bool task_look(int folder, uint32_t tid, struct task_look *out);
bool task_look_holds(int folder, uint32_t tid, const struct task_look *look);
void task_look_end(struct task_look *look);

/* The counters alone, which takes a third of the time; nothing is to be ended. False when it is gone. */
bool task_look_counts(int folder, uint32_t tid, struct task_look *out);

/* When the thread last ran, in milliseconds of the scheduler's clock; 0 when the kernel does not tell. (For
 * one that runs, now or a tick ago.) */
uint64_t task_last_run_ms(int folder, uint32_t tid);

#endif
