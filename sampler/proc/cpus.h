/*
 * cpus.h - which processors there are.
 */
#ifndef SAMPLER_CPUS_H
#define SAMPLER_CPUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/sv.h"

#define CPUS_MAX 1024

/* A list as the kernel writes it, "0-3,8": at most `max` numbers; returns how many. */
size_t cpus_parse(struct sv text, uint32_t *out, size_t max);

/* Those that are online; where that cannot be read, those that the calling thread may run on. */
size_t cpus_online(uint32_t *out, size_t max);

/* How often the kernel's clock ticks in a second (CONFIG_HZ). */
unsigned cpus_tick_hz(void);

#endif
