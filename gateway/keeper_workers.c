/*
 * Workers from birth to burial.
 *
 * A worker that is told to drain says when nothing runs in it any more; then its control channel is
 * closed, which ends it.  One that does not come to an end in time is told to cut, and killed when it
 * does not do even that.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/dialer.h"
#include "gateway/keeper.h"
#include "gateway/log.h"
#include "gateway/roles.h"

#define KILL_AFTER_MS  5000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define STEADY_MS      10000 /* who lived this long did not fail at its start */

static struct child *find_worker(const struct keeper *keeper, uint32_t number)
{
	struct child *child = keeper->workers;

	while (child && child->number != number)
		child = child->next;
	return child;
}

static void kill_worker(const struct child *child)
{
	(void)kill(child->pid, SIGKILL);
}

/* -1: all columns of the table are taken by workers that still drain. */
static int find_free_index(const struct keeper *keeper, uint32_t *out)
{
	for (uint32_t index = 0; index < TABLE_WORKERS_MAX; index++) {
		const struct child *child = keeper->workers;

		while (child && child->index != index)
			child = child->next;
		if (!child) {
			*out = index;
			return 0;
		}
	}
	return -1;
}

/* Nothing runs in it: the end of its control channel ends it, or else we do. */
static void end_worker(struct child *child)
{
	child_close(child);
	child->kill_ms = clock_boot_ms() + KILL_AFTER_MS;
}

static bool take_message(struct child *child, const struct ipc_message *message)
{
	if (message->fd >= 0)
		(void)close(message->fd);
	if (message->type == IPC_READY)
		child->is_ready = true;
	else if (message->type == IPC_DRAINED && child->is_draining)
		end_worker(child);
	else
		return false;
	return true;
}

static void on_worker(evutil_socket_t fd, short what, void *arg)
{
	static char storage[IPC_MESSAGE_MAX];
	struct child *child = arg;
	enum ipc_result result;

	(void)what;
	do {
		struct ipc_message message;
		struct err err;

		result = ipc_receive(fd, storage, &message, &err);
		if (result == IPC_GONE ||
			(result == IPC_RECEIVED && !take_message(child, &message))) {
			/* Gone already, or it says what no worker of ours would. */
			kill_worker(child);
			child_close(child);
		}
	} while (result == IPC_RECEIVED && child->control >= 0);
}

static size_t fill_descriptors(
	const struct keeper *keeper, int control, int audit, int fds[static LISTENERS_MAX + 8])
{
	size_t len = WORKER_FD_LISTENERS - CHILD_FD_CONTROL;

	fds[0] = control;
	fds[WORKER_FD_AUDIT - CHILD_FD_CONTROL] = audit;
	fds[WORKER_FD_CONF - CHILD_FD_CONTROL] = keeper->conf_fd;
	fds[WORKER_FD_SWITCH - CHILD_FD_CONTROL] = keeper->switch_fd;
	fds[WORKER_FD_TABLE - CHILD_FD_CONTROL] = keeper->table_fd;
	for (size_t i = 0; i < keeper->listeners.len; i++)
		fds[len++] = keeper->listeners.items[i].fd;
	return len;
}

static int spawn(struct keeper *keeper, uint32_t index, struct err *err)
{
	char name[] = "posternd: worker", number[16], generation[24], listeners[16];
	char *argv[] = { name, number, generation, listeners, NULL };
	int control[2], audit = -1, fds[LISTENERS_MAX + 8], rc = -1;
	struct child *child = NULL;

	if (ipc_pair(control, err))
		return -1;
	child = child_new(keeper, control[0], on_worker);
	if (!child) {
		(void)close(control[0]);
		(void)err_set(err, ERR_NOMEM, "no memory for a worker");
		goto out;
	}
	child->index = index;
	child->generation = keeper->generation;
	audit = audit_channel(keeper, child->number, err);
	if (audit < 0)
		goto out;
	(void)snprintf(number, sizeof(number), "%u", index);
	(void)snprintf(
		generation, sizeof(generation), "%llu", (unsigned long long)keeper->generation);
	(void)snprintf(listeners, sizeof(listeners), "%zu", keeper->listeners.len);
	if (child_spawn(keeper, argv, fds, fill_descriptors(keeper, control[1], audit, fds),
		    &child->pid, err))
		goto out;
	child->next = keeper->workers;
	keeper->workers = child;
	child = NULL;
	rc = 0;
out:
	if (audit >= 0)
		(void)close(audit);
	(void)close(control[1]);
	child_free(child);
	return rc;
}

void workers_start(struct keeper *keeper)
{
	uint32_t serving = 0, index;
	struct err err;

	keeper->respawn_ms = 0;
	for (const struct child *child = keeper->workers; child; child = child->next)
		serving += !child->is_draining;
	for (; serving < keeper->conf->gateway.workers; serving++) {
		if (find_free_index(keeper, &index)) {
			log_warning("too many old workers still drain: a new one has to wait");
		} else if (spawn(keeper, index, &err)) {
			log_error("a worker cannot be started: %s", err.text);
		} else {
			continue;
		}
		keeper->respawn_ms = clock_boot_ms() + KEEPER_TICK_MS;
		return;
	}
	keeper->born_ms = clock_boot_ms();
}

void workers_drain(struct keeper *keeper, uint64_t drain_ms, int conf_fd)
{
	uint64_t now_ms = clock_boot_ms();

	for (struct child *child = keeper->workers; child; child = child->next) {
		struct ipc_message message = { .type = IPC_DRAIN, .fd = conf_fd };
		struct err err;

		if (child->control < 0)
			continue;
		/* One that drains after a reload now also has to end, if access closed. */
		if (drain_ms != WORKERS_NO_CUT && child->cut_ms == 0)
			child->cut_ms = now_ms + drain_ms;
		if (ipc_send(child->control, &message, &err))
			kill_worker(child);
		child->is_draining = true;
	}
	keeper->respawn_ms = 0;
}

static void cut(struct child *child, const char *reason, uint64_t now_ms)
{
	struct ipc_message message = {
		.type = IPC_CUT,
		.payload = sv_from_cstr(reason),
		.fd = -1,
	};
	struct err err;

	if (child->kill_ms != 0)
		return;
	child->kill_ms = now_ms + KILL_AFTER_MS;
	if (child->control >= 0 && ipc_send(child->control, &message, &err))
		kill_worker(child);
}

void workers_cut(struct keeper *keeper, const char *reason)
{
	for (struct child *child = keeper->workers; child; child = child->next) {
		if (child->is_draining)
			cut(child, reason, clock_boot_ms());
	}
}

void workers_channels(struct keeper *keeper)
{
	for (struct child *child = keeper->workers; child; child = child->next) {
		struct ipc_message message = { .type = IPC_CHANNEL };
		struct err err;

		if (child->control < 0)
			continue;
		message.fd = audit_channel(keeper, child->number, &err);
		if (message.fd < 0)
			continue; /* the scribe is gone again; the next one gets to it */
		if (ipc_send(child->control, &message, &err))
			kill_worker(child);
		(void)close(message.fd);
	}
}

void workers_tick(struct keeper *keeper, uint64_t now_ms)
{
	for (struct child *child = keeper->workers; child; child = child->next) {
		if (child->cut_ms != 0 && now_ms >= child->cut_ms)
			cut(child, "access-closed", now_ms);
		if (child->kill_ms != 0 && now_ms >= child->kill_ms)
			kill_worker(child);
	}
	if (keeper->is_open && keeper->respawn_ms != 0 && now_ms >= keeper->respawn_ms)
		workers_start(keeper);
}

static void bury(struct keeper *keeper, struct child **at, int status)
{
	struct audit_record record = { .event = AUDIT_WORKER_DIED };
	struct child *child = *at;
	bool was_told = child->is_draining && status == 0;
	uint64_t now_ms = clock_boot_ms();
	char how[128];
	int len;

	*at = child->next;
	table_free_worker(keeper->table, child->index);
	if (!was_told) {
		len = snprintf(how, sizeof(how), "pid %d: ", (int)child->pid);
		child_describe(status, how + len, sizeof(how) - (size_t)len);
		keeper->worker_deaths_total++;
		log_error("worker %u died: %s", child->number, how);
		record.detail = sv_from_cstr(how);
		audit_record(keeper, NULL, &record, NULL, NULL);
	}
	if (keeper->is_open && !child->is_draining && keeper->respawn_ms == 0) {
		if (now_ms - keeper->born_ms > STEADY_MS)
			keeper->backoff_ms = 0;
		keeper->respawn_ms = now_ms + keeper->backoff_ms;
		keeper->backoff_ms =
			keeper->backoff_ms ? keeper->backoff_ms * 2 : BACKOFF_MIN_MS;
		if (keeper->backoff_ms > BACKOFF_MAX_MS)
			keeper->backoff_ms = BACKOFF_MAX_MS;
	}
	child_free(child);
}

bool workers_died(struct keeper *keeper, pid_t pid, int status)
{
	for (struct child **at = &keeper->workers; *at; at = &(*at)->next) {
		if ((*at)->pid == pid) {
			bury(keeper, at, status);
			return true;
		}
	}
	return false;
}

/* Who waits for a connection to a target. */
struct waiting {
	struct keeper *keeper;
	uint32_t worker;
	uint64_t number;
};

static void on_dialed(void *arg, int fd, int error)
{
	struct waiting *waiting = arg;
	struct child *child = find_worker(waiting->keeper, waiting->worker);
	struct ipc_message message = { .type = IPC_TARGET,
		.worker = waiting->worker,
		.number = waiting->number,
		.result = error,
		.fd = fd };
	struct err err;

	if (child && child->control >= 0 && ipc_send(child->control, &message, &err))
		log_warning(
			"worker %u does not take its connection: %s", child->number, err.text);
	if (fd >= 0)
		(void)close(fd);
	free(waiting);
}

void workers_receipt(struct keeper *keeper, const struct ipc_message *receipt)
{
	const struct conf *conf = keeper->conf;
	struct waiting *waiting = malloc(sizeof(*waiting));

	if (!waiting)
		return; /* the worker's own timeout ends the request */
	*waiting = (struct waiting){ keeper, receipt->worker, receipt->number };
	for (size_t i = 0; i < conf->targets_len; i++) {
		if (!sv_is(sv_from_cstr(conf->targets[i].name), receipt->payload))
			continue;
		dial_start(keeper->base, &conf->targets[i], conf->limits.connect_ms, on_dialed,
			waiting);
		return;
	}
	/* Gone with a reload. */
	on_dialed(waiting, -1, ENOENT);
}
