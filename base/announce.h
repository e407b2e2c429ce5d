/*
 * announce.h - find running samplers: the control sockets that they have in a runtime folder.
 *
 * Format and rules: docs/sampler.md, "Announcement".  What a file is called says what to look for; who is
 * there, only the kernel does: the owner of the file and the user of whoever listens there must be the same,
 * and whether that user is one to deal with is the caller's to decide.
 */
#ifndef BASE_ANNOUNCE_H
#define BASE_ANNOUNCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sv.h"

#define ANNOUNCE_FOLDER "/run/postern/targets"
#define ANNOUNCE_ENDING ".control"
#define ANNOUNCE_FORK   ".fork" /* before the ending */

struct announced {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct sv name; /* into path; as it is written in files' names */
	uint32_t pid;   /* as the file's name has it: in the process's own namespace */
	bool is_fork;   /* of a process that another one of that name has forked */
	uint32_t uid;   /* the file's owner */
};

/* "NAME.123.control" or "NAME.123.fork.control" into its parts, `name` into `file`; false when it is not of
 * that form. Leaves path and uid alone. */
bool announce_parse(struct sv file, struct announced *out);

/* As a process's name is written in its file's: letters, digits, '.', '_' and '-', all else as '_'. */
void announce_write(struct sv name, struct buf *out);

/* Does `file`, a name out of announce_parse(), stand for `name`? */
bool announce_is_name(struct sv file, struct sv name);

/*
 * Call `take` for each socket of that form in `folder`, until it answers false.  Where the folder may not be
 * listed (mode 1733) the kernel's list of sockets stands in for it: then only what is in this network
 * namespace is found.  -1: neither can be read.
 */
int announce_list(const char *folder, bool (*take)(void *arg, const struct announced *found),
	void *arg, struct err *err);

/*
 * Connect, and make sure that who listens is the file's owner. Never waits for longer than the socket's own
 * queue; `pid` is the listener's in our namespace. -1 and errno: ECONNREFUSED when it is stale, EPERM when
 * another user listens there, and others.
 */
int announce_connect(const struct announced *found, bool nonblocking, uint32_t *pid);

#endif
