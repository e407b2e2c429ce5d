/*
 * settings.h - what POSTERN_* in the environment asks for, read once when the library is loaded.
 */
#ifndef SAMPLER_SETTINGS_H
#define SAMPLER_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/sv.h"

#define SETTINGS_UIDS_MAX  32
#define SETTINGS_TOKEN_MAX 4096
#define SETTINGS_PATH_SIZE 1024
#define SETTINGS_HEAP_RATE UINT64_C(524288) /* bytes; as Go's */
#define SETTINGS_RATE_MAX  (UINT64_C(1) << 40)
#define SETTINGS_FLIGHT    (UINT64_C(16) << 20) /* bytes, when it is asked for by a duration */

enum settings_children {
	CHILDREN_FORK = 0, /* forked ones go on, programs that they run do without us */
	CHILDREN_FOLLOW,   /* those too */
	CHILDREN_OFF,      /* neither */
};

enum settings_cpu_source {
	CPU_SOURCE_AUTO = 0,
	CPU_SOURCE_PERF,
	CPU_SOURCE_TIMER,
	CPU_SOURCE_ITIMER,
};

struct settings {
	bool off;
	bool asleep;      /* nothing but the control socket until somebody wakes it */
	char listen[128]; /* as written; what is listened on */
	char name[64];
	char runtime_dir[96];
	enum settings_children children;
	enum settings_cpu_source cpu_source;
	int mutex_fraction;    /* 0: off */
	int64_t block_rate_ns; /* 0: off */
	uint32_t allow_uids[SETTINGS_UIDS_MAX];
	size_t allow_uids_len;
	uint64_t heap_rate;    /* bytes between two samples; 0: off */
	uint64_t flight_bytes; /* of the flight recorder; 0: off */
	uint64_t flight_ns;    /* that it keeps at most; 0: what there is room for */
	bool requires_token;
	char token[SETTINGS_TOKEN_MAX]; /* ends in NUL */
	bool lines_off;
	char lines[SETTINGS_PATH_SIZE]; /* the program for source lines; "": there is none */
	char debug_dir[SETTINGS_PATH_SIZE]; /* where it looks for separate debug files */
	struct err err;                     /* kind ERR_NONE unless something is wrong */
};

/*
 * Read the environment. What is wrong is in `err`, and the library then stays off.  `library` is our
 * own file's path: near to it, or where it was to be installed, lies the program for source lines.
 */
void settings_read(struct settings *out, const char *library);

/*
 * Just what heap sampling is to begin with, for the first allocation, which comes before settings_read(): 0
 * also when all is to stay off.  False when the environment is not there yet.
 */
bool settings_heap_rate_sigsafe(uint64_t *rate);

/*
 * Take our own entry out of LD_PRELOAD and every POSTERN_* variable out of the environment that
 * programs run from here inherit: in place, without memory. `library` is our own file's path.
 */
void settings_hide(const char *library);

#endif
