/*
 * issuer.h - a token issuer that we trust: its name, its one key, and the algorithms pinned to it.
 */
#ifndef AUTH_ISSUER_H
#define AUTH_ISSUER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sv.h"

#define ISSUER_ALGORITHMS_MAX 12

struct issuer_settings {
	const char *issuer;                            /* what `iss` must be, exactly */
	const char *audience;                          /* what `aud` must be or contain */
	const char *algorithms[ISSUER_ALGORITHMS_MAX]; /* "ES256", …; NULL after the last */
	struct sv key;   /* PEM public key or certificate; for HS* the secret itself */
	const char *kid; /* the token's kid must be this one; NULL or "": any or none */
	uint64_t leeway_s;
	uint64_t max_age_s;      /* of exp - iat, or of exp - now without iat */
	const char *scope_claim; /* space-separated string or array of strings */
};

struct issuer;

/*
 * Check the settings and the key, and make an issuer. Refused: an algorithm that the installed
 * libjwt cannot do, families mixed in one entry, a private key, RSA below 2048 bits, a curve
 * that does not fit the algorithm, a secret below 32 bytes, or a PEM key as secret.
 * Copies what it keeps.
 */
int issuer_new(const struct issuer_settings *settings, struct issuer **out, struct err *err);

const char *issuer_name(const struct issuer *issuer);

/* Wipes the key. NULL is fine. */
void issuer_free(struct issuer *issuer);

#endif
