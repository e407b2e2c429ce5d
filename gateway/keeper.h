/*
 * keeper.h - the process that holds the switch: what its parts share.
 *
 * keeper.c: start, signals, opening, closing, stopping.  keeper_conf.c: load and reload.
 * keeper_audit.c: its own records, and the scribe.  keeper_files.c: the audit file and the head of its
 * chain.  keeper_workers.c: workers from birth to burial.  listeners.c: sockets.  admin.c: the admin
 * socket.  wakers.c: leases on targets.
 *
 * There are two states, open and closed; what still drains after a close or a reload is a property
 * of the children, not of the keeper.  settle() is called after every event, and lets go whatever is
 * not needed any more.
 */
#ifndef GATEWAY_KEEPER_H
#define GATEWAY_KEEPER_H

#include <sys/types.h>

#include <event2/event.h>

#include "audit/chain.h"
#include "conf/files.h"
#include "gateway/access.h"
#include "gateway/ipc.h"
#include "gateway/listeners.h"
#include "gateway/switch.h"
#include "gateway/table.h"

#define KEEPER_LOST_MS    5000 /* this long without an audit log, and access closes */
#define KEEPER_TICK_MS    250
#define KEEPER_TEXT_MAX   256
#define KEEPER_ERRORS_MAX ((size_t)64 << 10)

/* Who asked for a change, for the audit. */
struct actor {
	bool has_peer;
	uint32_t uid, pid, login_uid;
	const char *via; /* "admin", "signal", "configuration" */
};

struct keeper;
struct pending_record;
struct waker;

/* The record is on disk (ok), or will not be. */
typedef void (*record_done)(struct keeper *keeper, void *arg, bool ok);

struct child {
	struct child *next;
	struct keeper *keeper;
	struct event *readable;
	pid_t pid;
	int control;     /* -1 once closed: it is to end */
	uint32_t number; /* never used twice */
	uint32_t index;  /* of a worker: its column in the table */
	uint64_t generation;
	bool is_ready, is_draining;
	uint64_t cut_ms;  /* draining: when it is cut; 0: never */
	uint64_t kill_ms; /* when it is killed; 0: never */
};

struct keeper {
	struct event_base *base;
	struct event *signals, *expiry, *tick;
	int signal_fd, expiry_fd, self_fd;
	const char *conf_path;
	struct conf *conf;
	struct conf_files *files;
	int conf_fd; /* what children get */
	uint64_t generation;

	bool is_started, is_open, is_stopping, has_stop_record;
	bool is_scribe_leaving, is_head_saved;
	bool is_audit_file_failed; /* what was written to it may not be on disk */
	int exit_code, switch_fd;
	uint64_t stop_ms; /* when stopping gives up waiting for the audit */
	struct access_window window;
	struct switch_state *state;
	uint64_t closings;
	size_t openings; /* that wait for their record */
	char opened_by[KEEPER_TEXT_MAX], reason[AUDIT_TEXT_MAX];
	struct listeners listeners;

	struct child *workers;
	struct table *table;
	int table_fd;
	uint32_t last_number; /* of a child */
	uint64_t respawn_ms;  /* when a missing worker is replaced; 0: none is missing */
	uint64_t backoff_ms, born_ms;

	struct child *scribe; /* NULL: none */
	int audit_fd, audit_folder;
	struct audit_head head; /* as the scribe said last */
	struct pending_record *records, **records_end;
	size_t records_len;
	uint64_t last_record;
	uint64_t scribe_lost_ms;     /* since when one is missed; 0: none is */
	unsigned scribe_asked_ticks; /* turns of the clock since it was asked; 0: it was not */
	uint64_t checkpoint_seq, checkpoint_ms;
	uint64_t scribe_born_ms, scribe_respawn_ms, scribe_backoff_ms;

	struct waker *wakers; /* wakers.h */
	bool has_wakers;

	struct admin *admin;
	uint64_t opened_total, worker_deaths_total, scribe_deaths_total;
};

/* keeper.c */
int keeper_main(const char *conf_path);
/* `answer` is called once, maybe at once. Statuses: 200, 409 (cannot bind), 503 (no audit). */
void keeper_open(struct keeper *keeper, const struct actor *actor, uint64_t ttl_ms,
	struct sv reason, void (*answer)(void *arg, int status, const char *detail), void *arg);
/* `event`: AUDIT_CLOSED or AUDIT_EXPIRED. Nothing when closed. */
void keeper_close(struct keeper *keeper, const struct actor *actor, enum audit_event event,
	const char *reason);
void keeper_settle(struct keeper *keeper);
struct actor keeper_actor(const char *via, uint32_t uid, uint32_t pid);
void keeper_set_expiry(struct keeper *keeper);

/* keeper_conf.c */
int keeper_load(const char *path, struct conf **conf, struct conf_files **files, int *conf_fd,
	struct conf_errors *errors);
/* 0, or -1 with the errors; both are logged and audited. */
int keeper_reload(struct keeper *keeper, const struct actor *actor, struct conf_errors *errors);

/* keeper_audit.c */
void audit_kill_scribe(struct keeper *keeper);
/* The scribe shall do as keeper->conf_fd says. */
void audit_new_conf(struct keeper *keeper);
void audit_record(struct keeper *keeper, const struct actor *actor, struct audit_record *record,
	record_done done, void *arg);
/* The channel that a new scribe needs for this worker; the worker's end, or -1. */
int audit_channel(struct keeper *keeper, uint32_t worker, struct err *err);
void audit_tick(struct keeper *keeper, uint64_t now_ms);
void audit_let_go(struct keeper *keeper);
void audit_scribe_died(struct keeper *keeper, int status);
void audit_stop(struct keeper *keeper);

/* keeper_files.c */
int audit_open(struct keeper *keeper, struct err *err);
/* After a rotation: go on in the new file of that name. */
int audit_reopen(struct keeper *keeper, struct err *err);
/* After a failed fdatasync(): put the file aside, go on in a new one. */
void audit_next_segment(struct keeper *keeper);
void audit_save_head(struct keeper *keeper);

/* keeper_workers.c */
void workers_start(struct keeper *keeper);
/* Accept nothing more, be cut after `drain_ms`; `conf_fd` of a reload, or -1. */
#define WORKERS_NO_CUT UINT64_MAX
void workers_drain(struct keeper *keeper, uint64_t drain_ms, int conf_fd);
void workers_cut(struct keeper *keeper, const char *reason);
void workers_channels(struct keeper *keeper);
void workers_tick(struct keeper *keeper, uint64_t now_ms);
bool workers_died(struct keeper *keeper, pid_t pid, int status);
void workers_receipt(struct keeper *keeper, const struct ipc_message *receipt);

/* children.c */
/* Start this binary anew with `fds` as descriptors 3 and up. Takes nothing. */
int child_spawn(struct keeper *keeper, char *const argv[], const int *fds, size_t fds_len,
	pid_t *pid, struct err *err);
struct child *child_new(struct keeper *keeper, int control, event_callback_fn readable);
void child_close(struct child *child);
void child_free(struct child *child);
void child_describe(int status, char *out, size_t size);

#endif
