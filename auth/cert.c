#include "auth/cert.h"

#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/encode.h"

#define CERT_BYTES_MAX 65536

static int take_time(const ASN1_TIME *time, int64_t *out, struct err *err)
{
	struct tm tm;

	if (!time || ASN1_TIME_to_tm(time, &tm) != 1)
		return err_set(err, ERR_DENIED, "certificate: its times cannot be read");
	*out = timegm(&tm);
	return 0;
}

/* Printable ASCII only: a name that needs more is not one that a rule could hold safely. */
static int take_text(const char *prefix, const ASN1_STRING *from,
	char out[static CERT_TEXT_MAX], struct err *err)
{
	const unsigned char *bytes = ASN1_STRING_get0_data(from);
	int len = ASN1_STRING_length(from);
	size_t prefix_len = strlen(prefix);

	if (len <= 0 || prefix_len + (size_t)len >= CERT_TEXT_MAX)
		return err_set(err, ERR_DENIED, "certificate: a name is empty or too long");
	for (int i = 0; i < len; i++) {
		if (bytes[i] < 0x20 || bytes[i] > 0x7e)
			return err_set(err, ERR_DENIED,
				"certificate: a name holds a byte that is not printable ASCII");
	}
	memcpy(out, prefix, prefix_len);
	memcpy(out + prefix_len, bytes, (size_t)len);
	out[prefix_len + (size_t)len] = '\0';
	return 0;
}

static bool has_dot_segment(const char *uri)
{
	struct sv rest = sv_from_cstr(uri);

	while (rest.len > 0) {
		struct sv segment = sv_cut(&rest, '/');

		if (sv_is(segment, SV(".")) || sv_is(segment, SV("..")))
			return true;
	}
	return false;
}

static int take_address(
	const ASN1_OCTET_STRING *from, char out[static CERT_TEXT_MAX], struct err *err)
{
	const unsigned char *b = ASN1_STRING_get0_data(from);
	int len = ASN1_STRING_length(from);
	size_t at = 3;

	if (len == 4) {
		(void)snprintf(out, CERT_TEXT_MAX, "IP:%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
		return 0;
	}
	if (len != 16)
		return err_set(
			err, ERR_DENIED, "certificate: an IP address of a strange length");
	(void)snprintf(out, CERT_TEXT_MAX, "IP:");
	for (int i = 0; i < 16; i += 2, at = strlen(out))
		(void)snprintf(out + at, CERT_TEXT_MAX - at, "%s%x", i > 0 ? ":" : "",
			(unsigned)(b[i] << 8 | b[i + 1]));
	return 0;
}

/* 1: taken; 0: a kind of name that no rule can ask for; -1: refused. */
static int take_san(const GENERAL_NAME *name, char out[static CERT_TEXT_MAX], struct err *err)
{
	switch (name->type) {
	case GEN_URI:
		if (take_text("URI:", name->d.uniformResourceIdentifier, out, err))
			return -1;
		if (has_dot_segment(out + strlen("URI:")))
			return err_set(err, ERR_DENIED,
				"certificate: its URI has \".\" or \"..\" segments");
		return 1;
	case GEN_DNS:
		return take_text("DNS:", name->d.dNSName, out, err) ? -1 : 1;
	case GEN_EMAIL:
		return take_text("email:", name->d.rfc822Name, out, err) ? -1 : 1;
	case GEN_IPADD:
		return take_address(name->d.iPAddress, out, err) ? -1 : 1;
	default:
		return 0;
	}
}

static int take_sans(X509 *x509, struct cert *out, struct err *err)
{
	int critical, uris = 0, rc = -1;
	GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, &critical, NULL);

	/* One that is there twice or cannot be read must not make the CN the identity. */
	if (!names && critical != -1)
		return err_set(err, ERR_DENIED,
			"certificate: its alternative names cannot be read, or are there "
			"twice");
	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		int taken;

		if (out->sans_len == CERT_SANS_MAX) {
			(void)err_set(err, ERR_DENIED, "certificate: more than %d names",
				CERT_SANS_MAX);
			goto out;
		}
		taken = take_san(name, out->sans[out->sans_len], err);
		if (taken < 0)
			goto out;
		out->sans_len += (size_t)taken;
		uris += name->type == GEN_URI;
	}
	if (uris > 1)
		(void)err_set(err, ERR_DENIED, "certificate: more than one URI name");
	else
		rc = 0;
out:
	GENERAL_NAMES_free(names);
	return rc;
}

static int take_cn(X509 *x509, struct cert *out, struct err *err)
{
	const X509_NAME *subject = X509_get_subject_name(x509);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	if (at < 0)
		return 0;
	if (X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
		return err_set(err, ERR_DENIED, "certificate: more than one CN");
	return take_text(
		"", X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), out->cn, err);
}

static bool is_for_clients(X509 *x509)
{
	EXTENDED_KEY_USAGE *usages = X509_get_ext_d2i(x509, NID_ext_key_usage, NULL, NULL);
	bool found = false;

	for (int i = 0; usages && i < sk_ASN1_OBJECT_num(usages); i++)
		found |= OBJ_obj2nid(sk_ASN1_OBJECT_value(usages, i)) == NID_client_auth;
	EXTENDED_KEY_USAGE_free(usages);
	return found;
}

static int read_cert(X509 *x509, struct cert *out, struct err *err)
{
	/* Without the extension OpenSSL takes a certificate for good for everything. */
	if (!is_for_clients(x509))
		return err_set(err, ERR_DENIED,
			"certificate: its extended key usage does not name client "
			"authentication");
	if (take_time(X509_get0_notBefore(x509), &out->not_before, err) ||
		take_time(X509_get0_notAfter(x509), &out->not_after, err) ||
		take_sans(x509, out, err) || take_cn(x509, out, err))
		return -1;
	if (out->sans_len == 0 && out->cn[0] == '\0')
		return err_set(err, ERR_DENIED, "certificate: it names nobody");
	return 0;
}

int cert_parse(struct sv der, struct cert *out, struct err *err)
{
	const unsigned char *at = (const unsigned char *)der.ptr;
	unsigned char digest[32];
	X509 *x509 = NULL;
	int rc = -1;

	memset(out, 0, sizeof(*out));
	if (der.len > 0 && der.len <= CERT_BYTES_MAX)
		x509 = d2i_X509(NULL, &at, (long)der.len);
	if (!x509 || at != (const unsigned char *)der.ptr + der.len)
		(void)err_set(err, ERR_DENIED, "certificate: it cannot be read");
	else if (EVP_Digest(der.ptr, der.len, digest, NULL, EVP_sha256(), NULL) != 1)
		(void)err_set(err, ERR_SYSTEM, "certificate: SHA-256 is not to be had");
	else
		rc = read_cert(x509, out, err);
	if (rc == 0)
		hex_encode(digest, sizeof(digest), out->fingerprint);
	else
		memset(out, 0, sizeof(*out)); /* nothing of a refused certificate is usable */
	X509_free(x509);
	ERR_clear_error();
	return rc;
}

void cert_principal(const struct cert *cert, char out[static CERT_TEXT_MAX])
{
	for (size_t i = 0; i < cert->sans_len; i++) {
		if (strncmp(cert->sans[i], "URI:", 4) == 0) {
			memcpy(out, cert->sans[i], CERT_TEXT_MAX);
			return;
		}
	}
	if (cert->sans_len > 0)
		memcpy(out, cert->sans[0], CERT_TEXT_MAX);
	else
		(void)snprintf(out, CERT_TEXT_MAX, "CN:%.*s", CERT_TEXT_MAX - 4, cert->cn);
}
