/*
 * main.c - `postern`: finds the command, answers --help and --version, hands over.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const struct cli_command *const commands[] = {
#define COMMAND(name) &name##_command,
#include "cli/commands.def"
#undef COMMAND
};

#define COMMANDS_LEN (sizeof(commands) / sizeof(commands[0]))

static const struct cli_command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS_LEN; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static void print_commands(FILE *out)
{
	(void)fputs("usage: postern COMMAND [ARGUMENTS]\n\n", out);
	for (size_t i = 0; i < COMMANDS_LEN; i++)
		(void)fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
	(void)fputs(
		"\n`postern COMMAND --help` tells a command's options and gives an example.\n"
		"`postern --version` tells the version.\n"
		"Exit status: 0 done, 1 failed, 2 wrong usage.\n"
		"\nExample:\n  postern fetch --seconds 10 profile -o cpu.pb.gz\n",
		out);
}

static int fail_unknown(const char *name)
{
	const char *names[COMMANDS_LEN + 1];
	const char *nearest;

	for (size_t i = 0; i < COMMANDS_LEN; i++)
		names[i] = commands[i]->name;
	names[COMMANDS_LEN] = NULL;
	nearest = cli_nearest(name, names);
	if (nearest)
		(void)cli_fail("'%s' is not a command; did you mean '%s'?", name, nearest);
	else
		(void)cli_fail("'%s' is not a command; `postern --help` lists them", name);
	return CLI_USAGE;
}

static int help_main(int argc, char **argv)
{
	const struct cli_command *command;

	if (argc < 2) {
		print_commands(stdout);
		return CLI_DONE;
	}
	command = find_command(argv[1]);
	return command ? cli_help(command) : fail_unknown(argv[1]);
}

const struct cli_command help_command = {
	.name = "help",
	.arguments = "[COMMAND]",
	.summary = "List the commands, or tell about one",
	.example = "postern help fetch",
	.run = help_main,
};

/* What comes after "--" belongs to the program that the command runs. */
static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

/* A report that did not get out (a full disk, a closed pipe) is not a report. */
static int flush(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	(void)cli_fail("could not write to standard output");
	return status == CLI_DONE ? CLI_FAILED : status;
}

static int run(int argc, char **argv)
{
	const struct cli_command *command;
	char name[64];

	if (argc < 2) {
		print_commands(stderr);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_commands(stdout);
		return CLI_DONE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		printf("postern " POSTERN_VERSION "\n");
		return CLI_DONE;
	}
	command = find_command(argv[1]);
	if (!command)
		return fail_unknown(argv[1]);
	if (wants_help(argc - 1, argv + 1))
		return cli_help(command);
	(void)snprintf(name, sizeof(name), "postern %s", command->name);
	argv[1] = name;
	return command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	return flush(run(argc, argv));
}
