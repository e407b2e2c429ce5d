/*
 * listener.h - accepting on a listening socket that the keeper has bound.
 */
#ifndef GATEWAY_LISTENER_H
#define GATEWAY_LISTENER_H

#include <event2/event.h>
#include <sys/socket.h>

struct listener;

/* Call `accepted` for each new connection: its non-blocking socket becomes the callee's. Other
 * processes may accept on the same socket. Keeps `arg`; the listening socket stays the caller's.
 * NULL without memory. */
struct listener *listener_new(struct event_base *base, int fd,
	void (*accepted)(void *arg, int fd, const struct sockaddr_storage *peer), void *arg);

/* NULL is fine. */
void listener_free(struct listener *listener);

#endif
