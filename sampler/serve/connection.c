#include "sampler/serve/connection.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "http/query.h"
#include "http/status.h"
#include "sampler/serve/control.h"

#define ARENA_BYTES  ((size_t)2 << 30)
#define IDLE_NS      UINT64_C(60000000000)
#define BODY_MAX     ((size_t)1 << 20)
#define HEAD_OUT_MAX 1024
#define CHUNK_MAX    ((size_t)256 << 10)

static const struct http_policy policy = {
	.target_bytes = 8192,
	.head_bytes = CONNECTION_IN_MAX,
	.body_bytes = BODY_MAX,
	.allow_http10 = true,
};

void connection_begin(
	struct connection *connection, int socket, struct power *controls, uint64_t now)
{
	connection->state = CONNECTION_READING;
	connection->socket = socket;
	connection->controls = controls;
	connection->lease = (struct lease){ 0 };
	connection->deadline_ns = now + IDLE_NS;
	connection->close_after = false;
	connection->in_len = 0;
	connection->arena = (struct arena){ 0 };
}

void connection_close(struct connection *connection)
{
	if (connection->state == CONNECTION_CAPTURING ||
		(connection->state == CONNECTION_STREAMING && !connection->is_whole))
		connection->capture.kind->cut(&connection->capture);
	lease_end(&connection->lease);
	if (connection->state == CONNECTION_NAMING)
		lines_cancel(&connection->job);
	(void)close(connection->socket);
	arena_close(&connection->arena);
	connection->state = CONNECTION_FREE;
}

bool connection_is_due(const struct connection *connection, uint64_t now)
{
	return now >= connection->deadline_ns || connection->state == CONNECTION_STREAMING ||
	       (connection->state == CONNECTION_NAMING && connection->job.done);
}

short connection_events(const struct connection *connection)
{
	switch (connection->state) {
	case CONNECTION_READING:
		return POLLIN;
	case CONNECTION_WRITING:
		return POLLOUT;
	case CONNECTION_CAPTURING:
	case CONNECTION_NAMING:
		return POLLRDHUP; /* a client that has gone ends its capture */
	case CONNECTION_STREAMING:
		return (short)(POLLRDHUP |
			       (outgoing_is_sent(&connection->outgoing) ? 0 : POLLOUT));
	case CONNECTION_FREE:
		break;
	}
	return 0;
}

static void add_field(struct buf *head, const char *name, const char *value)
{
	if (!value)
		return;
	buf_add_cstr(head, name);
	buf_add_cstr(head, ": ");
	buf_add_cstr(head, value);
	buf_add_cstr(head, "\r\n");
}

/* -1 without memory. */
static int write_head(struct connection *connection, bool is_streamed)
{
	const struct answer *answer = &connection->answer;
	struct buf *head = &connection->head;

	if (arena_buf(&connection->arena, HEAD_OUT_MAX, head))
		return -1;
	buf_add_cstr(head, "HTTP/1.1 ");
	buf_add_u64(head, answer->status);
	buf_add_byte(head, ' ');
	buf_add_cstr(head, http_reason(answer->status));
	buf_add_cstr(head, "\r\n");
	add_field(head, "Content-Type", answer->content_type);
	add_field(head, "X-Content-Type-Options", "nosniff");
	add_field(head, "X-Go-Pprof", answer->is_error ? "1" : NULL);
	add_field(head, "Location", answer->location);
	add_field(head, "Allow", answer->allow);
	if (answer->filename) {
		buf_add_cstr(head, "Content-Disposition: attachment; filename=\"");
		buf_add_cstr(head, answer->filename);
		buf_add_cstr(head, "\"\r\n");
	}
	if (!is_streamed) {
		buf_add_cstr(head, "Content-Length: ");
		buf_add_u64(head, answer->body.len);
		buf_add_cstr(head, "\r\n");
	} else if (!connection->is_http10) {
		add_field(head, "Transfer-Encoding", "chunked");
	}
	if (connection->close_after)
		add_field(head, "Connection", "close");
	else if (connection->is_http10)
		add_field(head, "Connection", "keep-alive");
	buf_add_cstr(head, "\r\n");
	return 0;
}

static void begin_answer(struct connection *connection, uint64_t now)
{
	struct sv body = buf_sv(&connection->answer.body);

	connection->state = CONNECTION_WRITING;
	connection->deadline_ns = now + IDLE_NS;
	if (write_head(connection, false)) {
		connection->close_after = true;
		outgoing_set(&connection->outgoing, SV(""), SV(""));
		return;
	}
	if (connection->is_head)
		body.len = 0;
	outgoing_set(&connection->outgoing, buf_sv(&connection->head), body);
}

/* Chunked, or to an old client until the connection's end. */
static void begin_stream(struct connection *connection, uint64_t now)
{
	connection->close_after |= connection->is_http10;
	connection->is_whole = connection->is_last = false;
	connection->chunk = connection->body_at = 0;
	connection->state = CONNECTION_STREAMING;
	connection->deadline_ns = now + IDLE_NS;
	if (write_head(connection, true)) {
		connection_close(connection);
		return;
	}
	outgoing_set(&connection->outgoing, buf_sv(&connection->head), SV(""));
	if (!connection->is_head)
		return;
	/* What would be the head; nothing need be captured for that. */
	connection->capture.kind->cut(&connection->capture);
	connection->is_whole = connection->is_last = true;
}

/* Names are as good as they get: write what wanted them. */
static void end_naming(struct connection *connection, uint64_t now)
{
	struct late late = connection->answer.late;

	lines_end(&connection->job);
	late.write(late.state, &connection->arena, &connection->answer);
	begin_answer(connection, now);
}

/* The endpoint is done; but what it has may want names. */
static void take_answer(struct connection *connection, uint64_t now)
{
	if (!connection->answer.late.write) {
		begin_answer(connection, now);
		return;
	}
	connection->state = CONNECTION_NAMING;
	connection->deadline_ns = now + LINES_WAIT_NS;
	lines_begin(&connection->job, connection->answer.late.symbols, now);
	if (connection->job.done)
		end_naming(connection, now);
}

static void refuse(
	struct connection *connection, unsigned status, const char *text, uint64_t now)
{
	connection->close_after = true;
	answer_error(&connection->arena, &connection->answer, status, text);
	begin_answer(connection, now);
}

/* Compares in a time that does not depend on where the texts differ. */
static bool is_token(struct sv given, const char *wanted)
{
	size_t len = strlen(wanted);
	unsigned differing = given.len != len;

	for (size_t i = 0; i < given.len; i++)
		differing |= (unsigned char)given.ptr[i] ^ (unsigned char)wanted[i % len];
	return differing == 0;
}

static bool shows_token(const struct http_request *request, const struct settings *settings)
{
	struct sv rest = request->authorization, scheme;

	if (!settings->requires_token)
		return true;
	if (!request->has_authorization)
		return false;
	scheme = sv_cut(&rest, ' ');
	return sv_is_nocase(scheme, SV("Bearer")) && is_token(sv_trim(rest), settings->token);
}

/* A web page must not reach us by a name that it lets point here. */
static bool has_loopback_host(const struct http_request *request)
{
	struct sv name, port;

	if (request->host.len == 0)
		return request->minor_version == 0;
	return http_host_split(request->host, &name, &port) && http_host_is_loopback(name);
}

static void ask(struct connection *connection, const struct settings *settings,
	const struct http_request *request, uint64_t now)
{
	struct question question = {
		.request = request,
		.body = { connection->in + request->head_len, (size_t)request->content_length },
		.arena = &connection->arena,
		.name = settings->name,
		.lease = connection->controls ? &connection->lease : NULL,
		.now_ns = now,
	};
	bool is_public = connection->controls && control_is_public(request);

	connection->is_head = request->method == HTTP_HEAD;
	connection->is_http10 = request->minor_version == 0;
	connection->close_after = request->close;
	if (!has_loopback_host(request)) {
		refuse(connection, 403, "Host is not a loopback name or address", now);
		return;
	}
	if (!is_public && !shows_token(request, settings)) {
		refuse(connection, 401, "this server asks for a bearer token", now);
		return;
	}
	if (connection->controls) {
		control_ask(connection->controls, &question, &connection->answer);
		begin_answer(connection, now);
		return;
	}
	switch (endpoint_ask(&question, &connection->answer, &connection->capture)) {
	case ENDPOINT_ANSWERED:
		take_answer(connection, now);
		break;
	case ENDPOINT_CAPTURE:
		connection->state = CONNECTION_CAPTURING;
		connection->deadline_ns = connection->capture.until_ns;
		break;
	case ENDPOINT_STREAM:
		begin_stream(connection, now);
		break;
	}
}

static void take_request(
	struct connection *connection, const struct settings *settings, uint64_t now)
{
	struct sv bytes = { connection->in, connection->in_len };
	struct http_refusal refusal;
	struct http_request request;
	enum http_result result = http_request_parse(bytes, &policy, &request, &refusal);
	size_t whole;

	if (result == HTTP_MORE)
		return;
	if (!connection->arena.base && arena_open(&connection->arena, ARENA_BYTES) &&
		arena_open(&connection->arena, ARENA_BYTES / 8)) {
		connection_close(
			connection); /* no address space is left: nothing can be said */
		return;
	}
	if (result == HTTP_BAD) {
		refuse(connection, refusal.status, refusal.detail, now);
		return;
	}
	whole = request.head_len + (size_t)request.content_length;
	if (whole > sizeof(connection->in)) {
		refuse(connection, 413, "the addresses are too many: ask for them in parts",
			now);
		return;
	}
	if (connection->in_len < whole)
		return;
	ask(connection, settings, &request, now);
	connection->in_len -= whole;
	memmove(connection->in, connection->in + whole, connection->in_len);
}

static bool read_some(struct connection *connection)
{
	ssize_t got = recv(connection->socket, connection->in + connection->in_len,
		sizeof(connection->in) - connection->in_len, 0);

	if (got > 0)
		connection->in_len += (size_t)got;
	else if (got == 0 || errno != EAGAIN)
		connection_close(connection);
	return got > 0;
}

/* True when all that was to go is out. */
static bool write_some(struct connection *connection)
{
	if (outgoing_send(&connection->outgoing, connection->socket) == 0)
		return outgoing_is_sent(&connection->outgoing);
	connection_close(connection);
	return false;
}

static void end_answer(struct connection *connection, uint64_t now)
{
	arena_close(&connection->arena);
	if (connection->close_after) {
		(void)shutdown(connection->socket, SHUT_WR);
		connection_close(connection);
		return;
	}
	connection->state = CONNECTION_READING;
	/* A lease is held by saying nothing. */
	connection->deadline_ns = connection->lease.is_held ? UINT64_MAX : now + IDLE_NS;
}

static void end_capture(struct connection *connection, uint64_t now)
{
	connection->capture.kind->end(
		&connection->capture, &connection->arena, &connection->answer);
	take_answer(connection, now);
}

static bool client_is_gone(const struct connection *connection)
{
	struct pollfd poll_one = { .fd = connection->socket, .events = POLLRDHUP };

	return poll(&poll_one, 1, 0) > 0 && poll_one.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

/* Take off what is sent, but not byte by byte from the front of much. */
static void drop_sent(struct connection *connection)
{
	struct buf *body = &connection->answer.body;

	connection->body_at += connection->chunk;
	connection->chunk = 0;
	if (connection->body_at < body->len && connection->body_at < body->max / 2)
		return;
	buf_drop(body, connection->body_at);
	connection->body_at = 0;
}

/* The next part of the answer, as far as there is one. */
static void next_chunk(struct connection *connection, uint64_t now)
{
	struct sv rest = buf_sv(&connection->answer.body);

	rest.ptr += connection->body_at;
	rest.len -= connection->body_at;
	connection->is_last = connection->is_whole && rest.len <= CHUNK_MAX;
	if (rest.len > CHUNK_MAX)
		rest.len = CHUNK_MAX;
	connection->chunk = rest.len;
	if (connection->is_http10)
		outgoing_set(&connection->outgoing, SV(""), rest);
	else
		outgoing_set_chunk(&connection->outgoing, rest, connection->is_last);
	/* A client that takes nothing for so long has gone. */
	connection->deadline_ns = connection->chunk ? now + IDLE_NS : UINT64_MAX;
}

static void stream(struct connection *connection, uint64_t now)
{
	while (write_some(connection)) {
		if (connection->is_last) {
			connection->state = CONNECTION_WRITING;
			return;
		}
		drop_sent(connection);
		if (!connection->is_whole)
			connection->is_whole = connection->capture.kind->goes_on(
				&connection->capture, &connection->answer);
		next_chunk(connection, now);
		if (outgoing_is_sent(&connection->outgoing) && !connection->is_last)
			return;
	}
}

static void step_capture(struct connection *connection, uint64_t now)
{
	if (client_is_gone(connection))
		connection_close(connection);
	else if (connection->state == CONNECTION_STREAMING)
		stream(connection, now);
	else if (now >= connection->deadline_ns)
		end_capture(connection, now);
}

static void step_naming(struct connection *connection, uint64_t now)
{
	if (client_is_gone(connection))
		connection_close(connection);
	else if (connection_is_due(connection, now))
		end_naming(connection, now);
}

void connection_step(
	struct connection *connection, const struct settings *settings, uint64_t now)
{
	if (connection->state == CONNECTION_CAPTURING ||
		(connection->state == CONNECTION_STREAMING && now < connection->deadline_ns)) {
		step_capture(connection, now);
	} else if (connection->state == CONNECTION_NAMING) {
		step_naming(connection, now);
	} else if (now >= connection->deadline_ns) {
		connection_close(connection);
	}
	if (connection->state == CONNECTION_READING) {
		if (read_some(connection))
			take_request(connection, settings, now);
	}
	if (connection->state == CONNECTION_STREAMING)
		stream(connection, now);
	while (connection->state == CONNECTION_WRITING && write_some(connection)) {
		end_answer(connection, now);
		/* A request that came together with this one is here already. */
		if (connection->state == CONNECTION_READING && connection->in_len > 0)
			take_request(connection, settings, now);
	}
}
