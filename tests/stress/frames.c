/* Row 12: code that no walk of a stack gets through unharmed. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/stress/stress.h"

#define COROUTINE_BYTES ((size_t)16 << 10)

/* In the vdso most of the time. */
static void *ask_time(void *unused)
{
	struct timespec time;

	while (goes_on()) {
		for (unsigned i = 0; i < 10000; i++) {
			if (clock_gettime(CLOCK_MONOTONIC, &time))
				wrong("clock_gettime");
		}
		(void)atomic_fetch_add(&stress_rounds, 10000);
	}
	return unused;
}

#ifdef __x86_64__
/*
 *	push rbp; push rbx; mov rbp, rsi; mov rax, rdi
 * 1:	push rax; call 2f; pop rax; sub rax, 1; jnz 1b
 *	pop rbx; pop rbp; ret
 * 2:	lea rsp, [rsp - 40]; lea rsp, [rsp + 40]; ret
 */
static const unsigned char made[] = { 0x55, 0x53, 0x48, 0x89, 0xf5, 0x48, 0x89, 0xf8, 0x50,
	0xe8, 0x0a, 0, 0, 0, 0x58, 0x48, 0x83, 0xe8, 1, 0x75, 0xf3, 0x5b, 0x5d, 0xc3, 0x48,
	0x8d, 0x64, 0x24, 0xd8, 0x48, 0x8d, 0x64, 0x24, 0x28, 0xc3 };
#endif

/* Code made while the program runs, of which nobody knows anything, with a frame pointer that is none. */
static void *run_made_code(void *unused)
{
#ifdef __x86_64__
	char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long (*run)(long rounds, uintptr_t frame);
	uintptr_t here = (uintptr_t)&code;
	const uintptr_t frames[] = { 0, 1, 8, ~(uintptr_t)0, (uintptr_t)1 << 47,
		(uintptr_t)0xdead << 48, here + 1, here, here - 64, (uintptr_t)code,
		(uintptr_t)code + 4096 - 8, here | 0xfff };

	if (code == MAP_FAILED) {
		wrong("mmap");
		return unused;
	}
	memcpy(code + 64, made, sizeof(made));
	*(void **)&run = code + 64;
	for (size_t i = 0; goes_on(); i++) {
		if (run(100000, frames[i % COUNT(frames)]) != 0)
			wrong("made code's result");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	(void)munmap(code, 4096);
#endif
	return unused;
}

static _Thread_local ucontext_t outside, inside;

__attribute__((noinline)) static unsigned long recurse(unsigned depth)
{
	unsigned long sum = burn(300);

	if (depth > 0)
		sum += recurse(depth - 1);
	__asm__ volatile("" : "+r"(sum));
	return sum;
}

static void be_coroutine(void)
{
	for (;;) {
		(void)recurse(30);
		(void)swapcontext(&inside, &outside);
	}
}

/* Stacks that end at memory that is not there, and are gone while others are looked at. */
static void *switch_stacks(void *unused)
{
	while (goes_on()) {
		char *memory = mmap(NULL, COROUTINE_BYTES + 8192, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED ||
			mprotect(memory + 4096, COROUTINE_BYTES, PROT_READ | PROT_WRITE)) {
			wrong("mmap");
			break;
		}
		(void)getcontext(&inside);
		inside.uc_stack.ss_sp = memory + 4096;
		inside.uc_stack.ss_size = COROUTINE_BYTES;
		inside.uc_link = NULL;
		makecontext(&inside, be_coroutine, 0);
		for (unsigned i = 0; i < 100; i++)
			(void)swapcontext(&outside, &inside);
		(void)munmap(memory, COROUTINE_BYTES + 8192);
		(void)atomic_fetch_add(&stress_rounds, 100);
	}
	return unused;
}

static _Thread_local sigjmp_buf back;

static void jump_out(int signal)
{
	(void)signal;
	(void)recurse(10);
	siglongjmp(back, 1);
}

/* Handlers that are left by a jump. */
static void *jump_on(void *unused)
{
	while (goes_on()) {
		if (sigsetjmp(back, 1) == 0) {
			(void)recurse(20);
			(void)pthread_kill(pthread_self(), SIGUSR1);
			wrong("a handler returned");
		}
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Prologues and epilogues all the time; called back by library code. */
static void *call_on(void *unused)
{
	int numbers[300];

	while (goes_on()) {
		for (int i = 0; i < (int)COUNT(numbers); i++)
			numbers[i] = (i * 7919) % 1009;
		qsort(numbers, COUNT(numbers), sizeof(numbers[0]), compare);
		for (size_t i = 1; i < COUNT(numbers); i++) {
			if (numbers[i - 1] > numbers[i])
				wrong("qsort");
		}
		(void)recurse(400);
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void strange_frames(void)
{
	const struct sigaction action = { .sa_handler = jump_out };

	(void)sigaction(SIGUSR1, &action, NULL);
	start(ask_time, NULL);
	start(run_made_code, NULL);
	start(switch_stacks, NULL);
	start(jump_on, NULL);
	start(call_on, NULL);
	join_all();
}

const struct mode modes_frames[] = { { "12-frames", strange_frames }, { NULL, NULL } };
