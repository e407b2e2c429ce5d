#include "cli/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/query.h"

#define CONNECT_TIMEOUT_MS 10000

static int fail_tls(struct err *err, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return err_set(err, ERR_INPUT, "%s: %s", what, reason ? reason : "TLS failure");
}

/* "https://host:port", an optional slash behind. */
static int read_url(struct link_to *to, const char *url, struct err *err)
{
	struct sv rest, host, port;

	if (!url)
		return err_set(err, ERR_INPUT,
			"where is the gateway? set POSTERN_URL or --url https://HOST:PORT");
	rest = sv_from_cstr(url);
	if (!sv_starts_with(rest, SV("https://")))
		return err_set(
			err, ERR_INPUT, "'%s' is not of the form https://HOST:PORT", url);
	rest.ptr += 8;
	rest.len -= 8;
	if (rest.len > 0 && rest.ptr[rest.len - 1] == '/')
		rest.len--;
	if (!http_host_split(rest, &host, &port) ||
		!sv_to_cstr(host, to->host, sizeof(to->host)) ||
		!sv_to_cstr(rest, to->authority, sizeof(to->authority)))
		return err_set(
			err, ERR_INPUT, "'%s' is not of the form https://HOST:PORT", url);
	return sv_to_cstr(port.len > 0 ? port : SV("443"), to->port, sizeof(to->port))
		       ? 0
		       : err_set(err, ERR_INPUT, "'%s': no such port", url);
}

static int read_server_name(struct link_to *to, const char *name, struct err *err)
{
	int len;

	if (!name) {
		memcpy(to->name, to->host, sizeof(to->name));
		return 0;
	}
	len = snprintf(to->authority, sizeof(to->authority), "%s:%s", name, to->port);
	if (len < 0 || (size_t)len >= sizeof(to->authority) ||
		!sv_to_cstr(sv_from_cstr(name), to->name, sizeof(to->name)))
		return err_set(err, ERR_INPUT, "tls_server_name is too long");
	return 0;
}

int link_to_parse(struct link_to *to, const struct settings *settings, struct err *err)
{
	*to = (struct link_to){ 0 };
	if (read_url(to, settings->url, err))
		return -1;
	return read_server_name(to, settings->server_name, err);
}

int link_to_init(struct link_to *to, const struct settings *settings, struct err *err)
{
	if (link_to_parse(to, settings, err))
		return -1;
	to->tls = SSL_CTX_new(TLS_client_method());
	if (!to->tls)
		return fail_tls(err, "OpenSSL");
	SSL_CTX_set_min_proto_version(to->tls, TLS1_2_VERSION);
	SSL_CTX_set_verify(to->tls, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(to->tls, SSL_SESS_CACHE_OFF);
	/* Partial writes would be repeated from another place of the same buffer. */
	SSL_CTX_set_mode(to->tls, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (SSL_CTX_set_alpn_protos(to->tls, (const unsigned char *)"\x08http/1.1", 9))
		return fail_tls(err, "ALPN");
	if (settings->ca ? SSL_CTX_load_verify_file(to->tls, settings->ca) != 1
			 : SSL_CTX_set_default_verify_paths(to->tls) != 1)
		return fail_tls(err, settings->ca ? settings->ca : "the system's CAs");
	if (!settings->cert)
		return 0;
	if (SSL_CTX_use_certificate_chain_file(to->tls, settings->cert) != 1)
		return fail_tls(err, settings->cert);
	if (SSL_CTX_use_PrivateKey_file(to->tls, settings->key, SSL_FILETYPE_PEM) != 1)
		return fail_tls(err, settings->key);
	return 0;
}

void link_to_fini(struct link_to *to)
{
	SSL_CTX_free(to->tls);
	to->tls = NULL;
}

/* Wait for the gateway; -1 when the client goes first, or nothing happens for timeout_ms. */
static int wait_for(int fd, short events, int local, int timeout_ms, struct err *err)
{
	struct pollfd fds[] = {
		{ .fd = fd, .events = events },
		{ .fd = local, .events = POLLRDHUP },
	};
	int ready;

	do
		ready = poll(fds, 2, timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready < 0)
		return err_sys(err, "poll");
	if (ready == 0)
		return err_set(err, ERR_PEER, "the gateway does not answer");
	if (fds[1].revents)
		return err_set(err, ERR_NONE, "the client went away");
	return 0;
}

static int connect_to(
	const struct addrinfo *at, const struct link_to *to, int local, struct err *err)
{
	socklen_t len = sizeof(int);
	int on = 1, failed = 0;
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(err, "socket");
	if (connect(fd, at->ai_addr, at->ai_addrlen) && errno != EINPROGRESS)
		failed = errno;
	else if (wait_for(fd, POLLOUT, local, CONNECT_TIMEOUT_MS, err))
		goto fail;
	else
		(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len);
	if (failed == ECONNREFUSED) {
		(void)err_set(err, ERR_PEER,
			"%s port %s refuses connections: " LINK_HINT_CLOSED, to->host,
			to->port);
		goto fail;
	}
	if (failed) {
		errno = failed;
		(void)err_sys(err, "%s port %s", to->host, to->port);
		goto fail;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
fail:
	(void)close(fd);
	return -1;
}

/* Try each address of the name. */
static int connect_any(const struct link_to *to, int local, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	int rc = getaddrinfo(to->host, to->port, &hints, &list);
	int fd = -1;

	if (rc)
		return err_set(err, ERR_PEER, "%s: %s", to->host, gai_strerror(rc));
	for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next)
		fd = connect_to(at, to, local, err);
	freeaddrinfo(list);
	return fd;
}

static int set_expected_name(SSL *tls, const char *name)
{
	struct in6_addr addr;

	if (inet_pton(AF_INET, name, &addr) == 1 || inet_pton(AF_INET6, name, &addr) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), name);
	SSL_set_hostflags(tls, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(tls, name) &&
	       SSL_ctrl(tls, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
		       (void *)(uintptr_t)name); /* NOLINT */
}

static int fail_before_tls(const struct link *link, struct err *err)
{
	struct sockaddr_storage ours;
	socklen_t len = sizeof(ours);
	char text[NI_MAXHOST] = "ADDR";

	if (getsockname(link->fd, (struct sockaddr *)&ours, &len) == 0)
		(void)getnameinfo((struct sockaddr *)&ours, len, text, sizeof(text), NULL, 0,
			NI_NUMERICHOST);
	return err_set(err, ERR_PEER,
		"the gateway ended the connection before TLS: " LINK_HINT_ADDRESS, text);
}

static int fail_after_tls(struct err *err)
{
	unsigned long code = ERR_peek_error();
	const char *reason = ERR_reason_error_string(code);

	/* 1000 and above are alerts: the gateway's words. */
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) >= SSL_AD_REASON_OFFSET)
		return err_set(err, ERR_DENIED,
			"the gateway refused the TLS connection (%s); " LINK_HINT_CERT,
			reason ? reason : "alert");
	return err_set(err, ERR_PEER, "the gateway ended the connection");
}

static int fail_handshake(const struct link *link, const struct link_to *to, struct err *err)
{
	long verdict = SSL_get_verify_result(link->tls);
	bool is_name = verdict == X509_V_ERR_HOSTNAME_MISMATCH ||
		       verdict == X509_V_ERR_IP_ADDRESS_MISMATCH;

	if (verdict != X509_V_OK)
		return err_set(err, ERR_DENIED,
			"the certificate of %s port %s is not to be trusted (%s); %s", to->host,
			to->port, X509_verify_cert_error_string(verdict),
			is_name ? LINK_HINT_NAME : LINK_HINT_TRUST);
	/* Nothing at all came from it: it did not even begin. */
	if (BIO_number_read(SSL_get_rbio(link->tls)) == 0)
		return fail_before_tls(link, err);
	return fail_after_tls(err);
}

/* What OpenSSL waits for; 0 when it is there, -1 when this is no waiting but a failure. */
static int wait_for_tls(
	struct link *link, int result, int local, int timeout_ms, struct err *err)
{
	switch (SSL_get_error(link->tls, result)) {
	case SSL_ERROR_WANT_READ:
		return wait_for(link->fd, POLLIN, local, timeout_ms, err);
	case SSL_ERROR_WANT_WRITE:
		return wait_for(link->fd, POLLOUT, local, timeout_ms, err);
	default:
		return fail_after_tls(err);
	}
}

static bool is_waiting(const struct link *link, int result)
{
	int error = SSL_get_error(link->tls, result);

	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static int shake_hands(struct link *link, const struct link_to *to, int local, struct err *err)
{
	for (;;) {
		int result;

		ERR_clear_error();
		result = SSL_connect(link->tls);
		if (result == 1)
			return 0;
		if (!is_waiting(link, result))
			return fail_handshake(link, to, err);
		if (wait_for_tls(link, result, local, CONNECT_TIMEOUT_MS, err))
			return -1;
	}
}

int link_open(struct link *link, const struct link_to *to, int local, struct err *err)
{
	*link = (struct link){ .fd = connect_any(to, local, err) };
	if (link->fd < 0)
		return -1;
	link->tls = SSL_new(to->tls);
	if (!link->tls || !set_expected_name(link->tls, to->name) ||
		!SSL_set_fd(link->tls, link->fd)) {
		(void)fail_tls(err, "TLS");
		goto fail;
	}
	if (shake_hands(link, to, local, err) == 0)
		return 0;
fail:
	SSL_free(link->tls);
	link->tls = NULL;
	(void)close(link->fd);
	return -1;
}

ssize_t link_read(struct link *link, void *bytes, size_t size, int local, struct err *err)
{
	for (;;) {
		size_t got = 0;
		int result;

		ERR_clear_error();
		result = SSL_read_ex(link->tls, bytes, size, &got);
		if (result == 1)
			return (ssize_t)got;
		if (SSL_get_error(link->tls, result) == SSL_ERROR_ZERO_RETURN)
			return 0;
		/* A capture may take as long as it takes. */
		if (wait_for_tls(link, result, local, -1, err))
			return -1;
	}
}

int link_write(struct link *link, struct sv bytes, int local, struct err *err)
{
	while (bytes.len > 0) {
		size_t sent = 0;
		int result;

		ERR_clear_error();
		result = SSL_write_ex(link->tls, bytes.ptr, bytes.len, &sent);
		if (result == 1) {
			bytes.ptr += sent;
			bytes.len -= sent;
		} else if (wait_for_tls(link, result, local, -1, err)) {
			return -1;
		}
	}
	return 0;
}

bool link_is_fresh(const struct link *link)
{
	struct pollfd fd = { .fd = link->fd, .events = POLLIN };

	return link->tls && SSL_pending(link->tls) == 0 && poll(&fd, 1, 0) == 0;
}

void link_close(struct link *link)
{
	if (!link->tls)
		return;
	(void)SSL_shutdown(link->tls);
	SSL_free(link->tls);
	link->tls = NULL;
	(void)close(link->fd);
}
