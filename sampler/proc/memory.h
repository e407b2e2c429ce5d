/*
 * memory.h - the program's own memory, read by the kernel: what is not there is not copied, where a load
 * of ours would fault.  Server thread only.
 */
#ifndef SAMPLER_MEMORY_H
#define SAMPLER_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Between these two, reading is by one kept descriptor. They may be nested. */
void memory_begin(void);
void memory_end(void);

/* Copy what is there from `address` on, up to the first byte that is not; returns how much. */
size_t memory_copy(uintptr_t address, void *to, size_t len);

/* In a forked child: the descriptor is its parent's. */
void memory_after_fork(void);

#endif
