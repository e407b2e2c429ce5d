#include "sampler/lines/demangle.h"

#include <libiberty/demangle.h>

#include <string.h>

char *demangle(const char *name)
{
	char *text = NULL;

	if (strncmp(name, "_R", 2) == 0 || strncmp(name, "_ZN", 3) == 0)
		text = rust_demangle(name, DMGL_NO_OPTS);
	if (!text && strncmp(name, "_Z", 2) == 0)
		text = cplus_demangle_v3(name, DMGL_ANSI);
	return text;
}
