#include "http/fields.h"

/* One bit for each property of a byte. */
enum {
	TCHAR = 1,
	TEXT = 2,
};

static unsigned char_class(unsigned char c)
{
	if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
		return TCHAR | TEXT;
	if (c == ' ' || c == '\t')
		return TEXT;
	if (c < 0x21 || c > 0x7e)
		return 0;
	return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) ? TCHAR | TEXT : TEXT;
}

static bool all_are(struct sv text, unsigned wanted)
{
	for (size_t i = 0; i < text.len; i++) {
		if (!(char_class((unsigned char)text.ptr[i]) & wanted))
			return false;
	}
	return true;
}

bool fields_is_token(struct sv text)
{
	return text.len > 0 && all_are(text, TCHAR);
}

bool fields_is_text(struct sv text)
{
	return all_are(text, TEXT);
}

size_t fields_head_len(struct sv bytes)
{
	const char *end = bytes.len >= 4 ? memmem(bytes.ptr, bytes.len, "\r\n\r\n", 4) : NULL;

	return end ? (size_t)(end - bytes.ptr) + 4 : 0;
}

bool fields_cut_line(struct sv *rest, struct sv *line)
{
	const char *end = memchr(rest->ptr, '\n', rest->len);

	*line = *rest;
	if (!end || end == rest->ptr || end[-1] != '\r')
		return false;
	line->len = (size_t)(end - rest->ptr) - 1;
	rest->len -= line->len + 2;
	rest->ptr = end + 1;
	return !memchr(line->ptr, '\r', line->len);
}

static const char *parse_field(struct sv line, struct http_field *field)
{
	struct sv rest = line;

	if (line.ptr[0] == ' ' || line.ptr[0] == '\t')
		return "folded header line";
	if (!memchr(line.ptr, ':', line.len))
		return "header line without a colon";
	field->name = sv_cut(&rest, ':');
	if (field->name.len == 0)
		return "empty header name";
	if (field->name.ptr[field->name.len - 1] == ' ' ||
		field->name.ptr[field->name.len - 1] == '\t')
		return "space before the colon of a header field";
	/* An underscore is a token character, but many readers take it for '-'. */
	if (!fields_is_token(field->name) || memchr(field->name.ptr, '_', field->name.len))
		return "forbidden byte in a header name";
	field->value = sv_trim(rest);
	if (!fields_is_text(field->value))
		return "forbidden byte in a header value";
	return NULL;
}

const char *fields_parse(
	struct sv lines, struct http_field *fields, size_t *len, bool *too_many)
{
	*len = 0;
	*too_many = false;
	for (;;) {
		struct sv line;
		const char *wrong;

		if (!fields_cut_line(&lines, &line))
			return "line that does not end in CR LF";
		if (line.len == 0)
			return NULL;
		if (*len == HTTP_FIELDS_MAX) {
			*too_many = true;
			return "too many header fields";
		}
		wrong = parse_field(line, &fields[*len]);
		if (wrong)
			return wrong;
		++*len;
	}
}

size_t fields_find(
	const struct http_field *fields, size_t len, struct sv name, struct sv *value)
{
	size_t found = 0;

	for (size_t i = 0; i < len; i++) {
		if (sv_is_nocase(fields[i].name, name)) {
			*value = fields[i].value;
			found++;
		}
	}
	return found;
}

bool fields_list_has(struct sv list, struct sv option)
{
	while (list.len > 0) {
		if (sv_is_nocase(sv_trim(sv_cut(&list, ',')), option))
			return true;
	}
	return false;
}
