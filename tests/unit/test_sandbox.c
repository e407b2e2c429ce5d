#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/sandbox.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_LOCKED_IN 0 /* see sandbox.c */
#else
#define IS_LOCKED_IN 1
#endif

/* In a child, behind the sandbox: 0 when it holds. */
typedef int (*try_fn)(void);

static int denies(long result)
{
	return result < 0 && (errno == EPERM || errno == EACCES) ? 0 : 1;
}

static int try_open(void)
{
	return denies(open("/etc/passwd", O_RDONLY));
}

static int try_create(void)
{
	return denies(open("/tmp/postern-sandbox-test", O_WRONLY | O_CREAT, 0600));
}

static int try_socket(void)
{
	return denies(socket(AF_INET, SOCK_STREAM, 0));
}

static int try_fork(void)
{
	return denies(fork());
}

static int try_code(void)
{
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED && errno == EPERM ? 0 : 1;
}

static int try_signal_parent(void)
{
	return denies(kill(getppid(), 0));
}

static int try_root(void)
{
	return geteuid() == 0 || denies(setuid(0));
}

static int try_exec(void)
{
	char *argv[] = { NULL };

	(void)execve("/bin/true", argv, argv);
	return 1;
}

static int try_ptrace(void)
{
	(void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	return 1;
}

static int try_memory(void)
{
	char *memory = malloc((size_t)4 << 20);

	if (!memory)
		return 1;
	memset(memory, 1, (size_t)4 << 20);
	free(memory);
	return 0;
}

static int run(enum sandbox_role role, try_fn attempt)
{
	static const struct conf conf = { .gateway = { .user = "nobody" } };
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct err err;

		if (sandbox_enter(role, &conf, &err))
			_exit(99);
		_exit(attempt());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_locked_in(void **state)
{
	static const struct {
		const char *name;
		try_fn attempt;
		int signal;
	} rows[] = {
		{ "open a file", try_open, 0 },
		{ "make a file", try_create, 0 },
		{ "make a socket", try_socket, 0 },
		{ "fork", try_fork, 0 },
		{ "map memory to execute", try_code, 0 },
		{ "signal another process", try_signal_parent, 0 },
		{ "become root again", try_root, 0 },
		{ "exec", try_exec, SIGSYS },
		{ "ptrace", try_ptrace, SIGSYS },
		{ "allocate (allowed)", try_memory, 0 },
	};

	(void)state;
	if (!IS_LOCKED_IN)
		skip();
	for (size_t i = 0; i < COUNT(rows); i++) {
		for (int role = SANDBOX_WORKER; role <= SANDBOX_SCRIBE; role++) {
			int status = run((enum sandbox_role)role, rows[i].attempt);

			print_message("  %s\n", rows[i].name);
			if (rows[i].signal) {
				assert_true(WIFSIGNALED(status));
				assert_int_equal(WTERMSIG(status), rows[i].signal);
			} else {
				assert_true(WIFEXITED(status));
				assert_int_equal(WEXITSTATUS(status), 0);
			}
		}
	}
}

static void test_root_needs_a_user(void **state)
{
	static const char *const wrong[] = { "", "root", "no-such-user-here" };

	(void)state;
	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < COUNT(wrong); i++) {
		struct conf conf = { .gateway = { .user = wrong[i] } };
		struct err err;

		assert_int_equal(sandbox_enter(SANDBOX_SCRIBE, &conf, &err), -1);
		assert_non_null(strstr(err.text, "gateway.user"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_locked_in),
		cmocka_unit_test(test_root_needs_a_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
