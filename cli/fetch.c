/*
 * `postern fetch`: one profile into a file.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/sv.h"
#include "cli/capture.h"
#include "cli/cli.h"
#include "cli/output.h"

#define TARGET_SIZE 64
#define SECONDS_MAX (24UL * 3600)

static volatile sig_atomic_t interrupted; /* the signal's number */

static void interrupt(int number)
{
	interrupted = number;
}

static void catch_signals(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = interrupt };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		(void)sigaction(numbers[i], &action, NULL);
}

/* Be seen to have ended by the signal, as a shell expects. */
static int end_by_signal(void)
{
	(void)signal(interrupted, SIG_DFL);
	(void)raise(interrupted);
	return CLI_FAILED;
}

static bool is_target(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_.";

	return name[0] != '\0' && name[0] != '.' && name[strspn(name, allowed)] == '\0';
}

/* "demo/heap" or "heap". */
static int parse_what(
	const char *text, struct capture *capture, char target[static TARGET_SIZE])
{
	const char *slash = strchr(text, '/'), *nearest;

	capture->profile = slash ? slash + 1 : text;
	if (slash) {
		if (!sv_to_cstr(
			    (struct sv){ text, (size_t)(slash - text) }, target, TARGET_SIZE) ||
			!is_target(target))
			return cli_fail("'%s' is not of the form TARGET/PROFILE", text);
		capture->target = target;
	}
	if (capture_kind(capture->profile, &nearest))
		return CLI_DONE;
	if (nearest)
		return cli_fail(
			"'%s' is not a profile; did you mean '%s'?", capture->profile, nearest);
	return cli_fail("'%s' is not a profile: heap, allocs, profile, goroutine, "
			"threadcreate, block, mutex, trace, wall, offcpu or cmdline",
		capture->profile);
}

/* "demo-profile-20261124T125800Z.pb.gz" */
static void name_file(const struct capture *capture, char *out, size_t size)
{
	const char *nearest;
	const struct capture_kind *kind = capture_kind(capture->profile, &nearest);
	time_t now = time(NULL);
	char date[32] = "";
	struct tm utc;

	if (gmtime_r(&now, &utc))
		(void)strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &utc);
	(void)snprintf(out, size, "%s%s%s-%s.%s", capture->target ? capture->target : "",
		capture->target ? "-" : "", capture->profile, date,
		capture->debug && capture->debug[0] != '0' ? "txt" : kind->suffix);
}

static int fetch(struct capture *capture, const struct settings *settings, const char *path)
{
	char dated[OUTPUT_PATH_SIZE] = "";
	struct output output;
	struct err err;

	if (!path)
		name_file(capture, dated, sizeof(dated));
	if (output_open(&output, path ? path : dated, &err))
		return cli_fail_err(&err);
	capture->show_progress = isatty(STDERR_FILENO);
	capture->interrupted = &interrupted;
	catch_signals();
	if (capture_run(capture, settings, output.fd, &err)) {
		output_abandon(&output);
		return interrupted ? end_by_signal() : cli_fail_err(&err);
	}
	if (output_commit(&output, path != NULL, &err))
		return cli_fail_err(&err);
	if (!path)
		printf("%s\n", dated);
	return CLI_DONE;
}

static int fetch_main(int argc, char **argv)
{
	static const struct option options[] = {
		SETTINGS_LONG,
		{ "seconds", required_argument, NULL, 's' },
		{ "debug", required_argument, NULL, 'd' },
		{ "output", required_argument, NULL, 'o' },
		{ 0 },
	};
	struct settings settings = { 0 };
	struct capture capture = { 0 };
	const char *path = NULL;
	char target[TARGET_SIZE];
	struct err err;
	int option;

	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	while ((option = getopt_long(argc, argv, SETTINGS_SHORT "s:o:", options, NULL)) != -1) {
		if (option == 'o')
			path = optarg;
		else if (option == 's' && cli_number(optarg, 1, SECONDS_MAX, &capture.seconds))
			continue;
		else if (option == 'd' && strlen(optarg) == 1 && strchr("012", optarg[0]))
			capture.debug = optarg;
		else if (option == 's' || option == 'd')
			return cli_usage(&fetch_command, "'%s' is not %s", optarg,
				option == 's' ? "a whole number of seconds" : "0, 1 or 2");
		else if (!settings_take(&settings, option, optarg))
			return cli_usage(&fetch_command, NULL);
	}
	if (argc - optind != 1)
		return cli_usage(&fetch_command,
			argc == optind ? "which profile?" : "one profile at a time");
	if (parse_what(argv[optind], &capture, target))
		return CLI_USAGE;
	if (settings_complete(&settings, &err))
		return cli_fail_err(&err);
	return fetch(&capture, &settings, path);
}

const struct cli_command fetch_command = {
	.name = "fetch",
	.arguments = "[TARGET/]PROFILE [--seconds N] [-o FILE]",
	.summary = "Take a profile through the gateway",
	.help = "PROFILE: heap, allocs, profile (CPU), goroutine, threadcreate, block, mutex,\n"
		"trace, wall, offcpu or cmdline. Without -o the file is named by profile and "
		"time,\n"
		"and its name is printed. It appears when it is whole, readable by you "
		"alone.\n\n"
		"  -s, --seconds N       how long to capture; a heap's or lock's growth in N "
		"s\n"
		"      --debug N         1 or 2: as text\n"
		"  -o, --output FILE     '-' for standard output\n\n" SETTINGS_HELP,
	.example = "postern fetch --seconds 10 demo/profile -o cpu.pb.gz\n"
		   "postern fetch heap && postern top heap-*.pb.gz",
	.run = fetch_main,
};
