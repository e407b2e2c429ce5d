/*
 * real_static.c - real.c for programs that are linked statically, where no loader could be asked.
 *
 * There the linker puts ours in front (--wrap=malloc makes __wrap_malloc of who calls malloc, and malloc of
 * __real_malloc), for all the names that the other files of this room define.
 */
#include <stddef.h>
#include <string.h>

#include "sampler/hooks/real.h"

#define WRAPPED(name) extern real_function real_##name __asm__("__real_" #name);
#include POSTERN_WRAPPED
#undef WRAPPED

#define WRAPPED(name) { #name, real_##name },

static const struct {
	const char *name;
	real_function *function;
} wrapped[] = {

#include POSTERN_WRAPPED
};

real_function *real_find_optional(const char *name, const char *version)
{
	(void)version;
	for (size_t i = 0; i < sizeof(wrapped) / sizeof(wrapped[0]); i++) {
		if (strcmp(wrapped[i].name, name) == 0)
			return wrapped[i].function;
	}
	return NULL;
}

real_function *real_find(const char *name, const char *version)
{
	return real_find_optional(name, version);
}
