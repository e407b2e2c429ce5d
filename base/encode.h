/*
 * encode.h - hexadecimal (lower case) and base64url (RFC 4648 section 5, no padding).
 *
 * Decoding is strict: one text for one value.  Upper-case hex, padding, characters of the other
 * alphabet, white space and unused bits that are not zero are all refused, so that whatever is
 * compared or cached by its text cannot be spelled in two ways.
 */
#ifndef BASE_ENCODE_H
#define BASE_ENCODE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/sv.h"

/* `out` takes 2 * len characters and a NUL. */
void hex_encode(const void *bytes, size_t len, char *out);

/* False unless `text` is exactly 2 * len lower-case digits. */
bool hex_decode(struct sv text, void *out, size_t len);

void base64url_encode(struct buf *out, const void *bytes, size_t len);

/* Append the bytes to `out`. False when `text` is not canonical or `out` is full. */
bool base64url_decode(struct sv text, struct buf *out);

#endif
