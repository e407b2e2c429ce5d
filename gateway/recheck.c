/*
 * recheck.c - may a request that runs go on under a new configuration?
 */
#include "base/clock.h"
#include "gateway/conn.h"

/* The token was good when the request began, and time alone takes nothing away; a key that is gone,
 * or another audience, does. */
static bool token_is_good(const struct request *request, const struct conf *conf)
{
	int64_t age_s = (int64_t)((clock_boot_ms() - request->began_ms) / 1000);
	struct claims claims;
	struct err err;

	return !request->token_text ||
	       token_verify(conf->issuers, conf->issuers_len,
		       (struct sv){ request->token_text, request->token_len },
		       (int64_t)(clock_unix_us() / 1000000) - age_s, &claims, &err) == 0;
}

bool conn_may_go_on(const struct conn *conn, const struct conf *conf, SSL_CTX *tls)
{
	const struct request *request = conn->request;
	enum problem why;

	return acl_check(conf->acl, &conn->addr) == ACL_ALLOW &&
	       stream_is_trusted(conn->stream, tls) && token_is_good(request, conf) &&
	       conn_is_allowed(conn, conf, &why);
}
