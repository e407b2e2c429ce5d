/*
 * trace_wakes.h - who woke whom: releases of locks, and the waits that they ended. Server thread only.
 */
#ifndef SAMPLER_TRACE_WAKES_H
#define SAMPLER_TRACE_WAKES_H

#include "sampler/store/ring.h"

/* A RECORD_WAKE, or the RECORD_THREAD_END of a thread that may be waited for. */
void trace_wakes_note(const struct record *wake);

/* The last of those that may have ended this wait (RECORD_UNBLOCK); NULL: nobody is known. */
const struct record *trace_wakes_find(const struct record *unblock);

void trace_wakes_forget(void);

#endif
