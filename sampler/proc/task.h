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

/* Does it block this signal (or is it gone)? */
bool task_blocks(uint32_t tid, int signal);

/* A thread that sleeps in the kernel: the system call that it is in (-1: none), stack pointer and
 * program counter. False when it runs, or it is not to be known. */
struct task_place {
	long call;
	uintptr_t sp, pc;
};

bool task_place(uint32_t tid, struct task_place *out);

#endif
