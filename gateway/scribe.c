/*
 * The scribe: the one process that appends to the audit log.
 *
 * Each turn of its loop takes what all channels hold, up to a bound, writes it in one go, brings it
 * to disk once, and only then says so to each sender: a hundred requests that arrive while the disk
 * is busy share the next fdatasync().  A failed write is final: negative answers, and this process
 * ends; a new one reads the file anew.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "conf/files.h"
#include "gateway/audit_file.h"
#include "gateway/ipc.h"
#include "gateway/log.h"
#include "gateway/memfile.h"
#include "gateway/roles.h"
#include "gateway/sandbox.h"

#define CHANNELS_MAX   130 /* the keeper's, and one a worker of two generations */
#define BATCH_RECORDS  512
#define TURN_RECORDS   64 /* of one channel in a batch */
#define TORN_SUFFIX    ".torn"
#define SYNC_EVERY_MS  1000
#define BATCH_SIZE_MAX (BATCH_RECORDS * (size_t)4096 + AUDIT_LINE_MAX)

struct channel {
	int fd;
	uint32_t worker; /* 0: the keeper's control channel, which is always the first */
};

/* A record in the batch whose sender waits for it. */
struct waiting {
	uint32_t worker;
	uint64_t number;
	bool wants_target;
	char target[AUDIT_TEXT_MAX];
	size_t target_len;
};

struct scribe {
	struct conf_files *files;
	struct conf *conf;
	struct audit_file file;
	struct audit_head kept;
	struct channel channels[CHANNELS_MAX];
	size_t channels_len;
	struct waiting waiting[BATCH_RECORDS];
	size_t waiting_len, records_len;
	bool head_asked, ending;
	size_t turns;
	uint64_t synced_ms;
	char storage[IPC_MESSAGE_MAX];
};

static struct channel *find_channel(struct scribe *scribe, uint32_t worker)
{
	for (size_t i = 0; i < scribe->channels_len; i++) {
		if (scribe->channels[i].worker == worker)
			return &scribe->channels[i];
	}
	return NULL;
}

static void drop_channel(struct scribe *scribe, struct channel *channel)
{
	(void)close(channel->fd);
	*channel = scribe->channels[--scribe->channels_len];
}

static void add_channel(struct scribe *scribe, const struct ipc_message *message)
{
	if (message->fd < 0)
		return;
	if (scribe->channels_len == CHANNELS_MAX || message->worker == 0) {
		(void)close(message->fd);
		return;
	}
	scribe->channels[scribe->channels_len++] = (struct channel){
		.fd = message->fd,
		.worker = message->worker,
	};
}

/* A worker that was taken over could write anything: only what is its business is let in. */
static bool may_write(const struct channel *channel, enum audit_event event)
{
	if (channel->worker == 0)
		return true;
	return event == AUDIT_RECEIVED || event == AUDIT_COMPLETED || event == AUDIT_CUT ||
	       event == AUDIT_REFUSED || event == AUDIT_BANNED;
}

static int answer(const struct channel *channel, uint64_t number, int result)
{
	struct ipc_message ack = { .type = IPC_ACK,
		.worker = channel->worker,
		.number = number,
		.result = result,
		.fd = -1 };
	struct err err;

	return ipc_send(channel->fd, &ack, &err);
}

static int take_record(
	struct scribe *scribe, const struct channel *channel, const struct ipc_message *message)
{
	struct audit_record record;
	struct waiting *waiting;
	struct err err;

	if (audit_record_decode(message->payload, &record, &err) ||
		!may_write(channel, record.event)) {
		log_error("worker %u sent a record that is not one", channel->worker);
		return -1;
	}
	scribe->records_len++;
	if (audit_file_add(&scribe->file, &record, clock_unix_us(), &err)) {
		log_error("a record was not written: %s", err.text);
		return message->number ? answer(channel, message->number, EIO) : 0;
	}
	if (message->number == 0)
		return 0;
	waiting = &scribe->waiting[scribe->waiting_len++];
	waiting->worker = channel->worker;
	waiting->number = message->number;
	waiting->wants_target = channel->worker != 0 && record.event == AUDIT_RECEIVED &&
				record.target.len > 0 &&
				record.target.len <= sizeof(waiting->target);
	waiting->target_len = waiting->wants_target ? record.target.len : 0;
	if (waiting->wants_target)
		memcpy(waiting->target, record.target.ptr, record.target.len);
	return 0;
}

/* After a rotation: an empty file, in which the chain goes on. */
static void reopen(struct scribe *scribe, int fd)
{
	if (fd < 0)
		return;
	if (lseek(fd, 0, SEEK_END) != 0) {
		log_error("the new audit file is not empty: the old one stays in use");
		(void)close(fd);
		return;
	}
	(void)close(scribe->file.fd);
	scribe->file.fd = fd;
}

/* Read a configuration, and do as it says. The key stays what the file began with. */
static int read_conf(struct scribe *scribe, int fd, struct err *err)
{
	struct conf_errors errors = { .count = 0 };
	struct conf_files *files;
	struct conf *conf = NULL;
	struct sv packed, text;

	if (memfile_map(fd, &packed, err))
		return -1;
	files = conf_files_packed(packed, &text, err);
	if (!files)
		return -1;
	buf_init(&errors.text, 4096);
	conf = conf_parse(text, "configuration", files, &errors);
	buf_free(&errors.text);
	if (!conf) {
		conf_files_free(files);
		return err_set(err, ERR_INPUT, "the keeper's configuration does not parse");
	}
	log_setup("scribe", conf->log.level, conf->log.json, conf->log.syslog);
	scribe->file.sync = conf->audit.sync;
	if (scribe->conf) {
		conf_free(conf);
		conf_files_free(files);
	} else {
		scribe->conf = conf;
		scribe->files = files;
	}
	return 0;
}

static void take_conf(struct scribe *scribe, int fd)
{
	struct err err;

	if (fd < 0)
		return;
	if (read_conf(scribe, fd, &err))
		log_error("new configuration: %s", err.text);
	(void)close(fd);
}

static int take_order(struct scribe *scribe, const struct ipc_message *message)
{
	switch (message->type) {
	case IPC_AUDIT:
		return take_record(scribe, &scribe->channels[0], message);
	case IPC_CHANNEL:
		add_channel(scribe, message);
		return 0;
	case IPC_REOPEN:
		reopen(scribe, message->fd);
		return 0;
	case IPC_CONF:
		take_conf(scribe, message->fd);
		return 0;
	case IPC_HEAD:
		scribe->head_asked = true;
		return 0;
	case IPC_CUT:
		scribe->ending = true;
		return 0;
	case IPC_NOTHING:
	case IPC_ACK:
	case IPC_RECEIPT:
	case IPC_TARGET:
	case IPC_DRAIN:
	case IPC_READY:
	case IPC_DRAINED:
	case IPC_TYPES_LEN:
		break;
	}
	return -1;
}

/* Take what the channel holds. -1: it is to be closed. A reopening ends the batch, so that no line
 * of it lands in the new file while its predecessor is not yet in the old one. */
static int read_channel(struct scribe *scribe, struct channel *channel, bool *batch_ends)
{
	size_t taken = 0;

	while (taken++ < TURN_RECORDS && scribe->records_len < BATCH_RECORDS &&
		scribe->file.batch.len < BATCH_SIZE_MAX - AUDIT_LINE_MAX) {
		struct ipc_message message;
		struct err err;
		int rc;

		switch (ipc_receive(channel->fd, scribe->storage, &message, &err)) {
		case IPC_GONE:
			return -1;
		case IPC_EMPTY:
			return 0;
		case IPC_RECEIVED:
			break;
		}
		if (channel->worker == 0 && message.type == IPC_REOPEN &&
			scribe->file.batch.len > 0) {
			if (audit_file_flush(&scribe->file, &err))
				log_error("%s", err.text);
			*batch_ends = true;
		}
		if (channel->worker == 0) {
			rc = take_order(scribe, &message);
		} else {
			if (message.fd >= 0)
				(void)close(message.fd);
			rc = message.type == IPC_AUDIT ? take_record(scribe, channel, &message)
						       : -1;
		}
		if (rc || *batch_ends)
			return rc;
	}
	return 0;
}

static void send_head(struct scribe *scribe)
{
	const struct audit_head *head = &scribe->file.chain.head;
	struct ipc_message message = { .type = IPC_HEAD,
		.number = head->seq,
		.payload = sv_from_cstr(head->hash),
		.fd = -1 };
	struct err err;

	/* The keeper that does not read asks again, or is gone. */
	(void)ipc_send(scribe->channels[0].fd, &message, &err);
}

static void send_answers(struct scribe *scribe, int result)
{
	for (size_t i = 0; i < scribe->waiting_len; i++) {
		const struct waiting *waiting = &scribe->waiting[i];
		struct ipc_message receipt = { .type = IPC_RECEIPT,
			.worker = waiting->worker,
			.number = waiting->number,
			.payload = { waiting->target, waiting->target_len },
			.fd = -1 };
		struct channel *channel = find_channel(scribe, waiting->worker);
		int own = result;
		struct err err;

		if (!channel)
			continue;

		if (result == 0 && waiting->wants_target &&
			ipc_send(scribe->channels[0].fd, &receipt, &err))
			own = EAGAIN;
		/* Who does not read its answers shall see that nobody listens any more. */
		if (answer(channel, waiting->number, own) && channel->worker != 0)
			drop_channel(scribe, channel);
	}
}

/* Write, bring to disk, answer. -1 when the file failed. */
static int end_batch(struct scribe *scribe)
{
	bool news = scribe->records_len > 0 || scribe->head_asked;
	struct err err;
	int rc = 0;

	if (scribe->records_len > 0)
		rc = audit_file_flush(&scribe->file, &err);
	if (rc)
		log_error("%s", err.text);
	if (news && rc == 0)
		send_head(scribe);
	send_answers(scribe, rc ? EIO : 0);
	scribe->waiting_len = scribe->records_len = 0;
	scribe->head_asked = false;
	return rc;
}

/* With sync = "interval": to disk once a second. -1 when that failed. */
static int sync_interval(struct scribe *scribe, int *wait_ms)
{
	uint64_t now_ms = clock_mono_ns() / 1000000;
	struct err err;

	*wait_ms = -1;
	if (scribe->file.sync != CONF_SYNC_INTERVAL || !scribe->file.is_dirty)
		return 0;
	if (now_ms - scribe->synced_ms < SYNC_EVERY_MS) {
		*wait_ms = (int)(SYNC_EVERY_MS - (now_ms - scribe->synced_ms));
		return 0;
	}
	scribe->synced_ms = now_ms;
	if (audit_file_sync(&scribe->file, &err)) {
		log_error("%s", err.text);
		return -1;
	}
	return 0;
}

static int turn(struct scribe *scribe)
{
	struct pollfd polled[CHANNELS_MAX];
	size_t count = scribe->channels_len;
	bool keeper_gone = false, batch_ends = false;
	int wait_ms;

	if (sync_interval(scribe, &wait_ms))
		return -1;
	for (size_t i = 0; i < count; i++)
		polled[i] = (struct pollfd){ scribe->channels[i].fd, POLLIN, 0 };
	if (poll(polled, count, scribe->ending ? 0 : wait_ms) < 0 && errno != EINTR)
		return -1;
	/* The keeper first, then the workers, beginning with another each time; one that has much to
	 * say does not keep the others from being heard. A channel that takes the place of one that is
	 * dropped has its turn next time. */
	scribe->turns++;
	for (size_t i = 0; i < count && !batch_ends; i++) {
		size_t at = i == 0 ? 0 : 1 + (i + scribe->turns) % (count - 1);
		struct channel *channel = &scribe->channels[at];

		if (polled[at].revents == 0 || at >= scribe->channels_len ||
			channel->fd != polled[at].fd)
			continue;
		if (read_channel(scribe, channel, &batch_ends) == 0)
			continue;
		if (channel->worker == 0)
			keeper_gone = true;
		else
			drop_channel(scribe, channel);
	}
	if (keeper_gone)
		scribe->ending = true;
	return end_batch(scribe);
}

static bool has_input(const struct scribe *scribe)
{
	struct pollfd polled[CHANNELS_MAX];

	for (size_t i = 0; i < scribe->channels_len; i++)
		polled[i] = (struct pollfd){ scribe->channels[i].fd, POLLIN, 0 };
	for (size_t i = 0;
		poll(polled, scribe->channels_len, 0) > 0 && i < scribe->channels_len; i++) {
		if (scribe->channels[i].worker != 0 && polled[i].revents & POLLIN)
			return true;
	}
	return false;
}

static int serve(struct scribe *scribe)
{
	struct err err;

	for (;;) {
		if (turn(scribe))
			return 1;
		if (scribe->ending && !has_input(scribe))
			break;
	}
	if (audit_file_flush(&scribe->file, &err) || audit_file_sync(&scribe->file, &err)) {
		log_error("%s", err.text);
		return 1;
	}
	return 0;
}

/* The keeper's first word is the head that it kept. */
static int receive_kept_head(struct scribe *scribe, struct err *err)
{
	struct pollfd control = { CHILD_FD_CONTROL, POLLIN, 0 };
	struct ipc_message message;

	while (poll(&control, 1, -1) < 0 && errno == EINTR)
		continue;
	if (ipc_receive(CHILD_FD_CONTROL, scribe->storage, &message, err) != IPC_RECEIVED)
		return -1;
	if (message.type != IPC_HEAD || message.payload.len != AUDIT_HASH_HEX_SIZE - 1)
		return err_set(err, ERR_PEER, "the keeper did not begin with the head it kept");
	scribe->kept.seq = message.number;
	memcpy(scribe->kept.hash, message.payload.ptr, message.payload.len);
	scribe->kept.hash[message.payload.len] = '\0';
	return 0;
}

static int start(struct scribe *scribe, bool check_all, struct err *err)
{
	struct err recovered = { .kind = ERR_NONE };
	struct audit_record record = { .event = AUDIT_RECOVERED };
	char torn_name[512];
	const char *slash;
	struct buf name;

	if (read_conf(scribe, SCRIBE_FD_CONF, err))
		return -1;
	if (receive_kept_head(scribe, err))
		return -1;

	slash = strrchr(scribe->conf->audit.file, '/');
	buf_init_fixed(&name, torn_name, sizeof(torn_name));
	buf_printf(
		&name, "%s" TORN_SUFFIX "%c", slash ? slash + 1 : scribe->conf->audit.file, 0);
	scribe->file.fd = SCRIBE_FD_FILE;
	scribe->file.folder = SCRIBE_FD_FOLDER;
	scribe->file.torn_name = torn_name;
	buf_init(&scribe->file.batch, BATCH_SIZE_MAX);
	audit_chain_init(&scribe->file.chain, scribe->conf->audit.key);
	if (name.failed)
		return err_set(err, ERR_INPUT, "the audit file's name is too long");
	if (audit_file_resume(&scribe->file, check_all ? AUDIT_CHECK_ALL : AUDIT_CHECK_TAIL,
		    &scribe->kept, &recovered, err))
		return err_wrap(err, "audit.file %s", scribe->conf->audit.file);
	(void)close(SCRIBE_FD_FOLDER);
	if (sandbox_enter(SANDBOX_SCRIBE, scribe->conf, err))
		return -1;
	if (recovered.kind == ERR_NONE)
		return 0;
	log_error("audit.file %s: %s", scribe->conf->audit.file, recovered.text);
	record.detail = sv_from_cstr(recovered.text);
	if (audit_file_add(&scribe->file, &record, clock_unix_us(), err))
		return -1;
	return audit_file_flush(&scribe->file, err);
}

int scribe_main(bool check_all)
{
	struct scribe *scribe = calloc(1, sizeof(*scribe));
	struct ipc_message ready = { .type = IPC_READY, .fd = -1 };
	struct err err;
	int rc = 1;

	if (!scribe)
		return 1;
	scribe->channels[scribe->channels_len++] = (struct channel){ CHILD_FD_CONTROL, 0 };
	if (start(scribe, check_all, &err) || ipc_send(CHILD_FD_CONTROL, &ready, &err)) {
		log_error("%s", err.text);
	} else {
		send_head(scribe);
		rc = serve(scribe);
		if (scribe->file.is_sync_failed)
			rc = SCRIBE_EXIT_SYNC_FAILED;
	}
	buf_free(&scribe->file.batch);
	conf_free(scribe->conf);
	conf_files_free(scribe->files);
	free(scribe);
	return rc;
}
