/* test_token.c - issuers and their keys, tokens and what is wrong with them, the cache. */
#include "tests/unit/unit.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <string.h>

#include "auth/token_cache.h"
#include "base/encode.h"

#define NOW      INT64_C(1800000000)
#define PEM_MAX  4096
#define TEXT_MAX 16384

static const char secret[] = "0123456789abcdef0123456789abcdef";

/* ---- keys */

struct keys {
	EVP_PKEY *ec, *ec384, *rsa, *rsa1024, *rogue;
	char ec_pem[PEM_MAX], ec384_pem[PEM_MAX], rsa_pem[PEM_MAX], rsa1024_pem[PEM_MAX];
	char private_pem[PEM_MAX], exponent_1_pem[PEM_MAX], locked_pem[PEM_MAX];
};

static struct keys keys;

static void write_pem(EVP_PKEY *key, bool is_private, char out[static PEM_MAX])
{
	BIO *bio = BIO_new(BIO_s_mem());
	int len;

	assert_int_equal(is_private
				 ? PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL)
				 : PEM_write_bio_PUBKEY(bio, key),
		1);
	len = BIO_read(bio, out, PEM_MAX - 1);
	assert_true(len > 0);
	out[len] = '\0';
	BIO_free(bio);
}

/* The modulus of an RSA key with the exponent 1: every number is its own signature. */
static void write_exponent_1(const EVP_PKEY *rsa, char out[static PEM_MAX])
{
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	EVP_PKEY *key = NULL;
	BIGNUM *n = NULL;
	OSSL_PARAM *params;

	assert_int_equal(EVP_PKEY_get_bn_param(rsa, OSSL_PKEY_PARAM_RSA_N, &n), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_uint(build, OSSL_PKEY_PARAM_RSA_E, 1), 1);
	params = OSSL_PARAM_BLD_to_param(build);
	assert_int_equal(EVP_PKEY_fromdata_init(context), 1);
	assert_int_equal(EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
	write_pem(key, false, out);
	EVP_PKEY_free(key);
	OSSL_PARAM_free(params);
	BN_free(n);
	EVP_PKEY_CTX_free(context);
	OSSL_PARAM_BLD_free(build);
}

/* A PEM block that asks for a passphrase: nobody is there to be asked. */
static void write_locked(const char *pem, char out[static PEM_MAX])
{
	static const char begin[] = "-----BEGIN PUBLIC KEY-----\n";

	assert_int_equal(strncmp(pem, begin, strlen(begin)), 0);
	assert_true(snprintf(out, PEM_MAX,
			    "%sProc-Type: 4,ENCRYPTED\n"
			    "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n%s",
			    begin, pem + strlen(begin)) < PEM_MAX);
}

static int make_keys(void **state)
{
	(void)state;
	keys.ec = EVP_EC_gen("P-256");
	keys.rogue = EVP_EC_gen("P-256");
	keys.ec384 = EVP_EC_gen("P-384");
	keys.rsa = EVP_RSA_gen(2048);
	keys.rsa1024 = EVP_RSA_gen(1024);
	write_pem(keys.ec, false, keys.ec_pem);
	write_pem(keys.ec, true, keys.private_pem);
	write_pem(keys.ec384, false, keys.ec384_pem);
	write_pem(keys.rsa, false, keys.rsa_pem);
	write_pem(keys.rsa1024, false, keys.rsa1024_pem);
	write_exponent_1(keys.rsa, keys.exponent_1_pem);
	write_locked(keys.ec_pem, keys.locked_pem);
	return 0;
}

static int free_keys(void **state)
{
	(void)state;
	EVP_PKEY_free(keys.ec);
	EVP_PKEY_free(keys.rogue);
	EVP_PKEY_free(keys.ec384);
	EVP_PKEY_free(keys.rsa);
	EVP_PKEY_free(keys.rsa1024);
	return 0;
}

/* ---- tokens */

struct text {
	char bytes[TEXT_MAX];
};

static void add_part(struct buf *out, const char *json)
{
	base64url_encode(out, json, strlen(json));
}

/* r and s side by side, as a token has them. */
static size_t split(unsigned char *signature, size_t len)
{
	const unsigned char *at = signature;
	unsigned char both[64];
	ECDSA_SIG *parsed = d2i_ECDSA_SIG(NULL, &at, (long)len);

	assert_non_null(parsed);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(parsed), both, 32), 32);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(parsed), both + 32, 32), 32);
	memcpy(signature, both, 64);
	ECDSA_SIG_free(parsed);
	return 64;
}

/* header.payload and the signature of `key` (an EC key), or HMAC with `hmac_key` when it is NULL. */
static struct sv sign(struct text *text, const char *header, const char *payload, EVP_PKEY *key,
	struct sv hmac_key)
{
	unsigned char signature[256];
	size_t len = sizeof(signature);
	unsigned hmac_len;
	struct buf out;

	buf_init_fixed(&out, text->bytes, TEXT_MAX);
	add_part(&out, header);
	buf_add_byte(&out, '.');
	add_part(&out, payload);
	if (key) {
		EVP_MD_CTX *context = EVP_MD_CTX_new();

		assert_int_equal(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key), 1);
		assert_int_equal(EVP_DigestSign(context, signature, &len,
					 (unsigned char *)out.ptr, out.len),
			1);
		EVP_MD_CTX_free(context);
		len = split(signature, len);
	} else {
		assert_non_null(HMAC(EVP_sha256(), hmac_key.ptr, (int)hmac_key.len,
			(unsigned char *)out.ptr, out.len, signature, &hmac_len));
		len = hmac_len;
	}
	buf_add_byte(&out, '.');
	base64url_encode(&out, signature, len);
	assert_false(out.failed);
	return buf_sv(&out);
}

#define HEADER "{\"alg\":\"ES256\",\"typ\":\"JWT\"}"
#define CLAIMS                                                                                \
	"\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"alice\",\"iat\":1800000000," \
	"\"exp\":1800000600"
#define PAYLOAD "{" CLAIMS ",\"scope\":\"a b\",\"jti\":\"t1\"}"

static struct issuer *new_issuer(void)
{
	const struct issuer_settings settings = { .issuer = "https://login",
		.audience = "postern",
		.algorithms = { "ES256" },
		.key = { keys.ec_pem, strlen(keys.ec_pem) },
		.leeway_s = 30,
		.max_age_s = 3600,
		.scope_claim = "scope" };
	struct issuer *issuer = NULL;
	struct err err = { 0 };

	if (issuer_new(&settings, &issuer, &err))
		fail_msg("%s", err.text);
	return issuer;
}

/* ---- tests */

static void test_issuers(void **state)
{
	const struct {
		const char *name, *key, *kid, *said;
		const char *algorithms[ISSUER_ALGORITHMS_MAX];
		int rc;
	} table[] = {
		{ "EC", keys.ec_pem, NULL, "", { "ES256" }, 0 },
		{ "EC 384", keys.ec384_pem, "k1", "", { "ES384" }, 0 },
		{ "RSA, two of them", keys.rsa_pem, NULL, "", { "RS256", "RS512" }, 0 },
		{ "secret", secret, NULL, "", { "HS256" }, 0 },
		{ "no algorithm", keys.ec_pem, NULL, "at least one", { NULL }, -1 },
		{ "none", keys.ec_pem, NULL, "\"none\"", { "none" }, -1 },
		{ "lower case", keys.ec_pem, NULL, "\"es256\"", { "es256" }, -1 },
		{ "not in this libjwt", keys.rsa_pem, NULL, "\"PS256\"", { "PS256" }, -1 },
		{ "families mixed", keys.ec_pem, NULL, "different kinds", { "ES256", "HS256" },
			-1 },
		{ "another curve", keys.ec384_pem, NULL, "curve", { "ES256" }, -1 },
		{ "RSA for EC", keys.rsa_pem, NULL, "curve", { "ES256" }, -1 },
		{ "EC for RSA", keys.ec_pem, NULL, "RSA key", { "RS256" }, -1 },
		{ "small RSA", keys.rsa1024_pem, NULL, "1024 bits", { "RS256" }, -1 },
		{ "a private key", keys.private_pem, NULL, "", { "ES256" }, -1 },
		{ "RSA that everybody can sign for", keys.exponent_1_pem, NULL, "not sound",
			{ "RS256" }, -1 },
		{ "a passphrase to ask for", keys.locked_pem, NULL, "neither", { "ES256" },
			-1 },
		{ "PEM as a secret", keys.ec_pem, NULL, "PEM", { "HS256" }, -1 },
		{ "short secret", "0123456789abcdef", NULL, "16 bytes", { "HS256" }, -1 },
		{ "no key", "", NULL, "", { "ES256" }, -1 },
		{ "no secret", "", NULL, "empty", { "HS256" }, -1 },
		{ "not PEM", "hello", NULL, "", { "RS256" }, -1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct issuer_settings settings = { .issuer = "i",
			.audience = "a",
			.key = sv_from_cstr(table[i].key),
			.kid = table[i].kid,
			.scope_claim = "scope" };
		struct issuer *issuer = NULL;
		struct err err = { 0 };
		int rc;

		memcpy(settings.algorithms, table[i].algorithms, sizeof(settings.algorithms));
		rc = issuer_new(&settings, &issuer, &err);
		if (rc != table[i].rc || !strstr(err.text, table[i].said))
			fail_msg("%s: %d, %s", table[i].name, rc, err.text);
		if (rc == 0)
			assert_string_equal(issuer_name(issuer), "i");
		issuer_free(issuer);
	}
}

static void test_good_token(void **state)
{
	struct issuer *issuer = new_issuer();
	struct claims claims;
	struct text text;
	struct err err = { 0 };
	struct sv token = sign(&text, HEADER, PAYLOAD, keys.ec, SV(""));

	(void)state;
	if (token_verify(&issuer, 1, token, NOW, &claims, &err))
		fail_msg("%s", err.text);
	assert_string_equal(claims.subject, "alice");
	assert_string_equal(claims.issuer, "https://login");
	assert_string_equal(claims.scope, "a b");
	assert_string_equal(claims.id, "t1");
	assert_int_equal(claims.expires, NOW + 600);
	assert_true(claims_hold(&claims, NOW + 629));
	assert_false(claims_hold(&claims, NOW + 631));
	issuer_free(issuer);
}

struct bad {
	const char *name, *header, *payload;
};

static void test_bad_tokens(void **state)
{
	static const struct bad table[] = {
		{ "expired", HEADER,
			"{\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"a\","
			"\"exp\":1799999969}" },
		{ "not yet", HEADER, "{" CLAIMS ",\"nbf\":1800000031}" },
		{ "holds for too long", HEADER,
			"{\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"a\","
			"\"exp\":1800003601}" },
		{ "exp with a fraction", HEADER,
			"{\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"a\","
			"\"exp\":1800000600.0}" },
		{ "exp beyond all bounds", HEADER,
			"{\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"a\","
			"\"exp\":99999999999999999999}" },
		{ "exp below zero", HEADER,
			"{\"iss\":\"https://"
			"login\",\"aud\":\"postern\",\"sub\":\"a\",\"exp\":-1}" },
		{ "no exp", HEADER,
			"{\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"a\"}" },
		{ "empty subject", HEADER,
			"{\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"\","
			"\"exp\":1800000600}" },
		{ "claim twice", HEADER, "{" CLAIMS ",\"sub\":\"root\"}" },
		{ "NUL in a text", HEADER, "{" CLAIMS ",\"jti\":\"a\\u0000b\"}" },
		{ "list for payload", HEADER, "[{" CLAIMS "}]" },
		{ "something behind it", HEADER, "{" CLAIMS "}{}" },
		{ "not closed", HEADER, "{" CLAIMS },
		{ "alg twice", "{\"alg\":\"none\",\"alg\":\"ES256\"}", PAYLOAD },
		{ "alg none", "{\"alg\":\"none\"}", PAYLOAD },
		{ "alg HS256", "{\"alg\":\"HS256\"}", PAYLOAD },
		{ "alg not listed", "{\"alg\":\"ES384\"}", PAYLOAD },
		{ "no alg", "{\"typ\":\"JWT\"}", PAYLOAD },
		{ "crit", "{\"alg\":\"ES256\",\"crit\":[\"exp\"]}", PAYLOAD },
		{ "jwk", "{\"alg\":\"ES256\",\"jwk\":{}}", PAYLOAD },
		{ "another typ", "{\"alg\":\"ES256\",\"typ\":\"dpop+jwt\"}", PAYLOAD },
		{ "list for header", "[]", PAYLOAD },
	};
	struct issuer *issuer = new_issuer();

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct claims claims;
		struct text text;
		struct err err = { 0 };
		struct sv token =
			sign(&text, table[i].header, table[i].payload, keys.ec, SV(""));

		if (token_verify(&issuer, 1, token, NOW, &claims, &err) == 0)
			fail_msg("%s: accepted", table[i].name);
		assert_true(strlen(err.text) > 0);
	}
	issuer_free(issuer);
}

static void test_bad_signatures(void **state)
{
	struct issuer *issuer = new_issuer();
	struct claims claims;
	struct text text;
	struct err err;
	struct sv token;

	(void)state;
	token = sign(&text, HEADER, PAYLOAD, keys.rogue, SV(""));
	assert_int_equal(token_verify(&issuer, 1, token, NOW, &claims, &err), -1);
	/* The oldest trick: the public key as a secret. */
	token = sign(&text, "{\"alg\":\"HS256\",\"typ\":\"JWT\"}", PAYLOAD, NULL,
		sv_from_cstr(keys.ec_pem));
	assert_int_equal(token_verify(&issuer, 1, token, NOW, &claims, &err), -1);
	token = sign(&text, "{\"alg\":\"HS256\",\"typ\":\"JWT\"}", PAYLOAD, NULL, SV(""));
	assert_int_equal(token_verify(&issuer, 1, token, NOW, &claims, &err), -1);
	issuer_free(issuer);
}

/* No byte of a token may be another one: neither in what is signed nor in the signature. */
static void test_every_byte_counts(void **state)
{
	struct issuer *issuer = new_issuer();
	struct claims claims;
	struct text text;
	struct err err;
	struct sv token = sign(&text, HEADER, PAYLOAD, keys.ec, SV(""));

	(void)state;
	for (size_t i = 0; i < token.len; i++) {
		char was = text.bytes[i];

		text.bytes[i] = was == 'A' ? 'B' : 'A';
		if (token_verify(&issuer, 1, token, NOW, &claims, &err) == 0)
			fail_msg("byte %zu", i);
		text.bytes[i] = was;
	}
	for (size_t len = 0; len < token.len; len++)
		assert_int_equal(token_verify(&issuer, 1, (struct sv){ token.ptr, len }, NOW,
					 &claims, &err),
			-1);
	assert_int_equal(token_verify(&issuer, 1, token, NOW, &claims, &err), 0);
	issuer_free(issuer);
}

static void test_cache(void **state)
{
	struct issuer *issuer = new_issuer();
	struct token_cache *cache = token_cache_new(16, &issuer, 1);
	struct claims first, second;
	struct text text, bad;
	struct err err;
	struct sv token = sign(&text, HEADER, PAYLOAD, keys.ec, SV(""));
	struct sv forged = sign(&bad, HEADER, PAYLOAD, keys.rogue, SV(""));

	(void)state;
	assert_non_null(cache);
	assert_int_equal(token_cache_verify(cache, token, NOW, &first, &err), 0);
	assert_int_equal(token_cache_verify(cache, token, NOW + 1, &second, &err), 0);
	assert_memory_equal(&first, &second, sizeof(first));
	/* The same claims under another signature are another token. */
	assert_int_equal(token_cache_verify(cache, forged, NOW, &second, &err), -1);
	assert_int_equal(token_cache_verify(cache, forged, NOW, &second, &err), -1);
	/* A remembered token ends when it does. */
	assert_int_equal(token_cache_verify(cache, token, NOW + 631, &second, &err), -1);
	assert_int_equal(token_cache_verify(cache, token, NOW - 31, &second, &err), -1);
	token_cache_free(cache);
	issuer_free(issuer);
}

/* More tokens than entries: each still verifies, none as another. */
static void test_cache_is_full(void **state)
{
	struct issuer *issuer = new_issuer();
	struct token_cache *cache = token_cache_new(8, &issuer, 1);
	static struct text texts[40];
	struct sv tokens[40];
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT(tokens); i++) {
		char payload[512];

		(void)snprintf(payload, sizeof(payload),
			"{\"iss\":\"https://login\",\"aud\":\"postern\",\"sub\":\"user%zu\","
			"\"exp\":1800000600}",
			i);
		tokens[i] = sign(&texts[i], HEADER, payload, keys.ec, SV(""));
	}
	for (size_t round = 0; round < 2; round++) {
		for (size_t i = 0; i < COUNT(tokens); i++) {
			struct claims claims;
			char name[32];

			(void)snprintf(name, sizeof(name), "user%zu", i);
			assert_int_equal(
				token_cache_verify(cache, tokens[i], NOW, &claims, &err), 0);
			assert_string_equal(claims.subject, name);
		}
	}
	token_cache_free(cache);
	issuer_free(issuer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_issuers),
		cmocka_unit_test(test_good_token),
		cmocka_unit_test(test_bad_tokens),
		cmocka_unit_test(test_bad_signatures),
		cmocka_unit_test(test_every_byte_counts),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_cache_is_full),
	};

	return cmocka_run_group_tests(tests, make_keys, free_keys);
}
