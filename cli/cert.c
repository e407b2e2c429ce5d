/*
 * cert.c - `postern cert init`: an authority, certificates for the gate and for one client, and the
 * pair of keys for tokens. Enough to begin with, or to try things; a real PKI does it better.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/cli.h"
#include "cli/output.h"

#define HOSTS_MAX    16
#define DAYS_DEFAULT 30
#define DAYS_MAX     3650
#define PATH_SIZE    4096
#define NAME_MAX_LEN 64 /* of a common name, RFC 5280 */
#define SAN_SIZE     4096

struct cert_options {
	const char *folder, *client;
	const char *hosts[HOSTS_MAX];
	size_t hosts_len;
	unsigned long days;
};

struct pair {
	EVP_PKEY *key;
	X509 *cert;
};

static int fail_openssl(struct err *err, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_get_error());

	return err_set(err, ERR_SYSTEM, "%s: %s", what, reason ? reason : "OpenSSL failed");
}

/* ---- certificates */

static int add_extension(X509 *cert, X509 *issuer, int nid, const char *value, struct err *err)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	int rc;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	if (!extension)
		return fail_openssl(err, value);
	rc = X509_add_ext(cert, extension, -1) == 1 ? 0 : fail_openssl(err, value);
	X509_EXTENSION_free(extension);
	return rc;
}

/* Positive, random, 127 bits: no two alike, and it gives nothing away. */
static int set_serial(X509 *cert)
{
	unsigned char bytes[16];
	BIGNUM *number;
	int rc = -1;

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return -1;
	bytes[0] &= 0x7f;
	bytes[sizeof(bytes) - 1] |= 1;
	number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	if (number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)))
		rc = 0;
	BN_free(number);
	return rc;
}

static int set_names(X509 *cert, const X509 *issuer, const char *name)
{
	X509_NAME *subject = X509_get_subject_name(cert);

	if (X509_NAME_add_entry_by_txt(
		    subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0) != 1)
		return -1;
	return X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject) == 1
		       ? 0
		       : -1;
}

/* A key and its certificate, without the extensions and the signature. */
static int begin_pair(struct pair *pair, const struct pair *issuer, const char *name,
	unsigned long days, struct err *err)
{
	pair->key = EVP_EC_gen("P-256");
	pair->cert = X509_new();
	if (!pair->key || !pair->cert)
		return fail_openssl(err, name);
	/* A few minutes back, for clocks that are a little behind. */
	if (X509_set_version(pair->cert, X509_VERSION_3) != 1 || set_serial(pair->cert) ||
		!X509_gmtime_adj(X509_getm_notBefore(pair->cert), -300) ||
		!X509_time_adj_ex(X509_getm_notAfter(pair->cert), (int)days, 0, NULL) ||
		X509_set_pubkey(pair->cert, pair->key) != 1 ||
		set_names(pair->cert, issuer ? issuer->cert : NULL, name))
		return fail_openssl(err, name);
	return 0;
}

static int make_authority(struct pair *ca, unsigned long days, struct err *err)
{
	if (begin_pair(ca, NULL, "Postern throw-away authority", days, err) ||
		add_extension(ca->cert, ca->cert, NID_basic_constraints,
			"critical,CA:TRUE,pathlen:0", err) ||
		add_extension(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign",
			err) ||
		add_extension(ca->cert, ca->cert, NID_subject_key_identifier, "hash", err))
		return -1;
	return X509_sign(ca->cert, ca->key, EVP_sha256()) ? 0 : fail_openssl(err, "authority");
}

struct leaf {
	const char *name, *purpose, *san;
};

static int make_leaf(struct pair *pair, const struct pair *ca, const struct leaf *leaf,
	unsigned long days, struct err *err)
{
	if (begin_pair(pair, ca, leaf->name, days, err) ||
		add_extension(pair->cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE",
			err) ||
		add_extension(pair->cert, ca->cert, NID_key_usage, "critical,digitalSignature",
			err) ||
		add_extension(pair->cert, ca->cert, NID_ext_key_usage, leaf->purpose, err) ||
		add_extension(pair->cert, ca->cert, NID_subject_alt_name, leaf->san, err) ||
		add_extension(pair->cert, ca->cert, NID_subject_key_identifier, "hash", err) ||
		add_extension(pair->cert, ca->cert, NID_authority_key_identifier, "keyid", err))
		return -1;
	return X509_sign(pair->cert, ca->key, EVP_sha256()) ? 0 : fail_openssl(err, leaf->name);
}

/* ---- files */

static const char *const file_names[] = { "ca.pem", "ca.key", "server.pem", "server.key",
	"client.pem", "client.key", "jwt.key", "jwt.pub.pem" };

#define FILES_LEN (sizeof(file_names) / sizeof(file_names[0]))

static int write_file(const char *folder, const char *name, BIO *content, struct err *err)
{
	struct output output;
	char path[PATH_SIZE];
	char *bytes;
	long len = BIO_get_mem_data(content, &bytes);

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (output_open(&output, path, err))
		return -1;
	if (write(output.fd, bytes, (size_t)len) != len) {
		(void)err_sys(err, "%s", path);
		output_abandon(&output);
		return -1;
	}
	return output_commit(&output, false, err);
}

enum content {
	CONTENT_CERT,
	CONTENT_PRIVATE,
	CONTENT_PUBLIC,
};

static int put_content(BIO *bio, const struct pair *pair, enum content content)
{
	switch (content) {
	case CONTENT_CERT:
		return PEM_write_bio_X509(bio, pair->cert);
	case CONTENT_PRIVATE:
		return PEM_write_bio_PrivateKey(bio, pair->key, NULL, NULL, 0, NULL, NULL);
	case CONTENT_PUBLIC:
		return PEM_write_bio_PUBKEY(bio, pair->key);
	}
	return 0;
}

static int save(const char *folder, const char *name, const struct pair *pair,
	enum content content, struct err *err)
{
	/* Of its own kind: wiped when it is freed. */
	BIO *bio = BIO_new(BIO_s_secmem());
	int rc = -1;

	if (!bio || !put_content(bio, pair, content))
		(void)fail_openssl(err, name);
	else
		rc = write_file(folder, name, bio, err);
	BIO_free(bio);
	return rc;
}

static int check_folder(const char *folder, struct err *err)
{
	char path[PATH_SIZE];

	if (mkdir(folder, 0700) && errno != EEXIST)
		return err_sys(err, "%s", folder);
	for (size_t i = 0; i < FILES_LEN; i++) {
		if (snprintf(path, sizeof(path), "%s/%s", folder, file_names[i]) >=
			(int)sizeof(path))
			return err_set(err, ERR_INPUT, "the name of the folder is too long");
		if (access(path, F_OK) == 0)
			return err_set(err, ERR_INPUT,
				"%s is there already; nothing is written over: choose another "
				"--dir",
				path);
	}
	return 0;
}

/* ---- the command */

static bool is_address(const char *host)
{
	unsigned char bytes[16];

	return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* No character that means something in the value of an extension, or in a URI's path. */
static bool is_name(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_.";

	return name[0] && name[0] != '.' && strlen(name) <= NAME_MAX_LEN &&
	       name[strspn(name, allowed)] == '\0';
}

static int server_names(
	const struct cert_options *options, char out[static SAN_SIZE], struct err *err)
{
	struct buf names;

	buf_init_fixed(&names, out, SAN_SIZE - 1);
	buf_add_cstr(&names, "DNS:localhost,IP:127.0.0.1,IP:::1");
	for (size_t i = 0; i < options->hosts_len; i++)
		buf_printf(&names, ",%s:%s", is_address(options->hosts[i]) ? "IP" : "DNS",
			options->hosts[i]);
	if (names.failed)
		return err_set(err, ERR_INPUT, "too many hosts");
	out[names.len] = '\0';
	return 0;
}

static int make_all(const struct cert_options *options, struct pair pairs[static 4],
	char san[static SAN_SIZE], struct err *err)
{
	struct pair *ca = &pairs[0], *server = &pairs[1], *client = &pairs[2], *jwt = &pairs[3];
	const char *folder = options->folder;
	struct leaf leaf = { "postern", "serverAuth", san };
	char uri[256];

	if (make_authority(ca, options->days, err) || server_names(options, san, err) ||
		make_leaf(server, ca, &leaf, options->days, err))
		return -1;
	(void)snprintf(
		uri, sizeof(uri), "URI:spiffe://postern.local/client/%s", options->client);
	leaf = (struct leaf){ options->client, "clientAuth", uri };
	if (make_leaf(client, ca, &leaf, options->days, err))
		return -1;
	jwt->key = EVP_EC_gen("P-256");
	if (!jwt->key)
		return fail_openssl(err, "jwt.key");
	if (save(folder, "ca.key", ca, CONTENT_PRIVATE, err) ||
		save(folder, "ca.pem", ca, CONTENT_CERT, err) ||
		save(folder, "server.key", server, CONTENT_PRIVATE, err) ||
		save(folder, "server.pem", server, CONTENT_CERT, err) ||
		save(folder, "client.key", client, CONTENT_PRIVATE, err) ||
		save(folder, "client.pem", client, CONTENT_CERT, err) ||
		save(folder, "jwt.key", jwt, CONTENT_PRIVATE, err) ||
		save(folder, "jwt.pub.pem", jwt, CONTENT_PUBLIC, err))
		return -1;
	printf("%s: ca.pem, server.pem for %s, client.pem for %s, jwt.key; each for %lu days\n",
		folder, san, uri, options->days);
	return 0;
}

static int take_host(struct cert_options *options, const char *host)
{
	if (options->hosts_len == HOSTS_MAX)
		return cli_usage(&cert_command, "more than %d --host", HOSTS_MAX);
	if (!is_address(host) && !is_name(host))
		return cli_usage(&cert_command, "--host '%s': a name or an address", host);
	options->hosts[options->hosts_len++] = host;
	return CLI_DONE;
}

static int read_options(int argc, char **argv, struct cert_options *options)
{
	static const struct option longs[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "host", required_argument, NULL, 'h' },
		{ "client", required_argument, NULL, 'c' },
		{ "days", required_argument, NULL, 'D' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (option == 'd')
			options->folder = optarg;
		else if (option == 'c')
			options->client = optarg;
		else if (option == 'h' && take_host(options, optarg))
			return CLI_USAGE;
		else if (option == 'D' && !cli_number(optarg, 1, DAYS_MAX, &options->days))
			return cli_usage(
				&cert_command, "--days '%s': 1 to %d", optarg, DAYS_MAX);
		else if (option == '?')
			return cli_usage(&cert_command, NULL);
	}
	if (optind != argc)
		return cli_usage(&cert_command, "'%s' is one too many", argv[optind]);
	if (!is_name(options->client))
		return cli_usage(&cert_command,
			"--client '%s': letters, digits, '-', '_' and '.', at most %d",
			options->client, NAME_MAX_LEN);
	return CLI_DONE;
}

static int cert_main(int argc, char **argv)
{
	struct cert_options options = { .folder = ".", .client = "you", .days = DAYS_DEFAULT };
	struct pair pairs[4] = { 0 };
	char san[SAN_SIZE];
	struct err err;
	int rc;

	if (argc < 2 || strcmp(argv[1], "init") != 0)
		return cli_usage(&cert_command, "the one thing it does is `cert init`");
	argv[1] = argv[0];
	rc = read_options(argc - 1, argv + 1, &options);
	if (rc)
		return rc;
	if (check_folder(options.folder, &err) || make_all(&options, pairs, san, &err))
		rc = cli_fail_err(&err);
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		X509_free(pairs[i].cert);
		EVP_PKEY_free(pairs[i].key);
	}
	return rc;
}

const struct cli_command cert_command = {
	.name = "cert",
	.arguments = "init [--dir DIR] [--host NAME]... [--client NAME] [--days N]",
	.summary = "Make certificates and keys to begin with",
	.help = "Makes, and never writes over: ca.pem, ca.key; server.pem, server.key for the "
		"gate;\n"
		"client.pem, client.key; jwt.key, which signs tokens, and jwt.pub.pem, which "
		"checks\n"
		"them. All readable by you alone. Keep ca.key and jwt.key away from the gate.\n"
		"  --dir DIR      where to; default: here\n"
		"  --host NAME    name or address of the gate, besides localhost; several are "
		"fine\n"
		"  --client NAME  the client is URI:spiffe://postern.local/client/NAME; "
		"default: you\n"
		"  --days N       how long they hold; default: 30",
	.example = "postern cert init --dir pki --host gate.example.com --client alice",
	.run = cert_main,
};
