#include "sampler/hooks/real.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Not by write(), which may be what is missing. */
static void say(const char *text)
{
	(void)syscall(SYS_write, STDERR_FILENO, text, strlen(text));
}

static void give_up(const char *name)
{
	static const char before[] = "postern: there is no function ";
	static const char after[] = " behind ours (a program that is linked statically needs "
				    "libpostern_static.a: pkg-config --libs postern-static)\n";

	say(before);
	say(name);
	say(after);
	_exit(127);
}

real_function *real_find_optional(const char *name, const char *version)
{
	void *found = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
	real_function *function;

	if (!found)
		found = dlsym(RTLD_NEXT, name);
	memcpy(&function, &found, sizeof(function)); /* POSIX says that it may be done */
	return function;
}

real_function *real_find(const char *name, const char *version)
{
	real_function *function = real_find_optional(name, version);

	if (!function)
		give_up(name);
	return function;
}
