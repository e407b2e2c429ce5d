/*
 * real.h - plumbing for interposed functions: the functions that ours stand in front of.
 *
 * A file of this room defines functions by the names of the C library's (HOOK), visible to the whole
 * process, and calls what it finds behind them.  It does nothing else: what is to be recorded, collect/
 * knows.  Every hook keeps errno, passes errors through unchanged, and does nothing but pass the call on
 * while `self.inside` is set: then our own code runs in this thread.
 *
 * This room is not part of what unit tests link: the names would take effect there, too.
 */
#ifndef SAMPLER_REAL_H
#define SAMPLER_REAL_H

#include <stdatomic.h>

#define HOOK __attribute__((visibility("default")))

typedef void real_function(void);

/*
 * The next definition of `name` after ours in the order in which the loader looks; of that version, when
 * one is given and it is there.  Ends the program with a message when there is none at all: it could
 * not have been started without us then.  Calls the loader, so it is for the first call of a hook, or
 * better for before.
 */
real_function *real_find(const char *name, const char *version);

/* The same, but NULL when there is none: this C library may be older than the function is. */
real_function *real_find_optional(const char *name, const char *version);

/* A hook's pointer to what is behind it: found at the first use. */
static inline real_function *real_of(
	_Atomic(real_function *) *kept, const char *name, const char *version)
{
	real_function *found = atomic_load_explicit(kept, memory_order_relaxed);

	if (__builtin_expect(!found, 0)) {
		found = real_find(name, version);
		atomic_store_explicit(kept, found, memory_order_relaxed);
	}
	return found;
}

#endif
