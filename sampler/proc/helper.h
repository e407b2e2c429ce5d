/*
 * helper.h - a program of ours beside the program that we are in, which must not notice.
 *
 * A child that runs another program raises SIGCHLD at its end and is found by waitpid(-1), whatever
 * signal clone(2) was told: execve(2) sets that back.  So the helper is no child of the program's, but
 * of a stub: a process that shares the program's memory (nothing is copied), has every signal
 * blocked, runs no program, waits for the helper, and ends without a signal.  Only a wait with __WCLONE
 * or __WALL sees it.  When the thread that started it ends, for whatever reason, the kernel kills stub
 * and helper.
 */
#ifndef SAMPLER_HELPER_H
#define SAMPLER_HELPER_H

#include <stdbool.h>
#include <sys/types.h>

struct helper {
	void *shared; /* private: NULL while there is none */
	pid_t stub;
	int pidfd;  /* of the helper */
	int socket; /* the other end is the helper's descriptor 0 */
};

/*
 * Run the program at an absolute path with one argument, no environment, and one descriptor, a
 * socket of sequenced packets.  NULL, or what is wrong, a constant text.  Server thread only.
 */
const char *helper_start(struct helper *helper, const char *path, const char *argument);

/* Kill it. The socket is closed. helper_is_gone() takes away what is left. */
void helper_kill(struct helper *helper);

/* Is nothing left of it? Then another can be started. True when there was none. */
bool helper_is_gone(struct helper *helper);

/* In a forked child: it was the parent's. */
void helper_forget(struct helper *helper);

#endif
