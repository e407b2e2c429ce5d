#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_CAP 256

void buf_init(struct buf *buf, size_t max)
{
	*buf = (struct buf){ .max = max };
}

void buf_init_fixed(struct buf *buf, void *mem, size_t size)
{
	*buf = (struct buf){ .ptr = mem, .cap = size, .max = size, .fixed = true };
}

void buf_free(struct buf *buf)
{
	if (!buf->fixed)
		free(buf->ptr);
	*buf = (struct buf){ .max = buf->max };
}

void buf_clear(struct buf *buf)
{
	buf->len = 0;
	buf->failed = false;
}

char *buf_reserve(struct buf *buf, size_t len)
{
	size_t need, cap = buf->cap ? buf->cap : FIRST_CAP;
	char *grown;

	if (buf->failed || __builtin_add_overflow(buf->len, len, &need) || need > buf->max)
		goto fail;
	if (need <= buf->cap)
		return buf->ptr + buf->len;
	while (cap < need)
		cap = cap > buf->max / 2 ? buf->max : cap * 2;
	grown = realloc(buf->ptr, cap);
	if (!grown)
		goto fail;
	buf->ptr = grown;
	buf->cap = cap;
	return buf->ptr + buf->len;
fail:
	buf->failed = true;
	return NULL;
}

void buf_commit(struct buf *buf, size_t len)
{
	buf->len += len;
}

void buf_add(struct buf *buf, const void *bytes, size_t len)
{
	char *room = buf_reserve(buf, len);

	if (!room || len == 0)
		return;
	memcpy(room, bytes, len);
	buf_commit(buf, len);
}

void buf_add_sv(struct buf *buf, struct sv v)
{
	buf_add(buf, v.ptr, v.len);
}

void buf_add_cstr(struct buf *buf, const char *s)
{
	buf_add(buf, s, strlen(s));
}

void buf_add_byte(struct buf *buf, char byte)
{
	buf_add(buf, &byte, 1);
}

void buf_add_u64(struct buf *buf, uint64_t n)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	buf_add(buf, digits + at, sizeof(digits) - at);
}

void buf_printf(struct buf *buf, const char *fmt, ...)
{
	va_list ap, again;
	int len;
	char *room;

	va_start(ap, fmt);
	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	/* vsnprintf ends with a NUL that must have room but is not kept. */
	room = len < 0 ? NULL : buf_reserve(buf, (size_t)len + 1);
	if (room) {
		(void)vsnprintf(room, (size_t)len + 1, fmt, again);
		buf_commit(buf, (size_t)len);
	}
	va_end(again);
}

void buf_drop(struct buf *buf, size_t len)
{
	if (len >= buf->len) {
		buf->len = 0;
		return;
	}
	memmove(buf->ptr, buf->ptr + len, buf->len - len);
	buf->len -= len;
}
