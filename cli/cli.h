/*
 * cli.h - what the commands of `postern` share: how one is described, and how it speaks.
 *
 * A command NAME is one file, cli/NAME.c, that defines `const struct cli_command NAME_command`,
 * and one line in commands.def.  main.c answers --help for it before it runs.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>

#include "base/err.h"

enum cli_exit {
	CLI_DONE = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
};

struct cli_command {
	const char *name;      /* "fetch" */
	const char *arguments; /* "[TARGET/]PROFILE [--seconds N] [-o FILE]" */
	const char *summary;   /* one line, no final stop */
	const char *help;      /* what more there is to say: options, one a line; or NULL */
	const char *example; /* a whole command line to copy; several, a line each, are fine */
	/* argv[0] is "postern NAME", so that getopt's complaints name the command. Answers an
	 * enum cli_exit (or, when it ran a program, that program's). */
	int (*run)(int argc, char **argv);
};

#define COMMAND(name) extern const struct cli_command name##_command;
#include "cli/commands.def"
#undef COMMAND

/* The help of one command, on standard output. Always CLI_DONE. */
int cli_help(const struct cli_command *command);

/* Wrong usage: the complaint and where help is, on standard error. Always CLI_USAGE.
 * With fmt NULL only where help is: getopt_long() has complained already. */
int cli_usage(const struct cli_command *command, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* "postern: ..." on standard error. Always CLI_FAILED. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int cli_fail_err(const struct err *err);

/* A whole decimal number from `min` to `max`; false when it is anything else. */
bool cli_number(const char *text, unsigned long min, unsigned long max, unsigned long *out);

/* The one of `names` (NULL-terminated) that is spelled most like `name`, or NULL when none is
 * close enough to be what was meant. */
const char *cli_nearest(const char *name, const char *const *names);

#endif
