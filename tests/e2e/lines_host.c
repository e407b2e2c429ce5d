/*
 * lines_host - a program whose functions and lines tests/e2e/test_lines.py knows by the words in the
 * comments here.  It burns CPU time until SIGTERM, has children, and tells at its end whether it saw any
 * child that was not its own.  "seccomp" confines it (by a filter that allows everything), "jit" makes
 * code and lists it for perf.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_bool stops;
static atomic_uint signals, strangers, own;
static _Atomic pid_t child;

static inline __attribute__((always_inline)) double inlined_work(double x)
{
	for (int i = 0; i < 20000; i++)
		x = x * 1.0000001 + i; /* HERE: work */
	return x;
}

__attribute__((noinline)) double known_function(double x);

double known_function(double x)
{
	x = x + 1;
	x = inlined_work(x); /* HERE: call */
	return x / 2;
}

__attribute__((noinline)) double calls_known_function(double x);

double calls_known_function(double x)
{
	double y = known_function(x); /* HERE: caller */

	return y + 1;
}

static void on_child(int number)
{
	(void)number;
	atomic_fetch_add(&signals, 1);
}

static void on_end(int number)
{
	(void)number;
	atomic_store(&stops, 1);
}

/* As a supervisor does: whatever has ended is taken away, and is to be one of ours. */
static void *wait_for_anybody(void *unused)
{
	while (!atomic_load(&stops)) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		atomic_store(&child, pid);
		for (;;) {
			pid_t ended = waitpid(-1, NULL, 0);

			if (ended == pid)
				atomic_fetch_add(&own, 1);
			else if (ended > 0)
				atomic_fetch_add(&strangers, 1);
			else if (errno == ECHILD)
				break;
		}
		usleep(20000);
	}
	return unused;
}

static void confine(void)
{
	struct sock_filter allow[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog program = { 1, allow };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(3);
}

#ifdef __x86_64__
/* mov %rdi,%rcx; 1: dec %rcx; jnz 1b; ret */
static const unsigned char made[] = { 0x48, 0x89, 0xf9, 0x48, 0xff, 0xc9, 0x75, 0xfb, 0xc3 };

static void run_made_code(const char *list)
{
	void *page =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FILE *file = fopen(list, "w");
	void (*spin)(unsigned long);

	memcpy(page, made, sizeof(made));
	if (!file || mprotect(page, 4096, PROT_READ | PROT_EXEC))
		exit(3);
	fprintf(file, "%lx %lx LazyCompile:*spin /app.js:7\n", (unsigned long)page,
		sizeof(made));
	fclose(file);
	memcpy(&spin, &page, sizeof(spin));
	while (!atomic_load(&stops))
		spin(1000000);
}
#endif

int main(int argc, char **argv)
{
	struct sigaction at_child = { .sa_handler = on_child, .sa_flags = SA_RESTART };
	const char *mode = argc > 1 ? argv[1] : "";
	volatile double sink = 0;
	pthread_t waiter;

	if (strcmp(mode, "seccomp") == 0)
		confine();
	sigaction(SIGCHLD, &at_child, NULL);
	signal(SIGTERM, on_end);
	pthread_create(&waiter, NULL, wait_for_anybody, NULL);
#ifdef __x86_64__
	if (strcmp(mode, "jit") == 0)
		run_made_code(argv[2]);
#endif
	while (!atomic_load(&stops))
		sink = calls_known_function(sink);
	pthread_join(waiter, NULL);
	printf("strangers %u, signals %s\n", atomic_load(&strangers),
		atomic_load(&signals) == atomic_load(&own) ? "right" : "wrong");
	return 0;
}
