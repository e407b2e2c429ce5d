/*
 * audit_file.h - the audit log as a file: found whole or mended at its last line, appended to in
 * batches, and never trusted again after a write failed.
 */
#ifndef GATEWAY_AUDIT_FILE_H
#define GATEWAY_AUDIT_FILE_H

#include <stdbool.h>

#include "audit/chain.h"
#include "base/buf.h"
#include "conf/conf.h"

/* Open for appending, create if need be (mode 0600), and lock. Refused: a symbolic link, anything
 * but a regular file with one name, one that another process has locked. */
int audit_file_open(const char *path, struct err *err);

struct audit_file {
	struct audit_chain chain;
	struct buf batch; /* lines not written yet */
	int fd;
	int folder;            /* the one it lies in */
	const char *torn_name; /* of a file there that takes what is torn */
	enum conf_sync sync;
	bool failed;         /* a write or a sync failed: final */
	bool is_sync_failed; /* what was written may not be on disk */
	bool is_dirty;       /* written, not synced */
};

enum audit_check {
	AUDIT_CHECK_TAIL, /* the last line alone */
	AUDIT_CHECK_ALL,
};

/*
 * Read what is there and go on after it. A torn last line is cut off and appended to `torn_name`.
 * `kept` is the head as it was known elsewhere (seq 0: not known); a file without a line goes on from
 * it. -1: the chain is broken before its last line. `recovered` says in words what was mended or is
 * missing (kind ERR_NONE: nothing).
 */
int audit_file_resume(struct audit_file *file, enum audit_check check,
	const struct audit_head *kept, struct err *recovered, struct err *err);

/* Add a record to the batch. -1: it does not fit. */
int audit_file_add(struct audit_file *file, const struct audit_record *record, int64_t unix_us,
	struct err *err);

/* Write the batch out, and to disk when `sync` is always. -1, and `failed`: final. */
int audit_file_flush(struct audit_file *file, struct err *err);

/* To disk, if anything was written since. -1, and `failed`: final. */
int audit_file_sync(struct audit_file *file, struct err *err);

#endif
