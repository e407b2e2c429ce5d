/*
 * value.h - durations ("500ms", "30s", "15m", "4h") and sizes ("4KiB", "64MiB", "512").
 * Private to conf/.
 */
#ifndef CONF_VALUE_H
#define CONF_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

bool duration_parse(struct sv text, uint64_t *ms);
bool size_parse(struct sv text, uint64_t *bytes);

#endif
