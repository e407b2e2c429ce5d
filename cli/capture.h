/*
 * capture.h - one profile, fetched through the gateway.
 */
#ifndef CLI_CAPTURE_H
#define CLI_CAPTURE_H

#include <signal.h>
#include <stdbool.h>

#include "base/err.h"
#include "cli/settings.h"

struct capture {
	const char *target;    /* NULL: the gateway's default one */
	const char *profile;   /* a name that capture_kind() knows */
	unsigned long seconds; /* 0: not asked for, as the profile itself has it */
	const char *debug;     /* "0", "1", "2"; NULL: not asked for */
	bool show_progress;    /* a bar on standard error */
	const volatile sig_atomic_t
		*interrupted; /* ends it when it becomes true; NULL: never */
};

/* What is known of a profile before it is asked for. */
struct capture_kind {
	const char *name;
	unsigned long seconds; /* how long it takes when not told; 0: at once */
	const char *suffix;    /* of a file that holds it */
};

/* NULL when there is none of that name; `nearest` (or NULL) is what may have been meant. */
const struct capture_kind *capture_kind(const char *name, const char **nearest);

/* Ask for it and write the answer to `fd`. On failure `fd` may hold a part. The error says what
 * to type; err->kind is ERR_NONE when it was interrupted. */
int capture_run(const struct capture *capture, const struct settings *settings, int fd,
	struct err *err);

#endif
