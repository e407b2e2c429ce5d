/*
 * table.h - what all workers count together, in one piece of shared memory of fixed size.
 *
 * Rates (GCRA), bans, capture slots, connections.  No locks: each entry is one word, a tag of the
 * key beside a time, changed by compare-and-swap.  The hash is keyed, so nobody can aim at another's
 * entry.  When there is no room, who comes new shares what is there: it never lets more through.
 *
 * The keeper makes the table and frees the column of a dead worker.
 */
#ifndef GATEWAY_TABLE_H
#define GATEWAY_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sv.h"

#define TABLE_WORKERS_MAX 64

struct table;

/* The keeper's: a memory file, empty, mapped. `*fd` is for the workers. NULL: see `err`. */
struct table *table_create(int *fd, struct err *err);

/* A worker's: map what the descriptor stands for. NULL: see `err`. */
struct table *table_map(int fd, struct err *err);

/* NULL is fine. */
void table_unmap(struct table *table);

/* Forget the connections and slots of a worker that has ended. */
void table_free_worker(struct table *table, uint32_t worker);

enum table_rate {
	TABLE_PER_ADDRESS = 1,
	TABLE_PER_IDENTITY,
	TABLE_FAILURES, /* wrong credentials of an address */
};

/* Take one from the bucket of `key`, which fills with `rate` a second up to `burst`. 0: there was
 * one; else in how many milliseconds there will be (and nothing was taken). */
uint64_t table_take(struct table *table, enum table_rate kind, struct sv key, double rate,
	uint32_t burst, uint64_t now_ms);

enum table_term {
	TABLE_BANNED = 16,
	TABLE_TRUSTED, /* has shown a good certificate: slowed, not banned */
};

/* Note that something holds for `key` until then; until_ms 0 takes it back. */
void table_set_until(struct table *table, enum table_term kind, struct sv key,
	uint64_t until_ms, uint64_t now_ms);

/* For how much longer, in milliseconds, rounded up to whole seconds; 0: it does not. */
uint64_t table_left_ms(
	struct table *table, enum table_term kind, struct sv key, uint64_t now_ms);

/* A capture that is to begin: of what, how many of it there may be, and when about it ends. */
struct table_capture {
	struct sv key;
	uint32_t max;
	uint64_t until_ms;
};

/* One of the capture's slots: a number to give back with table_slot_free(), or -1 and in
 * `*left_ms` when the next will be free. */
int table_slot_take(struct table *table, uint32_t worker, const struct table_capture *capture,
	uint64_t now_ms, uint64_t *left_ms);
void table_slot_free(struct table *table, uint32_t worker, int slot);

/* Count a connection of `key`; false, and not counted, when there are `max_all` of all workers or
 * `max_key` of that key already. */
bool table_connection_add(struct table *table, uint32_t worker, struct sv key, uint32_t max_all,
	uint32_t max_key);
void table_connection_remove(struct table *table, uint32_t worker, struct sv key);

/* Connections of one worker (for its metrics), and of all. */
uint32_t table_connections(const struct table *table, uint32_t worker);
uint32_t table_connections_all(const struct table *table);

#endif
