#include "gateway/listeners.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/log.h"

#define BACKLOG 512

static socklen_t make_sockaddr(const struct conf_listen *listen, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof(*out));
	if (addr_is_v4(&listen->addr)) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)out;

		v4->sin_family = AF_INET;
		v4->sin_port = htons(listen->port);
		memcpy(&v4->sin_addr, listen->addr.bytes + 12, 4);
		return sizeof(*v4);
	}
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(listen->port);
	memcpy(&v6->sin6_addr, listen->addr.bytes, 16);
	return sizeof(*v6);
}

static void format_address(const struct addr *addr, uint16_t port, char *out, size_t size)
{
	char text[ADDR_TEXT_SIZE];

	addr_format(addr, text);
	(void)snprintf(out, size, addr_is_v4(addr) ? "%s:%u" : "[%s]:%u", text, port);
}

static int bind_socket(const struct conf_listen *listen)
{
	struct sockaddr_storage address;
	socklen_t len = make_sockaddr(listen, &address);
	const int yes = 1;
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
		(address.ss_family == AF_INET6 &&
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes))) ||
		bind(fd, (struct sockaddr *)&address, len)) {
		int saved = errno;

		(void)close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static int bind_one(struct listener *out, const struct conf_listen *listen)
{
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);
	struct addr addr;
	uint16_t port;

	out->fd = bind_socket(listen);
	if (out->fd < 0)
		return -1;
	format_address(&listen->addr, listen->port, out->wanted, sizeof(out->wanted));
	if (getsockname(out->fd, (struct sockaddr *)&bound, &len) ||
		!addr_from_sockaddr(&bound, &addr, &port)) {
		(void)close(out->fd);
		return -1;
	}
	format_address(&addr, port, out->text, sizeof(out->text));
	return 0;
}

/* Move the listener out of `old`. */
static bool take_over(
	struct listener *out, const struct conf_listen *listen, struct listeners *old)
{
	char wanted[sizeof(out->wanted)];

	format_address(&listen->addr, listen->port, wanted, sizeof(wanted));
	for (size_t i = 0; old && i < old->len; i++) {
		if (old->items[i].fd < 0 || strcmp(old->items[i].wanted, wanted) != 0)
			continue;
		*out = old->items[i];
		old->items[i].fd = -1;
		return true;
	}
	return false;
}

/* Give back what was taken over; close what was bound anew. */
static void undo(struct listeners *listeners, struct listeners *old)
{
	for (size_t i = 0; i < listeners->len; i++) {
		struct listener *item = &listeners->items[i];
		size_t home = 0;

		while (old && home < old->len &&
			(old->items[home].fd >= 0 ||
				strcmp(old->items[home].text, item->text) != 0))
			home++;
		if (old && home < old->len)
			old->items[home].fd = item->fd;
		else
			(void)close(item->fd);
	}
	listeners->len = 0;
}

int listeners_bind(struct listeners *listeners, const struct conf *conf, struct listeners *old,
	struct err *err)
{
	const char *missing = NULL;

	listeners->len = 0;
	for (size_t i = 0; i < conf->gateway.listen_len; i++) {
		const struct conf_listen *listen = &conf->gateway.listen[i];
		struct listener *item = &listeners->items[listeners->len];

		if (listeners->len == LISTENERS_MAX) {
			(void)err_set(err, ERR_INPUT, "gateway.listen: at most %d addresses",
				LISTENERS_MAX);
			goto fail;
		}
		if (take_over(item, listen, old) || bind_one(item, listen) == 0) {
			listeners->len++;
			continue;
		}
		if (errno == EAFNOSUPPORT ||
			(errno == EADDRNOTAVAIL && addr_is_loopback(&listen->addr))) {
			missing = listen->text;
			log_warning("gateway.listen: this host has no address %s; the others "
				    "stand",
				listen->text);
			continue;
		}
		(void)err_sys(err, "gateway.listen: cannot bind %s", listen->text);
		goto fail;
	}
	if (listeners->len > 0)
		return 0;
	(void)err_set(err, ERR_INPUT, "gateway.listen: this host has no address %s",
		missing ? missing : "at all");
fail:
	undo(listeners, old);
	return -1;
}

int listeners_listen(const struct listeners *listeners, struct err *err)
{
	for (size_t i = 0; i < listeners->len; i++) {
		if (listen(listeners->items[i].fd, BACKLOG))
			return err_sys(err, "gateway.listen: cannot listen on %s",
				listeners->items[i].text);
	}
	return 0;
}

void listeners_close(struct listeners *listeners)
{
	for (size_t i = 0; i < listeners->len; i++) {
		if (listeners->items[i].fd < 0)
			continue;
		/* The workers have it too, and one of them may be stuck. */
		(void)shutdown(listeners->items[i].fd, SHUT_RDWR);
		(void)close(listeners->items[i].fd);
	}
	listeners->len = 0;
}
