/*
 * A certificate from anywhere. Who is let through has a name that a rule can hold safely, for the
 * purpose of a client, and the extensions that say so are there once and can be read.
 */
#include <assert.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <string.h>

#include "auth/cert.h"
#include "base/encode.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
	size_t len = strnlen(text, CERT_TEXT_MAX);

	assert(len < CERT_TEXT_MAX);
	for (size_t i = 0; i < len; i++)
		assert(text[i] >= 0x20 && text[i] <= 0x7e);
}

static void check_sans(const struct cert *cert)
{
	size_t uris = 0;

	assert(cert->sans_len <= CERT_SANS_MAX);
	for (size_t i = 0; i < cert->sans_len; i++) {
		const char *san = cert->sans[i];

		check_text(san);
		assert(strncmp(san, "URI:", 4) == 0 || strncmp(san, "DNS:", 4) == 0 ||
			strncmp(san, "email:", 6) == 0 || strncmp(san, "IP:", 3) == 0);
		if (strncmp(san, "URI:", 4) != 0)
			continue;
		uris++;
		assert(!strstr(san, "/../") && !strstr(san, "/./"));
	}
	assert(uris <= 1);
}

/* Read once more by OpenSSL's own summary of a certificate. */
static void check_extensions(const uint8_t *data, size_t size)
{
	X509 *x509 = d2i_X509(NULL, &data, (long)size);
	int at;

	assert(x509);
	at = X509_get_ext_by_NID(x509, NID_subject_alt_name, -1);
	if (at >= 0) {
		GENERAL_NAMES *names = X509V3_EXT_d2i(X509_get_ext(x509, at));

		assert(names && X509_get_ext_by_NID(x509, NID_subject_alt_name, at) < 0);
		GENERAL_NAMES_free(names);
	}
	at = X509_get_ext_by_NID(x509, NID_ext_key_usage, -1);
	assert(at >= 0 && X509_get_ext_by_NID(x509, NID_ext_key_usage, at) < 0);
	assert(X509_get_extended_key_usage(x509) & XKU_SSL_CLIENT);
	X509_free(x509);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char principal[CERT_TEXT_MAX], hex[65];
	unsigned char digest[32];
	struct cert cert;
	struct err err = { 0 };

	if (cert_parse((struct sv){ (const char *)data, size }, &cert, &err)) {
		assert(err.kind != ERR_NONE && err.text[0] != '\0');
		assert(cert.sans_len == 0 && cert.cn[0] == '\0' && cert.fingerprint[0] == '\0');
		return 0;
	}
	assert(cert.sans_len > 0 || cert.cn[0] != '\0');
	check_text(cert.cn);
	check_sans(&cert);
	check_extensions(data, size);
	cert_principal(&cert, principal);
	check_text(principal);
	assert(EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL) == 1);
	hex_encode(digest, sizeof(digest), hex);
	assert(strcmp(hex, cert.fingerprint) == 0);
	return 0;
}
