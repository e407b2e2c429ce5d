/*
 * units.h - a sample's value as a person reads it: "1.53s", "512kB", "12", as pprof writes them.
 */
#ifndef PROFILE_UNITS_H
#define PROFILE_UNITS_H

#include <stdint.h>

#include "base/sv.h"

#define UNITS_TEXT_SIZE 48

/* The unit in which values from `least` to `most` (of a profile's unit) are best shown together;
 * static text, or `unit` itself when it is none of time or memory. */
struct sv units_choose(int64_t least, int64_t most, struct sv unit);

/* `value`, counted in `unit`, in `shown` (one that units_choose() gave, or "auto"). */
void units_format(
	int64_t value, struct sv unit, struct sv shown, char out[static UNITS_TEXT_SIZE]);

/* "12.34%", six characters wide. */
void units_percent(int64_t value, int64_t total, char out[static UNITS_TEXT_SIZE]);

#endif
