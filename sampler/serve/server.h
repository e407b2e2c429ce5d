/*
 * server.h - the loopback server: one thread, one poll loop, a few connections.
 *
 * The thread has a descriptor table of its own (close_range(2) with CLOSE_RANGE_UNSHARE), so the
 * program may close or count its descriptors as it likes and never sees ours; it blocks every
 * signal; it takes memory from the kernel only.  It answers its own user, root, and the users that
 * the settings allow.
 */
#ifndef SAMPLER_SERVER_H
#define SAMPLER_SERVER_H

#include "sampler/settings.h"

enum server_state {
	SERVER_STARTING = 0,
	SERVER_ASLEEP, /* there is a control socket only */
	SERVER_LISTENING,
	SERVER_ELSEWHERE, /* the address was taken: on a unix socket instead */
	SERVER_FAILED,
	SERVER_STOPPED,
};

struct server {
	const struct settings *settings;
	uint32_t
		parent; /* in a forked child: its parent, whose address it takes over when that is
			    gone; else 0 */
	_Atomic enum server_state state;
	_Atomic bool stop;
	_Atomic bool has_control;
	char control[120]; /* then: where the control socket is, "unix:/run/…" */
	char address
		[160]; /* where it listens, once it does: "127.0.0.1:6060", "unix:/run/…"; "" asleep */
	struct err err;
};

/* The thread's function. Returns when `stop` is set and somebody connects. */
void server_run(struct server *server);

/* Make a running server see `stop`. From any thread. */
void server_wake(const struct server *server);

#endif
