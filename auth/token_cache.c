#include "auth/token_cache.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define WAYS 4

struct entry {
	uint64_t used; /* when last, by the cache's own count; 0: empty */
	struct claims claims;
};

struct token_cache {
	struct issuer *const *issuers;
	size_t issuers_len;
	size_t sets;
	uint64_t clock;
	struct entry entries[];
};

struct token_cache *token_cache_new(
	size_t entries, struct issuer *const *issuers, size_t issuers_len)
{
	size_t sets = (entries + WAYS - 1) / WAYS;
	struct token_cache *cache;

	if (sets == 0)
		sets = 1;
	cache = calloc(1, sizeof(*cache) + sets * WAYS * sizeof(cache->entries[0]));
	if (cache) {
		cache->sets = sets;
		cache->issuers = issuers;
		cache->issuers_len = issuers_len;
	}
	return cache;
}

void token_cache_free(struct token_cache *cache)
{
	free(cache);
}

static struct entry *set_of(struct token_cache *cache, const uint8_t *hash)
{
	uint64_t bits;

	memcpy(&bits, hash, sizeof(bits));
	return &cache->entries[bits % cache->sets * WAYS];
}

static struct entry *find(struct token_cache *cache, const uint8_t *hash)
{
	struct entry *set = set_of(cache, hash);

	for (size_t i = 0; i < WAYS; i++) {
		/* The hash is no secret: who has the token has it. */
		if (set[i].used && memcmp(set[i].claims.hash, hash, TOKEN_HASH_SIZE) == 0)
			return &set[i];
	}
	return NULL;
}

static void keep(struct token_cache *cache, const struct claims *claims)
{
	struct entry *set = set_of(cache, claims->hash), *oldest = set;

	for (size_t i = 1; i < WAYS; i++) {
		if (set[i].used < oldest->used)
			oldest = &set[i];
	}
	oldest->claims = *claims;
	oldest->used = ++cache->clock;
}

int token_cache_verify(struct token_cache *cache, struct sv token, int64_t now,
	struct claims *out, struct err *err)
{
	uint8_t hash[TOKEN_HASH_SIZE];
	struct entry *entry = NULL;

	if (token.len <= TOKEN_MAX &&
		EVP_Digest(token.ptr, token.len, hash, NULL, EVP_sha256(), NULL) == 1)
		entry = find(cache, hash);
	if (entry && claims_hold(&entry->claims, now)) {
		entry->used = ++cache->clock;
		*out = entry->claims;
		return 0;
	}
	/* One that does not hold any more is verified anew, for the reason. */
	if (entry)
		memset(entry, 0, sizeof(*entry));
	if (token_verify(cache->issuers, cache->issuers_len, token, now, out, err))
		return -1;
	keep(cache, out);
	return 0;
}
