#include "cli/peer.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct question {
	struct nlmsghdr head;
	struct inet_diag_req_v2 body;
};

/* Address and port of one end, as sock_diag wants them; the family. */
static int set_end(const struct sockaddr_storage *from, __be16 *port, __be32 addr[static 4])
{
	if (from->ss_family == AF_INET) {
		struct sockaddr_in v4;

		memcpy(&v4, from, sizeof(v4));
		*port = v4.sin_port;
		addr[0] = v4.sin_addr.s_addr;
	} else {
		struct sockaddr_in6 v6;

		memcpy(&v6, from, sizeof(v6));
		*port = v6.sin6_port;
		memcpy(addr, &v6.sin6_addr, sizeof(v6.sin6_addr));
	}
	return from->ss_family;
}

/* Ask for the socket whose own end is our peer's. */
static int make_question(int fd, struct question *question, struct err *err)
{
	struct sockaddr_storage ours, theirs;
	socklen_t ours_len = sizeof(ours), theirs_len = sizeof(theirs);
	struct inet_diag_sockid *id = &question->body.id;

	if (getsockname(fd, (struct sockaddr *)&ours, &ours_len) ||
		getpeername(fd, (struct sockaddr *)&theirs, &theirs_len))
		return err_sys(err, "whose connection is it");
	*question = (struct question){
		.head = {
			.nlmsg_len = sizeof(*question),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST,
		},
		.body = { .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0U },
	};
	question->body.sdiag_family = (__u8)set_end(&theirs, &id->idiag_sport, id->idiag_src);
	(void)set_end(&ours, &id->idiag_dport, id->idiag_dst);
	id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	return 0;
}

static int read_answer(const char *bytes, size_t len, uid_t *uid, struct err *err)
{
	struct nlmsghdr head;
	struct inet_diag_msg body;

	if (len < NLMSG_HDRLEN + sizeof(body))
		return err_set(err, ERR_SYSTEM, "sock_diag: short answer");
	memcpy(&head, bytes, sizeof(head));
	memcpy(&body, bytes + NLMSG_HDRLEN, sizeof(body));
	if (head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return err_set(err, ERR_DENIED, "the other end is gone");
	/* A socket that its process closed is shown with uid 0, which would be root's. */
	if (body.idiag_inode == 0)
		return err_set(err, ERR_DENIED, "the other end was closed");
	*uid = body.idiag_uid;
	return 0;
}

int peer_uid(int fd, uid_t *uid, struct err *err)
{
	struct question question;
	char answer[1024];
	ssize_t len;
	int diag;
	int rc = -1;

	if (make_question(fd, &question, err))
		return -1;
	diag = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (diag < 0)
		return err_sys(err, "sock_diag");
	if (send(diag, &question, sizeof(question), 0) < 0) {
		(void)err_sys(err, "sock_diag");
		goto out;
	}
	do
		len = recv(diag, answer, sizeof(answer), 0);
	while (len < 0 && errno == EINTR);
	if (len < 0)
		(void)err_sys(err, "sock_diag");
	else
		rc = read_answer(answer, (size_t)len, uid, err);
out:
	(void)close(diag);
	return rc;
}
