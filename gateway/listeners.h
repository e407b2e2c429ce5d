/*
 * listeners.h - the debug port's sockets: bound at opening, shut down at closing.
 */
#ifndef GATEWAY_LISTENERS_H
#define GATEWAY_LISTENERS_H

#include "conf/conf.h"

#define LISTENERS_MAX 32

struct listener {
	int fd;
	char wanted[64]; /* "127.0.0.1:0": as the configuration has it */
	char text[64];   /* "127.0.0.1:40123": as it is bound */
};

struct listeners {
	struct listener items[LISTENERS_MAX];
	size_t len;
};

/*
 * Bind every address of gateway.listen, taking over from `old` (may be NULL) those that are bound
 * already. A family that the host lacks is a warning if another address works. Does not listen yet:
 * a connection is still refused. -1: nothing is bound, `old` is as it was.
 */
int listeners_bind(struct listeners *listeners, const struct conf *conf, struct listeners *old,
	struct err *err);

/* From now on connections are taken. */
int listeners_listen(const struct listeners *listeners, struct err *err);

/* Shut down, for all who share the sockets, and close. */
void listeners_close(struct listeners *listeners);

#endif
