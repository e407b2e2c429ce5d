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

/*
 * A unix socket of this process's own in the runtime folder: NAME.PID and `ending`, the name
 * written as announce.h has it.  The folder must be ours or root's, no symbolic
 * link, and not one in which others can take away what is ours.
 */
int place_own(const struct settings *settings, const char *ending, struct place *out,
	struct err *err);

/* The path of a unix socket; NULL of any other. Lives as long as `place`. */
const char *place_path(const struct place *place);

/* How it is written; of a listening socket, with the port that the kernel chose. */
void place_format(const struct place *place, char *out, size_t size);

/* A non-blocking listening socket, or -1 (errno EADDRINUSE: somebody else is there). A unix socket of
 * ours that nobody listens on any more is replaced. `place` gets the address it has.  A unix socket's file
 * is open to its own user only, unless the settings let others in, who are then told by their peer's uid. */
int listener_open(struct place *place, const struct settings *settings, struct err *err);

/* Close it, and remove a unix socket's file if it is that one still. */
void listener_close(int listener, const struct place *place);

/* May this client ask? Its user is compared with ours, root and the allowed ones. */
bool listener_admits(int connection, const struct settings *settings, uint32_t *uid);

#endif
