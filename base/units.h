/*
 * units.h - reading sizes, durations and numbers as they are written in settings and queries: "16MiB", "500ms".
 *
 * A size or duration is a whole number and its unit, nothing before, between or behind them.
 */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sv.h"

/* B, KiB, MiB or GiB. False when it is not that, or more than fits. */
bool units_bytes(struct sv text, uint64_t *bytes);

/* ns, us, ms, s, m or h. Likewise. */
bool units_duration(struct sv text, uint64_t *ns);

/* A number that is not negative, as "2", "0.25" or "1e-1", of at most 18 digits. */
bool units_decimal(struct sv text, double *value);

#endif
