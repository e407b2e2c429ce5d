/*
 * confine.c - in front of prctl(): a thread that goes where not even the clock may be read is left alone from
 * then on.
 *
 * In the strictest of seccomp's modes any system call but four is a thread's end, and so is a look at the
 * processor's own clock, which the C library's reads.  (Who asks the kernel for it past the C library is
 * not seen.)
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/prctl.h>

#include "sampler/hooks/real.h"
#include "sampler/store/self.h"

typedef int prctl_function(int, unsigned long, unsigned long, unsigned long, unsigned long);

static _Atomic(real_function *) real_prctl;

__attribute__((constructor)) static void find(void)
{
	atomic_store(&real_prctl, real_find_optional("prctl", NULL));
	(void)dlerror();
}

static bool is_strict(int option, unsigned long value)
{
	return (option == PR_SET_SECCOMP && value == SECCOMP_MODE_STRICT) ||
	       (option == PR_SET_TSC && value == PR_TSC_SIGSEGV);
}

HOOK int prctl(int option, ...)
{
	prctl_function *real = (prctl_function *)real_of(&real_prctl, "prctl", NULL);
	unsigned long values[4];
	va_list list;
	bool strict;
	int rc;

	va_start(list, option);
	for (int i = 0; i < 4; i++)
		/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it does not see va_start() */
		values[i] = va_arg(list, unsigned long);
	va_end(list);
	strict = is_strict(option, values[0]);
	self.inside += strict;
	self.is_confined |= strict;
	rc = real(option, values[0], values[1], values[2], values[3]);
	if (rc < 0 && strict) {
		self.inside--;
		self.is_confined = false;
	}
	return rc;
}
