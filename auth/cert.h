/*
 * cert.h - who a client certificate says it is. The chain was verified by TLS before.
 */
#ifndef AUTH_CERT_H
#define AUTH_CERT_H

#include <stdint.h>

#include "base/err.h"
#include "base/sv.h"

#define CERT_SANS_MAX 16
#define CERT_TEXT_MAX 256

struct cert {
	char fingerprint[65]; /* SHA-256 of the DER, lower-case hex */
	char cn[CERT_TEXT_MAX];
	int64_t not_before, not_after; /* Unix seconds: checked again for each request */
	size_t sans_len;
	char sans[CERT_SANS_MAX]
		 [CERT_TEXT_MAX]; /* "URI:…", "DNS:…", "email:…", "IP:…"; last, so that a
						  copy may end behind those that are there */
};

/*
 * Read the DER bytes. Refused: no identity at all; several URI SANs; a text with NUL, control or
 * non-ASCII bytes or over CERT_TEXT_MAX; a URI with "." or ".." segments; more SANs than
 * CERT_SANS_MAX; an extended key usage that is missing or lacks clientAuth.
 */
int cert_parse(struct sv der, struct cert *out, struct err *err);

/* The name to show and to log: the URI SAN, else the first SAN, else "CN:…". */
void cert_principal(const struct cert *cert, char out[static CERT_TEXT_MAX]);

#endif
