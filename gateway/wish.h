/*
 * wish.h - the body of POST /v1/access: JSON in, a checked wish out.
 */
#ifndef GATEWAY_WISH_H
#define GATEWAY_WISH_H

#include <stdbool.h>
#include <stdint.h>

#include "audit/record.h"
#include "base/sv.h"

struct wish {
	bool is_open; /* to open; else to close */
	bool has_ttl;
	uint64_t ttl_ms;
	char reason[AUDIT_TEXT_MAX]; /* "" when there is none but white space */
};

/* NULL, or what is wrong, in words. Strict: one object, no other fields, none twice, only strings. */
const char *wish_parse(struct sv body, struct wish *out);

#endif
