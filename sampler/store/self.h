/*
 * self.h - what the sampler knows of the calling thread, in one thread-local block.
 *
 * Initial-exec: the dynamic model may allocate, or take the loader's lock, when a hook or a handler is
 * the first to touch it.  Keep it small: it comes out of every thread's stack, and out of the little
 * space that libraries loaded later have for such variables.
 */
#ifndef SAMPLER_SELF_H
#define SAMPLER_SELF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct self {
	uint32_t tid;        /* 0: not asked for yet; use self_tid_sigsafe() */
	uint32_t inside;     /* not 0: our own code runs, and hooks pass straight through */
	bool is_confined;    /* not even the clock may be read here: hooks/confine.c */
	uint32_t labels;     /* id of the label set (store/labels.h); 0: none */
	uint32_t region;     /* the innermost open region */
	uint32_t wait_place; /* the thread's own in collect/waits.c; 0: none yet */
	uint32_t listed;     /* not 0: self_labels_of() finds it */
	int64_t heap_left;   /* bytes until the next heap sample */
	uint64_t heap_rate;  /* with which that was drawn */
	uint64_t random;     /* state of the thread's own generator; 0: not seeded */
};

extern _Thread_local struct self self __attribute__((tls_model("initial-exec")));

static inline uint32_t self_tid_sigsafe(void)
{
	if (__builtin_expect(self.tid == 0, 0))
		self.tid = (uint32_t)gettid();
	return self.tid;
}

/* A number from 1 to 2^64 - 1 (xorshift64*: Vigna, "An experimental exploration of Marsaglia's
 * xorshift generators"). Good enough for sampling, and for nothing else. */
uint64_t self_random_sigsafe(void);

/* Let self_labels_of() find the calling thread. */
void self_list_sigsafe(void);

/* The labels that another thread has now. 0 also when it was never listed, or is gone. Server thread
 * only. */
uint32_t self_labels_of(uint32_t tid);

/* In a forked child: the thread has another id there, and must not draw the same numbers. */
void self_after_fork(void);

#endif
