/*
 * hosts MODE SECONDS - programs that do what samplers do not expect.
 *
 * What is printed and how it ends depends on MODE alone: test_hosts.py holds what it does under the sampler
 * against what it does without.
 */
#include <errno.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

extern char **environ;
static double until;

static bool goes_on(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9 < until;
}

__attribute__((noinline)) static unsigned long burn(unsigned long rounds)
{
	unsigned long x = rounds;

	for (unsigned long i = 0; i < rounds; i++) {
		x = x * 6364136223846793005UL + 1;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

static int wrong(const char *what)
{
	printf("wrong: %s (errno %d)\n", what, errno);
	return 1;
}

static void *burn_on(void *unused)
{
	while (goes_on())
		(void)burn(100000);
	return unused;
}

/* Objects of many sizes, some of them handed to the other thread to free: what was written is there. */
static _Atomic(unsigned char *) handed[64];

static void *allocate(void *seed)
{
	unsigned long x = (unsigned long)seed;
	unsigned char *kept[256] = { NULL };

	while (goes_on()) {
		for (unsigned i = 0; i < 2000; i++) {
			x = x * 6364136223846793005UL + 1442695040888963407UL;
			size_t at = x >> 32 & 255,
			       size = 2 + (x >> 40) % (x >> 62 ? 300 : 100000);

			if (kept[at] && (x >> 20 & 3) == 0)
				kept[at] = realloc(kept[at], size);
			else {
				if (kept[at] && kept[at][0] != (unsigned char)at)
					return "an object changed";
				kept[at] = atomic_exchange(&handed[at & 63], kept[at]);
				free(kept[at]);
				kept[at] = at & 1 ? calloc(1, size) : malloc(size);
			}
			if (!kept[at])
				return "no memory";
			kept[at][0] = (unsigned char)at;
			kept[at][size - 1] = kept[at][0];
		}
	}
	for (size_t i = 0; i < COUNT(kept); i++)
		free(kept[i]);
	return NULL;
}

static int memory(void)
{
	pthread_t threads[3];
	void *answer;

	for (size_t i = 0; i < COUNT(threads); i++) {
		if (pthread_create(&threads[i], NULL, allocate, (void *)(i + 1)))
			return wrong("pthread_create");
	}
	for (size_t i = 0; i < COUNT(threads); i++) {
		if (pthread_join(threads[i], &answer) || answer)
			return wrong(answer ? (char *)answer : "pthread_join");
	}
	return 0;
}

/* Its own profiler, and its own real-time signals: each queued one arrives, every handler stays. */
static volatile sig_atomic_t ticks, queued;

static void on_tick(int signal)
{
	(void)signal;
	ticks++;
}

static void on_queued(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	queued += info->si_value.sival_int;
}

static int signals(void)
{
	const struct itimerval often = { { 0, 4000 }, { 0, 4000 } };
	const struct sigaction tick = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	const struct sigaction queue = { .sa_sigaction = on_queued, .sa_flags = SA_SIGINFO };
	struct sigaction seen;
	long sent = 0;

	if (sigaction(SIGPROF, &tick, NULL) || setitimer(ITIMER_PROF, &often, NULL))
		return wrong("SIGPROF");
	for (int signal = SIGRTMIN; signal < SIGRTMIN + 8; signal++) {
		if (sigaction(signal, &queue, NULL))
			return wrong("sigaction");
	}
	while (goes_on()) {
		(void)burn(200000);
		for (int signal = SIGRTMIN; signal < SIGRTMIN + 8; signal++) {
			if (sigqueue(getpid(), signal, (union sigval){ .sival_int = 1 }))
				return wrong("sigqueue");
			sent++;
		}
	}
	for (int signal = SIGRTMIN; signal < SIGRTMIN + 8; signal++) {
		if (sigaction(signal, NULL, &seen) || seen.sa_sigaction != on_queued)
			return wrong("a handler is another");
	}
	if (sigaction(SIGPROF, NULL, &seen) || seen.sa_handler != on_tick)
		return wrong("SIGPROF's handler is another");
	if (queued != sent)
		return wrong("a signal was lost");
	return ticks > 5 ? 0 : wrong("no ticks");
}

/* Counts its own page faults by perf. */
static int perf(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.exclude_kernel = 1,
		.exclude_hv = 1 };
	int event = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	const size_t pages = 100;
	unsigned long before = 0, after = 0;
	char *fresh;

	if (event < 0) {
		printf("no perf: %d\n", errno);
		return 0;
	}
	(void)burn_on(NULL);
	fresh = mmap(
		NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fresh == MAP_FAILED || read(event, &before, sizeof(before)) != sizeof(before))
		return wrong("read");
	for (size_t i = 0; i < pages; i++)
		fresh[i * 4096] = 1;
	if (read(event, &after, sizeof(after)) != sizeof(after))
		return wrong("read");
	printf("counts: %d\n", after > before);
	return 0;
}

/* A thread that the C library knows nothing of. */
static _Atomic(bool) cloned_ended;

static int run_cloned(void *unused)
{
	(void)burn_on(unused);
	atomic_store(&cloned_ended, true);
	(void)syscall(SYS_exit, 0);
	return 0;
}

static int bare_clone(void)
{
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			  CLONE_SYSVSEM;
	const size_t size = 64 << 10;
	char *stack =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (clone(run_cloned, stack + size, flags, NULL) < 0)
		return wrong("clone");
	while (!atomic_load(&cloned_ended))
		(void)usleep(1000);
	return 0;
}

/* Confined meanwhile, all threads at once: these system calls fail with EPERM, or end the program. */
static int confine(unsigned action, const int *calls, size_t len)
{
	struct sock_filter code[40];
	size_t at = 0;
	struct sock_fprog program;

	code[at++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < len; i++) {
		code[at++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
	}
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program = (struct sock_fprog){ (unsigned short)at, code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			&program))
		return wrong("seccomp");
	return 0;
}

static int denied(void)
{
	static const int calls[] = { SYS_perf_event_open, SYS_timer_create, SYS_timer_settime,
		SYS_setitimer, SYS_process_vm_readv, SYS_openat, SYS_open, SYS_getdents64,
		SYS_socket, SYS_tgkill, SYS_memfd_create, SYS_readlink };

	if (confine(SECCOMP_RET_ERRNO | EPERM, calls, COUNT(calls)))
		return 1;
	(void)burn_on(NULL);
	return 0;
}

/* What sandboxes kill for, and a profiler need not do once it runs. */
static int deadly(void)
{
	static const int calls[] = { SYS_perf_event_open, SYS_process_vm_readv, SYS_ptrace,
		SYS_bpf, SYS_userfaultfd, SYS_kcmp, SYS_execve, SYS_personality, SYS_unshare,
		SYS_setns, SYS_prlimit64, SYS_memfd_create };

	if (confine(SECCOMP_RET_KILL_PROCESS, calls, COUNT(calls)))
		return 1;
	(void)burn_on(NULL);
	return 0;
}

static int limit(int what, rlim_t value)
{
	const struct rlimit both = { value, value };

	return setrlimit((__rlimit_resource_t)what, &both) ? wrong("setrlimit") : 0;
}

static int few_files(void)
{
	if (limit(RLIMIT_NOFILE, 3))
		return 1;
	return memory();
}

static int little_room(void)
{
	if (limit(RLIMIT_MEMLOCK, 0) || limit(RLIMIT_SIGPENDING, 0) ||
		limit(RLIMIT_MSGQUEUE, 0))
		return 1;
	return memory();
}

/* Neither more address space than it has now, nor a file: malloc() says so as it does without us. */
static int no_space(void)
{
	void *blocks[64];
	size_t len = 0;

	if (limit(RLIMIT_AS, 1))
		return 1;
	while (len < COUNT(blocks) && (blocks[len] = malloc((size_t)1 << 20)) != NULL)
		len++;
	printf("%s, errno %d\n", len < COUNT(blocks) ? "refused" : "given", errno);
	while (len > 0)
		free(blocks[--len]);
	(void)burn_on(NULL);
	return 0;
}

/* The least of stacks, and signals that arrive on 8 KB. */
static void on_fault(int signal)
{
	(void)signal;
	(void)burn(20000000);
}

static void *run_small(void *unused)
{
	static _Thread_local char stack[8192];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };

	if (sigaltstack(&alternate, NULL))
		return "sigaltstack";
	while (goes_on()) {
		(void)burn(1000000);
		(void)raise(SIGSEGV);
	}
	return unused;
}

static int small_stacks(void)
{
	const struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK };
	pthread_attr_t attributes;
	pthread_t threads[4];
	void *answer;

	(void)pthread_attr_init(&attributes);
	if (pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN + 8192))
		return wrong("pthread_attr_setstacksize");
	if (sigaction(SIGSEGV, &action, NULL))
		return wrong("sigaction");
	while (goes_on()) {
		for (size_t i = 0; i < COUNT(threads); i++) {
			if (pthread_create(&threads[i], &attributes,
				    i % 2 ? run_small : burn_on, NULL))
				return wrong("pthread_create");
		}
		for (size_t i = 0; i < COUNT(threads); i++) {
			if (pthread_join(threads[i], &answer) || answer)
				return wrong("a thread");
		}
	}
	return 0;
}

/* Children by vfork() and posix_spawn() while another thread computes. */
static int spawns(void)
{
	static char name[] = "/bin/true";
	char *arguments[] = { name, NULL };
	pthread_t thread;
	int status;

	if (pthread_create(&thread, NULL, burn_on, NULL))
		return wrong("pthread_create");
	for (unsigned i = 0; goes_on(); i++) {
		pid_t child = -1;

		if (i % 2 == 0) {
			if (posix_spawn(&child, name, NULL, NULL, arguments, environ))
				return wrong("posix_spawn");
		} else if ((child = vfork()) == 0) {
			if (i % 4 == 1)
				(void)execv(name, arguments);
			_exit(i % 4 == 3 ? 9 : 127);
		}
		if (child < 0 || waitpid(child, &status, 0) != child ||
			status != (i % 4 == 3 ? 9 << 8 : 0))
			return wrong("a child");
	}
	return pthread_join(thread, NULL) ? wrong("pthread_join") : 0;
}

/* Leaves the file system that it was started in. */
static int roots(void)
{
	if (chroot("/proc/self/task") || chdir("/"))
		return wrong("chroot");
	return memory();
}

/* A handler that reports the fault, and then leaves it to the kernel, as crash reporters do. */
static void on_crash(int signal, siginfo_t *info, void *context)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "signal %d, code %d, at %p\n", signal,
		info->si_code, info->si_addr);

	(void)context;
	(void)!write(STDOUT_FILENO, text, (size_t)len);
}

__attribute__((noinline)) static void crash_here(volatile int *where)
{
	*where = 1;
}

static int crashes(void)
{
	const struct sigaction action = { .sa_sigaction = on_crash,
		.sa_flags = SA_SIGINFO | (int)SA_RESETHAND };

	(void)sigaction(SIGSEGV, &action, NULL);
	(void)burn_on(NULL);
	crash_here((int *)0x10); /* NOLINT(performance-no-int-to-ptr) */
	return 0;
}

static int aborts(void)
{
	const struct sigaction action = { .sa_handler = on_tick };

	(void)sigaction(SIGABRT, &action, NULL);
	(void)burn_on(NULL);
	abort();
}

static int leaves(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, burn_on, NULL))
		return wrong("pthread_create");
	(void)usleep(1000000);
	puts("left without flushing");
	_exit(7);
}

/* Becomes another program while threads compute. */
static int becomes(void)
{
	static char name[] = "/bin/echo", word[] = "another";
	char *arguments[] = { name, word, NULL };
	pthread_t threads[3];

	for (size_t i = 0; i < COUNT(threads); i++) {
		if (pthread_create(&threads[i], NULL, burn_on, NULL))
			return wrong("pthread_create");
	}
	(void)usleep(1000000);
	(void)execv(name, arguments);
	return wrong("execv");
}

/* A thread in the strictest of sandboxes, where any call but read, write and exit is the end. */
static void *run_strict(void *unused)
{
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0))
		return unused;
	for (unsigned i = 0; i < 30; i++)
		(void)burn(50000000);
	(void)!write(STDOUT_FILENO, "done\n", 5);
	(void)syscall(SYS_exit, 0);
	return unused;
}

static int strict(void)
{
	pthread_t thread;

	(void)usleep(300000);
	if (pthread_create(&thread, NULL, run_strict, NULL) || pthread_join(thread, NULL))
		return wrong("a thread");
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} modes[] = { { "memory", memory }, { "signals", signals }, { "perf", perf },
	{ "clone", bare_clone }, { "denied", denied }, { "deadly", deadly },
	{ "strict", strict }, { "files", few_files }, { "room", little_room },
	{ "space", no_space }, { "stacks", small_stacks }, { "spawns", spawns },
	{ "roots", roots }, { "crash", crashes }, { "abort", aborts }, { "leave", leaves },
	{ "become", becomes } };

int main(int argc, char **argv)
{
	struct timespec now;
	int rc;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	if (argc != 3)
		return 2;
	until = (double)now.tv_sec + (double)now.tv_nsec / 1e9 + atof(argv[2]);
	for (size_t i = 0; i < COUNT(modes); i++) {
		if (strcmp(argv[1], modes[i].name) == 0) {
			rc = modes[i].run();
			puts(rc ? "not as it should be" : "as it should be");
			return rc;
		}
	}
	return 2;
}
