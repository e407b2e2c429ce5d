#include "auth/token.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/issuer_private.h"
#include "auth/token_scan.h"
#include "base/buf.h"

#define SECONDS_MAX INT64_C(253402300799) /* year 9999 */

static int take_text(const struct token *token, const char *name, bool required,
	char out[static TOKEN_TEXT_MAX], struct err *err)
{
	const json_t *value = json_object_get(token->payload, name);

	out[0] = '\0';
	if (!value && !required)
		return 0;
	if (!json_is_string(value) || json_string_length(value) == 0)
		return err_set(err, ERR_DENIED, "token: %s is missing or not a text", name);
	if (!sv_to_cstr((struct sv){ json_string_value(value), json_string_length(value) }, out,
		    TOKEN_TEXT_MAX))
		return err_set(err, ERR_DENIED, "token: %s is too long", name);
	return 0;
}

static int take_time(const struct token *token, const char *name, bool required, int64_t *out,
	struct err *err)
{
	const json_t *value = json_object_get(token->payload, name);

	*out = 0;
	if (!value && !required)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) <= 0 ||
		json_integer_value(value) > SECONDS_MAX)
		return err_set(
			err, ERR_DENIED, "token: %s is missing or not a whole number", name);
	*out = json_integer_value(value);
	return 0;
}

static bool has_audience(const json_t *audience, const char *ours)
{
	size_t i;
	const json_t *item;

	if (json_is_string(audience))
		return strcmp(json_string_value(audience), ours) == 0;
	json_array_foreach((json_t *)(uintptr_t)audience, i, item) /* NOLINT */
	{
		if (json_is_string(item) && strcmp(json_string_value(item), ours) == 0)
			return true;
	}
	return false;
}

static int add_scopes(struct buf *out, const char *text, struct err *err)
{
	struct sv rest = sv_from_cstr(text);

	while (rest.len > 0) {
		struct sv word = sv_cut(&rest, ' ');

		if (word.len == 0)
			continue;
		if (out->len > 0)
			buf_add_byte(out, ' ');
		buf_add_sv(out, word);
	}
	return out->failed ? err_set(err, ERR_DENIED, "token: too many scopes") : 0;
}

/* "a b" (RFC 8693 section 4.2), or an array of texts as some issuers write it. */
static int take_scope(
	const struct token *token, const char *name, struct claims *out, struct err *err)
{
	json_t *value = json_object_get(token->payload, name), *item;
	struct buf scopes;
	size_t i;

	buf_init_fixed(&scopes, out->scope, sizeof(out->scope) - 1);
	if (json_is_string(value) && add_scopes(&scopes, json_string_value(value), err))
		return -1;
	json_array_foreach(value, i, item)
	{
		if (!json_is_string(item) || add_scopes(&scopes, json_string_value(item), err))
			return err_set(
				err, ERR_DENIED, "token: %s is not a list of texts", name);
	}
	out->scope[scopes.len] = '\0';
	return 0;
}

bool claims_hold(const struct claims *claims, int64_t now)
{
	int64_t leeway = (int64_t)claims->leeway_s;

	return now - leeway < claims->expires &&
	       (claims->not_before == 0 || now + leeway >= claims->not_before);
}

static int check_times(
	const struct issuer *issuer, const struct claims *claims, int64_t now, struct err *err)
{
	int64_t leeway = (int64_t)issuer->leeway_s;
	int64_t from = claims->issued ? claims->issued : now;

	if (now - leeway >= claims->expires)
		return err_set(err, ERR_DENIED, "token: expired");
	if (claims->not_before && now + leeway < claims->not_before)
		return err_set(err, ERR_DENIED, "token: not valid yet");
	if (claims->issued && now + leeway < claims->issued)
		return err_set(err, ERR_DENIED, "token: issued in the future");
	if (claims->expires - from > (int64_t)issuer->max_age_s)
		return err_set(err, ERR_DENIED, "token: valid for longer than max_age");
	return 0;
}

static int take_claims(const struct issuer *issuer, const struct token *token, int64_t now,
	struct claims *out, struct err *err)
{
	out->leeway_s = issuer->leeway_s;
	if (take_text(token, "sub", true, out->subject, err) ||
		take_text(token, "jti", false, out->id, err) ||
		take_time(token, "exp", true, &out->expires, err) ||
		take_time(token, "nbf", false, &out->not_before, err) ||
		take_time(token, "iat", false, &out->issued, err))
		return -1;
	if (!has_audience(json_object_get(token->payload, "aud"), issuer->audience))
		return err_set(err, ERR_DENIED, "token: not for this audience");
	if (check_times(issuer, out, now, err))
		return -1;
	return take_scope(token, issuer->scope_claim, out, err);
}

static const struct algorithm *allowed_algorithm(
	const struct issuer *issuer, const struct token *token)
{
	for (size_t i = 0; issuer->algorithms[i]; i++) {
		if (strcmp(issuer->algorithms[i]->name, token->algorithm) == 0)
			return issuer->algorithms[i];
	}
	return NULL;
}

static bool has_right_length(
	const struct issuer *issuer, const struct algorithm *algorithm, size_t len)
{
	switch (algorithm->family) {
	case FAMILY_HMAC:
		return len == algorithm->size;
	case FAMILY_RSA:
		return len == issuer->rsa_bytes;
	case FAMILY_EC:
		return len == 2 * (size_t)algorithm->size;
	}
	return false;
}

static int check_signature(const struct issuer *issuer, const struct algorithm *algorithm,
	struct sv text, struct err *err)
{
	char token[TOKEN_MAX + 1];
	jwt_t *jwt = NULL;
	bool good;

	/* An empty key would switch libjwt's check off. */
	assert(issuer->key && issuer->key_len > 0);
	if (!sv_to_cstr(text, token, sizeof(token)))
		return err_set(err, ERR_DENIED, "token: holds a NUL");
	good = jwt_decode(&jwt, token, issuer->key, issuer->key_len) == 0 && jwt &&
	       jwt_get_alg(jwt) == algorithm->jwt;
	jwt_free(jwt);
	ERR_clear_error();
	return good ? 0 : err_set(err, ERR_DENIED, "token: signature does not fit");
}

static const struct issuer *find_issuer(
	struct issuer *const *issuers, size_t len, const char *name)
{
	for (size_t i = 0; i < len; i++) {
		if (strcmp(issuers[i]->name, name) == 0)
			return issuers[i];
	}
	return NULL;
}

/* The cheap checks first: a flood of bad tokens shall not cost signatures. */
static int verify(const struct issuer *issuer, const struct token *token, struct sv text,
	int64_t now, struct claims *out, struct err *err)
{
	const struct algorithm *algorithm;

	if (!issuer)
		return err_set(err, ERR_DENIED, "token: unknown issuer");
	algorithm = allowed_algorithm(issuer, token);
	if (!algorithm)
		return err_set(err, ERR_DENIED, "token: algorithm is not the issuer's");
	if (issuer->kid[0] && (!token->kid || strcmp(token->kid, issuer->kid) != 0))
		return err_set(err, ERR_DENIED, "token: unknown kid");
	if (!has_right_length(issuer, algorithm, token->signature_len))
		return err_set(err, ERR_DENIED, "token: signature has the wrong length");
	if (take_claims(issuer, token, now, out, err))
		return -1;
	return check_signature(issuer, algorithm, text, err);
}

int token_verify(struct issuer *const *issuers, size_t issuers_len, struct sv token,
	int64_t now, struct claims *out, struct err *err)
{
	struct token parts;
	int rc = -1;

	memset(out, 0, sizeof(*out));
	if (token_scan(token, &parts, err) == 0 &&
		take_text(&parts, "iss", true, out->issuer, err) == 0)
		rc = verify(find_issuer(issuers, issuers_len, out->issuer), &parts, token, now,
			out, err);
	token_fini(&parts);
	if (rc == 0 &&
		EVP_Digest(token.ptr, token.len, out->hash, NULL, EVP_sha256(), NULL) != 1)
		rc = err_set(err, ERR_SYSTEM, "token: SHA-256 is not to be had");
	if (rc)
		memset(out, 0, sizeof(*out)); /* nothing of a refused token is usable */
	return rc;
}
