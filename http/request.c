#include "http/fields.h"

/* The state of reading one head: the inputs, and where the refusal goes. */
struct reader {
	const struct http_policy *policy;
	struct http_request *request;
	struct http_refusal *refusal;
};

static bool refuse(struct reader *reader, unsigned status, const char *slug, const char *detail)
{
	*reader->refusal = (struct http_refusal){ status, slug, detail };
	return false;
}

static bool malformed(struct reader *reader, const char *detail)
{
	return refuse(reader, 400, "malformed-request", detail);
}

static const struct {
	struct sv name;
	enum http_method method;
} methods[] = {
	{ SV_INIT("GET"), HTTP_GET },
	{ SV_INIT("HEAD"), HTTP_HEAD },
	{ SV_INIT("POST"), HTTP_POST },
	{ SV_INIT("PUT"), HTTP_OTHER_METHOD },
	{ SV_INIT("DELETE"), HTTP_OTHER_METHOD },
	{ SV_INIT("OPTIONS"), HTTP_OTHER_METHOD },
	{ SV_INIT("TRACE"), HTTP_OTHER_METHOD },
	{ SV_INIT("PATCH"), HTTP_OTHER_METHOD },
	{ SV_INIT("CONNECT"), HTTP_OTHER_METHOD },
};

static bool read_method(struct reader *reader, struct sv name)
{
	if (!fields_is_token(name))
		return malformed(reader, "request method is not a token");
	reader->request->method_name = name;
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (sv_is(methods[i].name, name)) {
			reader->request->method = methods[i].method;
			return true;
		}
	}
	return refuse(reader, 501, "not-implemented", "unknown method");
}

static bool read_version(struct reader *reader, struct sv version)
{
	if (version.len != 8 || !sv_starts_with(version, SV("HTTP/")) || version.ptr[5] < '0' ||
		version.ptr[5] > '9' || version.ptr[6] != '.' || version.ptr[7] < '0' ||
		version.ptr[7] > '9')
		return malformed(reader, "request line does not end in an HTTP version");
	if (sv_is(version, SV("HTTP/1.1"))) {
		reader->request->minor_version = 1;
		return true;
	}
	if (reader->policy->allow_http10 && sv_is(version, SV("HTTP/1.0"))) {
		reader->request->minor_version = 0;
		return true;
	}
	return refuse(reader, 505, "version-not-supported", "HTTP version is not 1.1");
}

static bool read_target(struct reader *reader, struct sv target)
{
	struct http_request *request = reader->request;

	if (target.len > reader->policy->target_bytes)
		return refuse(reader, 414, "uri-too-long", "request target is too long");
	if (target.len == 0 || target.ptr[0] != '/')
		return malformed(reader, "request target is not a path");
	for (size_t i = 0; i < target.len; i++) {
		unsigned char c = (unsigned char)target.ptr[i];

		if (c <= 0x20 || c > 0x7e || c == '#' || c == '"' || c == '<' || c == '>' ||
			c == '\\' || c == '^' || c == '`' || c == '{' || c == '|' || c == '}')
			return malformed(reader, "forbidden byte in the request target");
	}
	request->has_query = memchr(target.ptr, '?', target.len) != NULL;
	request->query = target;
	request->path = sv_cut(&request->query, '?');
	return true;
}

static bool read_request_line(struct reader *reader, struct sv line)
{
	struct sv rest = line, method = sv_cut(&rest, ' '), target = sv_cut(&rest, ' ');

	if (line.len == 0)
		return malformed(reader, "empty line before the request");
	if (method.len == 0 || memchr(rest.ptr, ' ', rest.len))
		return malformed(
			reader, "request line is not three words with one space between");
	return read_version(reader, rest) && read_method(reader, method) &&
	       read_target(reader, target);
}

/* At most once: 0 or 1 and the value; -1 and a refusal otherwise. */
static int find_single(struct reader *reader, struct sv name, struct sv *value)
{
	const struct http_request *request = reader->request;
	size_t found = fields_find(request->fields, request->fields_len, name, value);

	if (found <= 1)
		return (int)found;
	if (sv_is(name, SV("authorization")))
		refuse(reader, 400, "credential-placement", "more than one Authorization");
	else
		malformed(reader, "a header field that may stand once is there twice");
	return -1;
}

static bool read_length(struct reader *reader)
{
	struct http_request *request = reader->request;
	struct sv value;
	int found = find_single(reader, SV("content-length"), &value);

	if (found < 0)
		return false;
	if (found == 0)
		return true;
	if (!sv_to_u64(value, UINT64_MAX, &request->content_length))
		return malformed(reader, "Content-Length is not a number");
	request->has_content_length = true;
	if (request->method != HTTP_POST)
		return request->content_length == 0 ||
		       malformed(reader, "a body on a request that takes none");
	if (request->content_length > reader->policy->body_bytes)
		return refuse(reader, 413, "content-too-large", "request body is too large");
	return true;
}

static bool read_host(struct reader *reader)
{
	struct http_request *request = reader->request;
	int found = find_single(reader, SV("host"), &request->host);

	if (found < 0)
		return false;
	if (found == 0 && request->minor_version == 1)
		return malformed(reader, "no Host");
	return true;
}

static bool read_connection(struct reader *reader)
{
	struct http_request *request = reader->request;
	struct sv value = { 0 };
	int found = find_single(reader, SV("connection"), &value);

	if (found < 0)
		return false;
	request->close = request->minor_version == 0 ? !fields_list_has(value, SV("keep-alive"))
						     : fields_list_has(value, SV("close"));
	if (fields_list_has(value, SV("upgrade")) ||
		fields_find(request->fields, request->fields_len, SV("upgrade"), &value) > 0)
		return malformed(reader, "this server upgrades to no other protocol");
	return true;
}

static bool read_expect(struct reader *reader)
{
	struct http_request *request = reader->request;
	struct sv value;
	int found = find_single(reader, SV("expect"), &value);

	if (found < 0)
		return false;
	if (found == 1 && !sv_is_nocase(value, SV("100-continue")))
		return refuse(reader, 417, "expectation-failed", "unknown expectation");
	request->expect_continue = found == 1 && request->minor_version == 1;
	return true;
}

static bool read_fields(struct reader *reader, struct sv lines)
{
	struct http_request *request = reader->request;
	struct sv value;
	bool too_many;
	const char *wrong =
		fields_parse(lines, request->fields, &request->fields_len, &too_many);
	int found;

	if (too_many)
		return refuse(reader, 431, "header-too-large", wrong);
	if (wrong)
		return malformed(reader, wrong);
	if (fields_find(
		    request->fields, request->fields_len, SV("transfer-encoding"), &value)) {
		/* With a length beside it two readers may see two ends: that is no mere lack. */
		if (fields_find(request->fields, request->fields_len, SV("content-length"),
			    &value) ||
			request->minor_version == 0)
			return malformed(reader, "Transfer-Encoding where it may not stand");
		return refuse(reader, 501, "not-implemented",
			"transfer coding on a request is not implemented");
	}
	found = find_single(reader, SV("authorization"), &request->authorization);
	if (found < 0)
		return false;
	request->has_authorization = found == 1;
	if (find_single(reader, SV("content-type"), &request->content_type) < 0)
		return false;
	return read_length(reader) && read_host(reader) && read_connection(reader) &&
	       read_expect(reader);
}

/* Refuse as early as it shows; a head that can still become good needs more bytes. */
static enum http_result judge_partial(struct reader *reader, struct sv bytes)
{
	const char *line_end = memchr(bytes.ptr, '\n', bytes.len);
	struct sv rest = bytes, line = bytes;

	if (line_end) {
		if (!fields_cut_line(&rest, &line)) {
			malformed(reader, "line that does not end in CR LF");
			return HTTP_BAD;
		}
		if (!read_request_line(reader, line))
			return HTTP_BAD;
	} else if (bytes.len > reader->policy->target_bytes + 32) {
		refuse(reader, 414, "uri-too-long", "request line is too long");
		return HTTP_BAD;
	}
	/* Bare LFs would otherwise keep an empty line from ever being seen. */
	while (rest.len > 0 && line_end && memchr(rest.ptr, '\n', rest.len)) {
		if (!fields_cut_line(&rest, &line)) {
			malformed(reader, "line that does not end in CR LF");
			return HTTP_BAD;
		}
	}
	if (bytes.len >= reader->policy->head_bytes) {
		refuse(reader, 431, "header-too-large", "header section is too large");
		return HTTP_BAD;
	}
	return HTTP_MORE;
}

enum http_result http_request_parse(struct sv bytes, const struct http_policy *policy,
	struct http_request *request, struct http_refusal *refusal)
{
	struct reader reader = { policy, request, refusal };
	size_t head_len = fields_head_len(bytes);
	struct sv rest = { bytes.ptr, head_len }, line;

	/* The array of fields is set as far as fields_len says, and not cleared each time. */
	memset(request, 0, offsetof(struct http_request, fields));
	*refusal = (struct http_refusal){ 0 };
	if (bytes.len == 0)
		return HTTP_MORE;
	if (head_len == 0)
		return judge_partial(&reader, bytes);
	if (!fields_cut_line(&rest, &line)) {
		malformed(&reader, "line that does not end in CR LF");
		return HTTP_BAD;
	}
	if (!read_request_line(&reader, line))
		return HTTP_BAD;
	if (head_len > policy->head_bytes) {
		refuse(&reader, 431, "header-too-large", "header section is too large");
		return HTTP_BAD;
	}
	request->head_len = head_len;
	return read_fields(&reader, rest) ? HTTP_DONE : HTTP_BAD;
}

bool http_request_field(const struct http_request *request, struct sv name, struct sv *value)
{
	return fields_find(request->fields, request->fields_len, name, value) == 1;
}
