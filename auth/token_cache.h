/*
 * token_cache.h - verified tokens, remembered by the hash of their canonical text.
 *
 * A fixed number of entries, set-associative, the least recently used of a set replaced.  Holds
 * claims only, never token bytes.  Belongs to one configuration: a reload starts an empty one, so a
 * removed key takes its tokens with it.
 */
#ifndef AUTH_TOKEN_CACHE_H
#define AUTH_TOKEN_CACHE_H

#include "auth/token.h"

struct token_cache;

/* `entries` is rounded up to a multiple of the set size. Keeps `issuers`. NULL without memory. */
struct token_cache *token_cache_new(
	size_t entries, struct issuer *const *issuers, size_t issuers_len);
void token_cache_free(struct token_cache *cache);

/* As token_verify(), but a token that was verified before and still holds costs one hash. */
int token_cache_verify(struct token_cache *cache, struct sv token, int64_t now,
	struct claims *out, struct err *err);

#endif
