#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/keeper.h"
#include "gateway/roles.h"

#define CHILD_FDS_MAX (WORKER_FD_LISTENERS + LISTENERS_MAX)

/* Signals that reach whole groups, or are meant for the keeper; ignored also after exec. */
static const int ignored[] = { SIGUSR1, SIGUSR2, SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGPIPE };

/* In the child, before exec: only calls that are safe there. */
static void become(
	int self_fd, char *const argv[], const int *fds, size_t fds_len, pid_t keeper)
{
	int high[CHILD_FDS_MAX];
	sigset_t none;
	int self;

	/* First out of the way, then each to its place. */
	self = fcntl(self_fd, F_DUPFD_CLOEXEC, 2 * CHILD_FDS_MAX);
	for (size_t i = 0; i < fds_len; i++) {
		high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 2 * CHILD_FDS_MAX);
		if (high[i] < 0)
			return;
	}
	for (size_t i = 0; i < fds_len; i++) {
		if (dup2(high[i], CHILD_FD_CONTROL + (int)i) < 0)
			return;
	}
	for (size_t i = 0; i < fds_len; i++)
		(void)close(high[i]);
	if (self < 0 ||
		syscall(SYS_close_range, CHILD_FD_CONTROL + fds_len, (unsigned)self - 1, 0) ||
		syscall(SYS_close_range, (unsigned)self + 1, ~0U, 0))
		return;
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		(void)signal(ignored[i], SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL);
	(void)sigemptyset(&none);
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	if (sigprocmask(SIG_SETMASK, &none, NULL) || setpgid(0, 0) ||
		prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != keeper)
		return;
	(void)syscall(SYS_execveat, self, "", argv, environ, AT_EMPTY_PATH);
}

int child_spawn(struct keeper *keeper, char *const argv[], const int *fds, size_t fds_len,
	pid_t *pid, struct err *err)
{
	pid_t self = getpid();

	if (fds_len > CHILD_FDS_MAX)
		return err_set(err, ERR_INPUT, "too many descriptors for a child");
	*pid = fork();
	if (*pid < 0)
		return err_sys(err, "cannot start a process");
	if (*pid == 0) {
		become(keeper->self_fd, argv, fds, fds_len, self);
		_exit(127);
	}
	return 0;
}

struct child *child_new(struct keeper *keeper, int control, event_callback_fn readable)
{
	struct child *child = calloc(1, sizeof(*child));

	if (!child)
		return NULL;
	child->keeper = keeper;
	child->control = control;
	child->number = ++keeper->last_number;
	child->readable =
		event_new(keeper->base, control, EV_READ | EV_PERSIST, readable, child);
	if (!child->readable || event_add(child->readable, NULL)) {
		if (child->readable)
			event_free(child->readable);
		free(child);
		return NULL;
	}
	return child;
}

void child_close(struct child *child)
{
	if (child->readable)
		event_free(child->readable);
	if (child->control >= 0)
		(void)close(child->control);
	child->readable = NULL;
	child->control = -1;
}

void child_free(struct child *child)
{
	if (!child)
		return;
	child_close(child);
	free(child);
}

void child_describe(int status, char *out, size_t size)
{
	if (WIFSIGNALED(status))
		(void)snprintf(out, size, "killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
	else
		(void)snprintf(out, size, "exit code %d", WEXITSTATUS(status));
}
