/*
 * admin_client.h - one request to posternd's admin socket: HTTP and JSON over a unix socket.
 */
#ifndef CLI_ADMIN_CLIENT_H
#define CLI_ADMIN_CLIENT_H

#include "base/err.h"
#include "base/sv.h"

struct admin_answer {
	unsigned status;
	struct sv body; /* what was answered, usually JSON */
	char *mem;      /* private */
};

/*
 * Ask and wait for the whole answer (30 s at most). `json` is the body of a POST, or NULL.
 * 0: there is an answer, whatever its status; to be freed. -1: there is none; `err` says what
 * to do about it.
 */
int admin_ask(const char *socket_path, const char *method, const char *path, const char *json,
	struct admin_answer *out, struct err *err);

void admin_answer_free(struct admin_answer *answer);

#endif
