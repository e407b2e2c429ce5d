/*
 * output.h - a file that is made whole before it appears, readable by its owner alone.
 *
 * It is written under another name beside its place and moved there at the end.  A device or a
 * pipe that is there already is written to as it comes.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>

#include "base/err.h"

#define OUTPUT_PATH_SIZE 4096

struct output {
	int fd;                           /* write here */
	const char *path;                 /* borrowed */
	char temporary[OUTPUT_PATH_SIZE]; /* private: "" when written in place */
};

/* "-" is standard output. To be ended with output_commit() or output_abandon(). */
int output_open(struct output *output, const char *path, struct err *err);

/* Put it into its place; `replace` tells whether over a file that is there. */
int output_commit(struct output *output, bool replace, struct err *err);

/* Leave nothing behind. */
void output_abandon(struct output *output);

#endif
