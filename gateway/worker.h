/*
 * worker.h - the process that talks to the network: what all its connections share.
 *
 * One event loop, no threads.  It can neither open files nor make sockets: everything came by
 * inherited descriptors (roles.h), and connected ones to targets come from the keeper, one for each
 * request that is in the audit log.
 */
#ifndef GATEWAY_WORKER_H
#define GATEWAY_WORKER_H

#include <event2/event.h>
#include <openssl/ssl.h>

#include "auth/token_cache.h"
#include "conf/conf.h"
#include "conf/files.h"
#include "gateway/audit_queue.h"
#include "gateway/listener.h"
#include "gateway/metrics.h"
#include "gateway/roles.h"
#include "gateway/switch.h"
#include "gateway/table.h"

struct conn;

/* How the last attempt to reach a target went. */
enum target_seen {
	TARGET_NOT_TRIED = 0,
	TARGET_UP,
	TARGET_DOWN
};

struct worker {
	struct worker_start start;
	struct conf *conf;
	struct conf_files *files;
	struct event_base *base;
	SSL_CTX *tls;
	const struct switch_state *access;
	struct table *table;
	struct token_cache *tokens;
	struct audit_queue *audit;
	struct event *control, *every_second;
	struct event *goodbyes; /* drained, but for answers on their way */
	struct listener **listeners;
	enum target_seen *targets_seen; /* one for each of conf's targets */
	struct metrics metrics;
	struct conn *conns; /* a list, newest first */
	uint64_t requests;  /* numbers of requests, counted up */
	size_t running;     /* requests between `received` and their end */
	bool draining, told_drained;
	uint64_t closed_ms; /* since when access was seen closed; 0: it is open */
};

/* Nothing runs and no more will: tell the keeper, once. */
void worker_check_drained(struct worker *worker);

#endif
