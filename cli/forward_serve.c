/*
 * One local connection: a request is read and checked, sent on with the credentials, and its
 * answer streamed back.  Blocking, because this is a process of its own: who reads slowly slows
 * only the gateway's answer down.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/forward.h"
#include "http/body.h"
#include "http/head.h"
#include "http/query.h"

#define HEAD_BYTES   ((size_t)16 << 10)
#define BODY_BYTES   ((size_t)64 << 10)
#define PIECE_BYTES  ((size_t)64 << 10)
#define IDLE_WAIT_MS 300000

static const struct http_policy policy = {
	.target_bytes = 8192,
	.head_bytes = HEAD_BYTES,
	.body_bytes = BODY_BYTES,
	.allow_http10 = true,
};

struct session {
	struct forward *forward;
	struct link link;
	int local;
	struct http_request request;
	struct http_response response;
	struct buf in;   /* from the client: head, body, what it sent ahead */
	struct buf back; /* from the gateway: the head and what came with it */
	struct buf out;  /* a head on its way to either side */
	char piece[PIECE_BYTES];
};

static bool send_local(const struct session *session, const void *bytes, size_t len)
{
	const char *at = bytes;

	while (len > 0) {
		ssize_t sent = send(session->local, at, len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		at += sent;
		len -= (size_t)sent;
	}
	return true;
}

static const char *reason_of(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} reasons[] = {
		{ 400, "Bad Request" },
		{ 403, "Forbidden" },
		{ 413, "Content Too Large" },
		{ 414, "URI Too Long" },
		{ 417, "Expectation Failed" },
		{ 421, "Misdirected Request" },
		{ 431, "Request Header Fields Too Large" },
		{ 501, "Not Implemented" },
		{ 502, "Bad Gateway" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		if (reasons[i].status == status)
			return reasons[i].reason;
	}
	return "Refused";
}

/* Our own answer; the connection ends. X-Go-Pprof makes `go tool pprof` show the text. */
static bool refuse(struct session *session, unsigned status, const char *text)
{
	struct buf *out = &session->out;

	buf_clear(out);
	buf_printf(out,
		"HTTP/1.1 %u %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
		"X-Content-Type-Options: nosniff\r\nX-Go-Pprof: 1\r\nCache-Control: "
		"no-store\r\n"
		"Content-Length: %zu\r\nConnection: close\r\n\r\n",
		status, reason_of(status), strlen(text) + sizeof("postern forward: \n") - 1);
	if (session->request.method != HTTP_HEAD)
		buf_printf(out, "postern forward: %s\n", text);
	(void)send_local(session, out->ptr, out->len);
	return false;
}

/* More bytes of the client; false when it has gone or says nothing for long. */
static bool receive(struct session *session, size_t most)
{
	struct pollfd fd = { .fd = session->local, .events = POLLIN };
	char *to = buf_reserve(&session->in, most);
	ssize_t got;

	if (!to || poll(&fd, 1, IDLE_WAIT_MS) != 1)
		return false;
	got = recv(session->local, to, most, 0);
	if (got <= 0)
		return false;
	buf_commit(&session->in, (size_t)got);
	return true;
}

static bool read_request(struct session *session)
{
	struct http_refusal refusal;

	for (;;) {
		switch (http_request_parse(
			buf_sv(&session->in), &policy, &session->request, &refusal)) {
		case HTTP_DONE:
			return true;
		case HTTP_BAD:
			return refuse(session, refusal.status, refusal.detail);
		case HTTP_MORE:
			if (!receive(session, HEAD_BYTES - session->in.len))
				return false;
		}
	}
}

/* A page on the web must not reach us by a name of its own, nor send us its forms. */
static bool check_local(struct session *session)
{
	const struct http_request *request = &session->request;
	struct sv value, name, port;

	if (request->method == HTTP_OTHER_METHOD)
		return refuse(session, 501, "only GET, HEAD and POST go through here");
	if (request->host.len > 0 &&
		(!http_host_split(request->host, &name, &port) || !http_host_is_loopback(name)))
		return refuse(session, 421, "Host is not a loopback name");
	for (size_t i = 0; i < request->fields_len; i++) {
		value = request->fields[i].value;
		if (sv_is_nocase(request->fields[i].name, SV("sec-fetch-site")) &&
			!sv_is(value, SV("same-origin")) && !sv_is(value, SV("none")))
			return refuse(session, 403, "request of another site");
		if (sv_is_nocase(request->fields[i].name, SV("origin")) &&
			!(sv_starts_with(value, SV("http://")) && value.len > 7 &&
				sv_is_nocase((struct sv){ value.ptr + 7, value.len - 7 },
					request->host)))
			return refuse(session, 403, "request of another origin");
	}
	return true;
}

static bool read_body(struct session *session)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	struct http_request *request = &session->request;
	size_t whole = request->head_len + (size_t)request->content_length;

	if (session->in.len >= whole)
		return true;
	if (request->expect_continue && !send_local(session, go_on, sizeof(go_on) - 1))
		return false;
	while (session->in.len < whole) {
		if (!receive(session, whole - session->in.len))
			return false;
	}
	/* The buffer may have moved, and the views with it: the head is read once more. */
	return read_request(session);
}

static void add_field(struct buf *out, struct sv name, struct sv value)
{
	buf_add_sv(out, name);
	buf_add_cstr(out, ": ");
	buf_add_sv(out, value);
	buf_add_cstr(out, "\r\n");
}

/* The request anew: of the client's fields only those that describe what it wants. */
static void write_request(struct session *session)
{
	static const struct sv passed[] = { SV_INIT("Accept"), SV_INIT("Accept-Encoding"),
		SV_INIT("User-Agent"), SV_INIT("Content-Type") };
	const struct http_request *request = &session->request;
	const struct forward *forward = session->forward;
	struct buf *out = &session->out;

	buf_clear(out);
	buf_add_sv(out, request->method_name);
	buf_add_byte(out, ' ');
	buf_add_sv(out, request->path);
	if (request->has_query) {
		buf_add_byte(out, '?');
		buf_add_sv(out, request->query);
	}
	buf_add_cstr(out, " HTTP/1.1\r\n");
	add_field(out, SV("Host"), sv_from_cstr(forward->to.authority));
	if (forward->credentials.token[0] != '\0')
		buf_printf(out, "Authorization: Bearer %s\r\n", forward->credentials.token);
	for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
		struct sv value;

		if (http_request_field(request, passed[i], &value))
			add_field(out, passed[i], value);
	}
	if (request->method == HTTP_POST)
		buf_printf(out, "Content-Length: %llu\r\n",
			(unsigned long long)request->content_length);
	buf_add_cstr(out, "\r\n");
	if (request->content_length > 0)
		buf_add(out, session->in.ptr + request->head_len,
			(size_t)request->content_length);
}

/* Read until the answer's head is there. */
static int read_response(struct session *session, struct err *err)
{
	const char *detail;

	buf_clear(&session->back);
	for (;;) {
		ssize_t got;

		switch (http_response_parse(buf_sv(&session->back), HEAD_BYTES,
			session->request.method == HTTP_HEAD, &session->response, &detail)) {
		case HTTP_DONE:
			return 0;
		case HTTP_BAD:
			return err_set(
				err, ERR_PEER, "what answers is not a gateway: %s", detail);
		case HTTP_MORE:
			break;
		}
		got = link_read(
			&session->link, session->piece, PIECE_BYTES, session->local, err);
		if (got == 0)
			return err_set(
				err, ERR_PEER, "the gateway ended the connection unasked");
		if (got < 0)
			return -1;
		buf_add(&session->back, session->piece, (size_t)got);
	}
}

static int ask_once(struct session *session, struct err *err)
{
	const struct link_to *to = &session->forward->to;

	if (!session->link.tls && link_open(&session->link, to, session->local, err))
		return -1;
	if (link_write(&session->link, buf_sv(&session->out), session->local, err) ||
		read_response(session, err)) {
		link_close(&session->link);
		return -1;
	}
	return 0;
}

/* The gateway may have closed a kept connection just when we wrote to it: once more, anew. */
static int ask(struct session *session, struct err *err)
{
	bool kept = session->link.tls && link_is_fresh(&session->link);

	if (!kept)
		link_close(&session->link);
	if (credentials_refresh(&session->forward->credentials, clock_boot_ms(), err))
		return -1;
	write_request(session);
	if (session->out.failed)
		return err_set(err, ERR_NOMEM, "request is too large to pass on");
	if (ask_once(session, err) == 0)
		return 0;
	if (!kept || session->back.len > 0 || session->request.method == HTTP_POST)
		return -1;
	return ask_once(session, err);
}

/* How the answer's end is told to the client. */
enum end {
	END_BY_HEAD = 0, /* the length said it, or there is no body */
	END_BY_CHUNK,
	END_BY_CLOSE,
};

static enum end choose_end(const struct session *session)
{
	switch (session->response.framing) {
	case HTTP_NO_BODY:
	case HTTP_LENGTH:
		return END_BY_HEAD;
	case HTTP_CHUNKED:
	case HTTP_UNTIL_CLOSE:
		break;
	}
	return session->request.minor_version == 1 ? END_BY_CHUNK : END_BY_CLOSE;
}

static bool is_of_one_hop(struct sv name)
{
	static const struct sv names[] = { SV_INIT("connection"), SV_INIT("keep-alive"),
		SV_INIT("proxy-connection"), SV_INIT("trailer"), SV_INIT("transfer-encoding"),
		SV_INIT("upgrade") };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (sv_is_nocase(names[i], name))
			return true;
	}
	return false;
}

static bool send_head(struct session *session, enum end end, bool keep)
{
	const struct http_response *response = &session->response;
	struct buf *out = &session->out;

	buf_clear(out);
	buf_printf(out, "HTTP/1.1 %u ", response->status);
	buf_add_sv(out, response->reason);
	buf_add_cstr(out, "\r\n");
	for (size_t i = 0; i < response->fields_len; i++) {
		if (!is_of_one_hop(response->fields[i].name))
			add_field(out, response->fields[i].name, response->fields[i].value);
	}
	if (end == END_BY_CHUNK)
		buf_add_cstr(out, "Transfer-Encoding: chunked\r\n");
	buf_add_cstr(
		out, keep ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
	return !out->failed && send_local(session, out->ptr, out->len);
}

static bool send_payload(struct session *session, enum end end, struct sv payload)
{
	char size[24];
	int len = snprintf(size, sizeof(size), "%zx\r\n", payload.len);

	if (payload.len == 0)
		return true;
	if (end != END_BY_CHUNK)
		return send_local(session, payload.ptr, payload.len);
	return send_local(session, size, (size_t)len) &&
	       send_local(session, payload.ptr, payload.len) && send_local(session, "\r\n", 2);
}

/* 1: the body is whole; 0: more must come; -1: it was cut, or the client has gone. */
static int pass_on(struct session *session, struct http_body *body, enum end end, struct sv in)
{
	for (;;) {
		struct sv payload;
		size_t used;
		enum http_result result = http_body_next(body, in, &used, &payload);

		if (result == HTTP_BAD || !send_payload(session, end, payload))
			return -1;
		if (result == HTTP_DONE)
			return 1;
		in.ptr += used;
		in.len -= used;
		if (in.len == 0)
			return 0;
	}
}

/* True when the whole body went to the client, by its framing. */
static bool stream_body(struct session *session, enum end end)
{
	const struct http_response *response = &session->response;
	struct http_body body;
	struct err err;
	int rc;

	http_body_init(&body, response->framing, response->content_length);
	rc = pass_on(session, &body, end,
		(struct sv){ session->back.ptr + response->head_len,
			session->back.len - response->head_len });
	while (rc == 0) {
		ssize_t got = link_read(
			&session->link, session->piece, PIECE_BYTES, session->local, &err);

		if (got < 0)
			return false;
		if (got == 0) {
			if (!http_body_may_end_here(&body))
				return false;
			break;
		}
		rc = pass_on(session, &body, end, (struct sv){ session->piece, (size_t)got });
	}
	if (rc < 0)
		return false;
	return end != END_BY_CHUNK || send_local(session, "0\r\n\r\n", 5);
}

/* Without a length or chunks only a reset tells a cut answer from a whole one. */
static void reset_local(const struct session *session)
{
	static const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	(void)setsockopt(session->local, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static bool link_stays(const struct session *session)
{
	struct sv connection;

	if (session->response.framing == HTTP_UNTIL_CLOSE)
		return false;
	return !http_response_field(&session->response, SV("connection"), &connection) ||
	       !sv_is_nocase(connection, SV("close"));
}

/* True when the client may send another request. */
static bool serve_one(struct session *session)
{
	struct err err = { 0 };
	enum end end;
	bool keep;

	session->request.method = HTTP_GET;
	if (!read_request(session) || !check_local(session) || !read_body(session))
		return false;
	if (ask(session, &err)) {
		if (err.kind == ERR_NONE)
			return false;
		(void)fprintf(stderr, "postern forward: %s\n", err.text);
		return refuse(session, 502, err.text);
	}
	end = choose_end(session);
	keep = !session->request.close && end != END_BY_CLOSE;
	if (!send_head(session, end, keep) || !stream_body(session, end)) {
		if (end == END_BY_CLOSE)
			reset_local(session);
		return false;
	}
	if (!link_stays(session))
		link_close(&session->link);
	buf_drop(&session->in,
		session->request.head_len + (size_t)session->request.content_length);
	return keep;
}

void forward_serve(struct forward *forward, int local)
{
	static struct session session; /* too much for a stack; there is one in a process */

	session.forward = forward;
	session.local = local;
	session.link.fd = -1;
	buf_init(&session.in, HEAD_BYTES + BODY_BYTES);
	buf_init(&session.back, HEAD_BYTES + PIECE_BYTES);
	buf_init(&session.out, 2 * HEAD_BYTES + BODY_BYTES);
	while (serve_one(&session))
		;
	link_close(&session.link);
	buf_free(&session.in);
	buf_free(&session.back);
	buf_free(&session.out);
	(void)close(local);
}
