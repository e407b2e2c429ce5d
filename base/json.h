/*
 * json.h - writing JSON (RFC 8259) into a buffer, one token at a time.
 *
 * Commas are put where they belong; nesting is the caller's.  Strings may hold any bytes:
 * controls, DEL and bytes that are not valid UTF-8 are written as \u00XX, so that what a
 * client sent can never end a line or a string.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/sv.h"

void json_object_begin(struct buf *out);
void json_object_end(struct buf *out);
void json_array_begin(struct buf *out);
void json_array_end(struct buf *out);

/* The name of the member that comes next. */
void json_key(struct buf *out, const char *name);

void json_text(struct buf *out, struct sv value);
void json_cstr(struct buf *out, const char *value);
void json_u64(struct buf *out, uint64_t value);
void json_bool(struct buf *out, bool value);

/* A member in one call. */
void json_member_string(struct buf *out, const char *name, struct sv value);
void json_member_cstr(struct buf *out, const char *name, const char *value);
void json_member_u64(struct buf *out, const char *name, uint64_t value);
void json_member_bool(struct buf *out, const char *name, bool value);

#endif
