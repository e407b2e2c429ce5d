/*
 * stress MODE SECONDS - things that programs do and that samplers have died of, or made go wrong.
 *
 * Run by run.py under libpostern while profiles and thread dumps are taken all the time.  Exit 0 and
 * a line of what was done: nothing went wrong.  Anything else is the sampler's fault.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double until;

static double now(void)
{
	struct timespec time;

	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool goes_on(void)
{
	return now() < until;
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

/* Whatever the handler does, errno is the program's. */
static int keep_errno(void)
{
	unsigned long rounds = 0;

	while (goes_on()) {
		errno = 1234;
		(void)burn(100000);
		if (errno != 1234)
			return wrong("errno changed");
		rounds++;
	}
	printf("%lu rounds\n", rounds);
	return 0;
}

static int expect_status(pid_t child, int status, const char *what)
{
	int seen;

	if (child < 0)
		return wrong("fork");
	while (waitpid(child, &seen, 0) < 0) {
		if (errno != EINTR)
			return wrong("waitpid");
	}
	return seen == status ? 0 : wrong(what);
}

/* Children that end at once, and children that work a little. */
static int fork_storm(void)
{
	unsigned long forks = 0;

	for (; goes_on(); forks++) {
		pid_t child = fork();

		if (child == 0) {
			(void)burn(forks % 10 == 0 ? 3000000 : 1000);
			_exit(7);
		}
		if (expect_status(child, 7 << 8, "a forked child's status"))
			return 1;
	}
	printf("%lu forks\n", forks);
	return 0;
}

static void *run_programs(void *arg)
{
	unsigned long *count = arg;

	while (goes_on()) {
		pid_t child = fork();

		if (child == 0) {
			(void)execl("/bin/true", "true", (char *)NULL);
			_exit(9);
		}
		if (expect_status(child, 0, "an executed program's status"))
			exit(1); /* NOLINT(concurrency-mt-unsafe) */
		++*count;
	}
	return NULL;
}

/* Another thread forks and executes while this one is being sampled. */
static int exec_from_thread(void)
{
	unsigned long count = 0;
	pthread_t thread;

	if (pthread_create(&thread, NULL, run_programs, &count))
		return wrong("pthread_create");
	while (goes_on())
		(void)burn(100000);
	(void)pthread_join(thread, NULL);
	printf("%lu programs\n", count);
	return count > 0 ? 0 : wrong("no program ran");
}

static void *work_shortly(void *arg)
{
	(void)burn(*(unsigned long *)arg);
	return arg;
}

static int thread_storm(void)
{
	unsigned long rounds = 20000, count = 0;
	pthread_t threads[8];

	for (; goes_on(); count += 8) {
		for (int i = 0; i < 8; i++) {
			if (pthread_create(&threads[i], NULL, work_shortly, &rounds))
				return wrong("pthread_create");
		}
		for (int i = 0; i < 8; i++) {
			void *result;

			if (pthread_join(threads[i], &result) || result != &rounds)
				return wrong("pthread_join");
		}
	}
	printf("%lu threads\n", count);
	return 0;
}

static char *guarded;
static volatile sig_atomic_t faults;

static void on_fault(int number)
{
	(void)number;
	(void)burn(200000); /* long enough to be sampled on the small stack */
	faults++;
	(void)mprotect(guarded, 4096, PROT_READ | PROT_WRITE);
}

/* A fault handler on a small stack of its own, as runtimes have it. */
static int small_alternate_stack(void)
{
	static char memory[12 * 1024];
	stack_t stack = { .ss_sp = memory, .ss_size = sizeof(memory) };
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK };
	int expected = 0;

	guarded = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guarded == MAP_FAILED || sigaltstack(&stack, NULL) ||
		sigaction(SIGSEGV, &action, NULL))
		return wrong("setting up");
	while (goes_on()) {
		(void)mprotect(guarded, 4096, PROT_NONE);
		*(volatile char *)guarded = 1;
		expected++;
	}
	printf("%d faults\n", expected);
	return faults == expected ? 0 : wrong("faults were lost");
}

/* How often a wait ends early. */
static int wait_and_count(unsigned long *interrupted_of)
{
	struct timespec pause = { .tv_nsec = 500000 };
	unsigned long rounds = 0, interrupted = 0;

	for (; goes_on(); rounds++) {
		(void)burn(20000);
		if (poll(NULL, 0, 1) < 0) {
			if (errno != EINTR)
				return wrong("poll");
			interrupted++;
		}
		if (nanosleep(&pause, NULL)) {
			if (errno != EINTR)
				return wrong("nanosleep");
			interrupted++;
		}
	}
	printf("%lu rounds, %lu waits ended early\n", rounds, interrupted);
	*interrupted_of = interrupted;
	return 0;
}

/* Told, and not wrong, since CPU timers may do that. */
static int waits(void)
{
	unsigned long interrupted;

	return wait_and_count(&interrupted);
}

static void *wait_beside(void *arg)
{
	return wait_and_count(arg) ? NULL : arg;
}

/* While nothing but stacks of threads are taken, no wait ends early: not one of those who sleep and run
 * by turns, nor one of those who sleep all the time. */
static int dumps(void)
{
	unsigned long interrupted[4] = { 0 }, sum = 0;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++) {
		if (pthread_create(&threads[i], NULL, wait_beside, &interrupted[i]))
			return wrong("pthread_create");
	}
	while (goes_on()) {
		if (poll(NULL, 0, 200) != 0)
			return wrong("a long wait ended early");
	}
	for (int i = 0; i < 4; i++) {
		(void)pthread_join(threads[i], NULL);
		sum += interrupted[i];
	}
	return sum == 0 ? 0 : wrong("waits ended early");
}

static volatile sig_atomic_t ticks;

static void on_tick(int number)
{
	(void)number;
	ticks++;
}

/* A program with a profiling timer of its own gets all of its ticks, and keeps its handler. */
static int own_profiler(void)
{
	struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART }, seen;
	struct itimerval every = { .it_interval.tv_usec = 10000, .it_value.tv_usec = 10000 };
	double began = now();

	if (sigaction(SIGPROF, &action, NULL) || setitimer(ITIMER_PROF, &every, NULL))
		return wrong("setting up");
	while (goes_on())
		(void)burn(100000);
	if (sigaction(SIGPROF, NULL, &seen) || seen.sa_handler != on_tick)
		return wrong("the handler of SIGPROF was changed");
	printf("%d ticks in %.1f s\n", (int)ticks, now() - began);
	return ticks > 0 ? 0 : wrong("no tick came");
}

static int load_and_unload(void)
{
	unsigned long count = 0;

	for (; goes_on(); count++) {
		void *library = dlopen("libz.so.1", RTLD_NOW);
		unsigned long (*checksum)(unsigned long, const void *, unsigned);
		static const char bytes[65536];

		if (!library)
			return wrong("dlopen");
		*(void **)&checksum = dlsym(library, "crc32");
		if (!checksum || checksum(0, bytes, sizeof(bytes)) != 0xd7978eebUL)
			return wrong("a loaded function's result");
		(void)dlclose(library);
	}
	printf("%lu loads\n", count);
	return 0;
}

static int all_signals_blocked(void)
{
	sigset_t all, seen;

	(void)sigfillset(&all);
	if (pthread_sigmask(SIG_SETMASK, &all, NULL))
		return wrong("setting up");
	while (goes_on())
		(void)burn(1000000);
	if (pthread_sigmask(SIG_SETMASK, NULL, &seen) || !sigismember(&seen, SIGTERM))
		return wrong("the mask was changed");
	printf("masked\n");
	return 0;
}

/* Closes everything it does not know, counts what it has, and lives on few descriptors. */
static int descriptors(void)
{
	struct rlimit few = { 8, 8 };
	unsigned long rounds = 0;

	closefrom(3);
	if (setrlimit(RLIMIT_NOFILE, &few))
		return wrong("setrlimit");
	for (; goes_on(); rounds++) {
		int pair[2];

		if (pipe(pair) || pair[0] != 3 || pair[1] != 4)
			return wrong("descriptors are not the lowest free ones");
		(void)close(pair[0]);
		(void)close(pair[1]);
		(void)burn(10000);
	}
	printf("%lu rounds\n", rounds);
	return 0;
}

static void end_by(unsigned long how)
{
	(void)burn(300000);
	switch (how % 4) {
	case 0:
		exit(3); /* NOLINT(concurrency-mt-unsafe) */
	case 1:
		_exit(4);
	case 2:
		quick_exit(5);
	default:
		abort();
	}
}

static int ends(void)
{
	static const int statuses[4] = { 3 << 8, 4 << 8, 5 << 8, SIGABRT };
	struct rlimit no_core = { 0, 0 };
	unsigned long count = 0;

	(void)setrlimit(RLIMIT_CORE, &no_core);
	for (; goes_on(); count++) {
		pid_t child = fork();

		if (child == 0)
			end_by(count);
		if (expect_status(child, statuses[count % 4], "how a child ended"))
			return 1;
	}
	printf("%lu ends\n", count);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} modes[] = {
	{ "errno", keep_errno },
	{ "forks", fork_storm },
	{ "execs", exec_from_thread },
	{ "threads", thread_storm },
	{ "altstack", small_alternate_stack },
	{ "waits", waits },
	{ "dumps", dumps },
	{ "sigprof", own_profiler },
	{ "dlopen", load_and_unload },
	{ "masked", all_signals_blocked },
	{ "descriptors", descriptors },
	{ "ends", ends },
};

int main(int argc, char **argv)
{
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	until = now() + (argc == 3 ? strtod(argv[2], NULL) : 0);
	for (size_t i = 0; argc == 3 && i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(argv[1], modes[i].name) == 0)
			return modes[i].run();
	}
	(void)fprintf(stderr, "usage: stress MODE SECONDS\n");
	return 2;
}
