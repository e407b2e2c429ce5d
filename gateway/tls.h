/*
 * tls.h - what TLS is here: version 1.3 (1.2 when told so), ALPN http/1.1, no resumption of any
 * kind, and the configuration's certificate, key, client CA and revocation list.
 */
#ifndef GATEWAY_TLS_H
#define GATEWAY_TLS_H

#include <openssl/ssl.h>

#include "base/err.h"
#include "conf/conf.h"

/* From the bytes that the configuration holds, no file is read. NULL: `err` says what is wrong with
 * them, so that a check of the configuration finds it too. To be freed with SSL_CTX_free(). */
SSL_CTX *tls_context_new(const struct conf *conf, struct err *err);

/* Would `tls` take this client's certificate (NULL: none was shown) with this chain now? One that
 * asks for no certificates takes none. */
bool tls_trusts(SSL_CTX *tls, X509 *cert, STACK_OF(X509) * chain);

/* Why a handshake failed, for the audit log; static text, or OpenSSL's. Empties its error queue. */
const char *tls_failure(const SSL *tls);

#endif
