/*
 * stream.h - a TLS connection with a client, on libevent's loop: bytes in, bytes out, back-pressure.
 *
 * OpenSSL on a non-blocking socket of our own.  Input is read up to a limit and no further until it
 * is drained; even then it is noticed when the client goes away.  Output is queued, and who fills the
 * queue is told when it has run low.  Timeouts are the owner's.
 */
#ifndef GATEWAY_STREAM_H
#define GATEWAY_STREAM_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/sv.h"

#define STREAM_HIGH ((size_t)256 << 10) /* queue no more when stream_queued() is above this */
#define STREAM_LOW  ((size_t)64 << 10)  /* `drained` is told when it has come down to this */

struct stream;

/* Each is called from the loop, never from within a call of the functions below. */
struct stream_events {
	void (*ready)(void *arg);    /* the handshake is done */
	void (*readable)(void *arg); /* there is more input */
	void (*drained)(
		void *arg); /* the queue was above STREAM_HIGH and is below STREAM_LOW */
	/* The client is gone, or TLS failed (before `ready`: the handshake); `why` is for the audit
	 * log. Nothing more is told; stream_close() or stream_abort() is still the owner's to call. */
	void (*ended)(void *arg, const char *why);
};

/* Begin the handshake on an accepted, non-blocking socket, which becomes the stream's. Keeps
 * `events` and `arg`. NULL without memory (the socket is closed). */
struct stream *stream_new(struct event_base *base, SSL_CTX *tls, int fd,
	const struct stream_events *events, void *arg);

/* DER of the verified client certificate, to be freed with OPENSSL_free(); NULL when none. */
unsigned char *stream_certificate(const struct stream *stream, size_t *len);

/* Would the client's certificate, if it has shown one, be taken in a handshake by `tls` now? */
bool stream_is_trusted(const struct stream *stream, SSL_CTX *tls);

/* What has come and was not drained, in one piece; valid until the loop runs on. */
struct sv stream_input(struct stream *stream);
void stream_drain(struct stream *stream, size_t len);

/* Read no more than so many bytes ahead (at first 16 KiB). */
void stream_limit_input(struct stream *stream, size_t len);

/* Queue bytes, by copy or by moving the first `len` of `from`. False without memory. */
bool stream_write(struct stream *stream, struct sv bytes);
bool stream_write_buffer(struct stream *stream, struct evbuffer *from, size_t len);

/* Bytes that the socket has not taken yet. */
size_t stream_queued(const struct stream *stream);

/* Bytes that the socket has taken in all, without TLS: what was really sent. */
uint64_t stream_sent(const struct stream *stream);

/* Streams that are there, those included that were given up and are still saying goodbye: a process
 * that ends before this is 0 cuts somebody off. */
size_t stream_count(void);

/* Give it up. No event is told any more and the pointer is void.
 * close: what is queued goes out, then close_notify, then the client has a moment to read it.
 * cut: as close, but without close_notify: what was said stays visibly unfinished.
 * abort: it ends now, and by a reset. */
void stream_close(struct stream *stream);
void stream_cut(struct stream *stream);
void stream_abort(struct stream *stream);

#endif
