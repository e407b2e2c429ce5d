/*
 * query.h - the parameters of a pprof request, and the names of hosts.
 */
#ifndef HTTP_QUERY_H
#define HTTP_QUERY_H

#include <stdbool.h>

#include "base/sv.h"

/* Cut the next "name=value" off `rest` at '&'. False at the end. A pair without '=' has an empty
 * value. Nothing is decoded. */
bool http_query_next(struct sv *rest, struct sv *name, struct sv *value);

/* What a name or a value of a form stands for (application/x-www-form-urlencoded): "%41" is 'A', '+' a space.
 * `out` takes text.len bytes; returns how many it got, or SIZE_MAX when a '%' is not followed by two
 * hexadecimal digits. */
size_t http_form_decode(struct sv text, char *out);

/* Split "name", "name:port", "[v6]:port" into host (brackets off) and port (empty when absent).
 * False when it is neither a name of RFC 1123's characters nor an address, or the port is not a
 * number of 1 to 65535. */
bool http_host_split(struct sv host, struct sv *name, struct sv *port);

/* "localhost", 127.0.0.0/8 in dotted form, "::1". */
bool http_host_is_loopback(struct sv name);

#endif
