/*
 * units.h - reading sizes and durations as they are written in settings and queries: "16MiB", "500ms".
 *
 * A whole number and its unit, nothing before, between or behind them.
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

#endif
