#include "gateway/dialer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sockdiag.h"

#define AGAIN_MS 50

struct dial {
	struct event_base *base;
	struct event *event;
	dial_done done;
	void *arg;
	struct sockaddr_storage address;
	socklen_t len;
	int fd;
	uint64_t until_ms;
	bool is_waking; /* refused is not the last word */
	bool has_uid;
	uint32_t uid;
};

static socklen_t make_address(const struct conf_target *target, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof(*out));
	if (target->socket) {
		struct sockaddr_un *path = (struct sockaddr_un *)out;
		size_t len = strlen(target->socket);

		if (len >= sizeof(path->sun_path))
			return 0;
		path->sun_family = AF_UNIX;
		memcpy(path->sun_path, target->socket, len + 1);
		return sizeof(*path);
	}
	if (addr_is_v4(&target->addr)) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)out;

		v4->sin_family = AF_INET;
		v4->sin_port = htons(target->port);
		memcpy(&v4->sin_addr, target->addr.bytes + 12, 4);
		return sizeof(*v4);
	}
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(target->port);
	memcpy(&v6->sin6_addr, target->addr.bytes, 16);
	return sizeof(*v6);
}

/* Who serves there: the connected process of a unix socket, the owner of a TCP listener. */
static int check_uid(const struct dial *dial)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	uint32_t uid;

	if (!dial->has_uid)
		return 0;
	if (dial->address.ss_family == AF_UNIX) {
		if (getsockopt(dial->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
			return errno;
		uid = peer.uid;
	} else if (sockdiag_listener(&dial->address, &uid)) {
		return errno;
	}
	return uid == dial->uid ? 0 : EPERM;
}

static void attempt(struct dial *dial);

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;

	(void)fd;
	(void)what;
	event_free(dial->event);
	dial->event = NULL;
	attempt(dial);
}

/* Its sampler may be about to listen: not yet is not no, until the time is over. */
static bool try_again(struct dial *dial, int error)
{
	const struct timeval soon = { .tv_usec = AGAIN_MS * 1000L };

	if (!dial->is_waking || (error != ECONNREFUSED && error != ENOENT) ||
		clock_boot_ms() + AGAIN_MS >= dial->until_ms)
		return false;
	if (dial->event)
		event_free(dial->event);
	if (dial->fd >= 0)
		(void)close(dial->fd);
	dial->fd = -1;
	dial->event = event_new(dial->base, -1, 0, on_again, dial);
	return dial->event && event_add(dial->event, &soon) == 0;
}

static void finish(struct dial *dial, int error)
{
	dial_done done = dial->done;
	void *arg = dial->arg;
	int fd;

	if (error == 0)
		error = check_uid(dial);
	if (error && try_again(dial, error))
		return;
	if (dial->event)
		event_free(dial->event);
	fd = dial->fd;
	free(dial);
	if (error && fd >= 0) {
		(void)close(fd);
		fd = -1;
	}
	done(arg, fd, error);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (what & EV_TIMEOUT)
		error = ETIMEDOUT;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len))
		error = errno;
	finish(arg, error);
}

static void attempt(struct dial *dial)
{
	uint64_t now_ms = clock_boot_ms();
	uint64_t left_ms = dial->until_ms > now_ms ? dial->until_ms - now_ms : 1;
	const struct timeval timeout = { .tv_sec = (time_t)(left_ms / 1000),
		.tv_usec = (suseconds_t)(left_ms % 1000 * 1000) };

	dial->fd = dial->len ? socket(dial->address.ss_family,
				       SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
			     : -1;
	if (dial->fd < 0) {
		finish(dial, dial->len ? errno : ENAMETOOLONG);
		return;
	}
	if (connect(dial->fd, (struct sockaddr *)&dial->address, dial->len) == 0) {
		finish(dial, 0);
		return;
	}
	if (errno != EINPROGRESS) {
		/* EAGAIN: a unix socket's queue is full; it is not answering. */
		finish(dial, errno == EAGAIN ? ETIMEDOUT : errno);
		return;
	}
	dial->event = event_new(dial->base, dial->fd, EV_WRITE, on_writable, dial);
	if (!dial->event || event_add(dial->event, &timeout))
		finish(dial, ENOMEM);
}

void dial_start(struct event_base *base, const struct conf_target *target, uint64_t timeout_ms,
	dial_done done, void *arg)
{
	struct dial *dial = calloc(1, sizeof(*dial));

	if (!dial) {
		done(arg, -1, ENOMEM);
		return;
	}
	*dial = (struct dial){ .base = base,
		.done = done,
		.arg = arg,
		.fd = -1,
		.until_ms = clock_boot_ms() + timeout_ms,
		.is_waking = target->wake,
		.has_uid = target->has_uid,
		.uid = target->uid };
	dial->len = make_address(target, &dial->address);
	attempt(dial);
}

bool dial_is_up(const struct conf_target *target)
{
	struct sockaddr_storage address;
	socklen_t len = make_address(target, &address);
	uint32_t uid;
	bool is_up;
	int fd;

	if (!target->socket)
		return sockdiag_listener(&address, &uid) == 0 &&
		       (!target->has_uid || uid == target->uid);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	is_up = len && connect(fd, (struct sockaddr *)&address, len) == 0;
	(void)close(fd);
	return is_up;
}
