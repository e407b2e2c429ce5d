/*
 * grant.h - who may do what. A request is allowed if any one grant allows all of it.
 */
#ifndef AUTH_GRANT_H
#define AUTH_GRANT_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/cert.h"
#include "auth/token.h"
#include "base/err.h"
#include "base/sv.h"

enum profile {
#define PROFILE(name, text, in_star) PROFILE_##name,
#include "auth/profiles.def"
#undef PROFILE
	PROFILES_LEN
};

const char *profile_name(enum profile profile);

/* One name of a grant's list, or "*", to a set of bits (1 << enum profile); 0 when unknown. */
uint32_t profile_bits(struct sv name);

/* What a request has shown: a set of proofs, each verified. Both may be there. */
struct identity {
	const struct claims *token; /* NULL: none */
	const struct cert *cert;    /* NULL: none */
};

/* "jwt", "mtls", "both" or "none". */
const char *identity_method(const struct identity *identity);

#define GRANT_LIST_MAX 32

/* Every text of the match that is not NULL must hold; '*' is any run of characters but '/'. */
struct grant {
	const char *method, *issuer, *subject, *scope, *san, *cn, *fingerprint;
	const char *targets[GRANT_LIST_MAX]; /* patterns; NULL after the last */
	uint32_t profiles;                   /* bits */
	uint32_t max_seconds;                /* of a capture */
};

/* Does this grant's match hold for who is asking? */
bool grant_matches(const struct grant *grant, const struct identity *identity);

/* Does it name this target? */
bool grant_covers_target(const struct grant *grant, struct sv target);

static inline bool grant_covers_profile(const struct grant *grant, enum profile profile)
{
	return grant->profiles >> profile & 1;
}

/* Refuse matches that hold for more than was meant: empty, or method alone. */
int grant_check(const struct grant *grant, struct err *err);

/* "*" in `pattern` stands for any run of characters but '/'. */
bool pattern_matches(const char *pattern, struct sv text);

#endif
