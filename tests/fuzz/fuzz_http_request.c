/*
 * A request head from anywhere: what is accepted must be what a second, simpler reading of the
 * same bytes finds, and no verdict may change when more bytes come.
 */
#include <assert.h>
#include <stdint.h>

#include "http/head.h"
#include "http/query.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct http_policy strict = {
	.target_bytes = 64, .head_bytes = 512, .body_bytes = 100
};
static const struct http_policy lenient = {
	.target_bytes = 64, .head_bytes = 512, .body_bytes = 100, .allow_http10 = true
};

static void check_inside(struct sv view, struct sv head)
{
	assert(view.len == 0 || (view.ptr >= head.ptr && view.len <= head.len &&
					(size_t)(view.ptr - head.ptr) <= head.len - view.len));
}

/* The head once more, byte by byte: every LF after a CR, every CR before a LF, the first empty
 * line at the end, nothing that is not text. */
static void check_lines(struct sv head, size_t fields_len)
{
	size_t lines = 0;

	for (size_t i = 0; i < head.len; i++) {
		unsigned char c = (unsigned char)head.ptr[i];

		if (c == '\n') {
			assert(i > 0 && head.ptr[i - 1] == '\r');
			lines++;
		} else if (c == '\r') {
			assert(i + 1 < head.len && head.ptr[i + 1] == '\n');
		} else {
			assert((c >= 0x20 && c <= 0x7e) || c == '\t');
		}
		if (i >= 3 && memcmp(head.ptr + i - 3, "\r\n\r\n", 4) == 0)
			assert(i + 1 == head.len);
	}
	assert(lines == fields_len + 2);
}

static void check_fields(struct sv head, const struct http_request *request)
{
	for (size_t i = 0; i < request->fields_len; i++) {
		const struct http_field *field = &request->fields[i];

		check_inside(field->name, head);
		check_inside(field->value, head);
		assert(field->name.len > 0);
		assert(field->name.ptr[-1] == '\n' && field->name.ptr[field->name.len] == ':');
		assert(!memchr(field->name.ptr, '_', field->name.len));
		assert(!memchr(field->name.ptr, ' ', field->name.len));
		assert(!memchr(field->value.ptr, '\r', field->value.len));
	}
}

/* Decoded it is never longer, and without '%' or '+' the same. */
static void check_form(struct sv query, const struct http_policy *policy)
{
	char room[64];
	size_t len;

	assert(policy->target_bytes <= sizeof(room) && query.len <= sizeof(room));
	len = http_form_decode(query, room);
	assert(len == SIZE_MAX || len <= query.len);
	if (query.len > 0 && !memchr(query.ptr, '%', query.len) &&
		!memchr(query.ptr, '+', query.len))
		assert(sv_is(query, (struct sv){ room, len }));
}

static void check_accepted(
	struct sv bytes, const struct http_policy *policy, const struct http_request *request)
{
	struct sv head = { bytes.ptr, request->head_len }, value;

	assert(request->head_len <= bytes.len && request->head_len <= policy->head_bytes);
	assert(request->fields_len <= HTTP_FIELDS_MAX);
	check_lines(head, request->fields_len);
	check_inside(request->method_name, head);
	check_inside(request->path, head);
	check_inside(request->query, head);
	check_inside(request->host, head);
	check_inside(request->authorization, head);
	check_inside(request->content_type, head);
	check_form(request->query, policy);
	assert(request->path.len > 0 && request->path.ptr[0] == '/');
	assert(request->path.ptr == request->method_name.ptr + request->method_name.len + 1);
	assert(request->path.len + request->query.len + request->has_query <=
		policy->target_bytes);
	assert(request->has_query ? request->query.ptr[-1] == '?' : request->query.len == 0);
	assert(!memchr(request->path.ptr, '?', request->path.len));
	assert(request->minor_version == 1 || policy->allow_http10);
	assert(request->content_length <=
		(request->method == HTTP_POST ? policy->body_bytes : 0));
	assert(!http_request_field(request, SV("Transfer-Encoding"), &value));
	assert(!http_request_field(request, SV("Upgrade"), &value));
	assert(request->minor_version == 0 || http_request_field(request, SV("HOST"), &value));
	check_fields(head, request);
}

static enum http_result parse(struct sv bytes, const struct http_policy *policy)
{
	struct http_request request;
	struct http_refusal refusal;
	enum http_result result = http_request_parse(bytes, policy, &request, &refusal);

	if (result == HTTP_DONE)
		check_accepted(bytes, policy, &request);
	if (result == HTTP_BAD)
		assert(refusal.status >= 400 && refusal.status <= 505 && refusal.slug &&
			refusal.detail);
	if (result == HTTP_MORE)
		assert(bytes.len < policy->head_bytes);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv bytes = { (const char *)data, size };
	enum http_result last = HTTP_MORE;

	/* Byte by byte: once it is not MORE, it stays what it is. */
	for (size_t len = 0; len <= size && len <= 600; len++) {
		enum http_result now = parse((struct sv){ bytes.ptr, len }, &strict);

		assert(last == HTTP_MORE || now == last);
		last = now;
	}
	if (size > 600)
		assert(parse(bytes, &strict) == last);
	/* What the strict policy takes, the lenient one takes too. */
	if (last == HTTP_DONE)
		assert(parse(bytes, &lenient) == HTTP_DONE);
	else
		(void)parse(bytes, &lenient);
	return 0;
}
