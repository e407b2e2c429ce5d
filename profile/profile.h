/*
 * profile.h - a pprof file in memory, from any runtime.
 *
 * Hostile files end in an error: sizes are bounded before they are believed, indices are checked,
 * the gzip stream may not unpack to more than PROFILE_BYTES_MAX.
 */
#ifndef PROFILE_PROFILE_H
#define PROFILE_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sv.h"

#define PROFILE_BYTES_MAX ((size_t)1 << 30)

struct profile; /* opaque here; see the functions */

/* Read a profile.proto, gzipped or not. */
int profile_parse(struct sv bytes, struct profile **out, struct err *err);
void profile_free(struct profile *profile);

#endif
