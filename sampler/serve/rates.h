/*
 * rates.h - what POST /debug/pprof/rates asks for: {"heap":"512KiB","mutex":1,"block":"1us"}.
 *
 * One flat JSON object (RFC 8259) with any of these members, each once.  `heap`: bytes, a number or a text
 * with B, KiB, MiB or GiB; `mutex`: one in how many, a number; `block`: a text with ns, us, ms or s, or a
 * number of nanoseconds.  0 switches off.  Anything else is an error that says what would be right.
 */
#ifndef SAMPLER_RATES_H
#define SAMPLER_RATES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sv.h"
#include "sampler/collect/rate.h"

struct rates {
	bool is_set[RATES_LEN];
	uint64_t values[RATES_LEN];
};

extern const char *const rate_names[RATES_LEN];

int rates_parse(struct sv json, struct rates *out, struct err *err);

#endif
