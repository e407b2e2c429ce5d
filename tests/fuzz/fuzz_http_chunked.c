/*
 * A chunked body from anywhere, beside a reading of the same bytes all at once that is written to
 * be obvious: same verdict, same bytes, same end, in pieces of any size.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "http/body.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX 4096 /* less than the limit on trailers, which the plain reading has not */

struct reading {
	enum http_result result;
	size_t used, body_len;
	uint8_t body[INPUT_MAX];
};

/* Position after a line's CRLF, or 0. The line's bytes must all be in `allowed` (NULL: any but CR,
 * LF and NUL). `*bad` when the bytes there can never become such a line. */
static size_t line_end(struct sv in, size_t at, const char *allowed, bool *bad)
{
	for (size_t i = at; i < in.len; i++) {
		char c = in.ptr[i];

		if (c == '\r') {
			*bad = i + 1 < in.len && in.ptr[i + 1] != '\n';
			return *bad || i + 1 == in.len ? 0 : i + 2;
		}
		if (c == '\0' || c == '\n' || (allowed && !strchr(allowed, c))) {
			*bad = true;
			return 0;
		}
	}
	return 0;
}

/* The chunk's size in front; 0 and MORE or BAD when it is not (yet) one. */
static size_t read_size(struct sv in, size_t at, uint64_t *size, struct reading *out)
{
	bool bad = false;
	size_t next = line_end(in, at, "0123456789abcdefABCDEF", &bad);
	char text[16] = { 0 };

	/* One that is too long or empty is refused before its line is whole. */
	for (size_t i = at; !bad && i < in.len && in.ptr[i] != '\r'; i++)
		bad = i - at == 15;
	bad = bad || (at < in.len && in.ptr[at] == '\r');
	out->result = bad ? HTTP_BAD : HTTP_MORE;
	if (bad || !next)
		return 0;
	memcpy(text, in.ptr + at, next - at - 2);
	*size = strtoull(text, NULL, 16);
	return next;
}

/* The position behind "\r\n"; 0 and MORE or BAD. */
static size_t read_crlf(struct sv in, size_t at, struct reading *out)
{
	static const char want[] = "\r\n";
	size_t len = in.len - at < 2 ? in.len - at : 2;

	out->result = memcmp(in.ptr + at, want, len) == 0 ? HTTP_MORE : HTTP_BAD;
	return out->result == HTTP_MORE && len == 2 ? at + 2 : 0;
}

static void read_trailers(struct sv in, size_t at, struct reading *out)
{
	bool bad = false;
	size_t next = line_end(in, at, NULL, &bad);

	for (; next && next - at > 2; next = line_end(in, at, NULL, &bad))
		at = next;
	out->result = bad ? HTTP_BAD : (next ? HTTP_DONE : HTTP_MORE);
	out->used = next;
}

static void read_plainly(struct sv in, struct reading *out)
{
	uint64_t chunk;
	size_t at = 0;

	*out = (struct reading){ .result = HTTP_MORE };
	for (;;) {
		at = read_size(in, at, &chunk, out);
		if (!at)
			return;
		if (chunk == 0)
			break;
		for (; chunk > 0 && at < in.len; chunk--)
			out->body[out->body_len++] = (uint8_t)in.ptr[at++];
		at = read_crlf(in, at, out);
		if (!at)
			return;
	}
	read_trailers(in, at, out);
}

/* What one call gave lies inside what it was given, and is what is wanted there. */
static size_t check_payload(
	struct sv rest, size_t used, struct sv payload, const struct reading *want, size_t got)
{
	if (payload.len == 0)
		return got;
	assert(payload.ptr >= rest.ptr && payload.ptr + payload.len <= rest.ptr + used);
	assert(got + payload.len <= want->body_len);
	assert(memcmp(want->body + got, payload.ptr, payload.len) == 0);
	return got + payload.len;
}

static void check_in_pieces(struct sv in, size_t piece, const struct reading *want)
{
	struct http_body body;
	enum http_result result = HTTP_MORE;
	size_t at = 0, got = 0;

	http_body_init(&body, HTTP_CHUNKED, 0);
	while (at < in.len && result == HTTP_MORE) {
		struct sv rest = { in.ptr + at, in.len - at }, payload = { 0 };
		size_t used = 0;

		if (rest.len > piece)
			rest.len = piece;
		result = http_body_next(&body, rest, &used, &payload);
		assert(used <= rest.len && payload.len <= used);
		assert(result != HTTP_MORE || used > 0);
		if (result != HTTP_BAD)
			got = check_payload(rest, used, payload, want, got);
		at += used;
	}
	assert(result == want->result);
	assert(http_body_may_end_here(&body) == (result == HTTP_DONE));
	if (result == HTTP_DONE)
		assert(at == want->used);
	if (result != HTTP_BAD)
		assert(got == want->body_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t pieces[] = { 1, 2, 3, 7, 64, INPUT_MAX };
	struct sv in = { (const char *)data, size };
	struct reading want;

	if (size > INPUT_MAX)
		return 0;
	read_plainly(in, &want);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		check_in_pieces(in, pieces[i], &want);
	return 0;
}
