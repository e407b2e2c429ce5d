/*
 * The keeper's own records, and the scribe that writes them.
 *
 * Records wait in a list until they are acknowledged; a new scribe gets again what the one before it
 * did not acknowledge.  A scribe lives while something needs it: a record, or a worker.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/encode.h"
#include "gateway/keeper.h"
#include "gateway/log.h"
#include "gateway/roles.h"

#define RECORDS_MAX    256 /* that wait; beyond, the oldest is given up */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000
#define CHECKPOINT_MS  60000

/* A record of the keeper's own that is not acknowledged yet. */
struct pending_record {
	struct pending_record *next;
	uint64_t number;
	bool is_sent;
	struct buf wire;
	record_done done; /* or NULL */
	void *arg;
};

static void remove_record(struct keeper *keeper, struct pending_record **at, bool ok)
{
	struct pending_record *record = *at;

	*at = record->next;
	keeper->records_len--;
	if (!*at)
		keeper->records_end = at;
	buf_free(&record->wire);
	if (record->done)
		record->done(keeper, record->arg, ok);
	free(record);
}

/* Those that somebody waits for, or all. The others are written once there is a scribe again. */
static void fail_records(struct keeper *keeper, bool all)
{
	struct pending_record **at = &keeper->records;

	while (*at) {
		if (all || (*at)->done)
			remove_record(keeper, at, false);
		else
			at = &(*at)->next;
	}
}

static void drop_oldest(struct keeper *keeper)
{
	log_error("too many audit records wait: the oldest of the keeper's own is lost");
	remove_record(keeper, &keeper->records, false);
}

void audit_kill_scribe(struct keeper *keeper)
{
	if (keeper->scribe && keeper->scribe->pid > 0)
		(void)kill(keeper->scribe->pid, SIGKILL);
}

static void send_records(struct keeper *keeper)
{
	if (!keeper->scribe || keeper->is_scribe_leaving || keeper->scribe->control < 0)
		return;
	for (struct pending_record *record = keeper->records; record; record = record->next) {
		struct ipc_message message = { .type = IPC_AUDIT,
			.number = record->number,
			.payload = buf_sv(&record->wire),
			.fd = -1 };
		struct err err;

		if (record->is_sent)
			continue;
		/* What is not sent now is sent with the next turn of the clock. */
		if (ipc_send(keeper->scribe->control, &message, &err))
			return;
		record->is_sent = true;
	}
}

static void take_ack(struct keeper *keeper, const struct ipc_message *message)
{
	struct pending_record **at = &keeper->records;

	while (*at && (*at)->number != message->number)
		at = &(*at)->next;
	if (!*at)
		return;
	if (message->result)
		log_error("an audit record of the keeper's own could not be written");
	remove_record(keeper, at, message->result == 0);
}

static void take_head(struct keeper *keeper, const struct ipc_message *message)
{
	unsigned char digest[AUDIT_HASH_SIZE];

	if (!hex_decode(message->payload, digest, sizeof(digest)))
		return;
	keeper->head.seq = message->number;
	memcpy(keeper->head.hash, message->payload.ptr, AUDIT_HASH_HEX_SIZE - 1);
	keeper->is_head_saved = false;
	keeper->scribe_asked_ticks = 0;
	if (keeper->scribe->is_ready)
		keeper->scribe_lost_ms = 0;
}

static void take_ready(struct keeper *keeper)
{
	keeper->scribe->is_ready = true;
	keeper->scribe_lost_ms = 0;
	keeper->scribe_backoff_ms = 0;
	keeper->scribe_asked_ticks = 0;
}

/* What a scribe may say; anything else, or its end, is the same: it is of no use any more. */
static bool take_message(struct keeper *keeper, const struct ipc_message *message)
{
	if (message->fd >= 0)
		(void)close(message->fd);
	if (message->type == IPC_READY)
		take_ready(keeper);
	else if (message->type == IPC_ACK)
		take_ack(keeper, message);
	else if (message->type == IPC_HEAD)
		take_head(keeper, message);
	else if (message->type == IPC_RECEIPT)
		workers_receipt(keeper, message);
	else
		return false;
	return true;
}

static void read_scribe(struct keeper *keeper, struct child *child)
{
	static char storage[IPC_MESSAGE_MAX];
	enum ipc_result result;

	do {
		struct ipc_message message;
		struct err err;

		result = ipc_receive(child->control, storage, &message, &err);
		if (result == IPC_GONE ||
			(result == IPC_RECEIVED && !take_message(keeper, &message))) {
			/* Its death comes by SIGCHLD; one that only broke the protocol is helped. */
			audit_kill_scribe(keeper);
			child_close(child);
			break;
		}
	} while (result == IPC_RECEIVED && child->control >= 0);
}

static void on_scribe(evutil_socket_t fd, short what, void *arg)
{
	struct child *child = arg;
	struct keeper *keeper = child->keeper;

	(void)fd;
	(void)what;
	read_scribe(keeper, child);
	keeper_settle(keeper);
}

static int send_kept_head(struct keeper *keeper, int control, struct err *err)
{
	struct ipc_message message = { .type = IPC_HEAD,
		.number = keeper->head.seq,
		.payload = sv_from_cstr(keeper->head.hash),
		.fd = -1 };

	return ipc_send(control, &message, err);
}

static int spawn_scribe(struct keeper *keeper, struct err *err)
{
	char name[] = "posternd: scribe", all[] = "all", tail[] = "tail";
	char *argv[] = { name, keeper->is_started ? tail : all, NULL };
	int control[2], fds[4];
	struct child *child;

	if (ipc_pair(control, err))
		return -1;
	child = child_new(keeper, control[0], on_scribe);
	if (!child) {
		(void)close(control[0]);
		(void)close(control[1]);
		return err_set(err, ERR_NOMEM, "no memory for a scribe");
	}
	fds[0] = control[1];
	fds[SCRIBE_FD_FILE - CHILD_FD_CONTROL] = keeper->audit_fd;
	fds[SCRIBE_FD_CONF - CHILD_FD_CONTROL] = keeper->conf_fd;
	fds[SCRIBE_FD_FOLDER - CHILD_FD_CONTROL] = keeper->audit_folder;
	if (send_kept_head(keeper, control[0], err) ||
		child_spawn(keeper, argv, fds, 4, &child->pid, err)) {
		(void)close(control[1]);
		child_free(child);
		return -1;
	}
	(void)close(control[1]);
	keeper->scribe = child;
	keeper->scribe_born_ms = clock_boot_ms();
	keeper->is_scribe_leaving = false;
	keeper->scribe_asked_ticks = 0;
	for (struct pending_record *record = keeper->records; record; record = record->next)
		record->is_sent = false;
	audit_next_segment(keeper);
	workers_channels(keeper);
	send_records(keeper);
	return 0;
}

/* There shall be a scribe. One that is leaving is awaited: only one may have the file. */
static void need_scribe(struct keeper *keeper)
{
	uint64_t now_ms = clock_boot_ms();
	struct err err;

	if (keeper->scribe || now_ms < keeper->scribe_respawn_ms)
		return;
	if (keeper->scribe_lost_ms == 0)
		keeper->scribe_lost_ms = now_ms;
	if (spawn_scribe(keeper, &err)) {
		log_error("the scribe cannot be started: %s", err.text);
		keeper->scribe_respawn_ms = now_ms + BACKOFF_MAX_MS;
	}
}

void audit_record(struct keeper *keeper, const struct actor *actor, struct audit_record *record,
	record_done done, void *arg)
{
	struct pending_record *pending = calloc(1, sizeof(*pending));

	if (actor && actor->has_peer) {
		record->has_peer = true;
		record->peer_uid = actor->uid;
		record->peer_pid = actor->pid;
		record->peer_login_uid = actor->login_uid;
	}
	if (actor)
		record->method_of_identity = sv_from_cstr(actor->via);
	if (pending) {
		buf_init(&pending->wire, AUDIT_MESSAGE_MAX);
		audit_record_encode(record, &pending->wire);
	}
	if (!pending || pending->wire.failed) {
		log_error(
			"no memory for the audit record '%s'", audit_event_name(record->event));
		if (pending)
			buf_free(&pending->wire);
		free(pending);
		if (done)
			done(keeper, arg, false);
		return;
	}
	if (++keeper->records_len > RECORDS_MAX)
		drop_oldest(keeper);
	pending->number = ++keeper->last_record;
	pending->done = done;
	pending->arg = arg;
	*keeper->records_end = pending;
	keeper->records_end = &pending->next;
	need_scribe(keeper);
	send_records(keeper);
}

void audit_new_conf(struct keeper *keeper)
{
	struct ipc_message message = { .type = IPC_CONF, .fd = keeper->conf_fd };
	struct err err;

	if (keeper->scribe && !keeper->is_scribe_leaving && keeper->scribe->control >= 0 &&
		ipc_send(keeper->scribe->control, &message, &err))
		audit_kill_scribe(keeper);
}

int audit_channel(struct keeper *keeper, uint32_t worker, struct err *err)
{
	struct ipc_message message = { .type = IPC_CHANNEL, .worker = worker };
	int pair[2];

	need_scribe(keeper);
	if (!keeper->scribe || keeper->is_scribe_leaving || keeper->scribe->control < 0)
		return err_set(err, ERR_PEER, "there is no scribe now");
	if (ipc_pair(pair, err))
		return -1;
	message.fd = pair[1];
	if (ipc_send(keeper->scribe->control, &message, err)) {
		(void)close(pair[0]);
		pair[0] = -1;
	}
	(void)close(pair[1]);
	return pair[0];
}

/* Is it alive, and does it get on? A disk that hangs makes it silent, not dead. Counted in turns of
 * the clock, so that a keeper that was stopped for a while does not take that for the scribe's. */
static void ask_scribe(struct keeper *keeper, uint64_t now_ms)
{
	struct ipc_message question = { .type = IPC_HEAD, .fd = -1 };
	struct err err;

	if (!keeper->scribe || !keeper->scribe->is_ready || keeper->scribe->control < 0 ||
		keeper->is_scribe_leaving)
		return;
	if (keeper->scribe_asked_ticks++ == 0) {
		(void)ipc_send(keeper->scribe->control, &question, &err);
	} else if (keeper->scribe_asked_ticks > KEEPER_LOST_MS / KEEPER_TICK_MS &&
		   keeper->scribe_lost_ms == 0) {
		log_error("the scribe has not got a record to disk for %u s",
			KEEPER_LOST_MS / 1000);
		keeper->scribe_lost_ms = now_ms - KEEPER_LOST_MS;
	}
}

/* The head also goes where whoever rewrites the log does not reach: to syslog. */
static void tell_syslog(struct keeper *keeper)
{
	if (keeper->head.seq == keeper->checkpoint_seq)
		return;
	keeper->checkpoint_seq = keeper->head.seq;
	syslog(LOG_AUTHPRIV | LOG_NOTICE, "checkpoint %llu:%s of %s",
		(unsigned long long)keeper->head.seq, keeper->head.hash,
		keeper->conf->audit.file);
}

/* Once a minute, if anything was written since. */
static void checkpoint(struct keeper *keeper, uint64_t now_ms)
{
	struct audit_record record = { .event = AUDIT_CHECKPOINT };

	if (!keeper->is_open || now_ms < keeper->checkpoint_ms + CHECKPOINT_MS)
		return;
	keeper->checkpoint_ms = now_ms;
	if (keeper->head.seq <= keeper->checkpoint_seq + 1)
		return; /* at most the last checkpoint itself */
	tell_syslog(keeper);
	audit_record(keeper, NULL, &record, NULL, NULL);
}

void audit_tick(struct keeper *keeper, uint64_t now_ms)
{
	bool is_lost;

	if (keeper->records || keeper->workers)
		need_scribe(keeper);
	send_records(keeper);
	ask_scribe(keeper, now_ms);
	audit_save_head(keeper);
	checkpoint(keeper, now_ms);
	/* At the start a long log is read as a whole, however long that takes. */
	is_lost = keeper->is_started && keeper->scribe_lost_ms != 0 &&
		  now_ms >= keeper->scribe_lost_ms + KEEPER_LOST_MS;
	if (!is_lost)
		return;
	if (keeper->is_open) {
		const struct actor self = { .via = "keeper" };

		log_error("the audit log cannot be written: access closes");
		keeper_close(keeper, &self, AUDIT_CLOSED, "audit-lost");
	}
	/* Whoever waits for a record hears that it will not be; a scribe that hangs is ended. */
	fail_records(keeper, false);
	if (keeper->scribe && !keeper->scribe->is_ready &&
		now_ms >= keeper->scribe_born_ms + KEEPER_LOST_MS)
		audit_kill_scribe(keeper);
}

void audit_let_go(struct keeper *keeper)
{
	struct ipc_message end = { .type = IPC_CUT, .fd = -1 };
	struct err err;

	if (!keeper->scribe || keeper->is_scribe_leaving)
		return;
	keeper->is_scribe_leaving = true;
	if (keeper->scribe->control < 0 || ipc_send(keeper->scribe->control, &end, &err))
		audit_kill_scribe(keeper);
}

void audit_scribe_died(struct keeper *keeper, int status)
{
	struct audit_record record = { .event = AUDIT_SCRIBE_DIED };
	bool was_ready = keeper->scribe->is_ready, was_leaving = keeper->is_scribe_leaving;
	uint64_t now_ms = clock_boot_ms();
	char how[64];

	/* What it said last may still be there. */
	keeper->scribe->pid = 0;
	if (keeper->scribe->control >= 0)
		read_scribe(keeper, keeper->scribe);
	child_free(keeper->scribe);
	keeper->scribe = NULL;
	keeper->is_scribe_leaving = false;
	if (was_leaving && status == 0) {
		audit_save_head(keeper);
		tell_syslog(keeper);
		if (keeper->records || keeper->workers)
			need_scribe(keeper);
		return;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == SCRIBE_EXIT_SYNC_FAILED)
		keeper->is_audit_file_failed = true;
	child_describe(status, how, sizeof(how));
	keeper->scribe_deaths_total++;
	log_error("the scribe died: %s", how);
	if (!keeper->is_started) {
		/* It has said why: this audit file is not one to start with. */
		keeper->exit_code = 1;
		(void)event_base_loopbreak(keeper->base);
		return;
	}
	if (keeper->scribe_lost_ms == 0)
		keeper->scribe_lost_ms = now_ms;
	keeper->scribe_respawn_ms = now_ms + keeper->scribe_backoff_ms;
	keeper->scribe_backoff_ms =
		keeper->scribe_backoff_ms ? keeper->scribe_backoff_ms * 2 : BACKOFF_MIN_MS;
	if (keeper->scribe_backoff_ms > BACKOFF_MAX_MS)
		keeper->scribe_backoff_ms = BACKOFF_MAX_MS;
	if (!was_ready)
		return; /* one record for its death is enough */
	record.detail = sv_from_cstr(how);
	audit_record(keeper, NULL, &record, NULL, NULL);
}

void audit_stop(struct keeper *keeper)
{
	fail_records(keeper, true);
	audit_save_head(keeper);
	child_free(keeper->scribe);
	keeper->scribe = NULL;
	if (keeper->audit_fd >= 0)
		(void)close(keeper->audit_fd);
	if (keeper->audit_folder >= 0)
		(void)close(keeper->audit_folder);
}
