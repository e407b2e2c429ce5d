#include "auth/issuer.h"

#include <assert.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "auth/issuer_private.h"

#define RSA_BITS_MIN   2048
#define HMAC_BYTES_MIN 32
#define KEY_BYTES_MAX  65536

static const struct algorithm algorithms[] = {
	{ "HS256", JWT_ALG_HS256, FAMILY_HMAC, 32, 0 },
	{ "HS384", JWT_ALG_HS384, FAMILY_HMAC, 48, 0 },
	{ "HS512", JWT_ALG_HS512, FAMILY_HMAC, 64, 0 },
	{ "RS256", JWT_ALG_RS256, FAMILY_RSA, 0, 0 },
	{ "RS384", JWT_ALG_RS384, FAMILY_RSA, 0, 0 },
	{ "RS512", JWT_ALG_RS512, FAMILY_RSA, 0, 0 },
	{ "ES256", JWT_ALG_ES256, FAMILY_EC, 32, NID_X9_62_prime256v1 },
	{ "ES384", JWT_ALG_ES384, FAMILY_EC, 48, NID_secp384r1 },
	{ "ES512", JWT_ALG_ES512, FAMILY_EC, 66, NID_secp521r1 },
};

const struct algorithm *algorithm_find(const char *name)
{
	for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
		if (strcmp(algorithms[i].name, name) == 0)
			return &algorithms[i];
	}
	return NULL;
}

static int take_algorithms(struct issuer *issuer, const char *const *names, struct err *err)
{
	if (!names[0])
		return err_set(err, ERR_INPUT, "algorithms must name at least one");
	for (size_t i = 0; i < ISSUER_ALGORITHMS_MAX - 1 && names[i]; i++) {
		const struct algorithm *found = algorithm_find(names[i]);

		if (!found)
			return err_set(err, ERR_INPUT,
				"algorithm \"%s\": the installed libjwt can do HS256, HS384, "
				"HS512, "
				"RS256, RS384, RS512, ES256, ES384 and ES512",
				names[i]);
		if (issuer->algorithms[0] && found->family != issuer->algorithms[0]->family)
			return err_set(err, ERR_INPUT,
				"algorithms \"%s\" and \"%s\" need different kinds of key: "
				"write one "
				"entry for each",
				issuer->algorithms[0]->name, names[i]);
		issuer->algorithms[i] = found;
	}
	return 0;
}

static bool holds(struct sv text, const char *part)
{
	return text.len > 0 && memmem(text.ptr, text.len, part, strlen(part)) != NULL;
}

static int take_secret(struct issuer *issuer, struct sv key, struct err *err)
{
	if (holds(key, "-----BEGIN"))
		return err_set(err, ERR_INPUT,
			"the key is a PEM file, but %s takes a secret: whoever has a public "
			"key "
			"could sign with it",
			issuer->algorithms[0]->name);
	if (key.len < HMAC_BYTES_MIN)
		return err_set(err, ERR_INPUT,
			"the secret has %zu bytes; it must have at least %d", key.len,
			HMAC_BYTES_MIN);
	issuer->key = malloc(key.len);
	if (!issuer->key)
		return err_set(err, ERR_NOMEM, "out of memory for a key");
	memcpy(issuer->key, key.ptr, key.len);
	issuer->key_len = (int)key.len;
	return 0;
}

/* A daemon must not stop at a passphrase's prompt because of how a file looks. */
/* NOLINTNEXTLINE(readability-non-const-parameter): pem_password_cb */
static int no_passphrase(char *out, int size, int writing, void *arg)
{
	if (size > 0)
		out[0] = '\0';
	(void)writing;
	(void)arg;
	return -1;
}

/* From a public key, or the certificate that holds one. */
static EVP_PKEY *read_public_key(struct sv pem)
{
	BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
	EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL) : NULL;
	X509 *cert = NULL;

	if (!key && bio && BIO_reset(bio) >= 0) {
		cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
		key = cert ? X509_get_pubkey(cert) : NULL;
	}
	X509_free(cert);
	BIO_free(bio);
	ERR_clear_error();
	return key;
}

static int curve_of(const EVP_PKEY *key)
{
	char name[64];

	if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
		EVP_PKEY_get_utf8_string_param(
			key, OSSL_PKEY_PARAM_GROUP_NAME, name, sizeof(name), NULL) != 1)
		return 0;
	return OBJ_txt2nid(name);
}

/* A point on its curve; a modulus and an exponent that are not trivial: with the exponent 1
 * everybody can sign. */
static bool is_sound(EVP_PKEY *key)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
	bool sound = context && EVP_PKEY_public_check(context) == 1;

	EVP_PKEY_CTX_free(context);
	ERR_clear_error();
	return sound;
}

static int check_key(const struct issuer *issuer, const EVP_PKEY *key, struct err *err)
{
	int bits = EVP_PKEY_get_bits(key);

	if (issuer->algorithms[0]->family == FAMILY_RSA) {
		if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA)
			return err_set(err, ERR_INPUT, "%s needs an RSA key, and this is none",
				issuer->algorithms[0]->name);
		if (bits < RSA_BITS_MIN)
			return err_set(err, ERR_INPUT,
				"the RSA key has %d bits; it must have at least %d", bits,
				RSA_BITS_MIN);
		return 0;
	}
	for (size_t i = 0; issuer->algorithms[i]; i++) {
		if (curve_of(key) != issuer->algorithms[i]->curve)
			return err_set(err, ERR_INPUT, "%s needs a key on the curve %s",
				issuer->algorithms[i]->name,
				OBJ_nid2sn(issuer->algorithms[i]->curve));
	}
	return 0;
}

/* Written anew from what was read, so that libjwt sees one key in one form and nothing else. */
static int keep_public_key(struct issuer *issuer, EVP_PKEY *key, struct err *err)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *pem;
	long len;
	int rc = -1;

	if (bio && PEM_write_bio_PUBKEY(bio, key) == 1) {
		len = BIO_get_mem_data(bio, &pem);
		issuer->key = len > 0 && len < INT_MAX ? malloc((size_t)len) : NULL;
		if (issuer->key) {
			memcpy(issuer->key, pem, (size_t)len);
			issuer->key_len = (int)len;
			issuer->rsa_bytes = (unsigned)EVP_PKEY_get_size(key);
			rc = 0;
		}
	}
	if (rc)
		(void)err_set(err, ERR_NOMEM, "out of memory for a key");
	BIO_free(bio);
	ERR_clear_error();
	return rc;
}

static int take_public_key(struct issuer *issuer, struct sv pem, struct err *err)
{
	EVP_PKEY *key;
	int rc;

	if (holds(pem, "PRIVATE KEY"))
		return err_set(err, ERR_INPUT,
			"the key file holds a private key; the gate needs the public one only: "
			"openssl pkey -pubout");
	key = read_public_key(pem);
	if (!key)
		return err_set(err, ERR_INPUT,
			"the key file is neither a PEM public key nor a PEM certificate");
	rc = check_key(issuer, key, err);
	if (rc == 0 && !is_sound(key))
		rc = err_set(err, ERR_INPUT,
			"the public key is not sound (an exponent of 1, a point off the "
			"curve): "
			"make a new pair");
	if (rc == 0)
		rc = keep_public_key(issuer, key, err);
	EVP_PKEY_free(key);
	return rc;
}

static int take_key(struct issuer *issuer, struct sv key, struct err *err)
{
	assert(issuer->algorithms[0]);
	if (key.len == 0 || key.len > KEY_BYTES_MAX)
		return err_set(err, ERR_INPUT, "the key file is empty or too long");
	if (issuer->algorithms[0]->family == FAMILY_HMAC)
		return take_secret(issuer, key, err);
	return take_public_key(issuer, key, err);
}

int issuer_new(const struct issuer_settings *settings, struct issuer **out, struct err *err)
{
	struct issuer *issuer = calloc(1, sizeof(*issuer));

	if (!issuer)
		return err_set(err, ERR_NOMEM, "out of memory for an issuer");
	issuer->name = strdup(settings->issuer);
	issuer->audience = strdup(settings->audience);
	issuer->kid = strdup(settings->kid ? settings->kid : "");
	issuer->scope_claim = strdup(settings->scope_claim);
	issuer->leeway_s = settings->leeway_s;
	issuer->max_age_s = settings->max_age_s;
	if (!issuer->name || !issuer->audience || !issuer->kid || !issuer->scope_claim)
		(void)err_set(err, ERR_NOMEM, "out of memory for an issuer");
	else if (issuer->name[0] == '\0' || issuer->audience[0] == '\0')
		(void)err_set(err, ERR_INPUT, "issuer and audience must not be empty");
	else if (take_algorithms(issuer, settings->algorithms, err) == 0 &&
		 take_key(issuer, settings->key, err) == 0) {
		*out = issuer;
		return 0;
	}
	issuer_free(issuer);
	return -1;
}

const char *issuer_name(const struct issuer *issuer)
{
	return issuer->name;
}

void issuer_free(struct issuer *issuer)
{
	if (!issuer)
		return;
	if (issuer->key)
		OPENSSL_cleanse(issuer->key, (size_t)issuer->key_len);
	free(issuer->key);
	free(issuer->name);
	free(issuer->audience);
	free(issuer->kid);
	free(issuer->scope_claim);
	free(issuer);
}
