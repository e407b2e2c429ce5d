#include "cli/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMAND_TOKEN_MS ((uint64_t)60 * 1000)

/* All of `fd` into `token`, without the line's end. */
static int read_token(int fd, char token[static TOKEN_SIZE], const char *from, struct err *err)
{
	size_t len = 0;
	ssize_t got;

	do {
		got = read(fd, token + len, TOKEN_SIZE - len);
		if (got > 0)
			len += (size_t)got;
	} while ((got > 0 && len < TOKEN_SIZE) || (got < 0 && errno == EINTR));
	if (got < 0)
		return err_sys(err, "token: %s", from);
	while (len > 0 && (token[len - 1] == '\n' || token[len - 1] == '\r'))
		len--;
	if (len == 0)
		return err_set(err, ERR_INPUT, "no token: %s is empty", from);
	if (len >= TOKEN_SIZE - 1)
		return err_set(err, ERR_INPUT, "token: %s is longer than 8 KiB", from);
	for (size_t i = 0; i < len; i++) {
		if (token[i] <= ' ' || token[i] > '~')
			return err_set(err, ERR_INPUT,
				"token: %s is not a token alone on one line", from);
	}
	token[len] = '\0';
	return 0;
}

static int from_file(const char *path, char token[static TOKEN_SIZE], struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return err_sys(err, "token file %s", path);
	rc = read_token(fd, token, path, err);
	(void)close(fd);
	return rc;
}

static pid_t spawn_shell(const char *command, int out, struct err *err)
{
	posix_spawn_file_actions_t actions;
	char shell[] = "/bin/sh", option[] = "-c";
	char *copy = strdup(command);
	char *argv[] = { shell, option, copy, NULL };
	pid_t pid = -1;
	int rc = ENOMEM;

	if (copy && posix_spawn_file_actions_init(&actions) == 0) {
		rc = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
		if (!rc)
			rc = posix_spawn(&pid, shell, &actions, NULL, argv, environ);
		(void)posix_spawn_file_actions_destroy(&actions);
	}
	free(copy);
	if (rc) {
		errno = rc;
		return err_sys(err, "token_command '%s'", command);
	}
	return pid;
}

static int from_command(const char *command, char token[static TOKEN_SIZE], struct err *err)
{
	int ends[2];
	pid_t pid;
	int rc, status;

	if (pipe2(ends, O_CLOEXEC))
		return err_sys(err, "pipe");
	pid = spawn_shell(command, ends[1], err);
	(void)close(ends[1]);
	rc = pid < 0 ? -1 : read_token(ends[0], token, "the answer of token_command", err);
	(void)close(ends[0]);
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return err_sys(err, "token_command '%s'", command);
	}
	/* That it failed says more than that its answer was empty. */
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(err, ERR_INPUT, "token_command '%s' failed", command);
	return rc;
}

int credentials_refresh(struct credentials *credentials, uint64_t now_ms, struct err *err)
{
	const struct settings *settings = credentials->settings;
	char token[TOKEN_SIZE];
	int rc;

	if (!settings->token_file && !settings->token_command)
		return 0;
	if (!settings->token_file && credentials->token[0] != '\0' &&
		now_ms - credentials->token_ms < COMMAND_TOKEN_MS)
		return 0;
	rc = settings->token_file ? from_file(settings->token_file, token, err)
				  : from_command(settings->token_command, token, err);
	if (rc == 0) {
		memcpy(credentials->token, token, sizeof(token));
		credentials->token_ms = now_ms;
	}
	OPENSSL_cleanse(token, sizeof(token));
	return rc;
}

void credentials_wipe(struct credentials *credentials)
{
	OPENSSL_cleanse(credentials->token, sizeof(credentials->token));
}
