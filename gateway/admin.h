/*
 * admin.h - the admin plane: HTTP and JSON on a unix socket, for those whose uid may.
 *
 * admin.c has the socket and its connections, admin_api.c what is asked and answered, admin_rates.c of it what
 * goes on to targets.
 */
#ifndef GATEWAY_ADMIN_H
#define GATEWAY_ADMIN_H

#include "gateway/keeper.h"
#include "http/head.h"

struct admin;

/* Bind admin.socket: one left over by a daemon that is gone is replaced, anything else there is an
 * error. NULL: see `err`. */
struct admin *admin_new(struct keeper *keeper, struct err *err);

/* From now on requests are answered. */
int admin_start(struct admin *admin, struct err *err);

/* NULL is fine. Removes the socket. */
void admin_free(struct admin *admin);

/* One request, read whole. */
struct admin_request {
	const struct http_request *head;
	struct sv body;
	struct actor actor;
};

struct admin_reply {
	unsigned status;
	const char *content_type;
	const char *allow; /* of a 405, or NULL */
	struct buf body;   /* to be initialised by the caller */
	bool is_later;     /* nothing yet: admin_answer() comes */
	const char *slug;  /* of a refusal, for the audit; NULL: none */
};

/* Fill in the reply. `later` is given back to admin_answer() if the reply is not there yet. */
void admin_api(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later);

/* POST /v1/targets/NAME/rates; the path is of that form. */
void admin_rates(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later);

/* The answer to an opening, and to a change of rates. */
void admin_answer(void *later, int status, const char *detail);
void admin_answer_rates(void *later, int status, const char *detail);

/* The parts of a reply that admin.c needs too. */
void admin_refuse(
	struct admin_reply *reply, unsigned status, const char *slug, const char *detail);
void admin_put_status(struct keeper *keeper, struct admin_reply *reply);

#endif
