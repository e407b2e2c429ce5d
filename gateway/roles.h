/*
 * roles.h - the three processes that one binary makes, and what a child finds when it starts.
 *
 * A child is this binary started anew (fork and exec of its own descriptor) with nothing but the
 * descriptors below.  It ends when its control channel does, and ignores the signals that are meant
 * for the keeper.  Exit codes: 0, or 1 with a line in the log (a scribe also SCRIBE_EXIT_SYNC_FAILED).
 */
#ifndef GATEWAY_ROLES_H
#define GATEWAY_ROLES_H

#include <stdbool.h>
#include <stdint.h>

enum {
	CHILD_FD_CONTROL = 3, /* ipc.h, to the keeper */

	WORKER_FD_AUDIT = 4,     /* ipc.h, to the scribe */
	WORKER_FD_CONF = 5,      /* sealed: conf_files_pack() */
	WORKER_FD_SWITCH = 6,    /* switch_map() */
	WORKER_FD_TABLE = 7,     /* table.h */
	WORKER_FD_LISTENERS = 8, /* the first of them; non-blocking */

	SCRIBE_FD_FILE = 4,   /* the audit file, from audit_file_open() */
	SCRIBE_FD_CONF = 5,   /* sealed: conf_files_pack() */
	SCRIBE_FD_FOLDER = 6, /* the folder that the audit file lies in */
};

struct worker_start {
	uint32_t index; /* its column in the table: 0 to TABLE_WORKERS_MAX - 1 */
	uint64_t generation;
	uint32_t listeners_len;
};

int worker_main(const struct worker_start *start);

/* What the file holds may not be on disk: the next scribe goes on in another one. */
#define SCRIBE_EXIT_SYNC_FAILED 3

/* `check_all`: read the whole audit file, not its last line alone. */
int scribe_main(bool check_all);

#endif
