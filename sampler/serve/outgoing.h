/*
 * outgoing.h - bytes on their way to a client: a head and a body, or a part of a chunked body (RFC 9112,
 * section 7.1).
 */
#ifndef SAMPLER_OUTGOING_H
#define SAMPLER_OUTGOING_H

#include <stdbool.h>
#include <sys/uio.h>

#include "base/sv.h"

#define OUTGOING_PARTS 3

struct outgoing {
	struct iovec parts[OUTGOING_PARTS]; /* what is not sent yet */
	char size[24];                      /* of a chunk */
};

/* What is to be sent must stay until it is. */
void outgoing_set(struct outgoing *outgoing, struct sv head, struct sv body);

/* A chunk, unless it is empty; and the end of all chunks when it is the last. */
void outgoing_set_chunk(struct outgoing *outgoing, struct sv bytes, bool is_last);

bool outgoing_is_sent(const struct outgoing *outgoing);

/* As much as goes without waiting. -1: the client is gone. */
int outgoing_send(struct outgoing *outgoing, int socket);

#endif
