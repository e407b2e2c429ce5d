#include "gateway/audit_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/ipc.h"

#define PENDING_BYTES_MAX ((size_t)1 << 20)
#define SUMS              256 /* a power of two */
#define SINGLY            20  /* refusals of one address for one reason in a second */

/* Refusals of one address for one reason within the running second. */
struct sum {
	struct addr client;
	char reason[48];
	uint64_t seen;
	uint16_t status;
};

struct audit_queue {
	struct event_base *base;
	struct event *readable, *writable;
	int fd; /* -1: no scribe */
	uint32_t worker;
	void (*acked)(void *arg, uint64_t number, bool on_disk);
	void *arg;
	struct buf pending; /* packets, each behind its length as a size_t */
	uint64_t *waiting;  /* numbers that were sent and not acknowledged */
	size_t waiting_len, waiting_cap;
	struct sum sums[SUMS];
};

static void lose_scribe(struct audit_queue *queue)
{
	size_t len = queue->waiting_len;

	if (queue->readable)
		event_free(queue->readable);
	if (queue->writable)
		event_free(queue->writable);
	queue->readable = queue->writable = NULL;
	if (queue->fd >= 0)
		(void)close(queue->fd);
	queue->fd = -1;
	buf_clear(&queue->pending);
	queue->waiting_len = 0;
	/* Who is told may ask for something new, but nothing is accepted now. */
	for (size_t i = 0; i < len; i++)
		queue->acked(queue->arg, queue->waiting[i], false);
}

static bool remember(struct audit_queue *queue, uint64_t number)
{
	if (queue->waiting_len == queue->waiting_cap) {
		size_t cap = queue->waiting_cap ? queue->waiting_cap * 2 : 64;
		uint64_t *grown = reallocarray(queue->waiting, cap, sizeof(*grown));

		if (!grown)
			return false;
		queue->waiting = grown;
		queue->waiting_cap = cap;
	}
	queue->waiting[queue->waiting_len++] = number;
	return true;
}

static bool forget(struct audit_queue *queue, uint64_t number)
{
	for (size_t i = 0; i < queue->waiting_len; i++) {
		if (queue->waiting[i] == number) {
			queue->waiting[i] = queue->waiting[--queue->waiting_len];
			return true;
		}
	}
	return false;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct audit_queue *queue = arg;
	char storage[IPC_MESSAGE_MAX];
	struct ipc_message message;
	enum ipc_result result;
	struct err err;

	(void)what;
	while ((result = ipc_receive(fd, storage, &message, &err)) == IPC_RECEIVED) {
		if (message.fd >= 0)
			(void)close(message.fd);
		if (message.type == IPC_ACK && forget(queue, message.number))
			queue->acked(queue->arg, message.number, message.result == 0);
		if (queue->fd != fd)
			return; /* replaced by what was told */
	}
	if (result == IPC_GONE)
		lose_scribe(queue);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct audit_queue *queue = arg;

	(void)what;
	while (queue->pending.len > 0) {
		size_t len;
		ssize_t put;

		memcpy(&len, queue->pending.ptr, sizeof(len));
		put = send(
			fd, queue->pending.ptr + sizeof(len), len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (put < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (put < 0) {
			lose_scribe(queue);
			return;
		}
		buf_drop(&queue->pending, sizeof(len) + len);
	}
	(void)event_del(queue->writable);
}

static void attach(struct audit_queue *queue, int fd)
{
	queue->fd = fd;
	queue->readable = event_new(queue->base, fd, EV_READ | EV_PERSIST, on_readable, queue);
	queue->writable = event_new(queue->base, fd, EV_WRITE | EV_PERSIST, on_writable, queue);
	if (!queue->readable || !queue->writable || event_add(queue->readable, NULL))
		lose_scribe(queue);
}

struct audit_queue *audit_queue_new(struct event_base *base, int fd, uint32_t worker,
	void (*acked)(void *arg, uint64_t number, bool on_disk), void *arg)
{
	struct audit_queue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return NULL;
	queue->base = base;
	queue->worker = worker;
	queue->acked = acked;
	queue->arg = arg;
	buf_init(&queue->pending, PENDING_BYTES_MAX);
	attach(queue, fd);
	return queue;
}

void audit_queue_free(struct audit_queue *queue)
{
	if (!queue)
		return;
	queue->waiting_len = 0;
	lose_scribe(queue);
	buf_free(&queue->pending);
	free(queue->waiting);
	free(queue);
}

void audit_queue_replace(struct audit_queue *queue, int fd)
{
	lose_scribe(queue);
	attach(queue, fd);
}

bool audit_queue_works(const struct audit_queue *queue)
{
	return queue->fd >= 0;
}

static bool queue_packet(struct audit_queue *queue, struct sv packet)
{
	if (queue->pending.len + sizeof(packet.len) + packet.len > PENDING_BYTES_MAX)
		return false;
	buf_add(&queue->pending, &packet.len, sizeof(packet.len));
	buf_add_sv(&queue->pending, packet);
	return !queue->pending.failed && event_add(queue->writable, NULL) == 0;
}

static bool send_packet(struct audit_queue *queue, struct sv packet)
{
	ssize_t put;

	if (queue->pending.len > 0)
		return queue_packet(queue, packet); /* in order */
	put = send(queue->fd, packet.ptr, packet.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (put >= 0)
		return true;
	return (errno == EAGAIN || errno == EINTR) && queue_packet(queue, packet);
}

bool audit_queue_send(
	struct audit_queue *queue, uint64_t number, const struct audit_record *record)
{
	char wire_mem[AUDIT_MESSAGE_MAX], packet_mem[IPC_MESSAGE_MAX];
	struct ipc_message message = {
		.type = IPC_AUDIT, .worker = queue->worker, .number = number, .fd = -1
	};
	struct buf wire, packet;

	if (queue->fd < 0)
		return false;
	buf_init_fixed(&wire, wire_mem, sizeof(wire_mem));
	buf_init_fixed(&packet, packet_mem, sizeof(packet_mem));
	audit_record_encode(record, &wire);
	message.payload = buf_sv(&wire);
	ipc_encode(&message, &packet);
	if (wire.failed || packet.failed || (number && !remember(queue, number)))
		return false;
	if (send_packet(queue, buf_sv(&packet)))
		return true;
	if (number)
		(void)forget(queue, number);
	return false;
}

static struct sum *sum_of(
	struct audit_queue *queue, const struct addr *client, struct sv reason)
{
	uint64_t hash = 14695981039346656037U;
	struct sum *sum;

	for (size_t i = 0; i < sizeof(client->bytes); i++)
		hash = (hash ^ client->bytes[i]) * 1099511628211U;
	for (size_t i = 0; i < reason.len; i++)
		hash = (hash ^ (unsigned char)reason.ptr[i]) * 1099511628211U;
	sum = &queue->sums[hash % SUMS];
	if (sum->seen > 0 && addr_is_same(&sum->client, client) &&
		sv_is(sv_from_cstr(sum->reason), reason))
		return sum;
	/* Another's: it is summed under this one's place no longer than this second. */
	return sum->seen > 0 ? NULL : sum;
}

bool audit_queue_refuse(
	struct audit_queue *queue, const struct addr *client, const struct audit_record *record)
{
	struct sum *sum = sum_of(queue, client, record->reason);

	if (!sum)
		return audit_queue_send(queue, 0, record);
	if (sum->seen == 0) {
		sum->client = *client;
		sum->status = record->status;
		if (!sv_to_cstr(record->reason, sum->reason, sizeof(sum->reason)))
			sum->reason[0] = '\0';
	}
	if (++sum->seen <= SINGLY)
		return audit_queue_send(queue, 0, record);
	return queue->fd >= 0;
}

void audit_queue_tick(struct audit_queue *queue)
{
	for (size_t i = 0; i < SUMS; i++) {
		struct sum *sum = &queue->sums[i];
		char address[ADDR_TEXT_SIZE];
		struct audit_record record = {
			.event = AUDIT_REFUSED, .has_count = true, .status = sum->status
		};

		if (sum->seen > SINGLY) {
			addr_format(&sum->client, address);
			record.client_address = sv_from_cstr(address);
			record.reason = sv_from_cstr(sum->reason);
			record.count = sum->seen - SINGLY;
			if (!audit_queue_send(queue, 0, &record))
				continue; /* kept for the next second */
		}
		sum->seen = 0;
	}
}
