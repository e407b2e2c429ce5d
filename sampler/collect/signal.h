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

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"

/* Choose a signal and install the handler, at the first call. */
int signal_open(struct err *err);

/* The signal's number, once it is open. */
int signal_number(void);

/* False when the program has put its own handler in our place: then nothing may be sent. */
bool signal_is_ours(void);

/* The clock of another thread's CPU time: clock_getcpuclockid(3)'s encoding, for a thread. */
clockid_t signal_clock_of(uint32_t tid);

/* A number for timers to carry, never 0 and with no more than 31 bits; it takes the place of the one before, whose
 * late signals are known by it and do nothing. */
uint32_t signal_begin_capture(void);
void signal_end_capture(void);

/* Samples that found no room in the ring since the process began; late ones count as many as they stand
 * for. */
uint64_t signal_lost(void);

/* Ask one thread for its stack (depot.h), and wait at most `wait_ms`. False when it did not answer. */
bool signal_ask_stack(uint32_t tid, unsigned wait_ms, uint32_t *stack);

/*
 * For the hooks of waits that change the signal mask: this mask with our signal blocked; and for those that
 * take signals: this set without ours, if it is one of all signals there are (who names ours among
 * some means another's).  `set` itself, or `*changed`.
 */
const sigset_t *signal_shut_out_sigsafe(const sigset_t *set, sigset_t *changed);
const sigset_t *signal_leave_out_sigsafe(const sigset_t *set, sigset_t *changed);

/* In a forked child, before anything else here: forget what its parent had under way. */
void signal_after_fork(void);

#endif
