/*
 * demo.h - the parts of vtp-demo, a small video-training platform to be profiled.
 *
 * One thread accepts, a pool of threads answers (each with a database of its own), one thread
 * pushes messages to WebSockets, one keeps house.  What can be switched on is what one hunts for
 * with a profiler: a hot function, leaks of memory and of threads, a slow query, a fought-over lock.
 */
#ifndef EXAMPLES_VTP_DEMO_DEMO_H
#define EXAMPLES_VTP_DEMO_DEMO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* The sampler is there when somebody has put it there (`postern exec`), and not otherwise. */
#define POSTERN_OPTIONAL
#include "sampler/postern.h"

/* The switches: SWITCH(NAME, "path's last part"). */
#define DEMO_SWITCHES                        \
	SWITCH(HOT, "hot")                   \
	SWITCH(LEAK_MEMORY, "leak-memory")   \
	SWITCH(LEAK_THREADS, "leak-threads") \
	SWITCH(SLOW_QUERY, "slow-query")

enum demo_switch {
#define SWITCH(name, text) SWITCH_##name,
	DEMO_SWITCHES
#undef SWITCH
		SWITCHES_LEN
};

extern atomic_bool demo_switches[SWITCHES_LEN];
extern atomic_bool demo_is_stopping;

/* ---- watch.c: what an on-call engineer wants to see of us, told to the sampler if there is one */

/* A region: "api", "database", "websocket". */
struct postern_region watch_begin(const char *name);
void watch_end(const struct postern_region *region);

/* Which route this thread is answering; NULL: none. */
void watch_route(const char *route);

void watch_log(const char *key, const char *text);

/* ---- database.c: one per thread of the pool */

struct database;

struct database *database_open(void);
void database_close(struct database *database);

/* The answer as JSON, to be freed with free(). NULL: the query failed. */
char *database_courses(struct database *database, unsigned topic);
char *database_recordings(struct database *database, unsigned course);

/* ---- cache.c: who watches what, under one mutex that every request takes */

void cache_touch(unsigned key);

/* ---- background.c: the switches' doing, and a load of our own */

/* Start what works in the background; with `load` requests a second to our own `port`. */
int background_start(unsigned load, unsigned port);
void background_stop(void);

/* ---- websocket.c */

/* Answer the handshake and push messages to `fd` until it goes away. Takes `fd`. */
void websocket_take(int fd, const char *key);
int websocket_start(void);
void websocket_stop(void);

/* ---- server.c */

/* Listen on 127.0.0.1:`port` (0: a free one) with `threads` in the pool. The port, or -1. */
int server_start(unsigned port, unsigned threads);
void server_stop(void);

/* Write all of it, or give up. */
bool send_all(int fd, const void *bytes, size_t len);

#endif
