#include "gateway/ipc.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define IPC_VERSION 1

/* Room for more descriptors than we ever send, so that a surplus is seen and closed. */
#define CONTROL_SIZE CMSG_SPACE(4 * sizeof(int))

static void put_uint(char *to, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (char)(unsigned char)(value >> (8 * i));
}

static uint64_t get_uint(const char *from, size_t size)
{
	uint64_t value = 0;

	for (size_t i = size; i > 0; i--)
		value = value << 8 | (unsigned char)from[i - 1];
	return value;
}

/* Version, type, two zeros, worker, number, result, length: little-endian. */
static void encode_head(const struct ipc_message *message, char head[static IPC_HEAD_SIZE])
{
	put_uint(head, IPC_VERSION, 1);
	put_uint(head + 1, (uint64_t)message->type, 1);
	put_uint(head + 2, 0, 2);
	put_uint(head + 4, message->worker, 4);
	put_uint(head + 8, message->number, 8);
	put_uint(head + 16, (uint32_t)message->result, 4);
	put_uint(head + 20, message->payload.len, 4);
}

void ipc_encode(const struct ipc_message *message, struct buf *out)
{
	char head[IPC_HEAD_SIZE];

	encode_head(message, head);
	buf_add(out, head, sizeof(head));
	buf_add_sv(out, message->payload);
}

int ipc_decode(struct sv bytes, struct ipc_message *out, struct err *err)
{
	uint64_t type, result, len;

	if (bytes.len < IPC_HEAD_SIZE)
		return err_set(err, ERR_PEER, "a message of %zu bytes is too short", bytes.len);
	if (get_uint(bytes.ptr, 1) != IPC_VERSION)
		return err_set(err, ERR_PEER, "a message of an unknown version");
	type = get_uint(bytes.ptr + 1, 1);
	if (type == IPC_NOTHING || type >= IPC_TYPES_LEN || get_uint(bytes.ptr + 2, 2) != 0)
		return err_set(err, ERR_PEER, "a message of an unknown type");
	result = get_uint(bytes.ptr + 16, 4);
	len = get_uint(bytes.ptr + 20, 4);
	if (len != bytes.len - IPC_HEAD_SIZE || len > AUDIT_MESSAGE_MAX || result > INT32_MAX)
		return err_set(err, ERR_PEER, "a message whose length or result is wrong");
	*out = (struct ipc_message){
		.type = (enum ipc_type)type,
		.worker = (uint32_t)get_uint(bytes.ptr + 4, 4),
		.number = get_uint(bytes.ptr + 8, 8),
		.result = (int32_t)result,
		.payload = { bytes.ptr + IPC_HEAD_SIZE, (size_t)len },
		.fd = -1,
	};
	return 0;
}

int ipc_pair(int fds[static 2], struct err *err)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))
		return err_sys(err, "cannot make a pair of sockets");
	return 0;
}

int ipc_send(int socket, const struct ipc_message *message, struct err *err)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };

	char head[IPC_HEAD_SIZE];
	struct iovec parts[2] = {
		{ head, sizeof(head) },
		/* NOLINTNEXTLINE(performance-no-int-to-ptr): iovec has no const, sendmsg() reads */
		{ (void *)(uintptr_t)message->payload.ptr, message->payload.len },
	};
	struct msghdr packet = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t sent;

	if (message->payload.len > AUDIT_MESSAGE_MAX) {
		errno = EMSGSIZE;
		return err_sys(err, "a message of %zu bytes", message->payload.len);
	}
	encode_head(message, head);
	if (message->fd >= 0) {
		struct cmsghdr *item;

		packet.msg_control = control.bytes;
		packet.msg_controllen = sizeof(control.bytes);
		item = CMSG_FIRSTHDR(&packet);
		item->cmsg_level = SOL_SOCKET;
		item->cmsg_type = SCM_RIGHTS;
		item->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(item), &message->fd, sizeof(int));
	}
	do {
		sent = sendmsg(socket, &packet, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return 0;
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return err_set(err, ERR_PEER, "the other process is gone");
	return err_sys(err, "cannot send to the other process");
}

/* Take the first descriptor, close all others. The number of descriptors that came. */
static size_t take_descriptors(struct msghdr *packet, int *first)
{
	size_t count = 0;

	*first = -1;
	for (struct cmsghdr *item = CMSG_FIRSTHDR(packet); item;
		item = CMSG_NXTHDR(packet, item)) {
		size_t len;

		if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
			continue;
		len = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < len; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(int));
			if (count++ == 0)
				*first = fd;
			else
				(void)close(fd);
		}
	}
	return count;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): recvmsg() writes to it */
enum ipc_result ipc_receive(int socket, char storage[static IPC_MESSAGE_MAX],
	struct ipc_message *out, struct err *err)
{
	union {
		char bytes[CONTROL_SIZE];
		struct cmsghdr align;
	} control;
	struct iovec part = { storage, IPC_MESSAGE_MAX };
	struct msghdr packet = { .msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	ssize_t got;
	size_t descriptors;
	int fd;

	do {
		got = recvmsg(socket, &packet, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return IPC_EMPTY;
	if (got < 0) {
		(void)err_sys(err, "cannot receive from the other process");
		return IPC_GONE;
	}
	descriptors = take_descriptors(&packet, &fd);
	if (got == 0 && descriptors == 0) {
		(void)err_set(err, ERR_PEER, "the other process is gone");
		return IPC_GONE;
	}
	if (descriptors > 1 || packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		(void)err_set(err, ERR_PEER, "a message that is too long");
	else if (ipc_decode((struct sv){ storage, (size_t)got }, out, err) == 0) {
		out->fd = fd;
		return IPC_RECEIVED;
	}
	if (fd >= 0)
		(void)close(fd);
	return IPC_GONE;
}
