/*
 * sandbox.h - what a process gives up before it reads a byte from outside.
 */
#ifndef GATEWAY_SANDBOX_H
#define GATEWAY_SANDBOX_H

#include "conf/conf.h"

enum sandbox_role {
	SANDBOX_WORKER,
	SANDBOX_SCRIBE, /* as a worker, but may create, rename and append to files in one folder */
};

/*
 * Become gateway.user (when root), with no_new_privs, not dumpable, without core files, then behind
 * Landlock (where the kernel has it) and a seccomp filter: EPERM by default, death for exec and
 * ptrace. What later opens files or reads random numbers lazily must have done so before: this
 * makes OpenSSL and jansson do it. `folder` is the scribe's, or -1.
 */
int sandbox_enter(enum sandbox_role role, const struct conf *conf, int folder, struct err *err);

#endif
