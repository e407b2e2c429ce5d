/*
 * `postern forward`: a loopback port that adds the credentials.
 *
 * Each local connection is a process: it reads from top to bottom, a stuck one holds no other, and
 * at debugging rates a fork costs nothing beside the TLS handshake that follows it.
 */
#include "cli/forward.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "acl/addr.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/sockdiag.h"
#include "cli/cli.h"
#include "cli/command.h"
#include "http/query.h"

#define CONNECTIONS_MAX 256
#define URL_SIZE        64

struct proxy {
	struct forward forward;
	int listener, signals;
	pid_t command;        /* 0: none */
	unsigned connections; /* alive */
	sigset_t before;      /* the signals blocked when we came */
};

/* "127.0.0.1:0", "[::1]:6070", "localhost:6070". */
static int parse_listen(
	const char *text, struct sockaddr_storage *out, socklen_t *len, struct err *err)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct addr addr;
	struct sv rest = sv_from_cstr(text), host = rest, port_text = SV("");
	const char *colon = strrchr(text, ':');
	uint64_t port = 0;

	if (colon) {
		host.len = (size_t)(colon - text);
		port_text = sv_from_cstr(colon + 1);
	}
	if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') {
		host.ptr++;
		host.len -= 2;
	}
	if (sv_is(host, SV("localhost")))
		host = SV("127.0.0.1");
	if (addr_parse(host, &addr, err) || !sv_to_u64(port_text, 65535, &port))
		return err_set(err, ERR_INPUT,
			"'%s' is not of the form 127.0.0.1:PORT or [::1]:PORT", text);
	if (!addr_is_loopback(&addr))
		return err_set(err, ERR_INPUT,
			"'%s' is not a loopback address: whoever reaches this port has your "
			"rights",
			text);
	*out = (struct sockaddr_storage){ 0 };
	if (addr_is_v4(&addr)) {
		memcpy(&v4.sin_addr, addr.bytes + 12, 4);
		v4.sin_port = htons((uint16_t)port);
		memcpy(out, &v4, sizeof(v4));
		*len = sizeof(v4);
	} else {
		memcpy(&v6.sin6_addr, addr.bytes, 16);
		v6.sin6_port = htons((uint16_t)port);
		memcpy(out, &v6, sizeof(v6));
		*len = sizeof(v6);
	}
	return 0;
}

static int open_listener(const char *text, char url[static URL_SIZE], struct err *err)
{
	struct sockaddr_storage at = { 0 };
	char host[ADDR_TEXT_SIZE];
	struct addr addr;
	socklen_t len = 0;
	uint16_t port;
	int on = 1;
	int fd;

	if (parse_listen(text, &at, &len, err))
		return -1;
	fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(err, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
		bind(fd, (struct sockaddr *)&at, len) || listen(fd, SOMAXCONN) ||
		getsockname(fd, (struct sockaddr *)&at, &len)) {
		(void)err_sys(err, "%s", text);
		(void)close(fd);
		return -1;
	}
	(void)addr_from_sockaddr(&at, &addr, &port);
	addr_format(&addr, host);
	(void)snprintf(url, URL_SIZE, addr_is_v4(&addr) ? "http://%s:%u" : "http://[%s]:%u",
		host, (unsigned)port);
	return fd;
}

/* In the child: one connection, then the end. */
static void run_connection(struct proxy *proxy, int fd, pid_t parent)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(0);
	(void)close(proxy->listener);
	(void)close(proxy->signals);
	(void)pthread_sigmask(SIG_SETMASK, &proxy->before, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	forward_serve(&proxy->forward, fd);
	_exit(0);
}

/* Loopback is no boundary between users. */
static bool is_ours(int fd)
{
	struct sockaddr_storage here, there;
	socklen_t here_len = sizeof(here), there_len = sizeof(there);
	uint32_t uid;

	return getsockname(fd, (struct sockaddr *)&here, &here_len) == 0 &&
	       getpeername(fd, (struct sockaddr *)&there, &there_len) == 0 &&
	       sockdiag_owner(&there, &here, &uid) == 0 && uid == getuid();
}

static void accept_one(struct proxy *proxy)
{
	int fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
	pid_t parent = getpid(), child;
	struct err err;
	int on = 1;

	if (fd < 0)
		return;
	if (!is_ours(fd)) {
		(void)close(fd);
		return;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* Here, so that all connections share what token_command said. A failure is told by the
	 * child, to its client. */
	(void)credentials_refresh(&proxy->forward.credentials, clock_boot_ms(), &err);
	child = fork();
	if (child == 0)
		run_connection(proxy, fd, parent);
	(void)close(fd);
	if (child > 0)
		proxy->connections++;
}

/* The command's exit status once it has ended, else -1. */
static int reap(struct proxy *proxy)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != proxy->command)
			proxy->connections--;
		else
			return command_status(status);
	}
	return -1;
}

/* The exit status when the signal ends us, else -1. */
static int take_signal(struct proxy *proxy)
{
	struct signalfd_siginfo info;

	if (read(proxy->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return -1;
	if (info.ssi_signo == SIGCHLD)
		return reap(proxy);
	if (!proxy->command)
		return CLI_DONE;
	/* Ctrl-C reaches the command by itself, and it decides what becomes of it. */
	if (info.ssi_signo != SIGINT)
		(void)kill(proxy->command, (int)info.ssi_signo);
	return -1;
}

static int run_loop(struct proxy *proxy)
{
	for (;;) {
		bool full = proxy->connections >= CONNECTIONS_MAX;
		struct pollfd fds[] = {
			{ .fd = proxy->signals, .events = POLLIN },
			{ .fd = full ? -1 : proxy->listener, .events = POLLIN },
		};
		int status;

		if (poll(fds, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return cli_fail("poll failed");
		}
		if (fds[0].revents) {
			status = take_signal(proxy);
			if (status >= 0)
				return status;
		}
		if (fds[1].revents)
			accept_one(proxy);
	}
}

static int open_signals(struct proxy *proxy)
{
	sigset_t ours;

	(void)sigemptyset(&ours);
	(void)sigaddset(&ours, SIGCHLD);
	(void)sigaddset(&ours, SIGINT);
	(void)sigaddset(&ours, SIGTERM);
	(void)sigaddset(&ours, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, &ours, &proxy->before);
	proxy->signals = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
	return proxy->signals < 0 ? -1 : 0;
}

static int run(const struct settings *settings, const char *listen_at, char **command)
{
	static struct proxy proxy; /* holds a token: not left on a stack */
	char url[URL_SIZE];
	struct err err;
	int status = CLI_FAILED;

	proxy.forward.credentials.settings = settings;
	if (link_to_init(&proxy.forward.to, settings, &err) ||
		credentials_refresh(&proxy.forward.credentials, clock_boot_ms(), &err)) {
		(void)cli_fail_err(&err);
		goto out;
	}
	proxy.listener = open_listener(listen_at, url, &err);
	if (proxy.listener < 0) {
		(void)cli_fail_err(&err);
		goto out;
	}
	if (open_signals(&proxy)) {
		(void)cli_fail("signalfd failed");
		goto out;
	}
	if (*command) {
		status = command_start(command, url, &proxy.before, &proxy.command);
		if (status != CLI_DONE)
			goto out;
	} else {
		printf("%s -> https://%s\n", url, proxy.forward.to.authority);
		(void)fflush(stdout);
	}
	status = run_loop(&proxy);
out:
	credentials_wipe(&proxy.forward.credentials);
	link_to_fini(&proxy.forward.to);
	return status;
}

static int forward_main(int argc, char **argv)
{
	static const struct option options[] = {
		SETTINGS_LONG,
		{ "listen", required_argument, NULL, 'l' },
		{ 0 },
	};
	struct settings settings = { 0 };
	const char *listen_at = "127.0.0.1:0";
	struct err err;
	int option;

	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	while ((option = getopt_long(argc, argv, "+" SETTINGS_SHORT, options, NULL)) != -1) {
		if (option == 'l')
			listen_at = optarg;
		else if (!settings_take(&settings, option, optarg))
			return cli_usage(&forward_command, NULL);
	}
	if (argv[optind] && !command_has_url(argv + optind))
		return cli_usage(&forward_command,
			"the command has no {url}: write it where the URL belongs");
	if (settings_complete(&settings, &err))
		return cli_fail_err(&err);
	return run(&settings, listen_at, argv + optind);
}

const struct cli_command forward_command = {
	.name = "forward",
	.arguments = "[--listen ADDR] [-- COMMAND {url} ...]",
	.summary = "A loopback port that adds the credentials, for tools that cannot",
	.help = "Serves only connections of your own user. With a COMMAND it runs that, with\n"
		"{url} replaced by the port's URL, and ends with it and its exit status.\n"
		"Without, it prints the URL and stays until Ctrl-C.\n\n"
		"  --listen ADDR         127.0.0.1:PORT or [::1]:PORT; default: a free "
		"port\n\n" SETTINGS_HELP,
	.example =
		"postern forward -- go tool pprof -top '{url}/debug/pprof/profile?seconds=10'\n"
		"postern forward --listen 127.0.0.1:6070",
	.run = forward_main,
};
