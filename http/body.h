/*
 * body.h - where a message body ends (RFC 9112 sections 6 and 7), chunk by chunk.
 *
 * The reader holds a few integers and no bytes.  Chunk extensions are refused, trailers are read
 * and dropped (they are never passed on), sizes are hexadecimal digits only.
 */
#ifndef HTTP_BODY_H
#define HTTP_BODY_H

#include "http/head.h"

struct http_body {
	enum http_framing framing;
	uint64_t left; /* of the body (HTTP_LENGTH) or of this chunk (HTTP_CHUNKED) */
	unsigned state, line_len; /* private to the chunked reader */
};

void http_body_init(struct http_body *body, enum http_framing framing, uint64_t length);

/*
 * Take the next piece: consume `*used` bytes of `in`, of which `*payload` (a view into `in`) is
 * body. Call again while it answers HTTP_MORE and bytes are left. HTTP_DONE: the body ended here,
 * what follows `*used` is not ours. HTTP_BAD: broken framing, the message is incomplete.
 */
enum http_result http_body_next(
	struct http_body *body, struct sv in, size_t *used, struct sv *payload);

/* The sender closed: true when the body is whole by that (ended, or framed by the close). */
bool http_body_may_end_here(const struct http_body *body);

#endif
