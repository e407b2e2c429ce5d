/*
 * signal.h - the one signal that the sampler uses, and what its handler does.
 *
 * A real-time signal that the program does not use, taken at the first need and kept: the handler
 * is installed once and never removed, since a signal may arrive late, and one without a handler
 * would end the program.  The handler runs on the stack that the thread is on; it uses a few
 * hundred bytes there, takes no lock, and changes neither errno nor the signal mask.
 */
#ifndef SAMPLER_SIGNAL_H
#define SAMPLER_SIGNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Choose a signal and install the handler, at the first call. */
int signal_open(struct err *err);

/* The signal's number, once it is open. */
int signal_number(void);

/* False when the program has put its own handler in our place: then nothing may be sent. */
bool signal_is_ours(void);

/* Timers carry this number; 0 switches sampling off, and late signals of an earlier capture are
 * known by theirs. */
void signal_set_capture(uint32_t value);

/* Ask one thread for its stack (depot.h), and wait at most `wait_ms`. False when it did not answer. */
bool signal_ask_stack(uint32_t tid, unsigned wait_ms, uint32_t *stack);

/* In a forked child, before anything else here: forget what its parent had under way. */
void signal_after_fork(void);

#endif
