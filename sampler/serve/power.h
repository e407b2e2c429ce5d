/*
 * power.h - awake or asleep: what is listened on, and whether anything is sampled.
 *
 * Awake, the server listens where the settings say.  With POSTERN_ASLEEP that is so only while somebody holds
 * a lease (lease.h).  The control socket is there in both states, where the runtime folder has room for it: it
 * is how others find the process, too (docs/sampler.md, "Announcement").  Server thread only.
 */
#ifndef SAMPLER_POWER_H
#define SAMPLER_POWER_H

#include "sampler/serve/listener.h"
#include "sampler/serve/server.h"

#define POWER_LISTENERS_MAX 2

struct power {
	struct server *server;
	struct place control_place;
	int control; /* -1: none */
	int listeners[POWER_LISTENERS_MAX];
	struct place places[POWER_LISTENERS_MAX];
	size_t listeners_len;           /* 0: asleep */
	uint64_t watch_parent_until_ns; /* 0: not */
};

/* -1: there is nothing that could be listened on; server->err says why. */
int power_begin(struct power *power, struct server *server);

/* Listen, and sample as the settings say. Fine when awake. -1: cannot, and sleeps on. */
int power_wake(struct power *power, struct err *err);

/* Let go of all that power_wake() began. Connections are the caller's to cut, before. */
void power_sleep(struct power *power);

static inline bool power_is_awake(const struct power *power)
{
	return power->listeners_len > 0;
}

/* A daemon's parent ends when its child has started: then its address is the child's. */
void power_watch_parent(struct power *power, uint64_t now);

void power_end(struct power *power);

#endif
