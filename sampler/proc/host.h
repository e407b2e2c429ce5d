/*
 * host.h - is this a program to be in at all?
 */
#ifndef SAMPLER_HOST_H
#define SAMPLER_HOST_H

#include <stdbool.h>

/*
 * NULL, or why the sampler must not do anything here: another tool already stands between the program and
 * its memory, locks and threads, and finds faults that we would hide from it or be taken for.  A constant
 * text.  Asks the loader at the first call, so not for handlers.
 */
const char *host_forbids(void);

/* Part of the same question, for what runs before all else: is it built with a sanitizer? */
bool host_is_sanitized_sigsafe(void);

#endif
