/*
 * wish.h - what is asked of the admin plane: JSON in, a checked wish out.
 */
#ifndef GATEWAY_WISH_H
#define GATEWAY_WISH_H

#include <stdbool.h>
#include <stdint.h>

#include "audit/record.h"
#include "base/buf.h"
#include "base/sv.h"

struct wish {
	bool is_open; /* to open; else to close */
	bool has_ttl;
	uint64_t ttl_ms;
	char reason[AUDIT_TEXT_MAX]; /* "" when there is none but white space */
};

/* POST /v1/access. NULL, or what is wrong, in words. Strict: one object, no other fields, none twice, only
 * strings. */
const char *wish_parse(struct sv body, struct wish *out);

/*
 * POST /v1/targets/NAME/rates: {"heap":"512KiB","mutex":1,"block":"1us"}, at least one of them; a number, or a
 * text with a unit; heap 0 or from 64 KiB, block 0 or from 1 us.  NULL, and the same in plain numbers in `out`
 * (bytes, one in how many, ns); or what is wrong.
 */
const char *wish_rates(struct sv body, struct buf *out);

#endif
