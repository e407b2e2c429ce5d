/* The server's side of TLS against OpenSSL's client in a thread, over loopback TCP. */
#include "unit.h"

#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/listener.h"
#include "gateway/stream.h"
#include "gateway/tls.h"

/* ---- certificates */

struct identity_of {
	EVP_PKEY *key;
	X509 *cert;
};

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(cert, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

/* issuer NULL: an authority that signs itself. eku NULL: none. */
static struct identity_of make_cert(
	const char *name, const struct identity_of *issuer, const char *eku, long serial)
{
	struct identity_of made = { EVP_EC_gen("P-256"), X509_new() };
	X509_NAME *subject = X509_get_subject_name(made.cert);

	assert_int_equal(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
				 (const unsigned char *)name, -1, -1, 0),
		1);
	X509_set_version(made.cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(made.cert), serial);
	X509_gmtime_adj(X509_getm_notBefore(made.cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(made.cert), 3600);
	X509_set_pubkey(made.cert, made.key);
	X509_set_issuer_name(made.cert, issuer ? X509_get_subject_name(issuer->cert) : subject);
	add_extension(made.cert, issuer ? issuer->cert : made.cert, NID_basic_constraints,
		issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
	if (eku)
		add_extension(made.cert, issuer->cert, NID_ext_key_usage, eku);
	assert_true(X509_sign(made.cert, issuer ? issuer->key : made.key, EVP_sha256()) > 0);
	return made;
}

static struct sv cert_pem(X509 *cert)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes;
	long len;
	struct sv out;

	assert_int_equal(PEM_write_bio_X509(bio, cert), 1);
	len = BIO_get_mem_data(bio, &bytes);
	out = (struct sv){ strndup(bytes, (size_t)len), (size_t)len };
	BIO_free(bio);
	return out;
}

static struct sv key_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes;
	long len;
	struct sv out;

	assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
	len = BIO_get_mem_data(bio, &bytes);
	out = (struct sv){ strndup(bytes, (size_t)len), (size_t)len };
	BIO_free(bio);
	return out;
}

/* A revocation list with one serial number in it; `age_s` ago it was to be renewed. */
static struct sv crl_pem(const struct identity_of *issuer, long serial, long age_s)
{
	X509_CRL *crl = X509_CRL_new();
	X509_REVOKED *revoked = X509_REVOKED_new();
	ASN1_INTEGER *number = ASN1_INTEGER_new();
	ASN1_TIME *time = X509_gmtime_adj(NULL, -7200),
		  *next = X509_gmtime_adj(NULL, 3600 - age_s);
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes;
	long len;
	struct sv out;

	ASN1_INTEGER_set(number, serial);
	X509_REVOKED_set_serialNumber(revoked, number);
	X509_REVOKED_set_revocationDate(revoked, time);
	X509_CRL_set_version(crl, 1);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->cert));
	X509_CRL_set1_lastUpdate(crl, time);
	X509_CRL_set1_nextUpdate(crl, next);
	X509_CRL_add0_revoked(crl, revoked);
	assert_true(X509_CRL_sign(crl, issuer->key, EVP_sha256()) > 0);
	assert_int_equal(PEM_write_bio_X509_CRL(bio, crl), 1);
	len = BIO_get_mem_data(bio, &bytes);
	out = (struct sv){ strndup(bytes, (size_t)len), (size_t)len };
	BIO_free(bio);
	ASN1_INTEGER_free(number);
	ASN1_TIME_free(time);
	ASN1_TIME_free(next);
	X509_CRL_free(crl);
	return out;
}

static struct identity_of ca, other_ca, server, alice, mallory, no_purpose, server_only,
	revoked;
static struct conf conf;

static int make_all(void **state)
{
	(void)state;
	ca = make_cert("ca", NULL, NULL, 1);
	other_ca = make_cert("other", NULL, NULL, 2);
	server = make_cert("gate.test", &ca, "serverAuth", 3);
	alice = make_cert("alice", &ca, "clientAuth", 4);
	mallory = make_cert("alice", &other_ca, "clientAuth", 5);
	no_purpose = make_cert("alice", &ca, NULL, 6);
	server_only = make_cert("alice", &ca, "serverAuth", 7);
	revoked = make_cert("alice", &ca, "clientAuth", 8);
	conf.tls.certificate = conf.tls.key = conf.tls.client_ca = "test";
	conf.tls.client_crl = "";
	conf.tls.certificate_pem = cert_pem(server.cert);
	conf.tls.key_pem = key_pem(server.key);
	conf.tls.client_ca_pem = cert_pem(ca.cert);
	conf.tls.client_certificate = CONF_CLIENT_OPTIONAL;
	return 0;
}

static int free_all(void **state)
{
	struct identity_of *all[] = { &ca, &other_ca, &server, &alice, &mallory, &no_purpose,
		&server_only, &revoked };

	(void)state;
	for (size_t i = 0; i < COUNT(all); i++) {
		EVP_PKEY_free(all[i]->key);
		X509_free(all[i]->cert);
	}
	free((void *)(uintptr_t)conf.tls.certificate_pem.ptr);
	free((void *)(uintptr_t)conf.tls.key_pem.ptr);
	free((void *)(uintptr_t)conf.tls.client_ca_pem.ptr);
	return 0;
}

/* ---- the two sides */

struct client {
	uint16_t port;
	const struct identity_of *show; /* certificate, or NULL */
	const char *alpn;               /* as on the wire, or NULL */
	int max_version;
	/* What it does once connected; the handshake's failure is told as NULL. */
	void (*talk)(struct client *client, SSL *tls);
	bool connected;
	size_t got;
	int end; /* SSL_get_error of the read that ended it */
	char protocol[16];
	bool has_ticket;
};

static void *run_client(void *arg)
{
	struct client *client = arg;
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons(client->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	const unsigned char *protocol;
	unsigned len;
	SSL *tls;

	if (client->show) {
		SSL_CTX_use_certificate(context, client->show->cert);
		SSL_CTX_use_PrivateKey(context, client->show->key);
	}
	if (client->alpn)
		SSL_CTX_set_alpn_protos(context, (const unsigned char *)client->alpn,
			(unsigned)strlen(client->alpn));
	if (client->max_version)
		SSL_CTX_set_max_proto_version(context, client->max_version);
	tls = SSL_new(context);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	SSL_set_fd(tls, fd);
	client->connected = SSL_connect(tls) == 1;
	if (client->connected) {
		SSL_get0_alpn_selected(tls, &protocol, &len);
		memcpy(client->protocol, protocol ? protocol : (const unsigned char *)"", len);
		client->talk(client, tls);
		client->has_ticket = SSL_SESSION_has_ticket(SSL_get0_session(tls));
	}
	SSL_free(tls);
	SSL_CTX_free(context);
	(void)close(fd);
	return NULL;
}

/* Read to the end; remember how much came and how it ended. */
static void read_all(struct client *client, SSL *tls)
{
	char bytes[16384];
	int result;

	while ((result = SSL_read(tls, bytes, sizeof(bytes))) > 0)
		client->got += (size_t)result;
	client->end = SSL_get_error(tls, result);
}

static void say_hello(struct client *client, SSL *tls)
{
	assert_int_equal(SSL_write(tls, "hello", 5), 5);
	read_all(client, tls);
}

struct server_side {
	struct event_base *base;
	SSL_CTX *tls;
	struct stream *stream;
	const struct stream_events *events;
	bool was_ready;
	char why[128];
	size_t to_send, most_queued, input_seen;
	unsigned drains;
	bool has_certificate;
};

static void take_connection(void *arg, int fd, const struct sockaddr_storage *peer)
{
	struct server_side *side = arg;

	assert_int_equal(peer->ss_family, AF_INET);
	side->stream = stream_new(side->base, side->tls, fd, side->events, side);
	assert_non_null(side->stream);
}

static void note_ready(void *arg)
{
	struct server_side *side = arg;
	size_t len;
	unsigned char *der = stream_certificate(side->stream, &len);

	side->was_ready = true;
	side->has_certificate = der != NULL && len > 0;
	OPENSSL_free(der);
}

static void close_when_ended(void *arg, const char *why)
{
	struct server_side *side = arg;

	(void)snprintf(side->why, sizeof(side->why), "%s", why);
	stream_close(side->stream);
	side->stream = NULL;
}

static void never(void *arg)
{
	(void)arg;
	fail();
}

static void echo_and_close(void *arg)
{
	struct server_side *side = arg;
	struct sv input = stream_input(side->stream);

	assert_true(stream_write(side->stream, input));
	stream_drain(side->stream, input.len);
	stream_close(side->stream);
	side->stream = NULL;
}

/* One connection: the loop runs until nothing is left of it. */
static void serve(struct server_side *side, const struct conf *with,
	const struct stream_events *events, struct client *client)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct listener *listener;
	pthread_t thread;
	struct err err;

	assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	client->port = ntohs(at.sin_port);
	side->events = events;
	side->base = event_base_new();
	side->tls = tls_context_new(with, &err);
	assert_non_null(side->tls);
	listener = listener_new(side->base, fd, take_connection, side);
	assert_int_equal(pthread_create(&thread, NULL, run_client, client), 0);
	assert_int_equal(event_base_loop(side->base, EVLOOP_ONCE), 0); /* the connection */
	listener_free(listener);
	assert_true(event_base_dispatch(side->base) >= 0); /* until no event is left */
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(stream_count(), 0);
	SSL_CTX_free(side->tls);
	event_base_free(side->base);
	(void)close(fd);
}

/* ---- tests */

static void test_words_there_and_back(void **state)
{
	static const struct stream_events events = { note_ready, echo_and_close, never,
		close_when_ended };
	struct client client = { .talk = say_hello, .alpn = "\x02h2\x08http/1.1" };
	struct server_side side = { 0 };

	(void)state;
	serve(&side, &conf, &events, &client);
	assert_true(client.connected);
	assert_int_equal(client.got, 5);
	assert_int_equal(client.end, SSL_ERROR_ZERO_RETURN); /* an orderly end */
	assert_string_equal(client.protocol, "http/1.1");
	assert_false(client.has_ticket);
	assert_false(side.has_certificate);
}

static void fill(struct server_side *side)
{
	static char piece[50000];

	while (side->to_send > 0 && stream_queued(side->stream) <= STREAM_HIGH) {
		size_t len = side->to_send < sizeof(piece) ? side->to_send : sizeof(piece);

		assert_true(stream_write(side->stream, (struct sv){ piece, len }));
		side->to_send -= len;
	}
	if (stream_queued(side->stream) > side->most_queued)
		side->most_queued = stream_queued(side->stream);
	if (side->to_send == 0) {
		stream_close(side->stream);
		side->stream = NULL;
	}
}

static void fill_when_ready(void *arg)
{
	fill(arg);
}

static void fill_again(void *arg)
{
	struct server_side *side = arg;

	assert_true(stream_queued(side->stream) <= STREAM_LOW);
	side->drains++;
	fill(side);
}

static void test_a_long_answer_is_queued_in_pieces(void **state)
{
	static const struct stream_events events = { fill_when_ready, never, fill_again,
		close_when_ended };
	struct client client = { .talk = read_all };
	struct server_side side = { .to_send = (size_t)20 << 20 };

	(void)state;
	serve(&side, &conf, &events, &client);
	assert_int_equal(client.got, (size_t)20 << 20);
	assert_int_equal(client.end, SSL_ERROR_ZERO_RETURN);
	assert_true(side.drains > 10);
	assert_true(side.most_queued <= STREAM_HIGH + 50000);
	assert_string_equal(side.why, "");
}

static void write_and_abort(void *arg)
{
	struct server_side *side = arg;

	assert_true(stream_write(side->stream, SV("half an answer")));
	stream_abort(side->stream);
	side->stream = NULL;
}

static void write_and_cut(void *arg)
{
	struct server_side *side = arg;

	assert_true(stream_write(side->stream, SV("half an answer")));
	stream_cut(side->stream);
	side->stream = NULL;
}

static void test_a_cut_says_what_it_has_and_no_more(void **state)
{
	static const struct stream_events events = { write_and_cut, never, never,
		close_when_ended };
	struct client client = { .talk = read_all };
	struct server_side side = { 0 };

	(void)state;
	serve(&side, &conf, &events, &client);
	assert_int_equal(client.got, 14);
	assert_true(client.end == SSL_ERROR_SYSCALL || client.end == SSL_ERROR_SSL);
}

static void test_an_abort_is_no_orderly_end(void **state)
{
	static const struct stream_events events = { write_and_abort, never, never,
		close_when_ended };
	struct client client = { .talk = read_all };
	struct server_side side = { 0 };

	(void)state;
	serve(&side, &conf, &events, &client);
	assert_true(client.end == SSL_ERROR_SYSCALL || client.end == SSL_ERROR_SSL);
}

static void write_much(struct client *client, SSL *tls)
{
	static char bytes[300000];

	assert_int_equal(SSL_write(tls, bytes, sizeof(bytes)), sizeof(bytes));
	read_all(client, tls);
}

static void read_slowly(void *arg)
{
	struct server_side *side = arg;
	struct sv input = stream_input(side->stream);

	assert_true(input.len > 0 && input.len <= 20000);
	side->input_seen += input.len;
	if (side->input_seen < 100000)
		stream_limit_input(side->stream, 20000);
	stream_drain(side->stream, input.len);
	if (side->input_seen == 300000) {
		stream_close(side->stream);
		side->stream = NULL;
	}
}

static void test_input_is_read_up_to_its_limit(void **state)
{
	static const struct stream_events events = { note_ready, read_slowly, never,
		close_when_ended };
	struct client client = { .talk = write_much };
	struct server_side side = { 0 };

	(void)state;
	serve(&side, &conf, &events, &client);
	assert_int_equal(side.input_seen, 300000);
	assert_int_equal(client.end, SSL_ERROR_ZERO_RETURN);
}

static void write_and_leave(struct client *client, SSL *tls)
{
	static char bytes[20000];

	(void)client;
	(void)SSL_write(tls, bytes, sizeof(bytes));
}

static void read_nothing(void *arg)
{
	struct server_side *side = arg;

	side->input_seen = stream_input(side->stream).len;
}

static void test_a_client_that_leaves_is_noticed_though_nobody_reads(void **state)
{
	static const struct stream_events events = { note_ready, read_nothing, never,
		close_when_ended };
	struct client client = { .talk = write_and_leave };
	struct server_side side = { 0 };

	(void)state;
	serve(&side, &conf, &events, &client);
	assert_int_equal(side.input_seen, 16384);
	assert_string_equal(side.why, "the client closed the connection");
}

static void test_who_may_come_in(void **state)
{
	static const struct stream_events events = { note_ready, echo_and_close, never,
		close_when_ended };
	struct sv crl = crl_pem(&ca, 8, 0), old_crl = crl_pem(&ca, 8, 7200),
		  other_crl = crl_pem(&other_ca, 8, 0);

	const struct {
		const char *name;
		const struct identity_of *show;
		enum conf_client_certificate mode;
		struct sv crl;
		const char *alpn;
		int max_version;
		bool served;
		const char *why;
	} rows[] = {
		{ "optional, none", NULL, CONF_CLIENT_OPTIONAL, { 0 }, NULL, 0, true, "" },
		{ "optional, good", &alice, CONF_CLIENT_OPTIONAL, { 0 }, NULL, 0, true, "" },
		{ "required, good", &alice, CONF_CLIENT_REQUIRED, { 0 }, NULL, 0, true, "" },
		{ "none wanted", &mallory, CONF_CLIENT_NONE, { 0 }, NULL, 0, true, "" },
		{ "required, none", NULL, CONF_CLIENT_REQUIRED, { 0 }, NULL, 0, false,
			"peer did not return a certificate" },
		{ "another authority", &mallory, CONF_CLIENT_OPTIONAL, { 0 }, NULL, 0, false,
			"unable to get local issuer certificate" },
		{ "no purpose", &no_purpose, CONF_CLIENT_OPTIONAL, { 0 }, NULL, 0, false,
			"unsuitable certificate purpose" },
		{ "a server's", &server_only, CONF_CLIENT_OPTIONAL, { 0 }, NULL, 0, false,
			"unsuitable certificate purpose" },
		{ "not revoked", &alice, CONF_CLIENT_OPTIONAL, crl, NULL, 0, true, "" },
		{ "revoked", &revoked, CONF_CLIENT_OPTIONAL, crl, NULL, 0, false,
			"certificate revoked" },
		{ "old list", &alice, CONF_CLIENT_OPTIONAL, old_crl, NULL, 0, false,
			"CRL has expired" },
		{ "another's list", &alice, CONF_CLIENT_OPTIONAL, other_crl, NULL, 0, false,
			"unable to get certificate CRL" },
		{ "h2 alone", NULL, CONF_CLIENT_OPTIONAL, { 0 }, "\x02h2", 0, false,
			"no application protocol" },
		{ "TLS 1.2", NULL, CONF_CLIENT_OPTIONAL, { 0 }, NULL, TLS1_2_VERSION, false,
			"unsupported protocol" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct conf with = conf;
		struct client client = { .talk = say_hello,
			.show = rows[i].show,
			.alpn = rows[i].alpn,
			.max_version = rows[i].max_version };
		struct server_side side = { 0 };

		print_message("  %s\n", rows[i].name);
		with.tls.client_certificate = rows[i].mode;
		with.tls.client_crl = rows[i].crl.len > 0 ? "crl" : "";
		with.tls.client_crl_pem = rows[i].crl;
		serve(&side, &with, &events, &client);
		assert_string_equal(side.why, rows[i].why);
		assert_int_equal(client.got, rows[i].served ? 5 : 0);
		assert_int_equal(side.was_ready, rows[i].served);
		if (rows[i].served)
			assert_int_equal(side.has_certificate,
				rows[i].show && rows[i].mode != CONF_CLIENT_NONE);
		/* The alert reached it: its read did not end by a reset. */
		else if (client.connected)
			assert_int_equal(client.end, SSL_ERROR_SSL);
	}
	free((void *)(uintptr_t)crl.ptr);
	free((void *)(uintptr_t)old_crl.ptr);
	free((void *)(uintptr_t)other_crl.ptr);
}

static void test_tls_1_2_when_told_so(void **state)
{
	static const struct stream_events events = { note_ready, echo_and_close, never,
		close_when_ended };
	struct conf with = conf;
	struct client client = {
		.talk = say_hello, .show = &alice, .max_version = TLS1_2_VERSION
	};
	struct server_side side = { 0 };

	(void)state;
	with.tls.min_version_12 = true;
	serve(&side, &with, &events, &client);
	assert_int_equal(client.got, 5);
	assert_true(side.has_certificate);
	assert_false(client.has_ticket);
}

static void test_bad_material_is_named(void **state)
{
	struct sv other_key = key_pem(alice.key);
	struct conf bad = conf;
	struct err err;

	(void)state;
	bad.tls.key_pem = other_key;
	assert_null(tls_context_new(&bad, &err));
	assert_string_equal(err.text, "tls.key = \"test\": key values mismatch");
	bad = conf;
	bad.tls.certificate_pem = SV("nonsense");
	assert_null(tls_context_new(&bad, &err));
	assert_string_equal(err.text, "tls.certificate = \"test\": no start line");
	bad = conf;
	bad.tls.client_ca_pem = SV("");
	assert_null(tls_context_new(&bad, &err));
	assert_non_null(strstr(err.text, "tls.client_ca = \"test\": "));
	free((void *)(uintptr_t)other_key.ptr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words_there_and_back),
		cmocka_unit_test(test_a_long_answer_is_queued_in_pieces),
		cmocka_unit_test(test_a_cut_says_what_it_has_and_no_more),
		cmocka_unit_test(test_an_abort_is_no_orderly_end),
		cmocka_unit_test(test_input_is_read_up_to_its_limit),
		cmocka_unit_test(test_a_client_that_leaves_is_noticed_though_nobody_reads),
		cmocka_unit_test(test_who_may_come_in),
		cmocka_unit_test(test_tls_1_2_when_told_so),
		cmocka_unit_test(test_bad_material_is_named),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, make_all, free_all);
}
