/*
 * wakers.h - the keeper's leases on targets: sleeping ones are held awake while access is open, and rates are
 * changed for as long.
 *
 * A lease is a connection to the target's control socket (docs/sampler.md, "Asleep"), so that it ends with the
 * keeper, however that ends.  The control socket is found in gateway.runtime_dir/targets by the target's name,
 * and must be its user's: targets[].uid, else root's or ours, else that of the owner of the folder that
 * targets[].socket lies in.  Nothing here waits: what is not there yet is looked for again with the turns of
 * the keeper's clock.
 */
#ifndef GATEWAY_WAKERS_H
#define GATEWAY_WAKERS_H

#include "gateway/keeper.h"

/* After every event: begin what is to be begun, let go what is not needed any more. */
void wakers_settle(struct keeper *keeper);

/* Before `conf` takes the place of keeper->conf: what is the same in it is held on. */
void wakers_new_conf(struct keeper *keeper, const struct conf *conf);

/*
 * Ask the target for rates, `json` as its POST /debug/pprof/rates takes it, until access closes. `answer` is
 * called once, maybe at once: 200; 409 access is closed; 501 it has no control socket; 502 it refused or
 * went away; 503 it is being asked already.
 */
void wakers_rates(struct keeper *keeper, const struct conf_target *target, struct sv json,
	void (*answer)(void *arg, int status, const char *detail), void *arg);

void wakers_free(struct keeper *keeper);

#endif
