/*
 * access.c - `postern open`, `close`, `status`, `reload`: the switch, over the admin socket.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/admin_client.h"
#include "cli/cli.h"
#include "cli/settings.h"

#define REASON_MAX 500

enum {
	OPTION_TTL = 0x200,
	OPTION_REASON,
	OPTION_JSON
};

struct access_options {
	struct settings settings;
	const char *ttl, *reason;
	bool json;
};

static const struct option options_table[] = {
	SETTINGS_LONG,
	{ "ttl", required_argument, NULL, OPTION_TTL },
	{ "reason", required_argument, NULL, OPTION_REASON },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ NULL, 0, NULL, 0 },
};

static int read_options(const struct cli_command *command, int argc, char **argv,
	struct access_options *options)
{
	int option;

	while ((option = getopt_long(argc, argv, SETTINGS_SHORT, options_table, NULL)) != -1) {
		if (option == OPTION_TTL)
			options->ttl = optarg;
		else if (option == OPTION_REASON)
			options->reason = optarg;
		else if (option == OPTION_JSON)
			options->json = true;
		else if (!settings_take(&options->settings, option, optarg))
			return cli_usage(command, NULL);
	}
	if (optind < argc)
		return cli_usage(command, "what is '%s'?", argv[optind]);
	return CLI_DONE;
}

static const char *get_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

/* What posternd says goes to a terminal: no control character may. */
static void print_text(FILE *to, const char *text)
{
	for (; *text; text++)
		(void)putc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, to);
}

static int explain_refusal(const json_t *answer, unsigned status)
{
	const char *detail = get_text(answer, "detail");
	const json_t *errors = json_object_get(answer, "errors"), *line;
	size_t index;

	(void)fprintf(stderr, "postern: posternd refused (%u): ", status);
	print_text(stderr, *detail ? detail : "it does not say why");
	(void)putc('\n', stderr);
	json_array_foreach(errors, index, line)
	{
		(void)fputs("  ", stderr);
		print_text(stderr, json_string_value(line) ? json_string_value(line) : "?");
		(void)putc('\n', stderr);
	}
	return CLI_FAILED;
}

static void print_left(const json_t *status)
{
	long long left = json_integer_value(json_object_get(status, "remaining_seconds"));

	if (!json_object_get(status, "until")) {
		(void)fputs("no limit", stdout);
		return;
	}
	if (left >= 3600)
		(void)printf("%lldh ", left / 3600);
	if (left >= 60)
		(void)printf("%lldm ", left / 60 % 60);
	(void)printf("%llds left, until ", left % 60);
	print_text(stdout, get_text(status, "until"));
}

static void print_row(const char *name, const char *text)
{
	(void)printf("%-10s ", name);
	print_text(stdout, text);
	(void)putchar('\n');
}

static void print_targets(const json_t *targets)
{
	const json_t *target;
	size_t index;

	json_array_foreach(targets, index, target)
	{
		(void)printf("%-10s ", index == 0 ? "targets" : "");
		print_text(stdout, get_text(target, "name"));
		(void)printf(
			" %s\n", json_is_true(json_object_get(target, "up")) ? "up" : "down");
	}
}

static void print_access(const json_t *status)
{
	bool is_open = strcmp(get_text(status, "state"), "open") == 0;

	(void)printf("%-10s %s", "access", is_open ? "open, " : "closed");
	if (is_open)
		print_left(status);
	(void)putchar('\n');
	if (!is_open)
		return;
	print_row("by", get_text(status, "opened_by"));
	print_row("reason", get_text(status, "reason"));
}

static void print_status(const json_t *status)
{
	const json_t *listening = json_object_get(status, "listening"), *address;
	const json_t *audit = json_object_get(status, "audit");
	size_t index;

	print_access(status);
	json_array_foreach(listening, index, address) print_row(index == 0 ? "listening" : "",
		json_string_value(address) ? json_string_value(address) : "?");
	(void)printf("%-10s %zu, generation %lld\n", "workers",
		json_array_size(json_object_get(status, "workers")),
		(long long)json_integer_value(json_object_get(status, "generation")));
	print_targets(json_object_get(status, "targets"));
	(void)printf("%-10s %lld:", "audit",
		(long long)json_integer_value(json_object_get(audit, "seq")));
	print_text(stdout, get_text(audit, "hash"));
	(void)putchar('\n');
}

/* Ask, and show what came back by `print`, or as it is. */
static int ask(struct access_options *options, const char *method, const char *path,
	const char *body, void (*print)(const json_t *status))
{
	struct admin_answer answer;
	json_error_t where;
	struct err err;
	json_t *parsed;
	int rc;

	if (settings_complete(&options->settings, &err) ||
		admin_ask(options->settings.admin, method, path, body, &answer, &err))
		return cli_fail_err(&err);
	parsed = json_loadb(answer.body.ptr, answer.body.len, 0, &where);
	if (!json_is_object(parsed)) {
		rc = cli_fail("what listens on %s is no posternd: its answer is not JSON",
			options->settings.admin);
	} else if (answer.status != 200) {
		rc = explain_refusal(parsed, answer.status);
	} else {
		rc = CLI_DONE;
		if (options->json)
			(void)fwrite(answer.body.ptr, 1, answer.body.len, stdout);
		else
			print(parsed);
	}
	json_decref(parsed);
	admin_answer_free(&answer);
	return rc;
}

/* A reason is worth a question; a script has to bring it along. */
static const char *ask_reason(char reason[static REASON_MAX])
{
	if (!isatty(STDIN_FILENO))
		return NULL;
	(void)fputs("Reason (it is written into the audit log): ", stderr);
	if (!fgets(reason, REASON_MAX, stdin))
		return NULL;
	reason[strcspn(reason, "\n")] = '\0';
	return reason[strspn(reason, " \t")] ? reason : NULL;
}

static int open_main(int argc, char **argv)
{
	struct access_options options = { .ttl = NULL };
	int rc = read_options(&open_command, argc, argv, &options);
	char reason[REASON_MAX], *text;
	json_t *body;

	if (rc)
		return rc;
	if (!options.reason)
		options.reason = ask_reason(reason);
	if (!options.reason)
		return cli_usage(&open_command, "why? --reason TEXT");
	body = json_pack("{s:s, s:s, s:s*}", "state", "open", "reason", options.reason, "ttl",
		options.ttl);
	text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	if (!text)
		return cli_fail("the reason or the time to live is not UTF-8 text");
	rc = ask(&options, "POST", "/v1/access", text, print_status);
	free(text);
	return rc;
}

static int close_main(int argc, char **argv)
{
	struct access_options options = { .ttl = NULL };
	int rc = read_options(&close_command, argc, argv, &options);

	if (rc)
		return rc;
	if (options.ttl || options.reason)
		return cli_usage(&close_command, "--ttl and --reason belong to 'postern open'");
	return ask(&options, "POST", "/v1/access", "{\"state\":\"closed\"}", print_access);
}

static int status_main(int argc, char **argv)
{
	struct access_options options = { .ttl = NULL };
	int rc = read_options(&status_command, argc, argv, &options);

	if (rc)
		return rc;
	if (options.ttl || options.reason)
		return cli_usage(
			&status_command, "--ttl and --reason belong to 'postern open'");
	return ask(&options, "GET", "/v1/status", NULL, print_status);
}

static void print_reloaded(const json_t *status)
{
	(void)printf("reloaded: generation %lld\n",
		(long long)json_integer_value(json_object_get(status, "generation")));
}

static int reload_main(int argc, char **argv)
{
	struct access_options options = { .ttl = NULL };
	int rc = read_options(&reload_command, argc, argv, &options);

	if (rc)
		return rc;
	if (options.ttl || options.reason)
		return cli_usage(
			&reload_command, "--ttl and --reason belong to 'postern open'");
	return ask(&options, "POST", "/v1/reload", "{}", print_reloaded);
}

const struct cli_command open_command = {
	.name = "open",
	.arguments = "[--ttl DURATION] --reason TEXT [--json]",
	.summary = "open the gateway for a while",
	.help = "  --ttl DURATION        for how long, as in 15m; default: access.ttl\n"
		"  --reason TEXT         why; asked for on a terminal. It is in the audit log\n"
		"  --json                print the status as JSON\n" SETTINGS_HELP_ADMIN "\n"
		"Open while open moves the end to now + ttl where that is later.",
	.example = "postern open --ttl 15m --reason INC-1234",
	.run = open_main,
};

const struct cli_command close_command = {
	.name = "close",
	.arguments = "[--json]",
	.summary = "close the gateway",
	.help = "  --json                print the status as JSON\n" SETTINGS_HELP_ADMIN "\n"
		"No new request from now on; what runs gets gateway.drain to end.",
	.example = "postern close",
	.run = close_main,
};

const struct cli_command status_command = {
	.name = "status",
	.arguments = "[--json]",
	.summary = "is the gateway open, until when, by whom and why",
	.help = "  --json                print it as JSON\n" SETTINGS_HELP_ADMIN,
	.example = "postern status",
	.run = status_main,
};

const struct cli_command reload_command = {
	.name = "reload",
	.arguments = "[--json]",
	.summary = "have the gateway read its configuration, keys and lists anew",
	.help = "  --json                print the status as JSON\n" SETTINGS_HELP_ADMIN "\n"
		"A configuration with errors changes nothing; they are shown.",
	.example = "postern reload",
	.run = reload_main,
};
