#include "base/json.h"

/* A comma is due when something stands before this token in the same list. */
static void separate(struct buf *out)
{
	char last = out->len ? out->ptr[out->len - 1] : '\0';

	if (out->len && last != '{' && last != '[' && last != ':' && last != '\n')
		buf_add_byte(out, ',');
}

void json_object_begin(struct buf *out)
{
	separate(out);
	buf_add_byte(out, '{');
}

void json_object_end(struct buf *out)
{
	buf_add_byte(out, '}');
}

void json_array_begin(struct buf *out)
{
	separate(out);
	buf_add_byte(out, '[');
}

void json_array_end(struct buf *out)
{
	buf_add_byte(out, ']');
}

/* How many bytes at `v` make one well-formed UTF-8 character (RFC 3629 section 4), or 0. */
static size_t utf8_len(struct sv v)
{
	const unsigned char *s = (const unsigned char *)v.ptr;
	unsigned char low = 0x80, high = 0xbf;
	size_t len;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (v.len < len)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0; /* shorter spellings exist below */
	if (s[0] == 0xed)
		high = 0x9f; /* surrogates above */
	if (s[0] == 0xf0)
		low = 0x90;
	if (s[0] == 0xf4)
		high = 0x8f; /* U+10FFFF is the last */
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	return len;
}

void json_text(struct buf *out, struct sv value)
{
	separate(out);
	buf_add_byte(out, '"');
	while (value.len > 0) {
		unsigned char c = (unsigned char)value.ptr[0];
		size_t len = utf8_len(value);

		if (c < 0x20 || c == 0x7f || len == 0) {
			buf_printf(out, "\\u%04x", c);
			len = 1;
		} else {
			if (c == '"' || c == '\\')
				buf_add_byte(out, '\\');
			buf_add(out, value.ptr, len);
		}
		value.ptr += len;
		value.len -= len;
	}
	buf_add_byte(out, '"');
}

void json_key(struct buf *out, const char *name)
{
	json_cstr(out, name);
	buf_add_byte(out, ':');
}

void json_cstr(struct buf *out, const char *value)
{
	json_text(out, sv_from_cstr(value));
}

void json_u64(struct buf *out, uint64_t value)
{
	separate(out);
	buf_add_u64(out, value);
}

void json_bool(struct buf *out, bool value)
{
	separate(out);
	buf_add_cstr(out, value ? "true" : "false");
}

void json_member_string(struct buf *out, const char *name, struct sv value)
{
	json_key(out, name);
	json_text(out, value);
}

void json_member_cstr(struct buf *out, const char *name, const char *value)
{
	json_key(out, name);
	json_cstr(out, value);
}

void json_member_u64(struct buf *out, const char *name, uint64_t value)
{
	json_key(out, name);
	json_u64(out, value);
}

void json_member_bool(struct buf *out, const char *name, bool value)
{
	json_key(out, name);
	json_bool(out, value);
}
