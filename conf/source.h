/*
 * source.h - a configuration's text with what its @include lines name in their place, and which
 * line came from where.  Private to conf/.
 *
 * Not left to libconfig: 1.5 cannot include an absolute path when there is a folder for relative
 * ones, opens each file anew after it was checked, and tells only the name as it was written.
 */
#ifndef CONF_SOURCE_H
#define CONF_SOURCE_H

#include "conf/conf.h"

#define SOURCE_FILES_MAX 64

/* From line `first` of the whole on, the lines are those of `file` from `line` on. */
struct source_span {
	const char *file;
	int first, line;
};

struct source {
	struct buf text; /* a C string after source_end() */
	int line;        /* of the whole, the one to come */
	int state;       /* inside what the last line ended: a text, a comment */
	char *files[SOURCE_FILES_MAX];
	size_t files_len;
	struct source_span spans[2 * SOURCE_FILES_MAX];
	size_t spans_len;
};

void source_init(struct source *source);

/* From memory: an @include is an error. */
int source_take(struct source *source, struct sv text, const char *name, struct err *err);

/* By `files`; a relative path in @include goes from the folder of the file that it stands in. What
 * is wrong in a file is wrong at source->line. */
int source_read(
	struct source *source, const char *path, struct conf_files *files, struct err *err);

/* All is read: make one C string of it. */
int source_end(struct source *source, struct err *err);

/* The file and its line that a line of the whole came from. False without any. */
bool source_locate(const struct source *source, int line, const char **file, int *line_of_file);

void source_free(struct source *source);

#endif
