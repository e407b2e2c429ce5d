/* test_cert.c - who a client certificate says it is. Certificates are made here, one a row. */
#include "tests/unit/unit.h"

#include <openssl/ec.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "auth/cert.h"

#define CLIENT "clientAuth"
#define TWICE  "TWICE "

struct row {
	const char *name;
	const char *cn;      /* NULL: none */
	const char *san;     /* NULL: none; "TWICE …": the extension is there twice */
	const char *purpose; /* NULL: no extended key usage */
	int rc;
	const char *said; /* principal, or part of the error */
};

static void add_extension(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX context;

	X509V3_set_ctx(&context, cert, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(cert, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

/* DER in `der`, to be freed by OPENSSL_free(). */
static int make_cert(const struct row *row, unsigned char **der)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	int len;

	assert_non_null(key);
	assert_int_equal(X509_set_version(cert, X509_VERSION_3), 1);
	(void)X509_time_adj_ex(X509_getm_notBefore(cert), 0, 0, &(time_t){ 1000 });
	(void)X509_time_adj_ex(X509_getm_notAfter(cert), 0, 0, &(time_t){ 2000 });
	if (row->cn)
		assert_int_equal(
			X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN",
				MBSTRING_UTF8, (const unsigned char *)row->cn, -1, -1, 0),
			1);
	assert_int_equal(X509_set_pubkey(cert, key), 1);
	if (row->san && strncmp(row->san, TWICE, strlen(TWICE)) == 0) {
		add_extension(cert, NID_subject_alt_name, row->san + strlen(TWICE));
		add_extension(cert, NID_subject_alt_name, row->san + strlen(TWICE));
	} else if (row->san) {
		add_extension(cert, NID_subject_alt_name, row->san);
	}
	if (row->purpose)
		add_extension(cert, NID_ext_key_usage, row->purpose);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	*der = NULL;
	len = i2d_X509(cert, der);
	assert_true(len > 0);
	X509_free(cert);
	EVP_PKEY_free(key);
	return len;
}

static void test_identities(void **state)
{
	static const struct row table[] = {
		{ "a URI", "x", "URI:spiffe://x/a", CLIENT, 0, "URI:spiffe://x/a" },
		{ "a URI, after a DNS name", "x", "DNS:a.b,URI:spiffe://x/a", CLIENT, 0,
			"URI:spiffe://x/a" },
		{ "a DNS name", "x", "DNS:a.b", CLIENT, 0, "DNS:a.b" },
		{ "an address of mail", "x", "email:a@b", CLIENT, 0, "email:a@b" },
		{ "an IP address", NULL, "IP:10.0.0.1", CLIENT, 0, "IP:10.0.0.1" },
		{ "a CN alone", "alice", NULL, CLIENT, 0, "CN:alice" },
		{ "among other purposes", "x", "DNS:a.b", "serverAuth,clientAuth", 0,
			"DNS:a.b" },
		{ "nobody", NULL, NULL, CLIENT, -1, "names nobody" },
		{ "two URIs", "x", "URI:spiffe://x/a,URI:spiffe://x/b", CLIENT, -1,
			"more than one URI" },
		{ "dots in a URI", "x", "URI:spiffe://x/a/../b", CLIENT, -1, "" },
		{ "a dot in a URI", "x", "URI:spiffe://x/./b", CLIENT, -1, "" },
		{ "dots at the end", "x", "URI:spiffe://x/a/..", CLIENT, -1, "" },
		{ "dots first in a URI", "x", "URI:../a", CLIENT, -1, "segments" },
		{ "names that are none", "x", "DER:0500", CLIENT, -1, "cannot be read" },
		{ "names cut short", "x", "DER:30058204612e62", CLIENT, -1, "cannot be read" },
		{ "names in two places", "x", TWICE "DNS:a.b", CLIENT, -1, "there twice" },
		{ "no purpose", "x", "DNS:a.b", NULL, -1, "" },
		{ "a server's purpose", "x", "DNS:a.b", "serverAuth", -1, "" },
		{ "any purpose", "x", "DNS:a.b", "anyExtendedKeyUsage", -1, "" },
		{ "a line end", "a\nb", NULL, CLIENT, -1, "" },
		{ "beyond ASCII",
			"al\xc3\xad"
			"ce",
			NULL, CLIENT, -1, "" },
		{ "too many names", "x",
			"DNS:a,DNS:b,DNS:c,DNS:d,DNS:e,DNS:f,DNS:g,DNS:h,DNS:i,DNS:j,DNS:k,DNS:"
			"l,"
			"DNS:m,DNS:n,DNS:o,DNS:p,DNS:q",
			CLIENT, -1, "more than" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct err err = { 0 };
		struct cert cert;
		char principal[CERT_TEXT_MAX];
		unsigned char *der;
		int len = make_cert(&table[i], &der);
		int rc = cert_parse((struct sv){ (const char *)der, (size_t)len }, &cert, &err);

		OPENSSL_free(der);
		if (rc != table[i].rc)
			fail_msg("%s: %d, %s", table[i].name, rc, err.text);
		if (rc == 0)
			cert_principal(&cert, principal);
		if (rc ? !strstr(err.text, table[i].said)
		       : strcmp(principal, table[i].said) != 0)
			fail_msg("%s: %s", table[i].name, rc ? err.text : principal);
		if (rc == 0)
			assert_true(cert.not_before == 1000 && cert.not_after == 2000);
	}
}

static void test_bytes(void **state)
{
	static const struct row row = { "", "x", "DNS:a.b", CLIENT, 0, "" };
	struct cert cert;
	struct err err;
	unsigned char *der;
	size_t len = (size_t)make_cert(&row, &der);
	unsigned char longer[4096] = { 0 };

	(void)state;
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(
			cert_parse((struct sv){ (const char *)der, cut }, &cert, &err), -1);
	assert_true(len < sizeof(longer));
	memcpy(longer, der, len);
	assert_int_equal(
		cert_parse((struct sv){ (const char *)longer, len + 1 }, &cert, &err), -1);
	assert_int_equal(cert_parse((struct sv){ (const char *)longer, len }, &cert, &err), 0);
	assert_int_equal(strspn(cert.fingerprint, "0123456789abcdef"), 64);
	OPENSSL_free(der);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identities),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
