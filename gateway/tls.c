#include "gateway/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define CERTIFICATE_BYTES_MAX (32L << 10) /* of a client's whole chain */
#define CHAIN_DEPTH_MAX       5

static const char *reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_error());

	ERR_clear_error();
	return text ? text : "unknown reason";
}

static int fail(struct err *err, const char *setting, const char *path)
{
	return err_set(err, ERR_INPUT, "%s = \"%s\": %s", setting, path, reason());
}

/* Never ask anybody for a pass phrase. */
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL says so */
static int no_password(char *buf, int size, int for_writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)for_writing;
	(void)arg;
	return -1;
}

static BIO *open_bytes(struct sv bytes)
{
	return bytes.len > 0 && bytes.len <= INT32_MAX
		       ? BIO_new_mem_buf(bytes.ptr, (int)bytes.len)
		       : NULL;
}

/* The end of the file is the error that ends a list; anything else is one. */
static bool is_at_end(void)
{
	unsigned long code = ERR_peek_last_error();
	bool at_end =
		ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;

	if (at_end)
		ERR_clear_error();
	return at_end;
}

/* The server's certificate, and the chain that stands behind it. */
static int use_certificates(SSL_CTX *tls, struct sv pem)
{
	BIO *bio = open_bytes(pem);
	X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
	int rc = cert && SSL_CTX_use_certificate(tls, cert) == 1 ? 0 : -1;

	X509_free(cert);
	while (rc == 0) {
		cert = PEM_read_bio_X509(bio, NULL, no_password, NULL);
		if (!cert) {
			rc = is_at_end() ? 0 : -1;
			break;
		}
		if (SSL_CTX_add0_chain_cert(tls, cert) != 1) {
			X509_free(cert);
			rc = -1;
		}
	}
	BIO_free(bio);
	return rc;
}

static int use_key(SSL_CTX *tls, struct sv pem)
{
	BIO *bio = open_bytes(pem);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
	int rc = key && SSL_CTX_use_PrivateKey(tls, key) == 1 &&
				 SSL_CTX_check_private_key(tls) == 1
			 ? 0
			 : -1;

	EVP_PKEY_free(key);
	BIO_free(bio);
	return rc;
}

/* The client CAs: whom to trust, and whose names to send with the request for a certificate. */
static int use_client_ca(SSL_CTX *tls, struct sv pem)
{
	X509_STORE *store = SSL_CTX_get_cert_store(tls);
	BIO *bio = open_bytes(pem);
	int found = 0, rc = bio ? 0 : -1;

	while (rc == 0) {
		X509 *cert = PEM_read_bio_X509(bio, NULL, no_password, NULL);

		if (!cert) {
			rc = found > 0 && is_at_end() ? 0 : -1;
			break;
		}
		found++;
		rc = X509_STORE_add_cert(store, cert) == 1 &&
				     SSL_CTX_add_client_CA(tls, cert) == 1
			     ? 0
			     : -1;
		X509_free(cert);
	}
	BIO_free(bio);
	return rc;
}

/* With a list in the store and the flags set, no fresh list of the right CA means no certificate. */
static int use_client_crl(SSL_CTX *tls, struct sv pem)
{
	X509_STORE *store = SSL_CTX_get_cert_store(tls);
	BIO *bio = open_bytes(pem);
	int found = 0, rc = bio ? 0 : -1;

	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	while (rc == 0) {
		X509_CRL *crl = PEM_read_bio_X509_CRL(bio, NULL, no_password, NULL);

		if (!crl) {
			rc = found > 0 && is_at_end() ? 0 : -1;
			break;
		}
		found++;
		rc = X509_STORE_add_crl(store, crl) == 1 ? 0 : -1;
		X509_CRL_free(crl);
	}
	BIO_free(bio);
	return rc;
}

/* OpenSSL takes a certificate without any extended key usage for one of every purpose: we do not. */
static int verify_client(int good, X509_STORE_CTX *chain)
{
	X509 *cert = X509_STORE_CTX_get_current_cert(chain);

	if (!good || X509_STORE_CTX_get_error_depth(chain) > 0)
		return good;
	if ((X509_get_extension_flags(cert) & EXFLAG_XKUSAGE) &&
		(X509_get_extended_key_usage(cert) & XKU_SSL_CLIENT))
		return 1;
	X509_STORE_CTX_set_error(chain, X509_V_ERR_INVALID_PURPOSE);
	return 0;
}

static int use_clients(SSL_CTX *tls, const struct conf *conf, struct err *err)
{
	int mode = SSL_VERIFY_PEER;

	switch (conf->tls.client_certificate) {
	case CONF_CLIENT_NONE:
		SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
		return 0;
	case CONF_CLIENT_OPTIONAL:
		break;
	case CONF_CLIENT_REQUIRED:
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
		break;
	}
	SSL_CTX_set_verify(tls, mode, verify_client);
	SSL_CTX_set_verify_depth(tls, CHAIN_DEPTH_MAX);
	SSL_CTX_set_max_cert_list(tls, CERTIFICATE_BYTES_MAX);
	if (use_client_ca(tls, conf->tls.client_ca_pem))
		return fail(err, "tls.client_ca", conf->tls.client_ca);
	if (conf->tls.client_crl && conf->tls.client_crl[0] != '\0' &&
		use_client_crl(tls, conf->tls.client_crl_pem))
		return fail(err, "tls.client_crl", conf->tls.client_crl);
	return 0;
}

/* Who offers protocols must offer ours; who offers none is taken to speak it. */
static int select_protocol(SSL *tls, const unsigned char **out, unsigned char *out_len,
	const unsigned char *in, unsigned in_len, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";
	unsigned char *selected;

	(void)tls;
	(void)arg;
	if (SSL_select_next_proto(&selected, out_len, ours, sizeof(ours) - 1, in, in_len) !=
		OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = selected;
	return SSL_TLSEXT_ERR_OK;
}

/* A resumed session would skip every check of the client's certificate. */
static void forbid_resumption(SSL_CTX *tls)
{
	static const unsigned char context[] = "postern";

	SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(tls, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
	(void)SSL_CTX_set_num_tickets(tls, 0);
	(void)SSL_CTX_set_session_id_context(tls, context, sizeof(context) - 1);
	(void)SSL_CTX_set_max_early_data(tls, 0);
}

static int set_protocol(SSL_CTX *tls, const struct conf *conf)
{
	SSL_CTX_set_security_level(tls, 2);
	SSL_CTX_set_options(tls, SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_alpn_select_cb(tls, select_protocol, NULL);
	forbid_resumption(tls);
	return SSL_CTX_set_min_proto_version(
		       tls, conf->tls.min_version_12 ? TLS1_2_VERSION : TLS1_3_VERSION) == 1 &&
			       SSL_CTX_set_cipher_list(tls,
				       "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK:!SHA1") == 1
		       ? 0
		       : -1;
}

SSL_CTX *tls_context_new(const struct conf *conf, struct err *err)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	int rc = -1;

	ERR_clear_error();
	if (!tls || set_protocol(tls, conf))
		(void)err_set(err, ERR_SYSTEM, "OpenSSL: %s", reason());
	else if (use_certificates(tls, conf->tls.certificate_pem))
		(void)fail(err, "tls.certificate", conf->tls.certificate);
	else if (use_key(tls, conf->tls.key_pem))
		(void)fail(err, "tls.key", conf->tls.key);
	else
		rc = use_clients(tls, conf, err);
	ERR_clear_error();
	if (rc == 0)
		return tls;
	SSL_CTX_free(tls);
	return NULL;
}

bool tls_trusts(SSL_CTX *tls, X509 *cert, STACK_OF(X509) * chain)
{
	int mode = SSL_CTX_get_verify_mode(tls);
	X509_STORE_CTX *check;
	bool good;

	if (!cert)
		return !(mode & SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
	check = mode & SSL_VERIFY_PEER ? X509_STORE_CTX_new() : NULL;
	good = check &&
	       X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(tls), cert, chain) == 1 &&
	       X509_STORE_CTX_set_default(check, "ssl_client") == 1;
	if (good) {
		/* As in a handshake (use_clients, set_protocol). */
		X509_VERIFY_PARAM_set_depth(
			X509_STORE_CTX_get0_param(check), SSL_CTX_get_verify_depth(tls));
		X509_VERIFY_PARAM_set_auth_level(
			X509_STORE_CTX_get0_param(check), SSL_CTX_get_security_level(tls));
		X509_STORE_CTX_set_verify_cb(check, verify_client);
		good = X509_verify_cert(check) == 1;
	}
	X509_STORE_CTX_free(check);
	ERR_clear_error();
	return good;
}

const char *tls_failure(const SSL *tls)
{
	long verdict = SSL_get_verify_result(tls);
	const char *text = ERR_reason_error_string(ERR_peek_error());

	ERR_clear_error();
	if (verdict != X509_V_OK)
		return X509_verify_cert_error_string(verdict);
	return text ? text : "the client ended the connection";
}
