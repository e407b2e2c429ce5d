/*
 * siphash.h - SipHash-2-4 (Aumasson, Bernstein 2012): a hash that who does not know the key cannot
 * make collide.
 */
#ifndef GATEWAY_SIPHASH_H
#define GATEWAY_SIPHASH_H

#include <stdint.h>

#include "base/sv.h"

uint64_t siphash(const uint8_t key[static 16], struct sv bytes);

#endif
