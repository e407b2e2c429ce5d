/*
 * head.h - HTTP/1.1 heads (RFC 9112), read strictly: bytes in, a struct of views out, no sockets.
 *
 * Strict means that whatever two readers could understand in two ways is refused: CRLF only, one
 * space, no folding, no white space before the colon, no byte outside VCHAR, SP and HTAB in a
 * value, no underscore or other doubtful byte in a name, origin-form targets only, one Host,
 * singleton fields once, Content-Length of digits only, no Transfer-Encoding on a request.
 * Everything is judged by a policy of limits; the gateway and the sampler's loopback server have
 * their own.
 */
#ifndef HTTP_HEAD_H
#define HTTP_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sv.h"

#define HTTP_FIELDS_MAX 64

struct http_policy {
	size_t target_bytes; /* of the request target: more is 414 */
	size_t head_bytes;   /* of the whole head, final empty line included: more is 431 */
	size_t body_bytes;   /* of Content-Length on POST: more is 413 */
	bool allow_http10;   /* HTTP/1.0 too (then no Host is needed); else it is 505 */
};

enum http_result {
	HTTP_BAD = 0, /* refused: see the refusal */
	HTTP_MORE,    /* the head is not whole yet */
	HTTP_DONE,
};

/* Why a head is refused: what to answer, never with bytes of the client's. Static strings. */
struct http_refusal {
	unsigned status;    /* 400, 405, 413, 414, 417, 431, 501, 505 */
	const char *slug;   /* "malformed-request" */
	const char *detail; /* "space before the colon of a header field" */
};

enum http_method {
	HTTP_GET = 1,
	HTTP_HEAD,
	HTTP_POST,
	HTTP_OTHER_METHOD, /* a known method that we never serve: 405 */
};

struct http_field {
	struct sv name, value; /* value without the white space around it */
};

struct http_request {
	enum http_method method;
	struct sv method_name;
	struct sv path;  /* as sent, no decoding, before '?' */
	struct sv query; /* after '?'; without one `has_query` is false */
	bool has_query;
	unsigned minor_version;  /* 1, or 0 where the policy allows it */
	struct sv host;          /* as sent, the port still on it */
	struct sv authorization; /* the whole value; has_authorization when there */
	bool has_authorization;
	struct sv content_type;
	uint64_t content_length; /* 0 when absent */
	bool has_content_length;
	bool close; /* the client asked for Connection: close (or is HTTP/1.0 without keep-alive) */
	bool expect_continue;
	size_t head_len; /* bytes of the head; the body or the next request begins there */
	size_t fields_len;
	struct http_field fields[HTTP_FIELDS_MAX];
};

/*
 * Read the head at the front of `bytes`. All views point into `bytes`.
 * HTTP_MORE is only answered while fewer than policy->head_bytes are there; a caller that gets
 * more bytes calls again with all of them. HTTP_BAD fills `refusal`; the connection must end.
 */
enum http_result http_request_parse(struct sv bytes, const struct http_policy *policy,
	struct http_request *request, struct http_refusal *refusal);

/* The value of the only field of that name (any case); false when absent or there twice. */
bool http_request_field(const struct http_request *request, struct sv name, struct sv *value);

enum http_framing {
	HTTP_NO_BODY, /* answer to HEAD, 204, 304 */
	HTTP_LENGTH,
	HTTP_CHUNKED,
	HTTP_UNTIL_CLOSE,
};

struct http_response {
	unsigned status;  /* 200 to 599; a 1xx is skipped by the parser */
	struct sv reason; /* what stands behind the status; often empty */
	enum http_framing framing;
	uint64_t content_length;
	size_t head_len;
	size_t fields_len;
	struct http_field fields[HTTP_FIELDS_MAX];
};

/* Read a response's head from a target; `head_bytes` and 64 fields at most. `to_head` says that
 * the request was HEAD. HTTP_BAD: `detail` (static) says why. */
enum http_result http_response_parse(struct sv bytes, size_t head_bytes, bool to_head,
	struct http_response *response, const char **detail);

bool http_response_field(
	const struct http_response *response, struct sv name, struct sv *value);

#endif
