/*
 * fields.h - what request and response heads have in common: lines and header fields.
 * Private to http/.
 */
#ifndef HTTP_FIELDS_H
#define HTTP_FIELDS_H

#include "http/head.h"

/* tchar of RFC 9110 section 5.6.2. */
bool fields_is_token(struct sv text);

/* VCHAR, SP, HTAB: no controls, no bytes above 0x7e. */
bool fields_is_text(struct sv text);

/* Length of the head at the front of `bytes`, its empty line included; 0 when that has not come. */
size_t fields_head_len(struct sv bytes);

/* Cut a line off `rest`, without its CRLF. False when it holds a bare CR or LF. */
bool fields_cut_line(struct sv *rest, struct sv *line);

/* Read the fields of `lines` (all lines of the head after the first, the empty one included) into
 * `fields`. NULL, or what is wrong. `*too_many` says that it is only their number. */
const char *fields_parse(
	struct sv lines, struct http_field *fields, size_t *len, bool *too_many);

/* How often a name occurs, and its last value. */
size_t fields_find(
	const struct http_field *fields, size_t len, struct sv name, struct sv *value);

/* Is `option` one of the comma-separated items of `list`? */
bool fields_list_has(struct sv list, struct sv option);

#endif
