/*
 * access.h - from when until when access is open: arithmetic on `now`, nothing else.
 */
#ifndef GATEWAY_ACCESS_H
#define GATEWAY_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

struct access_window {
	uint64_t opened_ms; /* CLOCK_BOOTTIME of the first opening; 0: closed */
	uint64_t until_ms;  /* 0: closed; SWITCH_NO_LIMIT: until told */
};

/*
 * Open for `ttl_ms` (0: no limit), or prolong: an end already later stays, and `max_ttl_ms` after
 * the first opening it is over in any case. True when the end moved.
 */
bool access_open(
	struct access_window *window, uint64_t now_ms, uint64_t ttl_ms, uint64_t max_ttl_ms);

/* A new configuration may allow less: never past `max_ttl_ms` after the first opening. */
void access_cap(struct access_window *window, uint64_t max_ttl_ms);

void access_close(struct access_window *window);

#endif
