#include "http/fields.h"

static const char *read_status_line(
	struct sv line, struct http_response *response, bool *is_http10)
{
	unsigned status = 0;

	if (line.len < 12 || !sv_starts_with(line, SV("HTTP/1.")) ||
		(line.ptr[7] != '0' && line.ptr[7] != '1') || line.ptr[8] != ' ')
		return "status line is not HTTP/1.1";
	for (size_t i = 9; i < 12; i++) {
		if (line.ptr[i] < '0' || line.ptr[i] > '9')
			return "status is not a number";
		status = status * 10 + (unsigned)(line.ptr[i] - '0');
	}
	if (status < 100 || status > 599 || (line.len > 12 && line.ptr[12] != ' '))
		return "status is not between 100 and 599";
	if (!fields_is_text((struct sv){ line.ptr + 12, line.len - 12 }))
		return "forbidden byte in the status line";
	*is_http10 = line.ptr[7] == '0';
	response->status = status;
	response->reason = sv_trim((struct sv){ line.ptr + 12, line.len - 12 });
	return NULL;
}

/* Bytes that can never become a status line are refused at once: who talks to a mail or a shell
 * server by mistake should not wait for an empty line that never comes. */
static bool may_become_status_line(struct sv bytes)
{
	static const char start[] = "HTTP/1.";
	size_t len = bytes.len < sizeof(start) - 1 ? bytes.len : sizeof(start) - 1;

	return len == 0 || memcmp(bytes.ptr, start, len) == 0;
}

static const char *read_framing(struct http_response *response, bool is_http10, bool to_head)
{
	struct sv coding, length;
	size_t codings = fields_find(
		response->fields, response->fields_len, SV("transfer-encoding"), &coding);
	size_t lengths = fields_find(
		response->fields, response->fields_len, SV("content-length"), &length);

	if (codings > 1 || lengths > 1 || (codings && lengths))
		return "more than one framing";
	if (codings && is_http10)
		return "transfer coding in HTTP/1.0";
	if (codings && !sv_is_nocase(coding, SV("chunked")))
		return "transfer coding other than chunked";
	if (lengths && !sv_to_u64(length, UINT64_MAX, &response->content_length))
		return "Content-Length is not a number";
	if (to_head || response->status == 204 || response->status == 304)
		response->framing = HTTP_NO_BODY;
	else if (codings)
		response->framing = HTTP_CHUNKED;
	else
		response->framing = lengths ? HTTP_LENGTH : HTTP_UNTIL_CLOSE;
	return NULL;
}

/* One head, an interim one too. `*head_len` is 0 when it is not whole yet. */
static const char *read_head(struct sv bytes, size_t head_bytes, struct http_response *response,
	bool *is_http10, size_t *head_len)
{
	struct sv rest, line;
	bool too_many;
	const char *wrong;

	*head_len = fields_head_len(bytes);
	if (*head_len > head_bytes || (*head_len == 0 && bytes.len >= head_bytes))
		return "head is too large";
	if (!may_become_status_line(bytes))
		return "status line is not HTTP/1.1";
	if (*head_len == 0)
		return NULL;
	rest = (struct sv){ bytes.ptr, *head_len };
	if (!fields_cut_line(&rest, &line))
		return "line that does not end in CR LF";
	wrong = read_status_line(line, response, is_http10);
	if (wrong)
		return wrong;
	return fields_parse(rest, response->fields, &response->fields_len, &too_many);
}

enum http_result http_response_parse(struct sv bytes, size_t head_bytes, bool to_head,
	struct http_response *response, const char **detail)
{
	size_t skipped = 0, head_len;
	bool is_http10 = false;

	do {
		struct sv rest = { bytes.ptr + skipped, bytes.len - skipped };

		memset(response, 0, offsetof(struct http_response, fields));
		*detail =
			read_head(rest, head_bytes - skipped, response, &is_http10, &head_len);
		if (*detail)
			return HTTP_BAD;
		if (head_len == 0)
			return HTTP_MORE;
		skipped += head_len;
		if (response->status == 101) {
			*detail = "switches to another protocol";
			return HTTP_BAD;
		}
	} while (response->status < 200);
	response->head_len = skipped;
	*detail = read_framing(response, is_http10, to_head);
	return *detail ? HTTP_BAD : HTTP_DONE;
}

bool http_response_field(const struct http_response *response, struct sv name, struct sv *value)
{
	return fields_find(response->fields, response->fields_len, name, value) == 1;
}
