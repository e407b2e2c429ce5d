#include "sampler/proc/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES   ((size_t)32 << 10)
#define START_WAIT_NS 2000000000L

enum stage {
	STAGE_BEGUN = 0,
	STAGE_RUNNING,
	STAGE_FAILED,
	STAGE_OVER, /* the helper has ended, and its pid may be another's by now */
};

/* What server thread, stub and helper share until the helper's execve(). */
struct shared {
	_Atomic uint32_t stage;
	pid_t helper;
	int error;
	int socket;
	const char *path, *argument;
	char stub_stack[STACK_BYTES] __attribute__((aligned(16)));
	char helper_stack[STACK_BYTES] __attribute__((aligned(16)));
};

static void set_stage(struct shared *shared, enum stage stage)
{
	atomic_store(&shared->stage, stage);
	(void)syscall(SYS_futex, &shared->stage, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/*
 * Both functions below run in the program's memory beside its threads, with the server thread's
 * thread-local storage: system calls and nothing else.
 */
static int run_helper(void *argument)
{
	struct shared *shared = argument;
	/* NOLINTBEGIN(performance-no-int-to-ptr): take the const away */
	char *const words[] = { (char *)(uintptr_t) "postern-lines",
		(char *)(uintptr_t)shared->argument, NULL };
	/* NOLINTEND(performance-no-int-to-ptr) */
	char *const nothing[] = { NULL };

	(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)syscall(SYS_setsid);
	if (shared->socket != 0)
		(void)syscall(SYS_dup3, shared->socket, 0, 0);
	else
		(void)syscall(SYS_fcntl, 0, F_SETFD, 0);
	if (syscall(SYS_close_range, 1U, ~0U, 0) == 0)
		(void)syscall(SYS_execve, shared->path, words, nothing);
	shared->error = errno;
	syscall(SYS_exit_group, 127);
	return 0;
}

static int run_stub(void *argument)
{
	struct shared *shared = argument;
	pid_t helper;

	(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)syscall(SYS_prctl, PR_SET_NAME, "postern-lines", 0, 0, 0);
	helper = clone(run_helper, shared->helper_stack + STACK_BYTES,
		CLONE_VM | CLONE_VFORK | SIGCHLD, shared);
	if (helper < 0)
		shared->error = errno;
	shared->helper = helper;
	(void)syscall(SYS_close_range, 0U, ~0U, 0);
	set_stage(shared, shared->error ? STAGE_FAILED : STAGE_RUNNING);
	if (helper > 0) {
		/* Said before the pid is free for others. */
		(void)syscall(SYS_waitid, P_PID, helper, NULL, WEXITED | WNOWAIT, NULL);
		atomic_store(&shared->stage, STAGE_OVER);
		(void)syscall(SYS_wait4, helper, NULL, 0, NULL);
	}
	syscall(SYS_exit_group, 0);
	return 0;
}

static void wait_for_start(struct shared *shared)
{
	struct timespec most = { .tv_nsec = 0, .tv_sec = START_WAIT_NS / 1000000000L };

	while (atomic_load(&shared->stage) == STAGE_BEGUN) {
		if (syscall(SYS_futex, &shared->stage, FUTEX_WAIT, STAGE_BEGUN, &most, NULL,
			    0) &&
			errno == ETIMEDOUT)
			return;
	}
}

static const char *begin(struct helper *helper, struct shared *shared, int theirs)
{
	shared->socket = theirs;
	helper->stub = clone(run_stub, shared->stub_stack + STACK_BYTES, CLONE_VM, shared);
	if (helper->stub < 0)
		return "no process can be made";
	helper->shared = shared;
	wait_for_start(shared);
	if (atomic_load(&shared->stage) != STAGE_RUNNING)
		return "it cannot be run";
	helper->pidfd = (int)syscall(SYS_pidfd_open, shared->helper, 0);
	/* Had it ended, the pid could be another's. */
	if (helper->pidfd < 0 || atomic_load(&shared->stage) != STAGE_RUNNING)
		return "it ended at once";
	return NULL;
}

const char *helper_start(struct helper *helper, const char *path, const char *argument)
{
	struct shared *shared;
	const char *wrong;
	int ends[2];

	*helper = (struct helper){ .pidfd = -1, .socket = -1 };
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return "no memory";
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends)) {
		(void)munmap(shared, sizeof(*shared));
		return "no socket can be made";
	}
	shared->path = path;
	shared->argument = argument;
	/* Ours does not wait, theirs does. */
	(void)fcntl(ends[1], F_SETFL, 0);
	wrong = begin(helper, shared, ends[1]);
	(void)close(ends[1]);
	helper->socket = ends[0];
	if (!wrong)
		return NULL;
	helper_kill(helper);
	if (!helper->shared)
		(void)munmap(shared, sizeof(*shared));
	(void)helper_is_gone(helper);
	return wrong;
}

void helper_kill(struct helper *helper)
{
	if (helper->socket >= 0)
		(void)close(helper->socket);
	helper->socket = -1;
	if (helper->pidfd >= 0) {
		(void)syscall(SYS_pidfd_send_signal, helper->pidfd, SIGKILL, NULL, 0);
		(void)close(helper->pidfd);
	} else if (helper->shared) {
		/* It never was seen to run; and nobody but us takes the stub's pid away. */
		(void)kill(helper->stub, SIGKILL);
	}
	helper->pidfd = -1;
}

bool helper_is_gone(struct helper *helper)
{
	if (!helper->shared)
		return true;
	if (waitpid(helper->stub, NULL, __WALL | WNOHANG) == 0)
		return false;
	(void)munmap(helper->shared, sizeof(struct shared));
	helper->shared = NULL;
	return true;
}

void helper_forget(struct helper *helper)
{
	*helper = (struct helper){ .pidfd = -1, .socket = -1 };
}
