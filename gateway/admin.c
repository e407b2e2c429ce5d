#include "gateway/admin.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/log.h"

#define CONNECTIONS_MAX 64
#define BACKLOG         128
#define HEAD_MAX        ((size_t)16 << 10)
#define BODY_MAX        ((size_t)64 << 10)
#define REPLY_MAX       ((size_t)1 << 20)
#define WAIT_S          10 /* for a request to come, and for a reply to be taken */
#define REFUSALS_MAX    20 /* a second; what is more is counted, and summed in one record */

struct connection {
	struct connection *next;
	struct admin *admin;
	struct event *event;
	int fd; /* -1: gone, while its answer is still to come */
	bool is_waiting;
	struct actor actor;
	struct buf in, out;
	size_t sent;
};

struct admin {
	struct keeper *keeper;
	struct event *event;
	int fd;
	struct sockaddr_un address;
	struct connection *connections;
	size_t connections_len;
	uint64_t refusals_second, refusals, refusals_more;
};

static void connection_release(struct connection *connection)
{
	if (connection->event)
		event_free(connection->event);
	if (connection->fd >= 0)
		(void)close(connection->fd);
	buf_free(&connection->in);
	buf_free(&connection->out);
	free(connection);
}

static void connection_free(struct connection *connection)
{
	struct connection **at = &connection->admin->connections;

	while (*at != connection)
		at = &(*at)->next;
	*at = connection->next;
	connection->admin->connections_len--;
	connection_release(connection);
}

/* The client is gone. One that waits for an opening stays until that is decided. */
static void connection_end(struct connection *connection)
{
	if (!connection->is_waiting) {
		connection_free(connection);
		return;
	}
	event_free(connection->event);
	connection->event = NULL;
	(void)close(connection->fd);
	connection->fd = -1;
}

static void audit_refusal(
	struct admin *admin, const struct actor *actor, unsigned status, const char *slug)
{
	struct audit_record record = {
		.event = AUDIT_REFUSED, .reason = sv_from_cstr(slug), .status = (uint16_t)status
	};
	uint64_t second = clock_boot_ms() / 1000;

	if (second != admin->refusals_second) {
		admin->refusals_second = second;
		admin->refusals = 0;
	}
	if (++admin->refusals > REFUSALS_MAX) {
		admin->refusals_more++;
		return;
	}
	if (admin->refusals_more > 0) {
		record.has_count = true;
		record.count = admin->refusals_more + 1;
		admin->refusals_more = 0;
	}
	audit_record(admin->keeper, actor, &record, NULL, NULL);
	keeper_settle(admin->keeper);
}

static const char *status_text(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} texts[] = { { 200, "OK" }, { 400, "Bad Request" }, { 404, "Not Found" },
		{ 405, "Method Not Allowed" }, { 408, "Request Timeout" }, { 409, "Conflict" },
		{ 413, "Content Too Large" }, { 415, "Unsupported Media Type" },
		{ 422, "Unprocessable Content" }, { 501, "Not Implemented" },
		{ 502, "Bad Gateway" }, { 503, "Service Unavailable" } };

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (texts[i].status == status)
			return texts[i].text;
	}
	return "Refused";
}

static void send_more(struct connection *connection)
{
	while (connection->sent < connection->out.len) {
		ssize_t sent = send(connection->fd, connection->out.ptr + connection->sent,
			connection->out.len - connection->sent, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent <= 0)
			break;
		connection->sent += (size_t)sent;
	}
	connection_free(connection);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	if (what & EV_TIMEOUT)
		connection_free(arg);
	else
		send_more(arg);
}

static void send_reply(struct connection *connection, const struct admin_reply *reply)
{
	const struct timeval wait = { .tv_sec = WAIT_S };
	struct buf *out = &connection->out;

	if (reply->slug)
		audit_refusal(
			connection->admin, &connection->actor, reply->status, reply->slug);
	buf_printf(out,
		"HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
		"Cache-Control: no-store\r\nConnection: close\r\n",
		reply->status, status_text(reply->status), reply->content_type,
		reply->body.len);
	if (reply->allow)
		buf_printf(out, "Allow: %s\r\n", reply->allow);
	buf_add_cstr(out, "\r\n");
	buf_add_sv(out, buf_sv(&reply->body));
	event_free(connection->event);
	connection->event = event_new(connection->admin->keeper->base, connection->fd,
		EV_WRITE | EV_PERSIST, on_writable, connection);
	if (out->failed || reply->body.failed || !connection->event ||
		event_add(connection->event, &wait))
		connection_free(connection);
	else
		send_more(connection);
}

static void reply_init(struct admin_reply *reply)
{
	*reply = (struct admin_reply){ .status = 503, .content_type = "text/plain" };
	buf_init(&reply->body, REPLY_MAX);
}

static void refuse(
	struct connection *connection, unsigned status, const char *slug, const char *detail)
{
	struct admin_reply reply;

	reply_init(&reply);
	admin_refuse(&reply, status, slug, detail);
	send_reply(connection, &reply);
	buf_free(&reply.body);
}

static void answer_later(
	struct connection *connection, int status, const char *slug, const char *detail)
{
	struct admin_reply reply;

	connection->is_waiting = false;
	if (connection->fd < 0) {
		connection_free(connection);
		return;
	}
	reply_init(&reply);
	if (status == 200)
		admin_put_status(connection->admin->keeper, &reply);
	else
		admin_refuse(&reply, (unsigned)status, slug, detail);
	/* It is in the audit log as what was asked for, if that can be written at all. */
	if (status == 503)
		reply.slug = NULL;
	send_reply(connection, &reply);
	buf_free(&reply.body);
}

void admin_answer(void *later, int status, const char *detail)
{
	answer_later(later, status, status == 409 ? "cannot-bind" : "unavailable", detail);
}

void admin_answer_rates(void *later, int status, const char *detail)
{
	static const struct {
		int status;
		const char *slug;
	} slugs[] = { { 404, "no-such-target" }, { 409, "access-closed" },
		{ 501, "target-cannot" }, { 502, "target-refused" } };

	const char *slug = "unavailable";

	for (size_t i = 0; i < sizeof(slugs) / sizeof(slugs[0]); i++) {
		if (slugs[i].status == status)
			slug = slugs[i].slug;
	}
	answer_later(later, status, slug, detail);
}

static void serve(struct connection *connection, const struct http_request *head)
{
	struct admin_request request = { .head = head,
		.body = { connection->in.ptr + head->head_len, (size_t)head->content_length },
		.actor = connection->actor };
	struct admin_reply reply;

	reply_init(&reply);
	/* It may be answered, and the connection gone, before this call returns. */
	connection->is_waiting = true;
	admin_api(connection->admin->keeper, &request, &reply, connection);
	if (!reply.is_later) {
		connection->is_waiting = false;
		send_reply(connection, &reply);
	}
	buf_free(&reply.body);
}

/* What is there may be a whole request. */
static void take_bytes(struct connection *connection)
{
	static const struct http_policy policy = {
		.target_bytes = 4096, .head_bytes = HEAD_MAX, .body_bytes = BODY_MAX
	};
	struct http_request head;
	struct http_refusal refusal;

	switch (http_request_parse(buf_sv(&connection->in), &policy, &head, &refusal)) {
	case HTTP_BAD:
		refuse(connection, refusal.status, refusal.slug, refusal.detail);
		return;
	case HTTP_MORE:
		return;
	case HTTP_DONE:
		break;
	}
	if (head.expect_continue)
		refuse(connection, 417, "expectation-failed", "send the body at once");
	else if (head.content_length > BODY_MAX)
		refuse(connection, 413, "body-too-large", "64 KiB at most");
	else if (connection->in.len - head.head_len >= head.content_length)
		serve(connection, &head);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct connection *connection = arg;
	char *to;
	ssize_t got;

	if (what & EV_TIMEOUT) {
		if (!connection->is_waiting)
			refuse(connection, 408, "request-timeout", "the request did not come");
		return;
	}
	to = buf_reserve(&connection->in, 4096);
	if (!to) {
		connection_end(connection);
		return;
	}
	got = recv(fd, to, 4096, 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		connection_end(connection);
		return;
	}
	buf_commit(&connection->in, (size_t)got);
	if (!connection->is_waiting)
		take_bytes(connection);
}

static bool may_ask(const struct conf *conf, uint32_t uid)
{
	if (uid == 0 || uid == geteuid())
		return true;
	for (size_t i = 0; i < conf->admin.allow_uids_len; i++) {
		if (conf->admin.allow_uids[i] == uid)
			return true;
	}
	return false;
}

static void connection_new(struct admin *admin, int fd, const struct actor *actor)
{
	const struct timeval wait = { .tv_sec = WAIT_S };
	struct connection *connection = calloc(1, sizeof(*connection));

	if (!connection) {
		(void)close(fd);
		return;
	}
	connection->admin = admin;
	connection->fd = fd;
	connection->actor = *actor;
	buf_init(&connection->in, HEAD_MAX + BODY_MAX + 4096);
	buf_init(&connection->out, REPLY_MAX + 4096);
	connection->next = admin->connections;
	admin->connections = connection;
	admin->connections_len++;
	connection->event = event_new(
		admin->keeper->base, fd, EV_READ | EV_PERSIST, on_readable, connection);
	if (!connection->event || event_add(connection->event, &wait))
		connection_free(connection);
}

static void on_connection(evutil_socket_t listener, short what, void *arg)
{
	struct admin *admin = arg;
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct actor actor;
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)what;
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len)) {
		(void)close(fd);
		return;
	}
	actor = keeper_actor("admin", peer.uid, (uint32_t)peer.pid);
	if (!may_ask(admin->keeper->conf, peer.uid)) {
		audit_refusal(admin, &actor, 0, "uid-not-allowed");
		(void)close(fd);
	} else if (admin->connections_len >= CONNECTIONS_MAX) {
		(void)close(fd);
	} else {
		connection_new(admin, fd, &actor);
	}
}

/* 0: nothing is there (any more). */
static int clear_path(const struct sockaddr_un *address, struct err *err)
{
	const char *path = address->sun_path;
	struct stat info;
	int fd, connected, saved;

	if (lstat(path, &info))
		return errno == ENOENT ? 0 : err_sys(err, "admin.socket %s", path);
	if (!S_ISSOCK(info.st_mode))
		return err_set(err, ERR_INPUT,
			"admin.socket %s is there already and is not a socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, "admin.socket %s", path);
	connected = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	saved = errno;
	(void)close(fd);
	if (connected == 0 || saved != ECONNREFUSED)
		return err_set(err, ERR_INPUT,
			"admin.socket %s is in use: is posternd running already?", path);
	return unlink(path) ? err_sys(err, "admin.socket %s cannot be replaced", path) : 0;
}

static int set_group(const char *path, const char *name, struct err *err)
{
	const struct group *group;

	if (!name || !*name)
		return 0;
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	group = getgrnam(name);
	if (!group)
		return err_set(
			err, ERR_INPUT, "admin.group = \"%s\": there is no such group", name);
	if (chown(path, (uid_t)-1, group->gr_gid) || chmod(path, 0660))
		return err_sys(err, "admin.socket %s cannot be given to group %s", path, name);
	return 0;
}

static int bind_socket(struct admin *admin, struct err *err)
{
	const struct conf *conf = admin->keeper->conf;
	const char *path = conf->admin.socket;
	mode_t mask;
	int rc;

	if (strlen(path) >= sizeof(admin->address.sun_path))
		return err_set(err, ERR_INPUT,
			"admin.socket = \"%s\": the path is too long, 107 bytes at most", path);
	admin->address.sun_family = AF_UNIX;
	memcpy(admin->address.sun_path, path, strlen(path) + 1);
	if (clear_path(&admin->address, err))
		return -1;
	admin->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (admin->fd < 0)
		return err_sys(err, "admin.socket");
	/* Born with its mode: there is no moment in which others could connect. */
	mask = umask(0177);
	rc = bind(admin->fd, (struct sockaddr *)&admin->address, sizeof(admin->address));
	(void)umask(mask);
	if (rc) {
		(void)err_sys(err, "admin.socket %s cannot be made", path);
		(void)close(admin->fd);
		admin->fd = -1;
		return -1;
	}
	if (set_group(path, conf->admin.group, err))
		return -1;
	return listen(admin->fd, BACKLOG) ? err_sys(err, "admin.socket %s", path) : 0;
}

struct admin *admin_new(struct keeper *keeper, struct err *err)
{
	struct admin *admin = calloc(1, sizeof(*admin));

	if (!admin) {
		(void)err_set(err, ERR_NOMEM, "no memory for the admin socket");
		return NULL;
	}
	admin->keeper = keeper;
	admin->fd = -1;
	if (bind_socket(admin, err)) {
		admin_free(admin);
		return NULL;
	}
	return admin;
}

int admin_start(struct admin *admin, struct err *err)
{
	admin->event = event_new(
		admin->keeper->base, admin->fd, EV_READ | EV_PERSIST, on_connection, admin);
	if (!admin->event || event_add(admin->event, NULL))
		return err_set(err, ERR_SYSTEM, "admin.socket: no event");
	return 0;
}

void admin_free(struct admin *admin)
{
	if (!admin)
		return;
	while (admin->connections) {
		struct connection *connection = admin->connections;

		admin->connections = connection->next;
		connection_release(connection);
	}
	if (admin->event)
		event_free(admin->event);
	if (admin->fd >= 0) {
		(void)close(admin->fd);
		(void)unlink(admin->address.sun_path);
	}
	free(admin);
}
