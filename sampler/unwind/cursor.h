/*
 * cursor.h - reading DWARF's integers from bytes that cannot be trusted.
 *
 * A read past the end gives zero and marks the cursor as broken; so a reader reads freely and looks
 * once, at the end.
 */
#ifndef SAMPLER_CURSOR_H
#define SAMPLER_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
	const uint8_t *at, *end;
	bool broken;
};

static inline void cursor_take(struct cursor *cursor, void *out, size_t len)
{
	memset(out, 0, len);
	if ((size_t)(cursor->end - cursor->at) < len) {
		cursor->broken = true;
		cursor->at = cursor->end;
		return;
	}
	memcpy(out, cursor->at, len);
	cursor->at += len;
}

static inline uint8_t cursor_u8(struct cursor *cursor)
{
	uint8_t value;

	cursor_take(cursor, &value, sizeof(value));
	return value;
}

static inline uint16_t cursor_u16(struct cursor *cursor)
{
	uint16_t value;

	cursor_take(cursor, &value, sizeof(value));
	return value;
}

static inline uint32_t cursor_u32(struct cursor *cursor)
{
	uint32_t value;

	cursor_take(cursor, &value, sizeof(value));
	return value;
}

static inline uint64_t cursor_u64(struct cursor *cursor)
{
	uint64_t value;

	cursor_take(cursor, &value, sizeof(value));
	return value;
}

static inline uint64_t cursor_uleb(struct cursor *cursor)
{
	uint64_t value = 0;
	unsigned shift = 0;
	uint8_t byte;

	do {
		byte = cursor_u8(cursor);
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80);
	return value;
}

static inline int64_t cursor_sleb(struct cursor *cursor)
{
	uint64_t value = 0;
	unsigned shift = 0;
	uint8_t byte;

	do {
		byte = cursor_u8(cursor);
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80);
	if (shift < 64 && byte & 0x40)
		value |= UINT64_MAX << shift;
	return (int64_t)value;
}

/* A cursor over the next `len` bytes, which are passed over here. */
static inline struct cursor cursor_sub(struct cursor *cursor, uint64_t len)
{
	struct cursor sub = { cursor->at, cursor->at, false };

	if (len > (uint64_t)(cursor->end - cursor->at)) {
		cursor->broken = sub.broken = true;
		cursor->at = cursor->end;
		return sub;
	}
	cursor->at += len;
	sub.end = cursor->at;
	return sub;
}

#endif
