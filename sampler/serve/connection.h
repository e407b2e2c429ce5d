/*
 * connection.h - one client of the loopback server or the control socket: read a request, answer it, read the
 * next.
 */
#ifndef SAMPLER_CONNECTION_H
#define SAMPLER_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/names/lines.h"
#include "sampler/serve/endpoint.h"
#include "sampler/serve/lease.h"
#include "sampler/serve/outgoing.h"
#include "sampler/serve/power.h"
#include "sampler/settings.h"

enum connection_state {
	CONNECTION_FREE = 0,
	CONNECTION_READING,
	CONNECTION_CAPTURING, /* until `deadline_ns`, or until the client goes away */
	CONNECTION_NAMING,    /* until source lines are there, or `deadline_ns` */
	CONNECTION_WRITING,
	CONNECTION_STREAMING, /* both: the answer is sent as it comes */
};

#define CONNECTION_IN_MAX ((size_t)16 << 10)

struct connection {
	enum connection_state state;
	int socket;
	struct power *controls; /* of the control socket: what it is about; else NULL */
	struct lease lease;
	uint64_t
		deadline_ns; /* of reading or writing, too: an idle client does not hold a place */
	bool close_after, is_head, is_http10;
	struct arena arena; /* of the request that is being answered */
	struct capture capture;
	struct answer answer;
	struct lines_job job; /* what names are waited for */
	struct buf head;
	struct outgoing outgoing;
	/* Of an answer that is streamed: how far its body was sent, and what is on its way; nothing is added
	 * any more; nothing follows. */
	size_t body_at, chunk;
	bool is_whole, is_last;
	size_t in_len;
	char in[CONNECTION_IN_MAX];
};

/* `controls`: it came by the control socket. */
void connection_begin(
	struct connection *connection, int socket, struct power *controls, uint64_t now);

/* Go on as far as it goes without waiting. */
void connection_step(
	struct connection *connection, const struct settings *settings, uint64_t now);

/* Is there something to do without its client: the time has come, or what it waited for? */
bool connection_is_due(const struct connection *connection, uint64_t now);

/* What poll() shall wait for. */
short connection_events(const struct connection *connection);

/* Cuts a capture that it had begun, and ends its lease. */
void connection_close(struct connection *connection);

#endif
