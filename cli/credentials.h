/*
 * credentials.h - the bearer token that goes with each request, if the settings name one.
 */
#ifndef CLI_CREDENTIALS_H
#define CLI_CREDENTIALS_H

#include <stdint.h>

#include "base/err.h"
#include "cli/settings.h"

#define TOKEN_SIZE (8192 + 1)

struct credentials {
	const struct settings *settings;
	uint64_t token_ms;      /* private: when token_command last ran */
	char token[TOKEN_SIZE]; /* "" when the settings name none */
};

/* Bring the token up to date: a token file is read each time, so that a renewed one is used at
 * once; token_command runs again when its answer is older than a minute. The token is wiped by
 * credentials_wipe(). */
int credentials_refresh(struct credentials *credentials, uint64_t now_ms, struct err *err);

void credentials_wipe(struct credentials *credentials);

#endif
