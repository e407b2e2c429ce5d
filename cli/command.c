#include "cli/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/cli.h"

static const char mark[] = "{url}";

/* `text` with every "{url}" replaced; NULL without memory. To be freed by the caller. */
static char *with_url(const char *text, const char *url)
{
	struct buf out;

	buf_init(&out, (size_t)1 << 20);
	for (const char *at; (at = strstr(text, mark)); text = at + sizeof(mark) - 1) {
		buf_add(&out, text, (size_t)(at - text));
		buf_add_cstr(&out, url);
	}
	buf_add_cstr(&out, text);
	buf_add_byte(&out, '\0');
	if (out.failed) {
		buf_free(&out);
		return NULL;
	}
	return out.ptr;
}

bool command_has_url(char **argv)
{
	for (; *argv; argv++) {
		if (strstr(*argv, mark))
			return true;
	}
	return false;
}

int command_start(char **argv, const char *url, const sigset_t *blocked, pid_t *pid)
{
	int rc;

	if (!argv[0])
		return cli_fail("there is no command");
	for (char **arg = argv; *arg; arg++) {
		*arg = with_url(*arg, url);
		if (!*arg)
			return cli_fail("out of memory");
	}
	*pid = fork();
	if (*pid < 0) {
		*pid = 0;
		return cli_fail("cannot start another process");
	}
	if (*pid > 0)
		return CLI_DONE;
	(void)pthread_sigmask(SIG_SETMASK, blocked, NULL);
	(void)execvp(argv[0], argv);
	rc = errno == ENOENT ? 127 : 126; /* as a shell would */
	perror(argv[0]);
	_exit(rc);
}

int command_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
