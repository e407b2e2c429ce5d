/*
 * dialer.h - connect to a target without ever waiting, and make sure who it is.
 */
#ifndef GATEWAY_DIALER_H
#define GATEWAY_DIALER_H

#include <event2/event.h>

#include "conf/conf.h"

/* `fd` is connected and the callee's to close; or -1 and `error` is an errno: ECONNREFUSED,
 * ETIMEDOUT, EPERM when another user than targets[].uid serves there, and others. */
typedef void (*dial_done)(void *arg, int fd, int error);

/* Connect within `timeout_ms`; one that is woken is tried again until then. `done` is called once, maybe at once. Keeps nothing of `target`. */
void dial_start(struct event_base *base, const struct conf_target *target, uint64_t timeout_ms,
	dial_done done, void *arg);

/* Does anybody listen there now? Asks the kernel, not the target, where it is TCP. */
bool dial_is_up(const struct conf_target *target);

#endif
