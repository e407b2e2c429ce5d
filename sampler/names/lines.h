/*
 * lines.h - source lines, inlined frames and readable names for the addresses of a profile, from
 * postern-lines (sampler/lines), a program of its own that this starts and stops.
 *
 * Server thread only, and never waits: a job is begun, the server polls lines_descriptor(), and the
 * job is done when it says so, or when its owner has waited long enough.  There is one such program
 * for all jobs; it stays for a minute, for it keeps what it has read, and goes with the process.
 */
#ifndef SAMPLER_LINES_H
#define SAMPLER_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/names/symbols.h"
#include "sampler/settings.h"

#define LINES_WAIT_NS UINT64_C(4000000000) /* how long a profile waits */

struct lines_job {
	struct symbols *symbols;
	struct asked **asked;
	size_t len, at; /* how many, and how many of them were answered */
	bool done;
	bool tried_again;       /* private: after the program had ended */
	struct lines_job *next; /* private */
	const char *wrong;      /* why not all have lines; NULL: they were looked for */
};

/* At the server's start, also in a forked child. Finds out whether the program may be had. */
void lines_start(const struct settings *settings);
void lines_stop(void);

/* Begin to ask for everything that symbols_find() was asked for. `job` is not moved before lines_end(). */
void lines_begin(struct lines_job *job, struct symbols *symbols, uint64_t now);

/* Give a job up, or back when it is done: what was answered is in the symbols then, and what is wrong. */
void lines_end(struct lines_job *job);

/* The job's owner goes away, and the symbols with it. */
void lines_cancel(struct lines_job *job);

/* What to poll for input; -1: nothing. */
int lines_descriptor(void);

/* Take what was answered, ask on, end an idle program. Jobs may be done after this. */
void lines_poll(uint64_t now);

/* When lines_poll() wants to be called the latest; UINT64_MAX: not at all. */
uint64_t lines_deadline(void);

#endif
