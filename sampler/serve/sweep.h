/*
 * sweep.h - control sockets that crashed or ended processes of this one's name have left in the runtime folder.
 *
 * A process does not take its socket away when it ends: that would be a system call on the program's way
 * out, which a seccomp filter may punish by death.  So the next one of the same name and user does.
 */
#ifndef SAMPLER_SWEEP_H
#define SAMPLER_SWEEP_H

#include "sampler/settings.h"

/* Where the folder can be listed. Looks at a limited number of files, and takes nothing of a process that
 * is there, of another user or of another name. */
void sweep_stale(const struct settings *settings);

#endif
