#include "base/sv.h"

struct sv sv_cut(struct sv *rest, char sep)
{
	struct sv head = *rest;
	const char *at = head.len ? memchr(head.ptr, sep, head.len) : NULL;

	if (!at) {
		*rest = (struct sv){ head.ptr + head.len, 0 };
		return head;
	}
	head.len = (size_t)(at - head.ptr);
	rest->ptr += head.len + 1;
	rest->len -= head.len + 1;
	return head;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

struct sv sv_trim(struct sv v)
{
	while (v.len > 0 && is_blank(v.ptr[0])) {
		v.ptr++;
		v.len--;
	}
	while (v.len > 0 && is_blank(v.ptr[v.len - 1]))
		v.len--;
	return v;
}

bool sv_starts_with(struct sv v, struct sv prefix)
{
	return v.len >= prefix.len &&
	       (prefix.len == 0 || memcmp(v.ptr, prefix.ptr, prefix.len) == 0);
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool sv_is_nocase(struct sv a, struct sv b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++) {
		if (lower(a.ptr[i]) != lower(b.ptr[i]))
			return false;
	}
	return true;
}

bool sv_to_u64(struct sv v, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (v.len == 0 || (v.len > 1 && v.ptr[0] == '0'))
		return false;
	for (size_t i = 0; i < v.len; i++) {
		unsigned digit = (unsigned)(unsigned char)v.ptr[i] - '0';

		if (digit > 9 || __builtin_mul_overflow(n, 10, &n) ||
			__builtin_add_overflow(n, digit, &n) || n > max)
			return false;
	}
	*out = n;
	return true;
}

bool sv_to_cstr(struct sv v, char *buf, size_t size)
{
	if (v.len >= size || (v.len > 0 && memchr(v.ptr, '\0', v.len)))
		return false;
	if (v.len > 0)
		memcpy(buf, v.ptr, v.len);
	buf[v.len] = '\0';
	return true;
}
