#include "tests/unit/unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unwind.h>

#include "sampler/proc/memory.h"
#include "sampler/unwind/unwind.h"

/* What libgcc's unwinder says, to compare with. */
struct stack {
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	size_t len;
};

static _Unwind_Reason_Code take_frame(struct _Unwind_Context *context, void *arg)
{
	struct stack *stack = arg;
	int before = 0;
	uintptr_t pc = (uintptr_t)_Unwind_GetIPInfo(context, &before);

	if (pc == 0 || stack->len == UNWIND_DEPTH_MAX)
		return _URC_END_OF_STACK;
	stack->pcs[stack->len++] = pc + (uintptr_t)before;
	return _URC_NO_REASON;
}

static int setup(void **state)
{
	struct err err = { 0 };
	struct stack warm = { 0 };

	(void)state;
	(void)_Unwind_Backtrace(take_frame, &warm); /* what it allocates, it allocates now */
	return unwind_refresh(&err);
}

/* Walk from here and compare with libgcc, apart from this function's own frame. */
static __attribute__((noinline)) void check_here(void)
{
	struct stack ours = { 0 }, theirs = { 0 };
	struct unwind_regs regs;
	ucontext_t context;

	assert_int_equal(getcontext(&context), 0);
	unwind_regs_from_ucontext_sigsafe(&context, &regs);
	assert_int_equal(unwind_walk_sigsafe(&regs, ours.pcs, UNWIND_DEPTH_MAX, &ours.len),
		UNWIND_COMPLETE);
	(void)_Unwind_Backtrace(take_frame, &theirs);
	assert_int_equal(ours.len, theirs.len);
	assert_true(ours.len > 3);
	assert_memory_equal(ours.pcs + 1, theirs.pcs + 1, (ours.len - 1) * sizeof(ours.pcs[0]));
}

static int compare_and_check(const void *a, const void *b)
{
	check_here();
	return *(const int *)a - *(const int *)b;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static __attribute__((noinline)) int nest(unsigned depth)
{
	volatile char room[100];

	room[0] = 0;
	if (depth == 0) {
		check_here();
		return room[0];
	}
	return nest(depth - 1) + room[0];
}

static void test_nested_calls(void **state)
{
	(void)state;
	for (unsigned depth = 0; depth < 60; depth += 7)
		(void)nest(depth);
}

static void test_through_libc_without_frame_pointers(void **state)
{
	int numbers[] = { 3, 1, 2 };

	(void)state;
	qsort(numbers, COUNT(numbers), sizeof(numbers[0]), compare_and_check);
	assert_int_equal(numbers[0], 1);
}

static void on_signal_check(int signal)
{
	(void)signal;
	check_here();
}

static void test_through_a_signal_frame(void **state)
{
	const struct sigaction action = { .sa_handler = on_signal_check };

	(void)state;
	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	assert_int_equal(raise(SIGUSR1), 0);
}

static void test_from_an_alternate_stack(void **state)
{
	const struct sigaction action = { .sa_handler = on_signal_check,
		.sa_flags = SA_ONSTACK };
	const size_t size = 256 << 10;
	stack_t stack = { .ss_sp = malloc(size), .ss_size = size };
	const stack_t off = { .ss_flags = SS_DISABLE };

	(void)state;
	assert_int_equal(sigaltstack(&stack, NULL), 0);
	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	assert_int_equal(raise(SIGUSR1), 0);
	assert_int_equal(sigaltstack(&off, NULL), 0);
	free(stack.ss_sp);
}

static void *run_thread(void *arg)
{
	(void)arg;
	(void)nest(5);
	return NULL;
}

static void test_in_a_thread(void **state)
{
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, run_thread, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/*
 * Every instruction of a piece of work: the processor's trap flag brings us here after each one,
 * and both unwinders are asked how they would get from there to the thread's start.  Where a program
 * cannot set that flag for itself, another thread interrupts it a few thousand times.
 */
static struct {
	volatile sig_atomic_t stop;
	volatile unsigned long steps;
	unsigned long wrong, incomplete, shown;
} trace;

static void show_difference(
	const struct stack *ours, const struct stack *theirs, size_t from, enum unwind_end end)
{
	if (trace.shown++ >= 3)
		return;
	print_message("  end %d at %#lx\n", (int)end, (unsigned long)ours->pcs[0]);
	for (size_t i = 0; i < ours->len || from + i < theirs->len; i++)
		print_message("    %#lx %#lx\n",
			i < ours->len ? (unsigned long)ours->pcs[i] : 0,
			from + i < theirs->len ? (unsigned long)theirs->pcs[from + i] : 0);
}

/* libgcc knows no way out of a linkage table that has no unwind information. */
static bool is_same(const struct stack *ours, const struct stack *theirs, size_t from)
{
	size_t len = theirs->len - from;

	return from < theirs->len && (ARCH_HAS_LR ? ours->len >= len : ours->len == len) &&
	       memcmp(ours->pcs + 1, theirs->pcs + from + 1,
		       (len - 1) * sizeof(ours->pcs[0])) == 0;
}

static void compare_interrupted(const ucontext_t *context)
{
	struct stack ours = { 0 }, theirs = { 0 };
	struct unwind_regs regs;
	enum unwind_end end;
	size_t from = 0;

	unwind_regs_from_ucontext_sigsafe(context, &regs);
	end = unwind_walk_sigsafe(&regs, ours.pcs, UNWIND_DEPTH_MAX, &ours.len);
	(void)_Unwind_Backtrace(take_frame, &theirs);
	while (from < theirs.len && theirs.pcs[from] != regs.pc + 1)
		from++;
	trace.steps++;
	if (end != UNWIND_COMPLETE)
		trace.incomplete++;
	if (!is_same(&ours, &theirs, from)) {
		trace.wrong++;
		show_difference(&ours, &theirs, from, end);
	}
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	if (!trace.stop) {
		compare_interrupted(context);
		return;
	}
#ifdef __x86_64__
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)0x100;
#endif
}

static int compare_numbers(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static __attribute__((noinline)) void work_in_libc(void)
{
	int numbers[16];
	char text[200];

	for (size_t i = 0; i < COUNT(numbers); i++)
		numbers[i] = (int)(i * 7 % 16);
	qsort(numbers, COUNT(numbers), sizeof(numbers[0]), compare_numbers);
	(void)snprintf(
		text, sizeof(text), "%d %s %.3f %p", numbers[3], "text", 3.25, (void *)numbers);
	free(realloc(malloc(100), 5000));
	(void)strtod(text, NULL);
}

#ifdef __x86_64__
static void trace_work(void)
{
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
	work_in_libc();
}
#else
static void *interrupt(void *thread)
{
	while (trace.steps < 3000) {
		unsigned long before = trace.steps;

		assert_int_equal(pthread_kill(*(pthread_t *)thread, SIGTRAP), 0);
		while (trace.steps == before)
			(void)sched_yield();
	}
	trace.stop = 1;
	return NULL;
}

static void trace_work(void)
{
	pthread_t self = pthread_self(), other;

	assert_int_equal(pthread_create(&other, NULL, interrupt, &self), 0);
	while (!trace.stop)
		work_in_libc();
	assert_int_equal(pthread_join(other, NULL), 0);
}
#endif

static void test_every_instruction_as_libgcc(void **state)
{
	const struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };

	(void)state;
#ifdef __SANITIZE_THREAD__
	/* Its allocator would be interrupted in the middle, and asked for memory by the handler. */
	skip();
#endif
	assert_int_equal(sigaction(SIGTRAP, &action, NULL), 0);
	trace_work();
	trace.stop = 1;
	print_message("  %lu steps, %lu incomplete, %lu different\n", trace.steps,
		trace.incomplete, trace.wrong);
	assert_true(trace.steps > 1000);
	assert_int_equal(trace.incomplete, 0);
	assert_int_equal(trace.wrong, 0);
}

static void *walk_until_told(void *stop)
{
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	struct unwind_regs regs;
	ucontext_t context;
	size_t len;

	while (!atomic_load((atomic_bool *)stop)) {
		assert_int_equal(getcontext(&context), 0);
		unwind_regs_from_ucontext_sigsafe(&context, &regs);
		assert_int_equal(unwind_walk_sigsafe(&regs, pcs, UNWIND_DEPTH_MAX, &len),
			UNWIND_COMPLETE);
	}
	return NULL;
}

static void test_libraries_come_and_go_under_a_walk(void **state)
{
	atomic_bool stop = false;
	pthread_t thread;
	struct err err;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, walk_until_told, &stop), 0);
	for (unsigned i = 0; i < 50; i++) {
		void *library = dlopen("libresolv.so.2", RTLD_NOW | RTLD_LOCAL);
		size_t with, without, bytes;

		assert_non_null(library);
		assert_int_equal(unwind_refresh(&err), 0);
		unwind_stats(&with, &bytes);
		assert_int_equal(dlclose(library), 0);
		assert_int_equal(unwind_refresh(&err), 0);
		unwind_stats(&without, &bytes);
		assert_true(without < with);
	}
	atomic_store(&stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_registers_gone_wild(void **state)
{
	uint64_t random = 88172645463325252U;
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	struct unwind_regs good, bad;
	ucontext_t context;
	size_t len;

	(void)state;
	assert_int_equal(getcontext(&context), 0);
	unwind_regs_from_ucontext_sigsafe(&context, &good);
	for (unsigned i = 0; i < 20000; i++) {
		static const uintptr_t edges[] = { 0, 1, 8, 4096, 0x7fffffffffff,
			0x800000000000, UINTPTR_MAX, UINTPTR_MAX - 7 };

		bad = good;
		for (unsigned j = 0; j < 3; j++) {
			uintptr_t *field = j == 0   ? &bad.pc
					   : j == 1 ? &bad.reg[ARCH_SP]
						    : &bad.reg[ARCH_FP];

			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			if (random % 4 == 0)
				*field = random;
			else if (random % 4 == 1)
				*field = edges[(random >> 8) % COUNT(edges)];
			else if (random % 4 == 2)
				*field += (random >> 8) % 65536 * 8 - (uintptr_t)65536 * 4;
		}
		errno = 4711;
		(void)unwind_walk_sigsafe(&bad, pcs, UNWIND_DEPTH_MAX, &len);
		assert_in_range(len, 1, UNWIND_DEPTH_MAX);
		assert_int_equal(errno, 4711);
	}
}

static void test_at_the_end_of_mapped_memory(void **state)
{
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	struct unwind_regs regs;
	ucontext_t context;
	size_t len;
	char *pages =
		mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_ptr_not_equal(pages, MAP_FAILED);
	memset(pages, 0x41, 4096);
	assert_int_equal(munmap(pages + 4096, 4096), 0);
	assert_int_equal(getcontext(&context), 0);
	unwind_regs_from_ucontext_sigsafe(&context, &regs);
	for (size_t back = 0; back <= 64; back++) {
		regs.reg[ARCH_SP] = (uintptr_t)pages + 4096 - back;
		regs.reg[ARCH_FP] = regs.reg[ARCH_SP];
		assert_int_not_equal(unwind_walk_sigsafe(&regs, pcs, UNWIND_DEPTH_MAX, &len),
			UNWIND_COMPLETE);
	}
	assert_int_equal(munmap(pages, 4096), 0);
}

static void test_depth_is_limited(void **state)
{
	uintptr_t pcs[4];
	struct unwind_regs regs;
	ucontext_t context;
	size_t len;

	(void)state;
	assert_int_equal(getcontext(&context), 0);
	unwind_regs_from_ucontext_sigsafe(&context, &regs);
	assert_int_equal(unwind_walk_sigsafe(&regs, pcs, 2, &len), UNWIND_DEPTH);
	assert_int_equal(len, 2);
}

/* A stack holds what the sanitizer forbids to read. */
__attribute__((no_sanitize("address"))) static void copy_words(
	uintptr_t *to, uintptr_t address, size_t count)
{
	const uintptr_t *from =
		(const uintptr_t *)address; /* NOLINT(performance-no-int-to-ptr) */

	for (size_t i = 0; i < count; i++)
		((volatile uintptr_t *)to)[i] = from[i];
}

/* As for a sleeping thread: the same frames from a copy, and no more than it reaches. */
static __attribute__((noinline)) void check_copy(void)
{
	static uintptr_t copy[1024];
	struct stack live = { 0 }, copied = { 0 };
	struct unwind_regs regs;
	ucontext_t context;
	volatile enum unwind_end end = UNWIND_COMPLETE;
	volatile size_t reached = 0, words = 0; /* setjmp() is in the assertions */

	assert_int_equal(getcontext(&context), 0);
	unwind_regs_from_ucontext_sigsafe(&context, &regs);
	assert_int_equal(unwind_walk_sigsafe(&regs, live.pcs, UNWIND_DEPTH_MAX, &live.len),
		UNWIND_COMPLETE);
	for (; words <= COUNT(copy); words += 8) {
		copy_words(copy, regs.reg[ARCH_SP], words);
		end = unwind_walk_copy(
			&regs, copy, words * 8, copied.pcs, UNWIND_DEPTH_MAX, &copied.len);
		assert_in_range(copied.len, 1, live.len);
		assert_true(copied.len >= reached);
		assert_memory_equal(live.pcs, copied.pcs, copied.len * sizeof(live.pcs[0]));
		assert_true(end == UNWIND_COMPLETE || copied.len <= live.len);
		reached = copied.len;
		if (end == UNWIND_COMPLETE)
			break;
	}
	assert_int_equal(end, UNWIND_COMPLETE);
	assert_int_equal(copied.len, live.len);
	if (!ARCH_HAS_LR)
		return;
	/* Where a link register is saved, the frame pointer is, too: more than the stack pointer need not
	 * be known. */
	regs.valid = 1U << ARCH_SP;
	assert_int_equal(unwind_walk_copy(&regs, copy, words * 8, copied.pcs, UNWIND_DEPTH_MAX,
				 &copied.len),
		UNWIND_COMPLETE);
	assert_int_equal(copied.len, live.len);
	assert_memory_equal(live.pcs, copied.pcs, copied.len * sizeof(live.pcs[0]));
}

#ifdef __x86_64__ /* elsewhere the code is not read yet */
/* In frames that the stack pointer alone does not tell the end of. */
static __attribute__((noinline)) void check_without_frame_pointer(size_t room)
{
	static uintptr_t copy[1024];
	size_t size;
	volatile char *dynamic = __builtin_alloca(room + 1);
	struct stack live = { 0 }, copied = { 0 };
	struct unwind_regs regs;
	ucontext_t context;

	dynamic[room] = 1;
	assert_int_equal(getcontext(&context), 0);
	unwind_regs_from_ucontext_sigsafe(&context, &regs);
	assert_int_equal(unwind_walk_sigsafe(&regs, live.pcs, UNWIND_DEPTH_MAX, &live.len),
		UNWIND_COMPLETE);
	size = memory_copy(regs.reg[ARCH_SP], copy, sizeof(copy));
	regs.valid = 1U << ARCH_SP;
	assert_int_equal(
		unwind_walk_copy(&regs, copy, size, copied.pcs, UNWIND_DEPTH_MAX, &copied.len),
		UNWIND_COMPLETE);
	assert_int_equal(copied.len, live.len);
	assert_memory_equal(live.pcs, copied.pcs, copied.len * sizeof(live.pcs[0]));
}

#endif

static void *run_check_copy(void *arg)
{
	check_copy();
#ifdef __x86_64__
	check_without_frame_pointer(0);
	check_without_frame_pointer(1000);
#endif
	return arg;
}

static void test_from_a_copy_of_the_stack(void **state)
{
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, run_check_copy, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nested_calls),
		cmocka_unit_test(test_through_libc_without_frame_pointers),
		cmocka_unit_test(test_through_a_signal_frame),
		cmocka_unit_test(test_from_an_alternate_stack),
		cmocka_unit_test(test_in_a_thread),
		cmocka_unit_test(test_every_instruction_as_libgcc),
		cmocka_unit_test(test_libraries_come_and_go_under_a_walk),
		cmocka_unit_test(test_registers_gone_wild),
		cmocka_unit_test(test_at_the_end_of_mapped_memory),
		cmocka_unit_test(test_depth_is_limited),
		cmocka_unit_test(test_from_a_copy_of_the_stack),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
