/*
 * posternd: read the arguments, then be the keeper; or, started by a keeper, a worker or the scribe.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <event2/event.h>
#include <openssl/crypto.h>

#include "gateway/keeper.h"
#include "gateway/log.h"
#include "gateway/roles.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_BAD_CONF = 78, /* EX_CONFIG of sysexits.h */
};

enum action {
	ACTION_RUN,
	ACTION_CHECK,
	ACTION_PRINT,
	ACTION_VERSION,
	ACTION_HELP
};

static const char help[] =
	"posternd - opens the debug port of running services for a while, to those who may.\n"
	"\n"
	"Usage: posternd -c FILE         run in the foreground\n"
	"       posternd -t -c FILE      check the configuration\n"
	"       posternd -T -c FILE      check it, and print what is in effect\n"
	"       posternd -V              print versions\n"
	"\n"
	"Signals: USR1 opens access, USR2 closes it (twice: cuts what runs), HUP reloads,\n"
	"TERM and INT stop. Exit codes: 0 done, 1 failed, 2 bad usage, 78 bad configuration.\n"
	"Example: posternd -c /etc/postern/postern.conf\n";

static int print_versions(void)
{
	(void)printf("posternd %s\nOpenSSL %s\nlibevent %s\nlibjwt %s\nlibconfig %s\n",
		POSTERN_VERSION, OpenSSL_version(OPENSSL_VERSION_STRING), event_get_version(),
		LIBJWT_VERSION, LIBCONFIG_VERSION);
	return EXIT_DONE;
}

static int check_conf(const char *path, bool print)
{
	struct conf_errors errors = { .count = 0 };
	struct conf_files *files = NULL;
	struct conf *conf = NULL;
	int rc = EXIT_BAD_CONF, fd = -1;
	struct buf text;

	buf_init(&errors.text, KEEPER_ERRORS_MAX);
	buf_init(&text, (size_t)4 << 20);
	if (keeper_load(path, &conf, &files, &fd, &errors)) {
		(void)fwrite(errors.text.ptr, 1, errors.text.len, stderr);
		goto out;
	}
	rc = EXIT_DONE;
	if (print) {
		conf_print(conf, &text);
		if (text.failed || fwrite(text.ptr, 1, text.len, stdout) != text.len ||
			fflush(stdout))
			rc = EXIT_FAILED;
	} else {
		(void)fprintf(stderr, "%s: the configuration is good\n", path);
	}
out:
	if (fd >= 0)
		(void)close(fd);
	conf_free(conf);
	conf_files_free(files);
	buf_free(&text);
	buf_free(&errors.text);
	return rc;
}

static int complain(const char *what)
{
	(void)fprintf(stderr, "posternd: %s\nTry 'posternd -h'.\n", what);
	return EXIT_USAGE;
}

static int keeper_role(int argc, char **argv)
{
	enum action action = ACTION_RUN;
	const char *path = NULL;
	int option;

	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	while ((option = getopt(argc, argv, "+c:tTVh")) != -1) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case 't':
			action = ACTION_CHECK;
			break;
		case 'T':
			action = ACTION_PRINT;
			break;
		case 'V':
			action = ACTION_VERSION;
			break;
		case 'h':
			action = ACTION_HELP;
			break;
		default:
			return complain("unknown option, or one without its value");
		}
	}
	if (optind < argc)
		return complain("there are no arguments besides options");
	if (action == ACTION_VERSION)
		return print_versions();
	if (action == ACTION_HELP)
		return fputs(help, stdout) < 0 ? EXIT_FAILED : EXIT_DONE;
	if (!path)
		return complain("which configuration? -c FILE");
	if (action == ACTION_RUN)
		return keeper_main(path);
	return check_conf(path, action == ACTION_PRINT);
}

static int worker_role(int argc, char **argv)
{
	struct worker_start start;
	uint64_t index, generation, listeners;

	if (argc != 4 || !sv_to_u64(sv_from_cstr(argv[1]), TABLE_WORKERS_MAX - 1, &index) ||
		!sv_to_u64(sv_from_cstr(argv[2]), UINT64_MAX, &generation) ||
		!sv_to_u64(sv_from_cstr(argv[3]), LISTENERS_MAX, &listeners))
		return complain("workers are started by posternd itself");
	start = (struct worker_start){ .index = (uint32_t)index,
		.generation = generation,
		.listeners_len = (uint32_t)listeners };
	(void)prctl(PR_SET_NAME, "posternd-worker");
	log_setup("worker", CONF_LOG_INFO, false, false);
	return worker_main(&start);
}

static int scribe_role(int argc, char **argv)
{
	if (argc != 2)
		return complain("the scribe is started by posternd itself");
	(void)prctl(PR_SET_NAME, "posternd-scribe");
	log_setup("scribe", CONF_LOG_INFO, false, false);
	return scribe_main(strcmp(argv[1], "all") == 0);
}

int main(int argc, char **argv)
{
	/* Whoever was started without its three standard descriptors would give their numbers to
	 * files and sockets. */
	if (argc < 1 || fcntl(STDERR_FILENO, F_GETFD) < 0 ||
		fcntl(STDOUT_FILENO, F_GETFD) < 0 || fcntl(STDIN_FILENO, F_GETFD) < 0)
		return EXIT_USAGE;
	if (strcmp(argv[0], "posternd: worker") == 0)
		return worker_role(argc, argv);
	if (strcmp(argv[0], "posternd: scribe") == 0)
		return scribe_role(argc, argv);
	return keeper_role(argc, argv);
}
