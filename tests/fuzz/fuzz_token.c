/*
 * A token from anywhere. What is accepted must be canonical, and its signature must hold by a check
 * of our own with the one key there is; what was accepted is accepted again.
 */
#include <assert.h>
#include <openssl/hmac.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "auth/token.h"
#include "base/buf.h"
#include "base/encode.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW    INT64_C(1800000000)
#define SECRET "0123456789abcdef0123456789abcdef"

static struct issuer *the_issuer(void)
{
	static struct issuer *issuer;
	struct issuer_settings settings = {
		.issuer = "https://login.test",
		.audience = "postern",
		.algorithms = { "HS256" },
		.key = SV_INIT(SECRET),
		.leeway_s = 30,
		.max_age_s = 3600,
		.scope_claim = "scope",
	};
	struct err err;

	if (!issuer && issuer_new(&settings, &issuer, &err))
		abort();
	return issuer;
}

/* The form that RFC 7515 gives, read once more, and the MAC over it. */
static void check_signature(struct sv token)
{
	struct sv rest = token, head = sv_cut(&rest, '.'), payload = sv_cut(&rest, '.');
	unsigned char mac[32];
	unsigned mac_len = 0;
	char text[64], signature[64];
	struct buf again, decoded;

	assert(head.len > 0 && payload.len > 0);
	assert(HMAC(EVP_sha256(), SECRET, sizeof(SECRET) - 1, (const unsigned char *)token.ptr,
		head.len + 1 + payload.len, mac, &mac_len));
	buf_init_fixed(&decoded, signature, sizeof(signature));
	assert(base64url_decode(rest, &decoded));
	assert(decoded.len == sizeof(mac) && memcmp(signature, mac, sizeof(mac)) == 0);
	buf_init_fixed(&again, text, sizeof(text));
	base64url_encode(&again, mac, sizeof(mac));
	assert(sv_is(buf_sv(&again), rest));
}

static void check_text(const char *text, size_t size, int required)
{
	size_t len = strnlen(text, size);

	assert(len < size && (len > 0 || !required));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv token = { (const char *)data, size };
	struct issuer *issuers[] = { the_issuer() };
	struct claims claims, again;
	struct err err = { 0 };

	if (token_verify(issuers, 1, token, NOW, &claims, &err)) {
		assert(err.kind != ERR_NONE && err.text[0] != '\0');
		return 0;
	}
	assert(size <= TOKEN_MAX);
	check_signature(token);
	assert(strcmp(claims.issuer, "https://login.test") == 0);
	check_text(claims.subject, sizeof(claims.subject), 1);
	check_text(claims.id, sizeof(claims.id), 0);
	check_text(claims.scope, sizeof(claims.scope), 0);
	assert(claims.expires > NOW - 31 && claims.expires <= NOW + 7200);
	assert(claims_hold(&claims, NOW));
	assert(!claims_hold(&claims, claims.expires + 31));
	assert(token_verify(issuers, 1, token, NOW, &again, &err) == 0);
	assert(memcmp(claims.hash, again.hash, sizeof(claims.hash)) == 0);
	return 0;
}
