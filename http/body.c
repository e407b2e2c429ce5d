#include "http/body.h"

/* Where the chunked reader stands. */
enum {
	SIZE,    /* in the digits of a chunk's size */
	SIZE_LF, /* its CR was read */
	DATA,
	DATA_CR, /* the data is whole, CR LF must follow */
	DATA_LF,
	TRAILER_START, /* at the start of a line after the last chunk: the empty one ends all */
	TRAILER,
	TRAILER_LF,
	LAST_LF,
	ENDED,
	BROKEN, /* refused once, refused for ever */
};

#define SIZE_DIGITS_MAX   15
#define TRAILER_BYTES_MAX 4096 /* of all trailers together */

void http_body_init(struct http_body *body, enum http_framing framing, uint64_t length)
{
	*body = (struct http_body){ .framing = framing, .state = SIZE };
	if (framing == HTTP_LENGTH)
		body->left = length;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool take_size_byte(struct http_body *body, char c)
{
	int digit = hex_digit(c);

	if (c == '\r' && body->line_len > 0) {
		body->state = SIZE_LF;
		return true;
	}
	if (digit < 0 || body->line_len == SIZE_DIGITS_MAX)
		return false;
	body->left = body->left << 4 | (unsigned)digit;
	body->line_len++;
	return true;
}

static bool take_trailer_byte(struct http_body *body, char c)
{
	if (c == '\r') {
		body->state = body->state == TRAILER_START ? LAST_LF : TRAILER_LF;
		return true;
	}
	body->state = TRAILER;
	/* Trailers are dropped; they only may not go on for ever. */
	return c != '\n' && c != '\0' && ++body->line_len <= TRAILER_BYTES_MAX;
}

/* The bytes between pieces of data, one by one. */
static bool take_byte(struct http_body *body, char c)
{
	switch (body->state) {
	case SIZE:
		return take_size_byte(body, c);
	case SIZE_LF:
		body->state = body->left > 0 ? DATA : TRAILER_START;
		body->line_len = 0;
		return c == '\n';
	case DATA_CR:
		body->state = DATA_LF;
		return c == '\r';
	case DATA_LF:
		body->state = SIZE;
		return c == '\n';
	case TRAILER_START:
	case TRAILER:
		return take_trailer_byte(body, c);
	case TRAILER_LF:
		body->state = TRAILER_START;
		return c == '\n';
	case LAST_LF:
		body->state = ENDED;
		return c == '\n';
	default: /* BROKEN */
		return false;
	}
}

static enum http_result next_chunked(
	struct http_body *body, struct sv in, size_t *used, struct sv *payload)
{
	while (*used < in.len && body->state != DATA && body->state != ENDED) {
		if (!take_byte(body, in.ptr[*used])) {
			body->state = BROKEN;
			return HTTP_BAD;
		}
		++*used;
	}
	if (body->state == ENDED)
		return HTTP_DONE;
	if (body->state == DATA) {
		*payload = (struct sv){ in.ptr + *used, in.len - *used };
		if (payload->len > body->left)
			payload->len = (size_t)body->left;
		*used += payload->len;
		body->left -= payload->len;
		if (body->left == 0)
			body->state = DATA_CR;
	}
	return HTTP_MORE;
}

enum http_result http_body_next(
	struct http_body *body, struct sv in, size_t *used, struct sv *payload)
{
	*used = 0;
	*payload = (struct sv){ in.ptr, 0 };
	switch (body->framing) {
	case HTTP_NO_BODY:
		return HTTP_DONE;
	case HTTP_CHUNKED:
		return next_chunked(body, in, used, payload);
	case HTTP_UNTIL_CLOSE:
		*payload = in;
		*used = in.len;
		return HTTP_MORE;
	case HTTP_LENGTH:
		break;
	}
	*payload = in;
	if (payload->len > body->left)
		payload->len = (size_t)body->left;
	*used = payload->len;
	body->left -= payload->len;
	return body->left == 0 ? HTTP_DONE : HTTP_MORE;
}

bool http_body_may_end_here(const struct http_body *body)
{
	switch (body->framing) {
	case HTTP_NO_BODY:
	case HTTP_UNTIL_CLOSE:
		return true;
	case HTTP_LENGTH:
		return body->left == 0;
	case HTTP_CHUNKED:
		return body->state == ENDED;
	}
	return false;
}
