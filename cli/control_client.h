/*
 * control_client.h - find a sampler by name or number, and ask it on its control socket: HTTP and JSON.
 */
#ifndef CLI_CONTROL_CLIENT_H
#define CLI_CONTROL_CLIENT_H

#include <jansson.h>

#include "base/announce.h"
#include "base/err.h"

struct control_target {
	int fd;            /* connected; whoever closes it ends what was asked for on it */
	const char *token; /* bearer token to show with each request; NULL: none */
	uint32_t pid, uid;
	char name[64]; /* as it says it is called */
	bool is_asleep;
};

/* `folder`: NULL: POSTERN_RUNTIME_DIR, else where samplers announce themselves unless told otherwise. */
int control_find(
	const char *folder, const char *what, struct control_target *out, struct err *err);

/*
 * Ask, on a connection that stays. `json` is the body of a POST, or NULL.
 * `out`: the answer of a 200, to be json_decref()ed.  -1: anything else, in words.
 */
int control_ask(const struct control_target *target, const char *method, const char *path,
	const char *json, json_t **out, struct err *err);

#endif
