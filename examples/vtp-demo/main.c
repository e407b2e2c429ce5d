/*
 * main.c - vtp-demo: a service to be profiled. See demo.h for what is in it.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "examples/vtp-demo/demo.h"

atomic_bool demo_switches[SWITCHES_LEN];
atomic_bool demo_is_stopping;

static const char usage[] =
	"usage: vtp-demo [--port N] [--threads N] [--load N] [--hot]\n"
	"A small service to be profiled, on 127.0.0.1.\n"
	"  --port N     listen there; default: a free port, told on standard output\n"
	"  --threads N  threads that answer (1 to 64); default 8\n"
	"  --load N     ask itself N times a second (up to 1000); default 0\n"
	"  --hot        begin with the hot function switched on\n"
	"Serves /api/v1/courses, /api/v1/recordings, /ws (WebSocket), and /switch/NAME/on, "
	"/off\n"
	"for hot, leak-memory, leak-threads, slow-query.\n"
	"Example: postern exec --name vtp -- vtp-demo --port 8080 --load 50 --hot\n";

static bool number(const char *text, unsigned long max, unsigned *out)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || end == text || *end || n > max)
		return false;
	*out = (unsigned)n;
	return true;
}

static int run(unsigned port, unsigned threads, unsigned load)
{
	sigset_t ends;
	int bound, received;

	/* Before the first thread, so that all have them blocked and sigwait() gets them. */
	(void)sigemptyset(&ends);
	(void)sigaddset(&ends, SIGTERM);
	(void)sigaddset(&ends, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
	bound = server_start(port, threads);
	if (bound < 0 || websocket_start() || background_start(load, (unsigned)bound)) {
		perror("vtp-demo: could not start");
		return 1;
	}
	printf("listening on http://127.0.0.1:%d\n", bound);
	(void)fflush(stdout);
	(void)sigwait(&ends, &received);
	atomic_store(&demo_is_stopping, true);
	background_stop();
	server_stop();
	websocket_stop();
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "threads", required_argument, NULL, 't' },
		{ "load", required_argument, NULL, 'l' },
		{ "hot", no_argument, NULL, 'H' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned port = 0, threads = 8, load = 0;
	bool good = true;
	int option;

	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread yet */
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'h') {
			(void)fputs(usage, stdout);
			return 0;
		}
		if (option == 'p')
			good = number(optarg, 65535, &port) && good;
		else if (option == 't')
			good = number(optarg, 64, &threads) && threads > 0 && good;
		else if (option == 'l')
			good = number(optarg, 1000, &load) && good;
		else if (option == 'H')
			atomic_store(&demo_switches[SWITCH_HOT], true);
		else
			good = false;
	}
	if (!good || optind != argc) {
		(void)fputs(usage, stderr);
		return 2;
	}
	return run(port, threads, load);
}
