#include "unit.h"

#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "sampler/eh_frame.h"
#include "sampler/unwind.h"

#define DEPTH 40

static struct {
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	size_t len;
	enum unwind_end end;
	void *libc[UNWIND_DEPTH_MAX];
	int libc_len;
} seen;

static void on_signal(int number, siginfo_t *info, void *context)
{
	struct unwind_regs regs;

	(void)number;
	(void)info;
	unwind_regs_from_ucontext_sigsafe(context, &regs);
	seen.end = unwind_walk_sigsafe(&regs, seen.pcs, UNWIND_DEPTH_MAX, &seen.len);
	seen.libc_len = backtrace(seen.libc, UNWIND_DEPTH_MAX);
}

/* Our walk began at the interrupted instruction; libc's also has the handler's frames. */
static void assert_same_as_libc(void)
{
	int skip = 0;

	assert_int_equal(seen.end, UNWIND_COMPLETE);
	while (skip < seen.libc_len && (uintptr_t)seen.libc[skip] != seen.pcs[0])
		skip++;
	assert_true(skip < seen.libc_len);
	/* libc's backtrace() may stop one frame before the outermost. */
	assert_true(seen.len == (size_t)(seen.libc_len - skip) ||
		    seen.len == (size_t)(seen.libc_len - skip) + 1);
	/* Where a signal interrupted a frame, ours is one more: so that one less is the exact pc. */
	for (int i = skip; i < seen.libc_len; i++)
		assert_in_range(
			seen.pcs[i - skip] - (uintptr_t)seen.libc[i], 0, i > skip ? 1 : 0);
}

__attribute__((noinline)) static int recurse(int depth)
{
	volatile int below;

	if (depth == 0) {
		(void)raise(SIGUSR1);
		return 1;
	}
	below = recurse(depth - 1);
	return below + 1;
}

static int compare_by_signal(const void *a, const void *b)
{
	static int calls;

	if (++calls == 3)
		(void)raise(SIGUSR1);
	return *(const int *)a - *(const int *)b;
}

static void install(int flags)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags };

	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
}

static int set_up(void **state)
{
	struct err err;
	void *warm[4];

	(void)state;
	(void)backtrace(warm, 4); /* loads libgcc_s */
	install(0);
	return unwind_refresh(&err);
}

static void test_recursion(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(recurse(DEPTH), DEPTH + 1);
	assert_true(seen.len > DEPTH);
	assert_same_as_libc();
}

static void test_through_libc(void **state)
{
	int numbers[16] = { 5, 3, 9, 1, 7 };

	(void)state;
	memset(&seen, 0, sizeof(seen));
	qsort(numbers, 16, sizeof(numbers[0]), compare_by_signal);
	assert_true(seen.len > 3);
	assert_same_as_libc();
}

static void *in_thread(void *depth)
{
	(void)recurse(*(int *)depth);
	return NULL;
}

static void test_thread_ends_at_its_start(void **state)
{
	int depth = 3;
	pthread_t thread;

	(void)state;
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(pthread_create(&thread, NULL, in_thread, &depth), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_same_as_libc();
}

static void test_deeper_than_kept(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	(void)recurse(300);
	assert_int_equal(seen.end, UNWIND_DEPTH);
	assert_int_equal(seen.len, UNWIND_DEPTH_MAX);
}

static void on_outer(int number)
{
	(void)number;
	(void)recurse(2);
}

static void test_through_a_signal_frame(void **state)
{
	struct sigaction action = { .sa_handler = on_outer };

	(void)state;
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(sigaction(SIGUSR2, &action, NULL), 0);
	(void)raise(SIGUSR2);
	assert_int_equal(seen.end, UNWIND_COMPLETE);
	assert_true(seen.len > 8);
	assert_same_as_libc();
}

static void test_through_an_alternate_stack(void **state)
{
	stack_t stack = { .ss_size = 65536 }, off = { .ss_flags = SS_DISABLE };
	struct sigaction action = { .sa_handler = on_outer, .sa_flags = SA_ONSTACK };

	(void)state;
	memset(&seen, 0, sizeof(seen));
	stack.ss_sp = malloc(stack.ss_size);
	assert_non_null(stack.ss_sp);
	assert_int_equal(sigaltstack(&stack, NULL), 0);
	assert_int_equal(sigaction(SIGUSR2, &action, NULL), 0);
	(void)raise(SIGUSR2);
	assert_int_equal(seen.end, UNWIND_COMPLETE);
	assert_same_as_libc();
	assert_int_equal(sigaltstack(&off, NULL), 0);
	free(stack.ss_sp);
}

/* Registers full of nonsense end the walk; nothing faults. */
static void test_garbage_registers(void **state)
{
	static const uintptr_t values[] = { 0, 1, 7, 8, 4096, 0x7fffffffffff, 0x800000000000,
		UINTPTR_MAX, UINTPTR_MAX - 7, 0xdeadbeefdeadbeef };
	char *page =
		mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	size_t len;

	(void)state;
	assert_ptr_not_equal(page, MAP_FAILED);
	assert_int_equal(mprotect(page + 4096, 4096, PROT_NONE), 0);
	for (size_t sp = 0; sp <= COUNT(values); sp++) {
		for (size_t pc = 0; pc < COUNT(values) + 2; pc++) {
			struct unwind_regs regs = { .valid = UINT16_MAX };

			for (size_t i = 0; i < 16; i++)
				regs.reg[i] = sp < COUNT(values) ? values[sp]
								 : (uintptr_t)page + 4080;
			regs.pc = pc < COUNT(values) ? values[pc] : (uintptr_t)qsort + pc;
			(void)unwind_walk_sigsafe(&regs, pcs, UNWIND_DEPTH_MAX, &len);
			assert_true(len >= 1);
		}
	}
	(void)munmap(page, 8192);
}

/* A stack holds what the sanitizer forbids to read. */
__attribute__((no_sanitize("address"))) static void copy_words(
	uintptr_t *to, const uintptr_t *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		((volatile uintptr_t *)to)[i] = from[i];
}

/* The same frames from a copy of the stack, as for another thread. */
static void test_copy(void **state)
{
	static uintptr_t copy[2048];
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	struct unwind_regs regs;
	ucontext_t context;
	size_t len, size;
	uintptr_t sp;

	(void)state;
	assert_int_equal(getcontext(&context), 0);
	unwind_regs_from_ucontext_sigsafe(&context, &regs);
	sp = regs.reg[7];
	/* The environment's texts lie above all frames. */
	size = (uintptr_t)environ[0] - sp;
	if (size > sizeof(copy))
		size = sizeof(copy);
	copy_words(
		copy, (const uintptr_t *)sp, size / 8); /* NOLINT(performance-no-int-to-ptr) */
	(void)unwind_walk_copy(&regs, copy, size, pcs, UNWIND_DEPTH_MAX, &len);
	assert_true(len >= 2);
	assert_in_range(pcs[0], (uintptr_t)test_copy, (uintptr_t)test_copy + 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recursion),
		cmocka_unit_test(test_through_libc),
		cmocka_unit_test(test_thread_ends_at_its_start),
		cmocka_unit_test(test_deeper_than_kept),
		cmocka_unit_test(test_through_a_signal_frame),
		cmocka_unit_test(test_through_an_alternate_stack),
		cmocka_unit_test(test_garbage_registers),
		cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
