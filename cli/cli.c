#include "cli/cli.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/sv.h"

int cli_help(const struct cli_command *command)
{
	printf("postern %s %s\n  %s.\n", command->name, command->arguments, command->summary);
	if (command->help)
		printf("\n%s\n", command->help);
	printf("\nExample:\n");
	for (struct sv rest = sv_from_cstr(command->example); rest.len > 0;) {
		struct sv line = sv_cut(&rest, '\n');

		printf("  " SV_FMT "\n", SV_ARG(line));
	}
	return CLI_DONE;
}

int cli_usage(const struct cli_command *command, const char *fmt, ...)
{
	va_list args;

	if (fmt) {
		(void)fprintf(stderr, "postern %s: ", command->name);
		va_start(args, fmt);
		(void)vfprintf(stderr, fmt, args);
		va_end(args);
		(void)fputc('\n', stderr);
	}
	(void)fprintf(stderr, "usage: postern %s %s\n  postern %s --help says more\n",
		command->name, command->arguments, command->name);
	return CLI_USAGE;
}

int cli_fail(const char *fmt, ...)
{
	va_list args;

	(void)fputs("postern: ", stderr);
	va_start(args, fmt);
	(void)vfprintf(stderr, fmt, args);
	va_end(args);
	(void)fputc('\n', stderr);
	return CLI_FAILED;
}

int cli_fail_err(const struct err *err)
{
	return cli_fail("%s", err->text);
}

bool cli_number(const char *text, unsigned long min, unsigned long max, unsigned long *out)
{
	uint64_t n;

	if (!sv_to_u64(sv_from_cstr(text), max, &n) || n < min)
		return false;
	*out = (unsigned long)n;
	return true;
}

#define NAME_MAX_LEN 24

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* How many letters to add, drop or change to make one of the other (Levenshtein). */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NAME_MAX_LEN + 1];
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > NAME_MAX_LEN || b_len > NAME_MAX_LEN)
		return NAME_MAX_LEN;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			unsigned above = row[j];
			unsigned change = a[i - 1] == b[j - 1] ? 0 : 1;

			row[j] = min3(above + 1, row[j - 1] + 1, diagonal + change);
			diagonal = above;
		}
	}
	return row[b_len];
}

const char *cli_nearest(const char *name, const char *const *names)
{
	const char *nearest = NULL;
	unsigned least = (unsigned)strlen(name) / 2 + 1;

	for (; *names; names++) {
		unsigned d = distance(name, *names);

		if (d < least) {
			least = d;
			nearest = *names;
		}
	}
	return nearest;
}
