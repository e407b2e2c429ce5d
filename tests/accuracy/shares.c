/* shares MODE: for ever does work of which the shares are known. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/accuracy/shares.h"

static int zero;
static int reads; /* the pieces of work are system calls */

static uint64_t piece(uint64_t seed)
{
	static char bytes[1 << 16];

	if (!reads)
		return spin(seed);
	for (unsigned i = 0; i < 8; i++)
		seed += (uint64_t)read(zero, bytes, sizeof(bytes));
	return seed;
}

SHARES(piece)

static piece_of_work *functions[4] = { share_50, share_30, share_15, share_5 };
static volatile uint64_t sum;

/* Some depth, and a stack frame of a size that only the caller knows. */
__attribute__((noinline)) static void descend(unsigned depth, uint64_t *random)
{
	char room[16 + *random % 512];

	room[0] = (char)depth;
	__asm__ volatile("" : : "r"(room) : "memory");
	if (depth == 0)
		sum += call_one(functions, random);
	else
		descend(depth - 1, random);
	__asm__ volatile("" : : "r"(room) : "memory");
}

__attribute__((noinline)) static void work_for_ever(void)
{
	uint64_t random = 88172645463325252U;

	for (;;)
		descend(20, &random);
}

static void on_signal(int number)
{
	(void)number;
	work_for_ever();
}

static void *run_thread(void *unused)
{
	work_for_ever();
	return unused;
}

__attribute__((noinline)) static void work_in_handler(int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
	stack_t stack = { .ss_size = 256 << 10 };

	stack.ss_sp = malloc(stack.ss_size);
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
}

__attribute__((noinline)) static void work_in_library(const char *path)
{
	static const char *const names[] = { "share_50", "share_30", "share_15", "share_5" };
	void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);

	for (unsigned i = 0; i < 4; i++) {
		void *symbol = library ? dlsym(library, names[i]) : NULL;

		if (!symbol)
			exit(1);
		memcpy(&functions[i], &symbol, sizeof(symbol));
	}
	work_for_ever();
	__asm__ volatile("" : : : "memory"); /* no tail call */
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "plain";
	pthread_t thread;

	zero = open("/dev/zero", O_RDONLY);
	reads = strcmp(mode, "system-calls") == 0;
	if (strcmp(mode, "handler") == 0)
		work_in_handler(0);
	if (strcmp(mode, "alternate-stack") == 0)
		work_in_handler(SA_ONSTACK);
	if (strcmp(mode, "library") == 0)
		work_in_library(argv[2]);
	if (strcmp(mode, "thread") == 0) {
		pthread_create(&thread, NULL, run_thread, NULL);
		pthread_join(thread, NULL);
	}
	work_for_ever();
}
