/*
 * labels.h - texts, and sets of labels, each kept once and named by a number.
 *
 * Numbers are what records, tallies and the thread's own block carry.  Texts are cut at
 * LABELS_TEXT_MAX bytes.
 */
#ifndef SAMPLER_LABELS_H
#define SAMPLER_LABELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/sv.h"

#define LABELS_TEXT_MAX 255
#define LABELS_SET_MAX  8 /* labels of a set; more are left out */

/* 0 for the empty text, and where there is no room. */
uint32_t labels_text_sigsafe(struct sv text);

/* Stays valid; "" for id 0. */
struct sv labels_text_of(uint32_t id);

struct label_pair {
	uint32_t key, value; /* texts */
};

/* The set `before` with `key` set to `value` (0: taken out). 0 is the empty set. */
uint32_t labels_with_sigsafe(uint32_t before, uint32_t key, uint32_t value);

/* The pairs of a set, sorted by key id; returns how many. */
size_t labels_of(uint32_t set, struct label_pair out[static LABELS_SET_MAX]);

#endif
