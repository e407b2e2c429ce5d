/*
 * unwind_bench - what a walk costs: nanoseconds a frame at two depths, ours beside libunwind's
 * unw_step() (what a signal handler must use there) and unw_backtrace() where that is installed, and the C
 * library's backtrace(); warm, the smallest of many rounds, and cold, the median; and what the tables
 * cost.  Run the release build's, on a quiet machine.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <ucontext.h>

#ifdef HAVE_LIBUNWIND
#define UNW_LOCAL_ONLY
#include <libunwind.h>
#endif

#include "sampler/unwind/unwind.h"

#define ROUNDS      2000
#define COLD_ROUNDS 41

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static size_t walk_ours(ucontext_t *context)
{
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	struct unwind_regs regs;
	size_t len;

	unwind_regs_from_ucontext_sigsafe(context, &regs);
	if (unwind_walk_sigsafe(&regs, pcs, UNWIND_DEPTH_MAX, &len) != UNWIND_COMPLETE)
		return 0;
	return len;
}

#ifdef HAVE_LIBUNWIND
static size_t walk_libunwind(ucontext_t *context)
{
	unw_cursor_t cursor;
	size_t len = 1;

	if (unw_init_local2(&cursor, context, UNW_INIT_SIGNAL_FRAME))
		return 0;
	while (unw_step(&cursor) > 0)
		len++;
	return len;
}
#endif

#ifdef HAVE_LIBUNWIND
/* Its cache of whole frames, which is not for signal handlers. */
static size_t walk_cached(ucontext_t *context)
{
	void *pcs[UNWIND_DEPTH_MAX];
	int len = unw_backtrace(pcs, UNWIND_DEPTH_MAX);

	(void)context;
	return len > 0 ? (size_t)len : 0;
}
#endif

/* The C library's own: libunwind has one of that name, too. */
static int (*libc_backtrace)(void **, int);

static size_t walk_libc(ucontext_t *context)
{
	void *pcs[UNWIND_DEPTH_MAX];
	int len = libc_backtrace ? libc_backtrace(pcs, UNWIND_DEPTH_MAX) : 0;

	(void)context;
	return len > 0 ? (size_t)len : 0;
}

/* Everything out of the processor's caches. */
static void evict(void)
{
	static volatile char bytes[64 << 20];

	for (size_t i = 0; i < sizeof(bytes); i += 64)
		bytes[i]++;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void measure_cold(const char *name, size_t (*walk)(ucontext_t *), ucontext_t *context)
{
	uint64_t took[COLD_ROUNDS];
	size_t frames = 0;

	for (unsigned i = 0; i < COLD_ROUNDS; i++) {
		uint64_t began;

		evict();
		began = now_ns();
		frames = walk(context);
		took[i] = now_ns() - began;
	}
	qsort(took, COLD_ROUNDS, sizeof(took[0]), by_value);
	printf("%-10s %3zu frames %8llu ns %7.1f ns/frame cold\n", name, frames,
		(unsigned long long)took[COLD_ROUNDS / 2],
		frames ? (double)took[COLD_ROUNDS / 2] / (double)frames : 0.0);
}

static void measure(const char *name, size_t (*walk)(ucontext_t *), ucontext_t *context)
{
	uint64_t least = UINT64_MAX;
	size_t frames = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t began = now_ns(), took;

		frames = walk(context);
		took = now_ns() - began;
		least = took < least ? took : least;
	}
	printf("%-10s %3zu frames %8llu ns %7.1f ns/frame\n", name, frames,
		(unsigned long long)least, frames ? (double)least / (double)frames : 0.0);
	measure_cold(name, walk, context);
}

/* Built without frame pointers: only the tables lead back. */
/* NOLINTNEXTLINE(misc-no-recursion) */
__attribute__((noinline)) static int descend(int depth)
{
	ucontext_t context;
	volatile int below = 0;

	if (depth > 0) {
		below = descend(depth - 1);
		return below + 1;
	}
	if (getcontext(&context))
		return 0;
	measure("ours", walk_ours, &context);
#ifdef HAVE_LIBUNWIND
	measure("unw_step", walk_libunwind, &context);
	measure("unw_cached", walk_cached, &context);
#endif
	measure("backtrace", walk_libc, &context);
	return below;
}

int main(void)
{
	uint64_t began = now_ns();
	size_t rows, bytes;
	struct err err;

	*(void **)&libc_backtrace = dlsym(dlopen("libc.so.6", RTLD_LAZY), "backtrace");
	began = now_ns();
	if (unwind_refresh(&err)) {
		(void)fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	printf("tables     %.2f ms", (double)(now_ns() - began) / 1e6);
	unwind_stats(&rows, &bytes);
	printf(", %zu rows, %zu bytes, %.1f bytes/row\n", rows, bytes,
		(double)bytes / (double)rows);
	(void)descend(15);
	(void)descend(55);
	return 0;
}
