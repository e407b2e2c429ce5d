#include "gateway/stream.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/tls.h"

#define INPUT_MAX    ((size_t)16 << 10)
#define RECORD_BYTES ((size_t)16 << 10)
#define READ_BYTES   ((size_t)16 << 10)

enum state {
	HANDSHAKE,
	OPEN,
	ENDED,     /* the owner knows; it has still to give us up */
	FLUSHING,  /* given up: the queue goes out */
	LINGERING, /* all is said; the client may still be reading */
};

/* What the owner wants of a stream that it has given up. */
enum farewell {
	STAYS = 0,
	CLOSES,
	CUTS,
	ABORTS,
};

/* How long a client that was given up may take none of the rest, and how long it may read it. */
static const struct timeval flush_time = { .tv_sec = 10 };
static const struct timeval linger_time = { .tv_sec = 1 };

struct stream {
	enum state state;
	int fd;
	SSL *tls;
	const struct stream_events *events;
	void *arg;
	struct evbuffer *in, *out;
	struct event *on_read, *on_write, *on_gone, *on_time;
	size_t input_max;
	uint64_t sent;
	bool was_high;          /* `drained` is owed */
	bool is_cut;            /* FLUSHING: no close_notify at the end */
	bool in_callback;       /* of ours, from the loop */
	enum farewell farewell; /* while in_callback: to be acted on after it */
	bool write_on_read;     /* TLS wants to read before it can write on */
};

static size_t count;

size_t stream_count(void)
{
	return count;
}

static void free_stream(struct stream *stream)
{
	struct event *events[] = { stream->on_read, stream->on_write, stream->on_gone,
		stream->on_time };

	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		if (events[i])
			event_free(events[i]);
	}
	SSL_free(stream->tls);
	if (stream->in)
		evbuffer_free(stream->in);
	if (stream->out)
		evbuffer_free(stream->out);
	(void)close(stream->fd);
	free(stream);
	count--;
}

static bool is_given_up(const struct stream *stream)
{
	return stream->state == FLUSHING || stream->state == LINGERING;
}

static bool is_full(const struct stream *stream)
{
	return evbuffer_get_length(stream->in) >= stream->input_max;
}

/* Wait for what is wanted now: input while there is room for it, else just the client's end. */
static void watch(struct stream *stream)
{
	bool reads = stream->state == HANDSHAKE || stream->state == LINGERING ||
		     stream->write_on_read || (stream->state == OPEN && !is_full(stream));

	if (reads) {
		(void)event_del(stream->on_gone);
		(void)event_add(stream->on_read, NULL);
	} else {
		(void)event_del(stream->on_read);
		if (stream->state == OPEN || stream->state == FLUSHING)
			(void)event_add(stream->on_gone, NULL);
	}
}

static void linger(struct stream *stream)
{
	stream->state = LINGERING;
	stream->write_on_read = false;
	(void)event_del(stream->on_write);
	(void)event_del(stream->on_gone);
	(void)shutdown(stream->fd, SHUT_WR);
	(void)event_add(stream->on_time, &linger_time);
	watch(stream);
}

/* The client has gone, or TLS has failed. True when the stream is still there. */
static bool end(struct stream *stream, const char *why)
{
	if (is_given_up(stream)) {
		free_stream(stream);
		return false;
	}
	if (stream->state == ENDED)
		return true;
	stream->state = ENDED;
	(void)event_del(stream->on_read);
	(void)event_del(stream->on_write);
	(void)event_del(stream->on_gone);
	stream->events->ended(stream->arg, why);
	return true;
}

enum step {
	STEP_FAILED = 0, /* the stream has ended, and may be gone */
	STEP_WAITS,
	STEP_DONE,
};

/* What a call of OpenSSL that did not succeed wants. */
static enum step wait_for_tls(struct stream *stream, int result)
{
	switch (SSL_get_error(stream->tls, result)) {
	case SSL_ERROR_WANT_READ:
		return STEP_WAITS;
	case SSL_ERROR_WANT_WRITE:
		(void)event_add(stream->on_write, NULL);
		return STEP_WAITS;
	case SSL_ERROR_ZERO_RETURN:
		(void)end(stream, "the client closed the connection");
		return STEP_FAILED;
	default:
		(void)end(stream, tls_failure(stream->tls));
		return STEP_FAILED;
	}
}

static enum step shake_hands(struct stream *stream)
{
	int result;

	ERR_clear_error();
	result = SSL_accept(stream->tls);
	if (result != 1)
		return wait_for_tls(stream, result);
	stream->state = OPEN;
	stream->events->ready(stream->arg);
	return STEP_DONE;
}

static enum step read_input(struct stream *stream)
{
	bool got_any = false;

	while (!is_full(stream)) {
		struct evbuffer_iovec room;
		size_t got = 0, most = stream->input_max - evbuffer_get_length(stream->in);
		int result;

		if (most > READ_BYTES)
			most = READ_BYTES;
		if (evbuffer_reserve_space(stream->in, (ev_ssize_t)most, &room, 1) != 1) {
			(void)end(stream, "out of memory");
			return STEP_FAILED;
		}
		ERR_clear_error();
		result = SSL_read_ex(stream->tls, room.iov_base,
			room.iov_len < most ? room.iov_len : most, &got);
		if (result != 1) {
			/* What came before the end is the owner's first. */
			if (got_any &&
				SSL_get_error(stream->tls, result) != SSL_ERROR_WANT_READ)
				event_active(stream->on_read, EV_READ, 0);
			else if (wait_for_tls(stream, result) == STEP_FAILED)
				return STEP_FAILED;
			break;
		}
		room.iov_len = got;
		(void)evbuffer_commit_space(stream->in, &room, 1);
		got_any = true;
	}
	if (got_any)
		stream->events->readable(stream->arg);
	return STEP_DONE;
}

/* Send what is queued, a whole record at a time where there is so much. */
static enum step write_output(struct stream *stream)
{
	size_t queued;

	stream->write_on_read = false;
	while ((queued = evbuffer_get_length(stream->out)) > 0) {
		size_t len = queued < RECORD_BYTES ? queued : RECORD_BYTES, sent = 0;
		const unsigned char *bytes = evbuffer_pullup(stream->out, (ev_ssize_t)len);
		int result;

		if (!bytes) {
			(void)end(stream, "out of memory");
			return STEP_FAILED;
		}
		ERR_clear_error();
		result = SSL_write_ex(stream->tls, bytes, len, &sent);
		if (result != 1) {
			stream->write_on_read =
				SSL_get_error(stream->tls, result) == SSL_ERROR_WANT_READ;
			return wait_for_tls(stream, result);
		}
		(void)evbuffer_drain(stream->out, sent);
		stream->sent += sent;
		if (stream->state == FLUSHING)
			(void)event_add(stream->on_time, &flush_time);
	}
	return STEP_DONE;
}

/* Nothing of the owner's is left to be sent: close_notify where all was said, then half a close. */
static void say_goodbye(struct stream *stream)
{
	ERR_clear_error();
	if (!stream->is_cut)
		(void)SSL_shutdown(stream->tls);
	linger(stream);
}

/* Write, and go on to what follows from it. STEP_FAILED: the stream has ended, and may be gone. */
static enum step flush(struct stream *stream)
{
	enum step step = write_output(stream);

	if (step == STEP_DONE && stream->state == FLUSHING)
		say_goodbye(stream);
	return step;
}

static void act_on_farewell(struct stream *stream);

/* Callbacks of the owner may give the stream up; that is acted on when they have returned. */
static void leave(struct stream *stream)
{
	stream->in_callback = false;
	if (stream->farewell != STAYS)
		act_on_farewell(stream);
	else if (stream->state != ENDED)
		watch(stream);
}

static void discard_input(struct stream *stream)
{
	char bytes[4096];
	ssize_t got;

	do
		got = recv(stream->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	while (got > 0);
	if (got == 0 || (errno != EAGAIN && errno != EINTR))
		free_stream(stream);
}

static void tell_drained(struct stream *stream)
{
	if (stream->was_high && evbuffer_get_length(stream->out) <= STREAM_LOW) {
		stream->was_high = false;
		stream->events->drained(stream->arg);
	}
}

static void handle_read(evutil_socket_t fd, short what, void *arg)
{
	struct stream *stream = arg;

	(void)fd;
	(void)what;
	if (stream->state == LINGERING) {
		discard_input(stream);
		return;
	}
	if (stream->state == FLUSHING) {
		(void)flush(stream);
		return;
	}
	stream->in_callback = true;
	if (stream->state == HANDSHAKE)
		(void)shake_hands(stream);
	if (stream->state == OPEN && stream->farewell == STAYS)
		(void)read_input(stream);
	if (stream->state == OPEN && stream->farewell == STAYS && stream->write_on_read &&
		flush(stream) != STEP_FAILED)
		tell_drained(stream);
	leave(stream);
}

static void handle_write(evutil_socket_t fd, short what, void *arg)
{
	struct stream *stream = arg;

	(void)fd;
	(void)what;
	if (is_given_up(stream)) {
		(void)flush(stream);
		return;
	}
	stream->in_callback = true;
	if (stream->state == HANDSHAKE)
		(void)shake_hands(stream);
	else if (stream->state == OPEN && flush(stream) != STEP_FAILED)
		tell_drained(stream);
	leave(stream);
}

static void handle_gone(evutil_socket_t fd, short what, void *arg)
{
	struct stream *stream = arg;

	(void)fd;
	(void)what;
	if (is_given_up(stream)) {
		free_stream(stream);
		return;
	}
	stream->in_callback = true;
	(void)end(stream, "the client closed the connection");
	leave(stream);
}

static void handle_time(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	free_stream(arg);
}

struct stream *stream_new(struct event_base *base, SSL_CTX *tls, int fd,
	const struct stream_events *events, void *arg)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		(void)close(fd);
		return NULL;
	}
	count++;
	*stream = (struct stream){ .state = HANDSHAKE,
		.fd = fd,
		.events = events,
		.arg = arg,
		.input_max = INPUT_MAX };
	stream->tls = SSL_new(tls);
	stream->in = evbuffer_new();
	stream->out = evbuffer_new();
	stream->on_read = event_new(base, fd, EV_READ | EV_PERSIST, handle_read, stream);
	stream->on_write = event_new(base, fd, EV_WRITE, handle_write, stream);
	stream->on_gone = event_new(base, fd, EV_CLOSED, handle_gone, stream);
	stream->on_time = event_new(base, -1, 0, handle_time, stream);
	if (!stream->tls || !stream->in || !stream->out || !stream->on_read ||
		!stream->on_write || !stream->on_gone || !stream->on_time ||
		SSL_set_fd(stream->tls, fd) != 1 || event_add(stream->on_read, NULL)) {
		free_stream(stream);
		return NULL;
	}
	return stream;
}

unsigned char *stream_certificate(const struct stream *stream, size_t *len)
{
	X509 *cert = SSL_get0_peer_certificate(stream->tls);
	unsigned char *der = NULL;
	int der_len = cert ? i2d_X509(cert, &der) : 0;

	*len = der_len > 0 ? (size_t)der_len : 0;
	return der;
}

bool stream_is_trusted(const struct stream *stream, SSL_CTX *tls)
{
	return tls_trusts(tls, SSL_get0_peer_certificate(stream->tls),
		SSL_get_peer_cert_chain(stream->tls));
}

struct sv stream_input(struct stream *stream)
{
	size_t len = evbuffer_get_length(stream->in);
	const unsigned char *bytes = len ? evbuffer_pullup(stream->in, -1) : NULL;

	return bytes ? (struct sv){ (const char *)bytes, len } : SV("");
}

/* There is room again. TLS may hold bytes that the socket does not show any more. */
static void read_on(struct stream *stream)
{
	if (stream->state != OPEN || stream->farewell != STAYS || is_full(stream))
		return;
	watch(stream);
	if (SSL_has_pending(stream->tls))
		event_active(stream->on_read, EV_READ, 0);
}

void stream_drain(struct stream *stream, size_t len)
{
	(void)evbuffer_drain(stream->in, len);
	read_on(stream);
}

void stream_limit_input(struct stream *stream, size_t len)
{
	stream->input_max = len;
	read_on(stream);
}

/* What was queued goes out from the loop, together with what is queued until then. */
static bool write_soon(struct stream *stream, bool queued)
{
	if (evbuffer_get_length(stream->out) > STREAM_HIGH)
		stream->was_high = true;
	if (queued && stream->state == OPEN && !event_pending(stream->on_write, EV_WRITE, NULL))
		(void)event_add(stream->on_write, NULL);
	return queued;
}

bool stream_write(struct stream *stream, struct sv bytes)
{
	return write_soon(stream, evbuffer_add(stream->out, bytes.ptr, bytes.len) == 0);
}

bool stream_write_buffer(struct stream *stream, struct evbuffer *from, size_t len)
{
	return write_soon(stream, evbuffer_remove_buffer(from, stream->out, len) == (int)len);
}

size_t stream_queued(const struct stream *stream)
{
	return evbuffer_get_length(stream->out);
}

uint64_t stream_sent(const struct stream *stream)
{
	return stream->sent;
}

static void act_on_farewell(struct stream *stream)
{
	enum farewell farewell = stream->farewell;

	stream->farewell = STAYS;
	if (farewell == ABORTS) {
		free_stream(stream);
		return;
	}
	if (stream->state == OPEN) {
		stream->state = FLUSHING;
		stream->is_cut = farewell == CUTS;
		(void)event_add(stream->on_time, &flush_time);
		watch(stream);
		(void)flush(stream);
		return;
	}
	/* Without a whole handshake there is nothing to say but the alert that OpenSSL has sent. */
	linger(stream);
}

static void give_up(struct stream *stream, enum farewell farewell)
{
	stream->farewell = farewell;
	if (!stream->in_callback)
		act_on_farewell(stream);
}

void stream_close(struct stream *stream)
{
	give_up(stream, CLOSES);
}

void stream_cut(struct stream *stream)
{
	give_up(stream, CUTS);
}

void stream_abort(struct stream *stream)
{
	static const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	(void)setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	give_up(stream, ABORTS);
}
