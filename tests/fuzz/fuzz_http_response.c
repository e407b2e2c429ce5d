/*
 * A target's answer from anywhere: views inside the input, one framing, and no verdict that
 * changes when more bytes come or with the method of the request.
 */
#include <assert.h>
#include <stdint.h>

#include "http/head.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD_BYTES 512

static void check_inside(struct sv view, struct sv head)
{
	assert(view.len == 0 || (view.ptr >= head.ptr && view.len <= head.len &&
					(size_t)(view.ptr - head.ptr) <= head.len - view.len));
}

static void check_framing(const struct http_response *response, bool to_head)
{
	struct sv coding = { 0 }, length = { 0 };
	bool has_coding = http_response_field(response, SV("transfer-encoding"), &coding);
	bool has_length = http_response_field(response, SV("content-length"), &length);
	bool empty = to_head || response->status == 204 || response->status == 304;

	assert(!has_coding || !has_length);
	switch (response->framing) {
	case HTTP_NO_BODY:
		assert(empty);
		break;
	case HTTP_LENGTH:
		assert(!empty && has_length && length.len > 0);
		for (size_t i = 0; i < length.len; i++)
			assert(length.ptr[i] >= '0' && length.ptr[i] <= '9');
		break;
	case HTTP_CHUNKED:
		assert(!empty && has_coding && coding.len == 7);
		break;
	case HTTP_UNTIL_CLOSE:
		assert(!empty && !has_coding && !has_length);
		break;
	}
}

static enum http_result parse(struct sv bytes, bool to_head)
{
	struct http_response response;
	const char *detail = NULL;
	enum http_result result =
		http_response_parse(bytes, HEAD_BYTES, to_head, &response, &detail);
	struct sv head = bytes;

	if (result == HTTP_BAD)
		assert(detail);
	if (result == HTTP_MORE)
		assert(bytes.len < HEAD_BYTES);
	if (result != HTTP_DONE)
		return result;
	assert(response.head_len <= bytes.len && response.head_len <= HEAD_BYTES);
	assert(memcmp(bytes.ptr + response.head_len - 4, "\r\n\r\n", 4) == 0);
	assert(response.status >= 200 && response.status <= 599);
	assert(response.fields_len <= HTTP_FIELDS_MAX);
	head.len = response.head_len;
	assert(!memchr(head.ptr, '\0', head.len));
	check_inside(response.reason, head);
	for (size_t i = 0; i < response.fields_len; i++) {
		const struct http_field *field = &response.fields[i];

		check_inside(field->name, head);
		check_inside(field->value, head);
		assert(field->name.len > 0 && field->name.ptr[-1] == '\n');
		assert(!memchr(field->value.ptr, '\r', field->value.len));
		assert(!memchr(field->value.ptr, '\n', field->value.len));
	}
	check_framing(&response, to_head);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv bytes = { (const char *)data, size };
	enum http_result last = HTTP_MORE;

	for (size_t len = 0; len <= size && len <= 600; len++) {
		enum http_result now = parse((struct sv){ bytes.ptr, len }, false);

		assert(last == HTTP_MORE || now == last);
		last = now;
	}
	if (size > 600)
		assert(parse(bytes, false) == last);
	assert(parse(bytes, true) == last);
	return 0;
}
