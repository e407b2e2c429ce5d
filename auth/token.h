/*
 * token.h - a JSON Web Token (RFC 7519) to verified claims, or to a refusal.
 *
 * The token is first scanned strictly: at most TOKEN_MAX bytes, three canonical base64url parts,
 * JSON objects of bounded depth without duplicate names, only known header parameters, the
 * algorithm one of the issuer's.  Cheap claim checks come before the signature.  Only then does
 * libjwt see it, with the key that is pinned to that algorithm.
 */
#ifndef AUTH_TOKEN_H
#define AUTH_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/issuer.h"
#include "base/err.h"
#include "base/sv.h"

#define TOKEN_MAX       8192
#define TOKEN_TEXT_MAX  256  /* of iss, sub, jti, each with its NUL */
#define TOKEN_SCOPE_MAX 1024 /* of all scopes, joined by single spaces */
#define TOKEN_HASH_SIZE 32

struct claims {
	char issuer[TOKEN_TEXT_MAX];
	char subject[TOKEN_TEXT_MAX];
	char id[TOKEN_TEXT_MAX];             /* jti, or "" */
	char scope[TOKEN_SCOPE_MAX];         /* "a b c", or "" */
	int64_t expires, not_before, issued; /* Unix seconds; 0 when absent (exp never is) */
	uint64_t leeway_s;
	uint8_t hash
		[TOKEN_HASH_SIZE]; /* SHA-256 of the canonical token: a cache key, not a secret */
};

/*
 * Verify `token` against the issuers at `now` (Unix seconds). 0 and the claims, or -1: `err` says
 * which check failed, for the audit log; the client is never told.
 */
int token_verify(struct issuer *const *issuers, size_t issuers_len, struct sv token,
	int64_t now, struct claims *out, struct err *err);

/* The claims' times alone, for a token that was verified before: exp, nbf with leeway. */
bool claims_hold(const struct claims *claims, int64_t now);

#endif
