#include "sampler/serve/outgoing.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static struct iovec part_of(struct sv bytes)
{
	struct iovec part = { .iov_len = bytes.len };

	memcpy(&part.iov_base, &bytes.ptr, sizeof(part.iov_base)); /* it is only read */
	return part;
}

void outgoing_set(struct outgoing *outgoing, struct sv head, struct sv body)
{
	outgoing->parts[0] = part_of(head);
	outgoing->parts[1] = part_of(body);
	outgoing->parts[2] = part_of(SV(""));
}

void outgoing_set_chunk(struct outgoing *outgoing, struct sv bytes, bool is_last)
{
	char *end = outgoing->size + sizeof(outgoing->size), *at = end;

	outgoing_set(outgoing, SV(""), bytes);
	if (bytes.len > 0) {
		*--at = '\n';
		*--at = '\r';
		for (size_t left = bytes.len; left > 0; left /= 16)
			*--at = "0123456789abcdef"[left % 16];
		outgoing->parts[0] = part_of((struct sv){ at, (size_t)(end - at) });
		outgoing->parts[2] = part_of(is_last ? SV("\r\n0\r\n\r\n") : SV("\r\n"));
	} else if (is_last) {
		outgoing->parts[2] = part_of(SV("0\r\n\r\n"));
	}
}

bool outgoing_is_sent(const struct outgoing *outgoing)
{
	for (size_t i = 0; i < OUTGOING_PARTS; i++) {
		if (outgoing->parts[i].iov_len > 0)
			return false;
	}
	return true;
}

static void take_off(struct outgoing *outgoing, size_t len)
{
	for (size_t i = 0; i < OUTGOING_PARTS; i++) {
		struct iovec *part = &outgoing->parts[i];
		size_t here = len < part->iov_len ? len : part->iov_len;

		part->iov_base = (char *)part->iov_base + here;
		part->iov_len -= here;
		len -= here;
	}
}

int outgoing_send(struct outgoing *outgoing, int socket)
{
	while (!outgoing_is_sent(outgoing)) {
		struct msghdr message = { .msg_iov = outgoing->parts,
			.msg_iovlen = OUTGOING_PARTS };
		ssize_t put = sendmsg(socket, &message, MSG_NOSIGNAL);

		if (put < 0)
			return errno == EAGAIN ? 0 : -1;
		take_off(outgoing, (size_t)put);
	}
	return 0;
}
