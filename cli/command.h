/*
 * command.h - the COMMAND that `postern forward` and `postern wake` run, {url} in its words replaced.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

bool command_has_url(char **argv);

/* Start it with these signals blocked. Changes argv. A CLI_… status; what is wrong has been said. */
int command_start(char **argv, const char *url, const sigset_t *blocked, pid_t *pid);

/* Its exit status, as a shell has it, from waitpid()'s. */
int command_status(int status);

#endif
