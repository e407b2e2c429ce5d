/*
 * switch.h - is access open? One word of shared memory that only the keeper can write and that
 * workers read at each accept and each request, so that an expired time to live holds even while
 * the keeper is stopped.
 */
#ifndef GATEWAY_SWITCH_H
#define GATEWAY_SWITCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define SWITCH_NO_LIMIT UINT64_MAX

struct switch_state {
	_Atomic uint64_t until_ms; /* CLOCK_BOOTTIME; 0: closed; SWITCH_NO_LIMIT: until told */
	_Atomic uint64_t generation; /* of the configuration that serves new requests */
};

/* The keeper's side: a memory file, mapped to be written; after this call nobody else can. The
 * descriptor in `*fd` is to be handed to workers. NULL: see `err`. */
struct switch_state *switch_create(int *fd, struct err *err);

/* A worker's side: map what the descriptor stands for, to be read only. NULL: see `err`. */
const struct switch_state *switch_map(int fd, struct err *err);

void switch_open(struct switch_state *state, uint64_t until_ms);
void switch_close(struct switch_state *state);
void switch_set_generation(struct switch_state *state, uint64_t generation);

bool switch_is_open(const struct switch_state *state, uint64_t now_boot_ms);

/* Open, and `generation` is still the one that takes new requests. */
bool switch_may_serve(
	const struct switch_state *state, uint64_t generation, uint64_t now_boot_ms);

/* Milliseconds until it closes by itself: 0 when closed, SWITCH_NO_LIMIT without a limit. */
uint64_t switch_left_ms(const struct switch_state *state, uint64_t now_boot_ms);

#endif
