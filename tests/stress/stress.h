/*
 * stress.h - what the stress programs share. A mode is a function that does something until goes_on() says
 * no, checks what comes of it, and counts; main() prints the counts.
 */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

extern atomic_ulong stress_rounds;      /* of whatever the mode does */
extern atomic_ulong stress_interrupted; /* waits that ended early */
extern atomic_ulong stress_errno;       /* times that errno was another */

bool goes_on(void);
double seconds_left(void);

/* Use the CPU; 1000 rounds are about a microsecond. */
unsigned long burn(unsigned long rounds);

/* Something is not as it should be: counted, and told while it is not too often. */
void wrong(const char *what);

/* Start a thread; those that join_all() waits for. */
void start(void *(*run)(void *), void *arg);
void join_all(void);

/* Wait for a child, whose status must be this. */
void expect_status(int child, int status, const char *what);

/* A thread that burns until the end. */
void *burn_on(void *unused);

/* Threads that take, write, read and give back memory of all sizes. */
void *allocate_on(void *seed);

/* The path of a loadable library of this folder. */
const char *beside(const char *file, char *out, size_t size);

/* This program itself. */
extern char stress_self[];

struct mode {
	const char *name;
	void (*run)(void);
};

/* NULL ends each. */
extern const struct mode modes_confined[], modes_frames[], modes_loader[], modes_memory[],
	modes_processes[], modes_signals[], modes_threads[], modes_waits[];

#endif
