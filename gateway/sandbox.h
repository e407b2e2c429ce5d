/*
 * sandbox.h - what a process gives up before it reads a byte from outside.
 */
#ifndef GATEWAY_SANDBOX_H
#define GATEWAY_SANDBOX_H

#include "conf/conf.h"

enum sandbox_role {
	SANDBOX_WORKER,
	SANDBOX_SCRIBE,
};

/*
 * Become gateway.user (when root), with no_new_privs, not dumpable, without core files, then behind
 * Landlock (where the kernel has it: no file, no TCP port) and a seccomp filter: EPERM by default,
 * death for exec and ptrace. What later opens files or reads random numbers lazily must have done
 * so before; this makes OpenSSL, jansson and the time zone do it.
 */
int sandbox_enter(enum sandbox_role role, const struct conf *conf, struct err *err);

#endif
