/*
 * issuer_private.h - an issuer's insides, for the token check alone.
 */
#ifndef AUTH_ISSUER_PRIVATE_H
#define AUTH_ISSUER_PRIVATE_H

#include <jwt.h>

#include "auth/issuer.h"

enum key_family {
	FAMILY_HMAC = 1,
	FAMILY_RSA,
	FAMILY_EC
};

struct algorithm {
	const char *name; /* as in a token's head, exactly */
	jwt_alg_t jwt;
	enum key_family family;
	unsigned size; /* bytes of an HMAC, of one half of an EC signature */
	int curve;     /* NID; 0: not EC */
};

struct issuer {
	char *name, *audience, *kid, *scope_claim;
	const struct algorithm *algorithms[ISSUER_ALGORITHMS_MAX]; /* NULL after the last */
	unsigned char
		*key; /* the secret, or the public key as PEM, made anew by us; never empty */
	int key_len;
	unsigned rsa_bytes; /* length of an RSA signature */
	uint64_t leeway_s, max_age_s;
};

/* NULL when there is none of that name. */
const struct algorithm *algorithm_find(const char *name);

#endif
