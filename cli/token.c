/*
 * token.c - `postern token issue`: a signed JSON Web Token, for tests and for those without a
 * login service.
 */
#include <getopt.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/output.h"

#define TOKEN_MAX     8192 /* what posternd takes */
#define KEY_MAX       16384
#define SECRET_MIN    32
#define SIGNATURE_MAX 1024
#define TTL_DEFAULT   3600
#define TTL_MAX       31536000UL
#define JTI_SIZE      16

enum family {
	FAMILY_HMAC,
	FAMILY_RSA,
	FAMILY_EC,
};

static const struct algorithm {
	const char *name;
	enum family family;
	int bits;       /* of the hash */
	int curve_bits; /* EC */
} algorithms[] = {
	/* The first that fits a key is what it is used with when nobody says. */
	{ "ES256", FAMILY_EC, 256, 256 },
	{ "ES384", FAMILY_EC, 384, 384 },
	{ "ES512", FAMILY_EC, 512, 521 },
	{ "RS256", FAMILY_RSA, 256, 0 },
	{ "RS384", FAMILY_RSA, 384, 0 },
	{ "RS512", FAMILY_RSA, 512, 0 },
	{ "HS256", FAMILY_HMAC, 256, 0 },
	{ "HS384", FAMILY_HMAC, 384, 0 },
	{ "HS512", FAMILY_HMAC, 512, 0 },
};

#define ALGORITHMS_LEN (sizeof(algorithms) / sizeof(algorithms[0]))

struct token_options {
	const char *key_file, *algorithm, *issuer, *audience, *subject, *scope, *kid, *output;
	unsigned long ttl_s;
};

struct signer {
	const struct algorithm *algorithm;
	EVP_PKEY *key;        /* RSA, EC */
	char secret[KEY_MAX]; /* HMAC */
	size_t secret_len;
};

/* ---- the key */

static bool fits(const struct algorithm *algorithm, EVP_PKEY *key)
{
	switch (algorithm->family) {
	case FAMILY_HMAC:
		return false;
	case FAMILY_RSA:
		return EVP_PKEY_is_a(key, "RSA");
	case FAMILY_EC:
		return EVP_PKEY_is_a(key, "EC") &&
		       EVP_PKEY_get_bits(key) == algorithm->curve_bits;
	}
	return false;
}

static const struct algorithm *find_algorithm(const char *name)
{
	for (size_t i = 0; i < ALGORITHMS_LEN; i++)
		if (strcmp(algorithms[i].name, name) == 0)
			return &algorithms[i];
	return NULL;
}

static int read_secret(const char *path, struct signer *signer, struct err *err)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return err_sys(err, "%s", path);
	signer->secret_len = fread(signer->secret, 1, sizeof(signer->secret), file);
	(void)fclose(file);
	/* As the daemon takes it: a final newline is an editor's. */
	if (signer->secret_len > 0 && signer->secret[signer->secret_len - 1] == '\n')
		signer->secret_len--;
	if (signer->secret_len < SECRET_MIN)
		return err_set(err, ERR_INPUT, "%s: a secret of %zu bytes; at least %d", path,
			signer->secret_len, SECRET_MIN);
	if (memmem(signer->secret, signer->secret_len, "-----BEGIN ", 11))
		return err_set(err, ERR_INPUT,
			"%s is a PEM key, and no secret: leave --alg out", path);
	return 0;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL says how it is declared */
static int refuse_passphrase(char *to, int size, int is_writing, void *unused)
{
	(void)to;
	(void)size;
	(void)is_writing;
	(void)unused;
	return -1;
}

static int read_key(const char *path, struct signer *signer, struct err *err)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return err_sys(err, "%s", path);
	signer->key = PEM_read_PrivateKey(file, NULL, refuse_passphrase, NULL);
	(void)fclose(file);
	ERR_clear_error();
	if (!signer->key)
		return err_set(err, ERR_INPUT,
			"%s holds no private key in PEM without passphrase; for a secret say "
			"--alg "
			"HS256",
			path);
	return 0;
}

/* That which was wanted, or (when NULL) the first that fits the key. */
static int choose_algorithm(const struct token_options *options, const struct algorithm *wanted,
	struct signer *signer, struct err *err)
{
	for (size_t i = 0; !wanted && i < ALGORITHMS_LEN; i++)
		if (fits(&algorithms[i], signer->key))
			wanted = &algorithms[i];
	if (!wanted || !fits(wanted, signer->key))
		return err_set(err, ERR_INPUT, "%s: a key of this kind does not sign %s",
			options->key_file,
			options->algorithm ? options->algorithm : "RS*, ES*");
	if (wanted->family == FAMILY_RSA && EVP_PKEY_get_bits(signer->key) < 2048)
		return err_set(err, ERR_INPUT, "%s: an RSA key of %d bits; at least 2048",
			options->key_file, EVP_PKEY_get_bits(signer->key));
	signer->algorithm = wanted;
	return 0;
}

static int load_signer(
	const struct token_options *options, struct signer *signer, struct err *err)
{
	const struct algorithm *wanted =
		options->algorithm ? find_algorithm(options->algorithm) : NULL;

	if (wanted && wanted->family == FAMILY_HMAC) {
		signer->algorithm = wanted;
		return read_secret(options->key_file, signer, err);
	}
	if (read_key(options->key_file, signer, err))
		return -1;
	return choose_algorithm(options, wanted, signer, err);
}

/* ---- the signature */

static const EVP_MD *hash_of(const struct algorithm *algorithm)
{
	if (algorithm->bits == 512)
		return EVP_sha512();
	return algorithm->bits == 384 ? EVP_sha384() : EVP_sha256();
}

/* A token has r and s side by side; OpenSSL writes them as a SEQUENCE. */
static int split_ecdsa(unsigned char *signature, size_t *len, int curve_bits)
{
	const unsigned char *at = signature;
	const int size = (curve_bits + 7) / 8;
	unsigned char both[2 * 66];
	ECDSA_SIG *parsed = d2i_ECDSA_SIG(NULL, &at, (long)*len);
	int rc = -1;

	if (parsed && BN_bn2binpad(ECDSA_SIG_get0_r(parsed), both, size) == size &&
		BN_bn2binpad(ECDSA_SIG_get0_s(parsed), both + size, size) == size) {
		*len = (size_t)size * 2;
		memcpy(signature, both, *len);
		rc = 0;
	}
	ECDSA_SIG_free(parsed);
	return rc;
}

static int sign_with_key(
	const struct signer *signer, struct sv text, unsigned char *out, size_t *len)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	int rc = -1;

	if (context &&
		EVP_DigestSignInit(
			context, NULL, hash_of(signer->algorithm), NULL, signer->key) == 1 &&
		EVP_DigestSign(context, out, len, (const unsigned char *)text.ptr, text.len) ==
			1)
		rc = 0;
	EVP_MD_CTX_free(context);
	if (rc == 0 && signer->algorithm->family == FAMILY_EC)
		rc = split_ecdsa(out, len, signer->algorithm->curve_bits);
	return rc;
}

static int sign(struct buf *token, const struct signer *signer, struct err *err)
{
	unsigned char signature[SIGNATURE_MAX];
	const struct sv text = buf_sv(token);
	size_t len = sizeof(signature);
	unsigned hmac_len = 0;
	int rc = 0;

	if (signer->algorithm->family != FAMILY_HMAC)
		rc = sign_with_key(signer, text, signature, &len);
	else if (!HMAC(hash_of(signer->algorithm), signer->secret, (int)signer->secret_len,
			 (const unsigned char *)text.ptr, text.len, signature, &hmac_len))
		rc = -1;
	else
		len = hmac_len;
	if (rc)
		return err_set(err, ERR_SYSTEM, "OpenSSL could not sign: %s",
			ERR_reason_error_string(ERR_get_error()));
	buf_add_byte(token, '.');
	base64url_encode(token, signature, len);
	return 0;
}

/* ---- the token */

static int put_claims(struct buf *out, const struct token_options *options, struct err *err)
{
	const uint64_t now = (uint64_t)(clock_unix_us() / 1000000);
	unsigned char id[JTI_SIZE];
	char jti[2 * JTI_SIZE + 1];

	if (RAND_bytes(id, sizeof(id)) != 1)
		return err_set(err, ERR_SYSTEM, "no random bytes");
	hex_encode(id, sizeof(id), jti);
	json_object_begin(out);
	json_member_cstr(out, "iss", options->issuer);
	json_member_cstr(out, "aud", options->audience);
	json_member_cstr(out, "sub", options->subject);
	if (options->scope)
		json_member_cstr(out, "scope", options->scope);
	json_member_u64(out, "iat", now);
	json_member_u64(out, "exp", now + options->ttl_s);
	json_member_cstr(out, "jti", jti);
	json_object_end(out);
	return 0;
}

static int make_token(struct buf *token, const struct token_options *options,
	const struct signer *signer, struct err *err)
{
	struct buf part;
	int rc = -1;

	buf_init(&part, TOKEN_MAX);
	json_object_begin(&part);
	json_member_cstr(&part, "alg", signer->algorithm->name);
	json_member_cstr(&part, "typ", "JWT");
	if (options->kid)
		json_member_cstr(&part, "kid", options->kid);
	json_object_end(&part);
	base64url_encode(token, part.ptr, part.len);
	buf_add_byte(token, '.');
	buf_clear(&part);
	if (put_claims(&part, options, err))
		goto out;
	base64url_encode(token, part.ptr, part.len);
	if (part.failed || token->failed || sign(token, signer, err) || token->failed) {
		if (part.failed || token->failed)
			(void)err_set(
				err, ERR_INPUT, "the token is longer than %d bytes", TOKEN_MAX);
		goto out;
	}
	rc = 0;
out:
	buf_free(&part);
	return rc;
}

static int write_token(const char *path, struct buf *token, struct err *err)
{
	struct output output;
	size_t done = 0;

	buf_add_byte(token, '\n');
	if (output_open(&output, path ? path : "-", err))
		return -1;
	while (done < token->len) {
		ssize_t n = write(output.fd, token->ptr + done, token->len - done);

		if (n <= 0) {
			(void)err_sys(err, "%s", path ? path : "standard output");
			output_abandon(&output);
			return -1;
		}
		done += (size_t)n;
	}
	/* A renewed token takes the place of the old one. */
	return output_commit(&output, true, err);
}

/* ---- the command */

/* "90", "90s", "15m", "2h": seconds. */
static bool read_ttl(const char *text, unsigned long *out)
{
	static const struct {
		char letter;
		unsigned long seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
	struct sv number = sv_from_cstr(text);
	unsigned long factor = 1;
	uint64_t n;

	for (size_t i = 0; number.len > 1 && i < sizeof(units) / sizeof(units[0]); i++)
		if (number.ptr[number.len - 1] == units[i].letter) {
			factor = units[i].seconds;
			number.len--;
			break;
		}
	if (!sv_to_u64(number, TTL_MAX / factor, &n) || n == 0)
		return false;
	*out = (unsigned long)n * factor;
	return true;
}

static const struct option longs[] = {
	{ "key", required_argument, NULL, 'k' },
	{ "alg", required_argument, NULL, 'a' },
	{ "issuer", required_argument, NULL, 'i' },
	{ "audience", required_argument, NULL, 'A' },
	{ "subject", required_argument, NULL, 's' },
	{ "scope", required_argument, NULL, 'S' },
	{ "ttl", required_argument, NULL, 't' },
	{ "kid", required_argument, NULL, 'K' },
	{ "output", required_argument, NULL, 'o' },
	{ NULL, 0, NULL, 0 },
};

static bool take_option(struct token_options *options, int option, const char *value)
{
	switch (option) {
	case 'k':
		options->key_file = value;
		return true;
	case 'a':
		options->algorithm = value;
		return true;
	case 'i':
		options->issuer = value;
		return true;
	case 'A':
		options->audience = value;
		return true;
	case 's':
		options->subject = value;
		return true;
	case 'S':
		options->scope = value;
		return true;
	case 'K':
		options->kid = value;
		return true;
	case 'o':
		options->output = value;
		return true;
	default:
		return false;
	}
}

static int read_options(int argc, char **argv, struct token_options *options)
{
	int option;

	while ((option = getopt_long(argc, argv, "o:", longs, NULL)) != -1) {
		if (option == 't') {
			if (!read_ttl(optarg, &options->ttl_s))
				return cli_usage(&token_command,
					"--ttl '%s': as 90s, 15m, 8h; at most 365d", optarg);
		} else if (!take_option(options, option, optarg)) {
			return cli_usage(&token_command, NULL);
		}
	}
	if (optind != argc)
		return cli_usage(&token_command, "'%s' is one too many", argv[optind]);
	if (!options->key_file || !options->issuer || !options->subject)
		return cli_usage(&token_command, "--key, --issuer and --subject are needed");
	if (options->algorithm && !find_algorithm(options->algorithm))
		return cli_usage(&token_command,
			"--alg '%s': ES256, ES384, ES512, RS256, RS384, RS512, HS256, HS384 or "
			"HS512",
			options->algorithm);
	return CLI_DONE;
}

static int token_main(int argc, char **argv)
{
	struct token_options options = { .audience = "postern", .ttl_s = TTL_DEFAULT };
	struct signer signer = { .algorithm = &algorithms[0] };
	struct buf token;
	struct err err;
	int rc;

	if (argc < 2 || strcmp(argv[1], "issue") != 0)
		return cli_usage(&token_command, "the one thing it does is `token issue`");
	argv[1] = argv[0];
	rc = read_options(argc - 1, argv + 1, &options);
	if (rc)
		return rc;
	buf_init(&token, TOKEN_MAX + 1);
	if (load_signer(&options, &signer, &err) ||
		make_token(&token, &options, &signer, &err) ||
		write_token(options.output, &token, &err))
		rc = cli_fail_err(&err);
	EVP_PKEY_free(signer.key);
	OPENSSL_cleanse(&signer, sizeof(signer));
	if (token.ptr)
		OPENSSL_cleanse(token.ptr, token.len);
	buf_free(&token);
	return rc;
}

const struct cli_command token_command = {
	.name = "token",
	.arguments =
		"issue --key FILE --issuer URL --subject NAME [--scope S] [--ttl D] [-o FILE]",
	.summary = "Sign a token that lets its bearer in",
	.help = "  --key FILE       private key, PEM; with --alg HS*: the secret\n"
		"  --alg NAME       ES256 to ES512, RS256 to RS512, HS256 to HS512; default: "
		"by the key\n"
		"  --issuer URL     as in the daemon's jwt.issuer\n"
		"  --audience NAME  as in its jwt.audience; default: postern\n"
		"  --subject NAME   who it is for, as the audit log will say\n"
		"  --scope S        what its bearer may do, as the grants match it: \"a b\"\n"
		"  --ttl D          how long it holds: 90s, 15m, 8h; default: 1h\n"
		"  --kid ID         which of the issuer's keys it was\n"
		"  -o, --output F   a file, readable by you alone; default: standard output",
	.example = "postern token issue --key jwt.key --issuer https://login.example.com \\\n"
		   "    --subject alice --scope pprof:read -o token",
	.run = token_main,
};
