/*
 * token_scan.h - the form of a token, before anything is believed. Private to auth/.
 */
#ifndef AUTH_TOKEN_SCAN_H
#define AUTH_TOKEN_SCAN_H

#include <jansson.h>

#include "base/err.h"
#include "base/sv.h"

struct token {
	json_t *head, *payload; /* objects */
	const char *algorithm;  /* of head */
	const char *kid;        /* of head, or NULL */
	size_t signature_len;   /* bytes */
};

/* Take a token apart; refuse whatever is not canonical. Fini also after a failure. */
int token_scan(struct sv text, struct token *out, struct err *err);
void token_fini(struct token *token);

#endif
