#include "base/sockdiag.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define TCP_STATE_ESTABLISHED 1
#define TCP_STATE_LISTEN      10

struct request {
	struct nlmsghdr head;
	struct inet_diag_req_v2 diag;
};

/* Address and port in network order, into the words that the kernel wants. */
static int set_end(
	const struct sockaddr_storage *from, uint8_t *family, __be32 addr[4], __be16 *port)
{
	*family = (uint8_t)from->ss_family;
	if (from->ss_family == AF_INET) {
		struct sockaddr_in v4;

		memcpy(&v4, from, sizeof(v4));
		addr[0] = v4.sin_addr.s_addr;
		*port = v4.sin_port;
		return 0;
	}
	if (from->ss_family == AF_INET6) {
		struct sockaddr_in6 v6;

		memcpy(&v6, from, sizeof(v6));
		memcpy(addr, &v6.sin6_addr, sizeof(v6.sin6_addr));
		*port = v6.sin6_port;
		return 0;
	}
	errno = EAFNOSUPPORT;
	return -1;
}

static int read_answer(int netlink, uint32_t *uid)
{
	union {
		struct nlmsghdr head;
		char bytes[4096];
	} answer;

	ssize_t len = recv(netlink, &answer, sizeof(answer), 0);
	struct inet_diag_msg diag;

	if (len < (ssize_t)sizeof(struct nlmsghdr))
		return -1;
	if (answer.head.nlmsg_type == SOCK_DIAG_BY_FAMILY &&
		len >= (ssize_t)NLMSG_LENGTH(sizeof(diag))) {
		memcpy(&diag, NLMSG_DATA(&answer.head), sizeof(diag));
		/* A socket that its process has closed is still there while it says goodbye, and
		 * is shown with uid 0. It is nobody's, and above all not root's. */
		if (diag.idiag_inode != 0) {
			*uid = diag.idiag_uid;
			return 0;
		}
	}
	errno = ENOENT;
	return -1;
}

static int ask(struct request *request, uint32_t *uid)
{
	int netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), rc = -1;
	int saved;

	if (netlink < 0)
		return -1;
	request->head.nlmsg_len = sizeof(*request);
	request->head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	request->head.nlmsg_flags = NLM_F_REQUEST;
	request->diag.sdiag_protocol = IPPROTO_TCP;
	request->diag.idiag_states = 1U << TCP_STATE_ESTABLISHED | 1U << TCP_STATE_LISTEN;
	request->diag.id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
	request->diag.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	if (send(netlink, request, sizeof(*request), 0) == (ssize_t)sizeof(*request))
		rc = read_answer(netlink, uid);
	saved = errno;
	(void)close(netlink);
	errno = saved;
	return rc;
}

int sockdiag_owner(const struct sockaddr_storage *local, const struct sockaddr_storage *remote,
	uint32_t *uid)
{
	struct request request = { 0 };
	uint8_t family;

	if (set_end(local, &request.diag.sdiag_family, request.diag.id.idiag_src,
		    &request.diag.id.idiag_sport) ||
		set_end(remote, &family, request.diag.id.idiag_dst,
			&request.diag.id.idiag_dport))
		return -1;
	return ask(&request, uid);
}

int sockdiag_listener(const struct sockaddr_storage *local, uint32_t *uid)
{
	struct request request = { 0 };

	/* With no peer given, the kernel answers with the listener that would take a connection. */
	if (set_end(local, &request.diag.sdiag_family, request.diag.id.idiag_src,
		    &request.diag.id.idiag_sport))
		return -1;
	return ask(&request, uid);
}
