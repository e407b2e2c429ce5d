/*
 * wake.c - `postern wake`: a lease on a sleeping sampler, for as long as this command runs.
 */
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/command.h"
#include "cli/control_client.h"

#define TOKEN_MAX 8192
#define URL_SIZE  192

struct wake_options {
	const char *folder, *token_file, *rates[3];
	char **command;
	const char *what;
};

static const char *const rate_names[] = { "heap", "mutex", "block" };

static int read_token(const char *path, char token[static TOKEN_MAX], struct err *err)
{
	FILE *file = fopen(path, "re");
	size_t len;

	if (!file)
		return err_sys(err, "token file %s", path);
	len = fread(token, 1, TOKEN_MAX - 1, file);
	(void)fclose(file);
	while (len > 0 && (token[len - 1] == '\n' || token[len - 1] == '\r'))
		len--;
	token[len] = '\0';
	for (size_t i = 0; i < len; i++) {
		if (token[i] <= 0x20 || token[i] >= 0x7f)
			len = 0;
	}
	return len > 0 ? 0
		       : err_set(err, ERR_INPUT,
				 "token file %s: a token is one line of visible characters",
				 path);
}

/* The body of POST /debug/pprof/rates, to be freed; NULL: there is nothing to ask for. */
static char *make_rates(const struct wake_options *options)
{
	json_t *rates = json_object();
	char *text = NULL;

	for (size_t i = 0; i < sizeof(rate_names) / sizeof(rate_names[0]); i++) {
		uint64_t number;

		if (!options->rates[i])
			continue;
		(void)json_object_set_new(rates, rate_names[i],
			sv_to_u64(sv_from_cstr(options->rates[i]), INT64_MAX, &number)
				? json_integer((json_int_t)number)
				: json_string(options->rates[i]));
	}
	if (json_object_size(rates) > 0)
		text = json_dumps(rates, JSON_COMPACT);
	json_decref(rates);
	return text;
}

/* From here on it is awake, until target->fd closes. */
static int wake(const struct wake_options *options, struct control_target *target,
	char address[static URL_SIZE], struct err *err)
{
	static char token[TOKEN_MAX];
	const char *where;
	json_t *answer;
	char *rates;
	int rc;

	if (options->token_file && read_token(options->token_file, token, err))
		return -1;
	if (options->token_file)
		target->token = token;
	if (control_ask(target, "POST", "/control/wake", "{}", &answer, err))
		return -1;
	where = json_string_value(json_object_get(answer, "address"));
	(void)snprintf(address, URL_SIZE, "%s", where ? where : "");
	json_decref(answer);
	for (char *at = address; *at; at++) {
		if (*at < 0x20 || *at == 0x7f)
			*at = '?';
	}
	rates = make_rates(options);
	if (!rates)
		return 0;
	rc = control_ask(target, "POST", "/debug/pprof/rates", rates, &answer, err);
	json_decref(answer);
	free(rates);
	return rc;
}

/* Until a signal, the command's end, or that of the process that was woken. */
static int hold(const struct control_target *target, int signals, pid_t command)
{
	struct pollfd fds[] = { { .fd = signals, .events = POLLIN },
		{ .fd = target->fd, .events = POLLIN } };
	struct signalfd_siginfo info;
	int status;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents && !command)
			return cli_fail("%s (process %u) has ended", target->name, target->pid);
		if (fds[1].revents)
			fds[1].fd = -1; /* the command finds out by itself */
		if (!fds[0].revents ||
			read(signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
			continue;
		if (info.ssi_signo != SIGCHLD && !command)
			return CLI_DONE;
		/* Ctrl-C reaches the command by itself, and it decides what becomes of it. */
		if (info.ssi_signo != SIGCHLD && info.ssi_signo != SIGINT)
			(void)kill(command, (int)info.ssi_signo);
		if (command && waitpid(command, &status, WNOHANG) == command)
			return command_status(status);
	}
}

static int open_signals(sigset_t *before)
{
	sigset_t ours;

	(void)sigemptyset(&ours);
	(void)sigaddset(&ours, SIGCHLD);
	(void)sigaddset(&ours, SIGINT);
	(void)sigaddset(&ours, SIGTERM);
	(void)sigaddset(&ours, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, &ours, before);
	return signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run(const struct wake_options *options)
{
	struct control_target target;
	char address[URL_SIZE], url[URL_SIZE + 8];
	pid_t command = 0;
	sigset_t before;
	struct err err;
	int signals, rc;

	if (control_find(options->folder, options->what, &target, &err) ||
		wake(options, &target, address, &err))
		return cli_fail_err(&err);
	if (strncmp(address, "unix:", 5) == 0 && command_has_url(options->command))
		return cli_fail("%s listens on %s, which has no {url}: write --unix-socket for "
				"curl, or start it with POSTERN_LISTEN=127.0.0.1:0",
			target.name, address);
	signals = open_signals(&before);
	if (signals < 0)
		return cli_fail("signalfd failed");
	(void)snprintf(url, sizeof(url), "http://%s", address);
	if (*options->command) {
		rc = command_start(options->command, url, &before, &command);
		if (rc != CLI_DONE)
			return rc;
	} else {
		printf("%s (process %u) %s: %s\n", target.name, target.pid,
			target.is_asleep ? "is awake" : "was awake already",
			strncmp(address, "unix:", 5) == 0 ? address : url);
		(void)fflush(stdout);
	}
	return hold(&target, signals, command);
}

static int wake_main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "token-file", required_argument, NULL, 't' },
		{ "heap", required_argument, NULL, '0' },
		{ "mutex", required_argument, NULL, '1' },
		{ "block", required_argument, NULL, '2' },
		{ "listen-only", no_argument, NULL, 'l' },
		{ NULL, 0, NULL, 0 },
	};
	struct wake_options options = { 0 };
	int option;

	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	while ((option = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		if (option == 'd')
			options.folder = optarg;
		else if (option == 't')
			options.token_file = optarg;
		else if (option == 'l')
			options.rates[0] = options.rates[1] = options.rates[2] = "0";
		else if (option >= '0' && option <= '2')
			options.rates[option - '0'] = optarg;
		else
			return cli_usage(&wake_command, NULL);
	}
	if (optind >= argc)
		return cli_usage(&wake_command, "whom? A name, or a process's number");
	options.what = argv[optind++];
	if (optind < argc && strcmp(argv[optind], "--") == 0)
		optind++;
	else if (optind < argc)
		return cli_usage(&wake_command,
			"what is '%s'? Options come first, a command "
			"after --",
			argv[optind]);
	options.command = argv + optind;
	return run(&options);
}

const struct cli_command wake_command = {
	.name = "wake",
	.arguments = "[OPTIONS] NAME|PID [-- COMMAND {url} ...]",
	.summary = "Wake a sampler that sleeps, for as long as this runs",
	.help = "A program that was started with POSTERN_ASLEEP=1 listens, and samples, only "
		"while\n"
		"somebody holds it awake. Prints its address and holds it until Ctrl-C; with "
		"a\n"
		"COMMAND runs that, {url} replaced, and ends with it and its exit status.\n"
		"NAME is its POSTERN_NAME, else the program's own name.\n\n"
		"  --heap BYTES          meanwhile sample the heap once in so many, as 512KiB\n"
		"  --mutex N             one in N lock contentions\n"
		"  --block TIME          one sample for each so much time waited, as 1us\n"
		"  --listen-only         none of the three\n"
		"  --dir DIR             its POSTERN_RUNTIME_DIR; default: that of this\n"
		"                        environment, else " ANNOUNCE_FOLDER
		" and\n                        $XDG_RUNTIME_DIR/postern\n"
		"  --token-file FILE     the token, if it was started with\n"
		"                        POSTERN_REQUIRE_TOKEN_FILE",
	.example =
		"postern wake vtp\n"
		"postern wake vtp -- go tool pprof -top '{url}/debug/pprof/profile?seconds=10'",
	.run = wake_main,
};
