#include "cli/admin_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "http/body.h"
#include "http/head.h"

#define HEAD_MAX   ((size_t)16 << 10)
#define ANSWER_MAX ((size_t)1 << 20)
#define WAIT_S     30

static int fail_connect(const char *path, struct err *err)
{
	switch (errno) {
	case ENOENT:
	case ECONNREFUSED:
		return err_set(err, ERR_PEER,
			"nobody listens on the admin socket %s; is posternd running? "
			"--admin or POSTERN_ADMIN name another one",
			path);
	case EACCES:
		return err_set(err, ERR_DENIED,
			"the admin socket %s is not open to you: use sudo, or have admin.group "
			"name a group of yours",
			path);
	default:
		return err_sys(err, "admin socket %s", path);
	}
}

static int open_socket(const char *path, struct err *err)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct timeval wait = { .tv_sec = WAIT_S };
	int fd;

	if (strlen(path) >= sizeof(to.sun_path))
		return err_set(err, ERR_INPUT,
			"the admin socket's path '%s' is too long: 107 bytes at most", path);
	memcpy(to.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, "socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
		return fd;
	(void)fail_connect(path, err);
	(void)close(fd);
	return -1;
}

static int send_request(int fd, struct sv request, struct err *err)
{
	while (request.len > 0) {
		ssize_t sent = send(fd, request.ptr, request.len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return err_sys(err, "admin socket: sending");
		request.ptr += sent;
		request.len -= (size_t)sent;
	}
	return 0;
}

/* All that is sent before the other side closes. */
static int receive(int fd, struct buf *in, struct err *err)
{
	for (;;) {
		char *to = buf_reserve(in, 4096);
		ssize_t got;

		if (!to)
			return err_set(
				err, ERR_PEER, "the answer on the admin socket is too long");
		got = recv(fd, to, 4096, 0);
		if (got == 0)
			return 0;
		if (got > 0)
			buf_commit(in, (size_t)got);
		/* Not let in by its uid: closed before a byte, maybe with ours unread. */
		else if (errno == ECONNRESET && in->len == 0)
			return 0;
		else if (errno == EAGAIN)
			return err_set(
				err, ERR_PEER, "posternd did not answer within %d s", WAIT_S);
		else if (errno != EINTR)
			return err_sys(err, "admin socket: receiving");
	}
}

/* Join the pieces of the body at the front of `bytes`; false when it is not whole. */
static bool join_body(const struct http_response *head, char *bytes, size_t len, size_t *joined)
{
	enum http_result result = HTTP_MORE;
	struct http_body body;
	size_t at = 0;

	*joined = 0;
	http_body_init(&body, head->framing, head->content_length);
	while (result == HTTP_MORE && at < len) {
		struct sv payload = { NULL, 0 };
		size_t used = 0;

		result = http_body_next(
			&body, (struct sv){ bytes + at, len - at }, &used, &payload);
		if (payload.len > 0)
			memmove(bytes + *joined, payload.ptr, payload.len);
		*joined += payload.len;
		at += used;
		if (used == 0)
			break;
	}
	return result == HTTP_DONE || (result == HTTP_MORE && http_body_may_end_here(&body));
}

static int read_answer(int fd, struct admin_answer *out, struct err *err)
{
	struct http_response head;
	enum http_result result;
	const char *detail;
	struct buf in;
	size_t len;
	int rc = -1;

	buf_init(&in, ANSWER_MAX);
	if (receive(fd, &in, err))
		goto out;
	if (in.len == 0) {
		(void)err_set(err, ERR_DENIED,
			"posternd does not answer you: it admits root, its own user and "
			"admin.allow_uids");
		goto out;
	}
	result = http_response_parse(buf_sv(&in), HEAD_MAX, false, &head, &detail);
	if (result == HTTP_BAD) {
		(void)err_set(err, ERR_PEER,
			"what listens on the admin socket is no posternd: %s", detail);
		goto out;
	}
	if (result == HTTP_MORE ||
		!join_body(&head, in.ptr + head.head_len, in.len - head.head_len, &len)) {
		(void)err_set(err, ERR_PEER, "the answer on the admin socket ended too soon");
		goto out;
	}
	out->status = head.status;
	out->body = (struct sv){ in.ptr + head.head_len, len };
	out->mem = in.ptr;
	in = (struct buf){ 0 };
	rc = 0;
out:
	buf_free(&in);
	return rc;
}

int admin_ask(const char *socket_path, const char *method, const char *path, const char *json,
	struct admin_answer *out, struct err *err)
{
	struct buf request;
	int fd, rc = -1;

	*out = (struct admin_answer){ 0 };
	fd = open_socket(socket_path, err);
	if (fd < 0)
		return -1;
	buf_init(&request, ANSWER_MAX);
	buf_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
		method, path);
	if (json)
		buf_printf(&request,
			"Content-Type: application/json\r\nContent-Length: %zu\r\n",
			strlen(json));
	buf_add_cstr(&request, "\r\n");
	if (json)
		buf_add_cstr(&request, json);
	if (request.failed)
		(void)err_set(err, ERR_INPUT, "the request is too long");
	else if (send_request(fd, buf_sv(&request), err) == 0)
		rc = read_answer(fd, out, err);
	buf_free(&request);
	(void)close(fd);
	return rc;
}

void admin_answer_free(struct admin_answer *answer)
{
	free(answer->mem);
	*answer = (struct admin_answer){ 0 };
}
