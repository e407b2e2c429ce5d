#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/load.h"

#define HEAD_BYTES_MAX 16384
#define STEPS_MAX      64 /* of one connection before the others have their turn */

static void watch(struct load *load, struct connection *connection, int operation)
{
	struct epoll_event event = {
		.events = EPOLLIN | (connection->wants_write ? EPOLLOUT : 0U),
		.data.ptr = connection,
	};

	(void)epoll_ctl(load->epoll, operation, connection->fd, &event);
}

static void want_write(struct load *load, struct connection *connection, bool wants)
{
	if (connection->wants_write == wants)
		return;
	connection->wants_write = wants;
	watch(load, connection, EPOLL_CTL_MOD);
}

static void close_connection(struct load *load, struct connection *connection)
{
	struct linger at_once = { .l_onoff = 1 };

	if (connection->tls) {
		if (connection->state > CONNECTION_HANDSHAKING)
			(void)SSL_shutdown(connection->tls);
		SSL_free(connection->tls);
		connection->tls = NULL;
		ERR_clear_error();
	}
	/* Thousands of connections a second: leave no TIME_WAIT behind. */
	if (load->settings->mode == LOAD_NEW)
		(void)setsockopt(
			connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	(void)close(connection->fd);
	connection->fd = -1;
	connection->state = CONNECTION_DEAD;
}

static void fail(struct load *load, struct connection *connection, const char *what)
{
	unsigned long code = ERR_peek_error();

	if (!load->counts.stopping) {
		load->counts.errors++;
		(void)snprintf(load->counts.last_error, sizeof(load->counts.last_error),
			"%s: %s", what, code ? ERR_reason_error_string(code) : "closed");
	}
	close_connection(load, connection);
	if (!load->counts.stopping && load->settings->mode != LOAD_IDLE)
		connection_open(load, connection);
}

void connection_open(struct load *load, struct connection *connection)
{
	const struct load_settings *settings = load->settings;
	int one = 1;

	memset(connection, 0, offsetof(struct connection, head));
	connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connection->fd < 0) {
		perror("socket");
		exit(1);
	}
	(void)setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	connection->began_ns = load_now_ns();
	connection->state = CONNECTION_CONNECTING;
	connection->wants_write = true;
	(void)connect(connection->fd, (const struct sockaddr *)&settings->server,
		sizeof(settings->server)); /* the result comes by SO_ERROR */
	if (settings->tls) {
		connection->tls = SSL_new(settings->tls);
		(void)SSL_set_fd(connection->tls, connection->fd);
		SSL_set_connect_state(connection->tls);
	}
	watch(load, connection, EPOLL_CTL_ADD);
}

/* Bytes moved; 0: would wait; -1: closed or broken. */
static int tls_result(struct load *load, struct connection *connection, int moved)
{
	int error;

	if (moved > 0)
		return moved;
	error = SSL_get_error(connection->tls, moved);
	if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
		return -1;
	want_write(load, connection, error == SSL_ERROR_WANT_WRITE);
	return 0;
}

static int receive(struct load *load, struct connection *connection, char *to, size_t size)
{
	ssize_t moved;

	if (connection->tls)
		return tls_result(load, connection, SSL_read(connection->tls, to, (int)size));
	moved = recv(connection->fd, to, size, 0);
	return moved < 0 && errno == EAGAIN ? 0 : moved > 0 ? (int)moved : -1;
}

static int transmit(struct load *load, struct connection *connection)
{
	const char *from = load->settings->request + connection->sent;
	size_t len = load->settings->request_len - connection->sent;
	ssize_t moved;

	if (connection->tls)
		return tls_result(load, connection, SSL_write(connection->tls, from, (int)len));
	moved = send(connection->fd, from, len, MSG_NOSIGNAL);
	if (moved < 0 && errno == EAGAIN) {
		want_write(load, connection, true);
		return 0;
	}
	return moved > 0 ? (int)moved : -1;
}

static void begin_request(struct load *load, struct connection *connection)
{
	connection->state = CONNECTION_SENDING;
	connection->sent = 0;
	connection->head_len = 0;
	if (load->settings->mode != LOAD_NEW)
		connection->began_ns = load_now_ns();
}

static void end_request(struct load *load, struct connection *connection)
{
	struct load_counts *counts = &load->counts;

	if (counts->counting) {
		if (connection->status == load->settings->status)
			counts->good++;
		else
			counts->unexpected++;
		load_count_latency(counts, load_now_ns() - connection->began_ns);
	}
	if (load->settings->mode == LOAD_IDLE) {
		connection->state = CONNECTION_HELD;
		counts->held++;
		want_write(load, connection, false);
	} else if (load->settings->mode == LOAD_NEW || connection->close_after) {
		close_connection(load, connection);
		connection_open(load, connection);
	} else {
		begin_request(load, connection);
	}
}

/* False when there is nothing more to do until something happens. */
static bool take_body(struct load *load, struct connection *connection, struct sv bytes)
{
	for (;;) {
		size_t used;
		struct sv payload;
		enum http_result result =
			http_body_next(&connection->body, bytes, &used, &payload);

		bytes.ptr += used;
		bytes.len -= used;
		if (result == HTTP_DONE) {
			end_request(load, connection);
			return connection->state == CONNECTION_SENDING;
		}
		if (result == HTTP_BAD) {
			fail(load, connection, "body");
			return false;
		}
		if (bytes.len == 0)
			return true;
	}
}

static bool take_head(struct load *load, struct connection *connection)
{
	struct http_response response;
	struct sv bytes = { connection->head, connection->head_len }, value;
	const char *detail;

	switch (http_response_parse(bytes, HEAD_BYTES_MAX, false, &response, &detail)) {
	case HTTP_MORE:
		return true;
	case HTTP_BAD:
		fail(load, connection, detail);
		return false;
	case HTTP_DONE:
		break;
	}
	connection->status = response.status;
	connection->close_after = http_response_field(&response, SV("connection"), &value) &&
				  sv_is_nocase(value, SV("close"));
	connection->state = CONNECTION_BODY;
	http_body_init(&connection->body, response.framing, response.content_length);
	return take_body(load, connection,
		(struct sv){ bytes.ptr + response.head_len, bytes.len - response.head_len });
}

static bool step_read(struct load *load, struct connection *connection)
{
	static char bytes[65536];
	bool head = connection->state == CONNECTION_HEAD;
	char *to = head ? connection->head + connection->head_len : bytes;
	size_t room = head ? sizeof(connection->head) - connection->head_len : sizeof(bytes);
	int moved = receive(load, connection, to, room);

	if (moved == 0)
		return false;
	if (moved < 0) {
		if (connection->state == CONNECTION_BODY &&
			http_body_may_end_here(&connection->body)) {
			connection->close_after = true;
			end_request(load, connection);
		} else {
			fail(load, connection, "read");
		}
		return false;
	}
	if (load->counts.counting)
		load->counts.bytes += (uint64_t)moved;
	if (connection->state == CONNECTION_HELD)
		return true;
	if (!head)
		return take_body(load, connection, (struct sv){ bytes, (size_t)moved });
	connection->head_len += (size_t)moved;
	return take_head(load, connection);
}

static bool step_connect(struct load *load, struct connection *connection)
{
	int error = 0;
	socklen_t len = sizeof(error);

	(void)getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		errno = error;
		fail(load, connection, "connect");
		return false;
	}
	connection->state = CONNECTION_HANDSHAKING;
	return true;
}

static bool step_handshake(struct load *load, struct connection *connection)
{
	if (connection->tls) {
		int moved = tls_result(load, connection, SSL_do_handshake(connection->tls));

		if (moved < 0)
			fail(load, connection, "handshake");
		if (moved <= 0)
			return false;
	}
	begin_request(load, connection);
	return true;
}

static bool step_send(struct load *load, struct connection *connection)
{
	int moved = transmit(load, connection);

	if (moved < 0)
		fail(load, connection, "write");
	if (moved <= 0)
		return false;
	connection->sent += (size_t)moved;
	if (connection->sent == load->settings->request_len) {
		connection->state = CONNECTION_HEAD;
		want_write(load, connection, false);
	}
	return true;
}

void connection_step(struct load *load, struct connection *connection)
{
	bool more = true;

	for (int i = 0; more && i < STEPS_MAX; i++) {
		switch (connection->state) {
		case CONNECTION_DEAD:
			return;
		case CONNECTION_CONNECTING:
			more = step_connect(load, connection);
			break;
		case CONNECTION_HANDSHAKING:
			more = step_handshake(load, connection);
			break;
		case CONNECTION_SENDING:
			more = step_send(load, connection);
			break;
		case CONNECTION_HEAD:
		case CONNECTION_BODY:
		case CONNECTION_HELD:
			more = step_read(load, connection);
			break;
		}
	}
}
