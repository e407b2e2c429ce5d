/*
 * control.h - what is asked on the control socket, in the same strict HTTP as on the server's:
 *
 *	GET  /control              who is this: the announcement, as JSON (docs/sampler.md)
 *	POST /control/wake         be awake until this connection ends: a lease (lease.h)
 *	GET, POST /debug/pprof/rates   the rates; POST on a connection that holds a lease, while it lasts
 *
 * POST takes application/json only.
 */
#ifndef SAMPLER_CONTROL_H
#define SAMPLER_CONTROL_H

#include "sampler/serve/endpoint.h"
#include "sampler/serve/power.h"

/* question->lease is the connection's own. */
void control_ask(struct power *power, const struct question *question, struct answer *answer);

/* What anybody who gets to the socket may ask, without a token. */
bool control_is_public(const struct http_request *request);

#endif
