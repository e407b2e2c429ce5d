/*
 * conn.h - one client's connection, and the request that it is in.
 *
 *   HANDSHAKE → READING ⇄ … → RECORDING → DIALING → PROXYING → READING (kept) or closed
 *
 * A request exists from its whole head on until its `completed`, `cut` or `refused` record.
 */
#ifndef GATEWAY_CONN_H
#define GATEWAY_CONN_H

#include "acl/addr.h"
#include "auth/cert.h"
#include "auth/grant.h"
#include "gateway/problem.h"
#include "gateway/routes.h"
#include "gateway/stream.h"
#include "gateway/worker.h"

enum conn_state {
	CONN_HANDSHAKE = 0,
	CONN_READING,   /* between requests, or in a head or a body */
	CONN_RECORDING, /* the `received` record is on its way to the disk */
	CONN_DIALING,   /* it is there; the keeper connects to the target */
	CONN_PROXYING,
};

#define REQUEST_ID_LEN 32

struct proxy;

struct request {
	char id[REQUEST_ID_LEN + 1];
	uint64_t number;       /* ipc.h's; 0 until it is recorded */
	uint64_t began_ms;     /* CLOCK_BOOTTIME */
	uint64_t forwarded_ms; /* when the target got it */
	enum http_method method;
	char method_name[16], path[256], params[128];
	bool plain, close; /* how the client wants a refusal; no request after this one */
	struct route route;
	struct params what;
	struct claims token;
	char *token_text; /* of a capture, which a reload may ask about again; NULL: none */
	size_t token_len;
	struct identity identity;         /* into this request and its connection */
	const struct conf_target *target; /* NULL: the gate itself answers */
	char target_name[72];             /* as the audit log has it */
	int slot;                         /* -1: none */
	uint16_t status;                  /* once it was answered */
	uint64_t bytes;                   /* of body that went to the client */
	char *body;                       /* of POST, or the symbols of GET */
	size_t body_len;
	/* The keeper's word may come before the scribe's, since they go different ways. */
	bool dialed;
	int dialed_fd, dialed_error;
	struct proxy *proxy;
};

struct conn {
	struct worker *worker;
	struct conn *next, *previous;
	enum conn_state state;
	struct stream *stream;
	struct event *deadline;
	struct addr addr;
	uint16_t port;
	bool in_head, continued; /* bytes of a head are there; "100 Continue" was said */
	size_t taken; /* input that the request under way still borrows from the stream */
	bool again;   /* a request that came together with the one before waits to be read */
	struct cert *cert;       /* NULL: none; ends behind its last name */
	struct request *request; /* NULL between two */
	uint64_t progress;       /* bytes sent when last looked at */
};

/* Take an accepted connection that passed the address checks. Closes `fd` when it fails. */
void conn_begin(struct worker *worker, int fd, const struct addr *addr, uint16_t port);

/* Record a refusal of something that has no connection yet. */
void conn_refuse_address(
	struct worker *worker, const struct addr *addr, uint16_t port, enum problem problem);

/* Answer the request that is under way, or about to be, with a problem, and record it. `request`
 * may be NULL, when the head could not be read. */
struct refusal {
	enum problem problem;
	const char
		*detail; /* for the client; NULL: the usual. Static, or nothing of its bytes */
	const char *audit_detail; /* for the operator; NULL: none */
	uint64_t retry_after_s;
	bool close;
};

void conn_refuse(struct conn *conn, const struct refusal *refusal);

/* The decision: everything between a whole head and its `received` record (decide.c). */
void conn_decide(struct conn *conn, const struct http_request *head, struct sv body);

/* May this identity still do what it is doing, by this configuration? */
bool conn_is_allowed(const struct conn *conn, const struct conf *conf, enum problem *why);

/* May the request that runs go on under a new configuration, of which `tls` was made (recheck.c)? */
bool conn_may_go_on(const struct conn *conn, const struct conf *conf, SSL_CTX *tls);

/* Write the record and go on when it is on disk. */
void conn_record_received(struct conn *conn);
void conn_received(struct conn *conn, bool on_disk);
void conn_dialed(struct conn *conn, int fd, int error);

/* The answer is out as far as the stream is concerned. */
void conn_completed(struct conn *conn);

/* It ends here, in the middle: the target is let go, the client sees an incomplete answer. */
void conn_cut(struct conn *conn, const char *reason);

/* Close between requests. */
void conn_close(struct conn *conn);

void conn_set_deadline(struct conn *conn, uint64_t ms);

/* Fill in all of a record that is known of the connection and its request. `texts` are the buffers
 * that it points into. */
struct record_texts {
	char address[ADDR_TEXT_SIZE];
	char principal[CERT_TEXT_MAX];
};

void conn_fill_record(
	const struct conn *conn, struct audit_record *record, struct record_texts *texts);

/* Answers of the gate's own (builtin.c). */
void builtin_answer(struct conn *conn);

/* The request at the target (proxy.c): takes the descriptor; calls conn_completed() or conn_cut(). */
void proxy_begin(struct conn *conn, int fd);
void proxy_drained(struct conn *conn);
void proxy_free(struct proxy *proxy);

#endif
