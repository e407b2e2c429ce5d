/*
 * log.h - the last lines that the program logged, for execution traces.
 *
 * A ring of fixed slots: a new line takes the place of the oldest.  Written by any thread, without a
 * lock; a reader that comes too late is told so.
 */
#ifndef SAMPLER_LOG_H
#define SAMPLER_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sv.h"

#define LOG_TEXT_MAX 232

/* The line's number. The text is cut at LOG_TEXT_MAX bytes. */
uint64_t log_put_sigsafe(struct sv text);

/* Copy a line out; false when it has been written over. Server thread only. */
bool log_get(uint64_t number, char out[static LOG_TEXT_MAX], size_t *len);

#endif
