/*
 * threads.c - in front of the making of threads: pthread_create() and C11's thrd_create().
 *
 * A thread begins in a function of this file, so that its end is seen, too: when it returns, when it calls
 * pthread_exit(), when it is cancelled.  What the program has for the end of its threads (destructors of
 * thread-local objects and keys) comes after that, as it would without us.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <threads.h>

#include "sampler/collect/starts.h"
#include "sampler/hooks/switch.h"
#include "sampler/store/depot.h"
#include "sampler/store/self.h"

typedef void *posix_run(void *);
typedef int c11_run(void *);

/* clang-format off */
#define HOOKS(X) \
	X(int, pthread_create, NULL, 1, 4, pthread_t *, const pthread_attr_t *, posix_run *, void *) \
	X(int, thrd_create, NULL, 1, 3, thrd_t *, c11_run *, void *)
/* clang-format on */

HOOKS(SWITCH_DECLARE)
HOOKS(SWITCH_FIRST)
HOOKS(SWITCH_DEFINE)

static void follow_mode(unsigned mode)
{
	HOOKS(SWITCH_FOLLOW)
}

/* The code that threads begin in; stacks do not show it. The linker knows where it lies. */
#define BEGINS __attribute__((noinline, section("postern_begins")))
extern const char begins_start[] __asm__("__start_postern_begins")
	__attribute__((visibility("hidden")));
extern const char begins_end[] __asm__("__stop_postern_begins")
	__attribute__((visibility("hidden")));

__attribute__((constructor)) static void find_all(void)
{
	HOOKS(SWITCH_FIND)
	(void)dlerror();
	depot_hide((uintptr_t)begins_start, (uintptr_t)begins_end - (uintptr_t)begins_start);
	starts_tell(follow_mode);
}

static void ends(void *unused)
{
	(void)unused;
	starts_end_sigsafe();
}

static BEGINS void *thread_begins(void *place)
{
	struct start_call call = starts_begin_sigsafe(place);
	void *result;

	pthread_cleanup_push(ends, NULL);
	result = call.run.posix(call.argument);
	pthread_cleanup_pop(1);
	return result;
}

static BEGINS int thread_begins_c11(void *place)
{
	struct start_call call = starts_begin_sigsafe(place);
	int result;

	pthread_cleanup_push(ends, NULL);
	result = call.run.c11(call.argument);
	pthread_cleanup_pop(1);
	return result;
}

static int on_pthread_create(pthread_t *a, const pthread_attr_t *b, posix_run *c, void *d)
{
	struct start_call call = { .run.posix = c, .argument = d };
	struct unwind_regs regs;
	struct start start;
	int error = errno, rc;

	if (UNLIKELY(self.inside))
		return REAL(pthread_create)(a, b, c, d);
	UNWIND_REGS_OF_CALLER(&regs);
	starts_making_sigsafe(&start, &call, &regs);
	errno = error;
	rc = start.place ? REAL(pthread_create)(a, b, thread_begins, start.place)
			 : REAL(pthread_create)(a, b, c, d);
	starts_made_sigsafe(&start, rc == 0);
	return rc;
}

static int on_thrd_create(thrd_t *a, c11_run *b, void *c)
{
	struct start_call call = { .run.c11 = b, .argument = c };
	struct unwind_regs regs;
	struct start start;
	int error = errno, rc;

	if (UNLIKELY(self.inside))
		return REAL(thrd_create)(a, b, c);
	UNWIND_REGS_OF_CALLER(&regs);
	starts_making_sigsafe(&start, &call, &regs);
	errno = error;
	rc = start.place ? REAL(thrd_create)(a, thread_begins_c11, start.place)
			 : REAL(thrd_create)(a, b, c);
	starts_made_sigsafe(&start, rc == thrd_success);
	return rc;
}
