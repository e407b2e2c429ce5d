/*
 * listener.h - where the server listens, and whom it lets in.
 */
#ifndef SAMPLER_LISTENER_H
#define SAMPLER_LISTENER_H

#include <sys/socket.h>

#include "sampler/settings.h"

struct place {
	struct sockaddr_storage address;
	socklen_t len;
};

/* "127.0.0.1:6060", "[::1]:0" or "unix:/path". Anything that is not loopback is refused. */
int place_parse(const char *text, struct place *out, struct err *err);

/* The unix socket that this process takes when its address is taken. */
int place_fallback(const struct settings *settings, struct place *out, struct err *err);

/* How it is written; of a listening socket, with the port that the kernel chose. */
void place_format(const struct place *place, char *out, size_t size);

/* A non-blocking listening socket, or -1 (errno EADDRINUSE: somebody else is there). A unix socket
 * that nobody listens on any more is replaced. `place` gets the address it has. */
int listener_open(struct place *place, struct err *err);

/* May this client ask? Its user is compared with ours, root and the allowed ones. */
bool listener_admits(int connection, const struct settings *settings, uint32_t *uid);

#endif
