/*
 * metrics.h - Prometheus's text format 0.0.4.
 * Source: prometheus.io/docs/instrumenting/exposition_formats.
 */
#ifndef SAMPLER_METRICS_H
#define SAMPLER_METRICS_H

#include <stdint.h>

#include "base/buf.h"

/* # HELP and # TYPE: once, before the lines of a metric. */
void metrics_head(struct buf *out, const char *name, const char *type, const char *help);

/* A line: name, suffix ("" or "_bucket"…), labels as metrics_label() wrote them (or empty), value. */
void metrics_u64(struct buf *out, const char *name, const char *suffix, struct sv labels,
	uint64_t value);
/* In seconds, with all nine decimals. */
void metrics_seconds(
	struct buf *out, const char *name, const char *suffix, struct sv labels, uint64_t ns);

/* Append `key="value"` to a list of labels, escaped. */
void metrics_label(struct buf *labels, const char *key, struct sv value);

/* A bucket's upper bound in seconds, without needless zeros: "0.005", "10". */
void metrics_bound(struct buf *out, uint64_t ns);

/* Head and one line without labels. */
void metrics_one(
	struct buf *out, const char *name, const char *type, const char *help, uint64_t value);
void metrics_one_seconds(
	struct buf *out, const char *name, const char *type, const char *help, uint64_t ns);

#endif
