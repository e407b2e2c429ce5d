#include "gateway/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>

#define ACCEPTS_AT_ONCE 16 /* then others have their turn, and other workers theirs */

/* Without descriptors or memory nothing is gained by trying at once. */
static const struct timeval pause_time = { .tv_usec = 100000 };

struct listener {
	int fd;
	struct event *on_read, *on_time;
	void (*accepted)(void *arg, int fd, const struct sockaddr_storage *peer);
	void *arg;
};

/* False when it makes no sense to go on now. */
static bool accept_one(struct listener *listener)
{
	struct sockaddr_storage peer = { 0 };
	socklen_t len = sizeof(peer);
	int on = 1;
	int fd = accept4(
		listener->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		listener->accepted(listener->arg, fd, &peer);
		return true;
	}
	switch (errno) {
	case EINTR:
	case ECONNABORTED: /* that client has left already */
	case EPROTO:
		return true;
	case EAGAIN:
		return false;
	case EINVAL: /* shut down by the keeper: access is closed */
		(void)event_del(listener->on_read);
		return false;
	default:
		(void)event_del(listener->on_read);
		(void)event_add(listener->on_time, &pause_time);
		return false;
	}
}

static void handle_read(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	for (unsigned i = 0; i < ACCEPTS_AT_ONCE; i++) {
		if (!accept_one(arg))
			return;
	}
}

static void handle_time(evutil_socket_t fd, short what, void *arg)
{
	struct listener *listener = arg;

	(void)fd;
	(void)what;
	(void)event_add(listener->on_read, NULL);
}

struct listener *listener_new(struct event_base *base, int fd,
	void (*accepted)(void *arg, int fd, const struct sockaddr_storage *peer), void *arg)
{
	struct listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return NULL;
	*listener = (struct listener){ .fd = fd, .accepted = accepted, .arg = arg };
	listener->on_read = event_new(base, fd, EV_READ | EV_PERSIST, handle_read, listener);
	listener->on_time = event_new(base, -1, 0, handle_time, listener);
	if (!listener->on_read || !listener->on_time || event_add(listener->on_read, NULL)) {
		listener_free(listener);
		return NULL;
	}
	return listener;
}

void listener_free(struct listener *listener)
{
	if (!listener)
		return;
	if (listener->on_read)
		event_free(listener->on_read);
	if (listener->on_time)
		event_free(listener->on_time);
	free(listener);
}
