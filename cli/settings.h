/*
 * settings.h - how to reach the gateway: from flags, else POSTERN_URL and its like, else the
 * context named by -C (or POSTERN_CONTEXT) in ~/.config/postern/config.
 *
 * A command puts SETTINGS_SHORT into its short options and SETTINGS_LONG into its long ones, gives
 * what getopt_long() returns to settings_take(), and calls settings_complete() at the end.
 *
 * The file of contexts:
 *
 *   [prod]
 *   url = https://gate.example.com:6061
 *   token_file = /home/me/prod.token
 */
#ifndef CLI_SETTINGS_H
#define CLI_SETTINGS_H

#include <getopt.h>
#include <stdbool.h>

#include "base/err.h"

/* Each is NULL when nothing said it. */
struct settings {
	const char *url;           /* "https://127.0.0.1:6061", without a final slash */
	const char *token_file;    /* a bearer token, alone in a file */
	const char *cert, *key;    /* client certificate and its key, PEM */
	const char *ca;            /* who signed the gateway's certificate, PEM */
	const char *server_name;   /* the name its certificate must have, when not the URL's */
	const char *token_command; /* a command whose standard output is the token */
	const char *admin;         /* the admin socket's path */
	const char *context;       /* private: -C */
};

#define SETTINGS_SHORT "C:"

enum settings_option {
	SETTINGS_URL = 0x100,
	SETTINGS_TOKEN_FILE,
	SETTINGS_CERT,
	SETTINGS_KEY,
	SETTINGS_CA,
	SETTINGS_SERVER_NAME,
	SETTINGS_ADMIN,
};

#define SETTINGS_LONG                                                                 \
	{ "context", required_argument, NULL, 'C' },                                  \
		{ "url", required_argument, NULL, SETTINGS_URL },                     \
		{ "token-file", required_argument, NULL, SETTINGS_TOKEN_FILE },       \
		{ "cert", required_argument, NULL, SETTINGS_CERT },                   \
		{ "key", required_argument, NULL, SETTINGS_KEY },                     \
		{ "ca", required_argument, NULL, SETTINGS_CA },                       \
		{ "tls-server-name", required_argument, NULL, SETTINGS_SERVER_NAME }, \
	{                                                                             \
		"admin", required_argument, NULL, SETTINGS_ADMIN                      \
	}

/* For the help of a command that fetches, and of one that talks to the admin socket. */
#define SETTINGS_HELP                                                                       \
	"Connection (else the environment variable, else the context):\n"                   \
	"  --url URL             POSTERN_URL         https://HOST:PORT of the gateway\n"    \
	"  --ca FILE             POSTERN_CA          who signed its certificate\n"          \
	"  --token-file FILE     POSTERN_TOKEN_FILE  a file that holds a bearer token\n"    \
	"  --cert FILE           POSTERN_CERT        client certificate\n"                  \
	"  --key FILE            POSTERN_KEY         its key; default: in the same file\n"  \
	"  --tls-server-name N                       name in its certificate, if another\n" \
	"  -C, --context NAME    POSTERN_CONTEXT     section of ~/.config/postern/config"
#define SETTINGS_HELP_ADMIN                                                        \
	"  --admin PATH          POSTERN_ADMIN       the admin socket; default:\n" \
	"                                            /run/postern/admin.sock"

/* True when the option was one of SETTINGS_LONG or SETTINGS_SHORT. Borrows `value`. */
bool settings_take(struct settings *settings, int option, const char *value);

/* Fill in what no flag said. What it takes from the file lives until the program ends. */
int settings_complete(struct settings *settings, struct err *err);

#endif
