/*
 * audit_queue.h - a worker's way to the scribe: records go out, acknowledgements come back.
 *
 * What the socket does not take at once is queued, up to a bound; beyond it, or while there is no
 * scribe, nothing is accepted, and the caller refuses what it wanted to record.  Refusals that come
 * in floods are summed: from the 21st of one address for one reason in a second on, one record a
 * second tells how many there were.
 */
#ifndef GATEWAY_AUDIT_QUEUE_H
#define GATEWAY_AUDIT_QUEUE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "acl/addr.h"
#include "audit/record.h"

struct audit_queue;

/* `acked` is told of each record that was sent with a number. Takes the descriptor. NULL without
 * memory. */
struct audit_queue *audit_queue_new(struct event_base *base, int fd, uint32_t worker,
	void (*acked)(void *arg, uint64_t number, bool on_disk), void *arg);
void audit_queue_free(struct audit_queue *queue);

/* Another scribe: all that waited for the old one's word is answered "not on disk". */
void audit_queue_replace(struct audit_queue *queue, int fd);

/* Is there a scribe? */
bool audit_queue_works(const struct audit_queue *queue);

/* Send a record; number 0: nobody waits. False when it cannot even be queued. */
bool audit_queue_send(
	struct audit_queue *queue, uint64_t number, const struct audit_record *record);

/* A `refused` record, which may be summed. False as above. */
bool audit_queue_refuse(struct audit_queue *queue, const struct addr *client,
	const struct audit_record *record);

/* To be called once a second: send the sums. */
void audit_queue_tick(struct audit_queue *queue);

#endif
