/*
 * proxy.c - one request at one target: written from scratch, its answer read strictly, its body
 * passed on as fast as the client takes it.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/conn.h"
#include "http/body.h"
#include "http/status.h"

#define HEAD_BYTES_MAX ((size_t)16 << 10)
#define READ_BYTES     ((size_t)64 << 10)

struct proxy {
	struct conn *conn;
	int fd;
	struct event *readable, *writable;
	struct evbuffer *out, *in;
	struct http_body body;
	bool answered; /* the answer's head has gone to the client */
	bool chunked;  /* to the client */
	bool paused;
};

/* What of a target's head may reach the client. */
static const struct sv passed[] = {
	SV_INIT("content-type"),
	SV_INIT("content-disposition"),
	SV_INIT("content-encoding"),
	SV_INIT("x-go-pprof"),
};

void proxy_free(struct proxy *proxy)
{
	if (!proxy)
		return;
	if (proxy->readable)
		event_free(proxy->readable);
	if (proxy->writable)
		event_free(proxy->writable);
	if (proxy->out)
		evbuffer_free(proxy->out);
	if (proxy->in)
		evbuffer_free(proxy->in);
	(void)close(proxy->fd);
	free(proxy);
}

static void fail(struct proxy *proxy, enum problem problem, const char *why)
{
	struct conn *conn = proxy->conn;

	if (proxy->answered)
		conn_cut(conn, problem_slug(problem));
	else
		conn_refuse(conn, &(struct refusal){ .problem = problem, .audit_detail = why });
}

static void write_request(struct proxy *proxy)
{
	const struct request *request = proxy->conn->request;
	bool post = request->method == HTTP_POST;
	char params_mem[256];
	struct buf params;

	buf_init_fixed(&params, params_mem, sizeof(params_mem));
	params_write(&request->what, &params);
	(void)evbuffer_add_printf(
		proxy->out, "%s %s", request->method_name, request->route.target_path);
	if (!post && (params.len > 0 || request->body_len > 0))
		(void)evbuffer_add_printf(proxy->out, "?%.*s%.*s", (int)params.len, params_mem,
			(int)request->body_len, request->body ? request->body : "");
	(void)evbuffer_add_printf(proxy->out,
		" HTTP/1.1\r\nHost: localhost\r\nUser-Agent: posternd\r\nAccept: */*\r\n"
		"Connection: close\r\nX-Request-Id: %s\r\n",
		request->id);
	if (request->target->token.len > 0)
		(void)evbuffer_add_printf(proxy->out, "Authorization: Bearer " SV_FMT "\r\n",
			SV_ARG(request->target->token));
	if (post)
		(void)evbuffer_add_printf(
			proxy->out, "Content-Length: %zu\r\n", request->body_len);
	(void)evbuffer_add(proxy->out, "\r\n", 2);
	if (post && request->body_len > 0)
		(void)evbuffer_add(proxy->out, request->body, request->body_len);
}

static bool client_takes(struct proxy *proxy, struct sv bytes)
{
	return bytes.len == 0 || stream_write(proxy->conn->stream, bytes);
}

static void pass_fields(
	const struct request *request, const struct http_response *response, struct buf *out)
{
	struct sv value;

	for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
		if (http_response_field(response, passed[i], &value))
			buf_printf(out, SV_FMT ": " SV_FMT "\r\n", SV_ARG(passed[i]),
				SV_ARG(value));
	}
	buf_printf(out,
		"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
		"X-Request-Id: %s\r\n",
		request->id);
}

static bool write_head(struct proxy *proxy, const struct http_response *response)
{
	const struct request *request = proxy->conn->request;
	char mem[HEAD_BYTES_MAX + 1024];
	struct sv length;
	struct buf out;

	buf_init_fixed(&out, mem, sizeof(mem));
	buf_printf(&out, "HTTP/1.1 %u %s\r\n", response->status,
		http_reason(response->status)); /* ours: the target's text is not copied */
	pass_fields(request, response, &out);
	proxy->chunked =
		response->framing == HTTP_CHUNKED || response->framing == HTTP_UNTIL_CLOSE;
	if (proxy->chunked)
		buf_add_cstr(&out, "Transfer-Encoding: chunked\r\n");
	else if (response->framing == HTTP_LENGTH ||
		 (request->method == HTTP_HEAD &&
			 http_response_field(response, SV("content-length"), &length)))
		buf_printf(&out, "Content-Length: %llu\r\n",
			(unsigned long long)response->content_length);
	if (request->close || proxy->conn->worker->draining)
		buf_add_cstr(&out, "Connection: close\r\n");
	buf_add_cstr(&out, "\r\n");
	return !out.failed && client_takes(proxy, buf_sv(&out));
}

/* The whole head, or nothing yet. False when the request has ended. */
static bool take_head(struct proxy *proxy)
{
	struct conn *conn = proxy->conn;
	size_t len = evbuffer_get_length(proxy->in);
	const char *bytes = (const char *)evbuffer_pullup(proxy->in, -1);
	struct http_response response;
	const char *detail;

	switch (http_response_parse((struct sv){ bytes ? bytes : "", len }, HEAD_BYTES_MAX,
		conn->request->method == HTTP_HEAD, &response, &detail)) {
	case HTTP_MORE:
		return true;
	case HTTP_BAD:
		fail(proxy, PROBLEM_TARGET_GARBAGE, detail);
		return false;
	case HTTP_DONE:
		break;
	}
	conn->request->status = (uint16_t)response.status;
	proxy->answered = true;
	http_body_init(&proxy->body, response.framing, response.content_length);
	if (!write_head(proxy, &response)) {
		fail(proxy, PROBLEM_INTERNAL, "out of memory");
		return false;
	}
	(void)evbuffer_drain(proxy->in, response.head_len);
	return true;
}

static bool pass_payload(struct proxy *proxy, struct sv payload)
{
	struct request *request = proxy->conn->request;
	char size[24];
	struct buf line;

	if (payload.len == 0)
		return true;
	request->bytes += payload.len;
	if (!proxy->chunked)
		return client_takes(proxy, payload);
	buf_init_fixed(&line, size, sizeof(size));
	buf_printf(&line, "%zx\r\n", payload.len);
	return client_takes(proxy, buf_sv(&line)) && client_takes(proxy, payload) &&
	       client_takes(proxy, SV("\r\n"));
}

static void complete(struct proxy *proxy)
{
	struct conn *conn = proxy->conn;

	if (proxy->chunked && !client_takes(proxy, SV("0\r\n\r\n"))) {
		fail(proxy, PROBLEM_INTERNAL, "out of memory");
		return;
	}
	conn_completed(conn); /* frees the proxy */
}

/* Pass on what is there. False when the request has ended, one way or the other. */
static bool take_body(struct proxy *proxy)
{
	enum http_result result = HTTP_MORE;

	for (;;) {
		struct evbuffer_iovec piece = { 0 };
		struct sv payload;
		size_t used;

		(void)evbuffer_peek(proxy->in, -1, NULL, &piece, 1);
		result = http_body_next(&proxy->body,
			(struct sv){ piece.iov_base ? piece.iov_base : "", piece.iov_len },
			&used, &payload);
		if (result == HTTP_BAD) {
			fail(proxy, PROBLEM_TARGET_GARBAGE, "broken body");
			return false;
		}
		if (!pass_payload(proxy, payload)) {
			fail(proxy, PROBLEM_INTERNAL, "out of memory");
			return false;
		}
		(void)evbuffer_drain(proxy->in, used);
		if (result == HTTP_DONE) {
			complete(proxy);
			return false;
		}
		if (evbuffer_get_length(proxy->in) == 0)
			break;
	}
	if (proxy->conn->request->bytes > proxy->conn->worker->conf->limits.capture_bytes) {
		conn_cut(proxy->conn, "capture-bytes");
		return false;
	}
	return true;
}

static void target_closed(struct proxy *proxy)
{
	if (!proxy->answered)
		fail(proxy, PROBLEM_TARGET_GARBAGE, "closed without an answer");
	else if (http_body_may_end_here(&proxy->body))
		complete(proxy);
	else
		fail(proxy, PROBLEM_TARGET_GARBAGE, "closed in the middle of its answer");
}

/* How long the target may be silent: a trace's head comes first, and then nothing for its seconds. */
static uint64_t target_ms(const struct conn *conn)
{
	uint64_t end = conn->request->forwarded_ms + conn->request->what.capture_ms;
	uint64_t now = clock_boot_ms();

	return (end > now ? end - now : 0) + conn->worker->conf->limits.response_ms;
}

/* When the client does not take more, the target waits. */
static void pace(struct proxy *proxy)
{
	struct conn *conn = proxy->conn;
	bool pause = stream_queued(conn->stream) > STREAM_HIGH;

	if (pause && !proxy->paused)
		(void)event_del(proxy->readable);
	proxy->paused = pause;
	conn_set_deadline(conn, pause ? conn->worker->conf->limits.idle_ms : target_ms(conn));
}

static void on_target_readable(evutil_socket_t fd, short what, void *arg)
{
	struct proxy *proxy = arg;
	int got = evbuffer_read(proxy->in, fd, (int)READ_BYTES);

	(void)what;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got < 0) {
		fail(proxy, PROBLEM_TARGET_DOWN, "the connection broke");
		return;
	}
	if (got == 0) {
		target_closed(proxy);
		return;
	}
	if (!proxy->answered && !take_head(proxy))
		return;
	if (proxy->answered && take_body(proxy))
		pace(proxy);
}

void proxy_drained(struct conn *conn)
{
	struct proxy *proxy = conn->request->proxy;

	if (!proxy->paused)
		return;
	proxy->paused = false;
	conn_set_deadline(conn, target_ms(conn));
	(void)event_add(proxy->readable, NULL);
}

static void on_target_writable(evutil_socket_t fd, short what, void *arg)
{
	struct proxy *proxy = arg;

	(void)what;
	if (evbuffer_write(proxy->out, fd) < 0 && errno != EAGAIN && errno != EINTR)
		return; /* what it answered before it closed is still to be read */
	if (evbuffer_get_length(proxy->out) > 0)
		(void)event_add(proxy->writable, NULL);
}

void proxy_begin(struct conn *conn, int fd)
{
	struct proxy *proxy = calloc(1, sizeof(*proxy));
	struct event_base *base = conn->worker->base;

	if (!proxy) {
		(void)close(fd);
		conn_refuse(conn, &(struct refusal){ .problem = PROBLEM_INTERNAL });
		return;
	}
	conn->request->proxy = proxy;
	proxy->conn = conn;
	proxy->fd = fd;
	proxy->in = evbuffer_new();
	proxy->out = evbuffer_new();
	proxy->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_target_readable, proxy);
	proxy->writable = event_new(base, fd, EV_WRITE, on_target_writable, proxy);
	if (!proxy->in || !proxy->out || !proxy->readable || !proxy->writable ||
		event_add(proxy->readable, NULL)) {
		fail(proxy, PROBLEM_INTERNAL, "out of memory");
		return;
	}
	write_request(proxy);
	conn->request->forwarded_ms = clock_boot_ms();
	conn_set_deadline(conn, target_ms(conn));
	on_target_writable(fd, EV_WRITE, proxy);
}
