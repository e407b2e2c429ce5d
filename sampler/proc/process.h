/*
 * process.h - what /proc/self tells of the whole process. Server thread only.
 */
#ifndef SAMPLER_PROCESS_H
#define SAMPLER_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/memory/arena.h"

struct process_state {
	uint64_t cpu_ns;
	uint64_t virtual_bytes, resident_bytes, resident_peak_bytes;
	uint64_t resident_anonymous_bytes, resident_file_bytes;
	uint64_t threads; /* all of them, the server's too */
	uint64_t start_unix_ns;
	uint64_t open_fds, max_fds; /* 0: not to be known */
	uint64_t max_virtual_bytes; /* UINT64_MAX: no limit */
};

/* What cannot be read stays 0. */
void process_read(struct arena *arena, struct process_state *out);

/* How many timers may be made of which each takes one of RLIMIT_SIGPENDING: half of what the user has left, the
 * other half is the program's. */
size_t process_spare_timers(void);

#endif
