#include "sampler/lines/demangle.h"

#include <libiberty/demangle.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STUB "@plt" /* what an entry of a linkage table has at its name's end */

static bool is_stub(const char *name)
{
	size_t len = strlen(name);

	return len > sizeof(STUB) && strcmp(name + len - (sizeof(STUB) - 1), STUB) == 0;
}

static char *demangle_bare(const char *name)
{
	char *text = NULL;

	if (strncmp(name, "_R", 2) == 0 || strncmp(name, "_ZN", 3) == 0)
		text = rust_demangle(name, DMGL_NO_OPTS);
	if (!text && strncmp(name, "_Z", 2) == 0)
		text = cplus_demangle_v3(name, DMGL_ANSI);
	return text;
}

static char *demangle_stub(const char *name)
{
	char *bare = strndup(name, strlen(name) - (sizeof(STUB) - 1));
	char *text = bare ? demangle_bare(bare) : NULL, *whole = NULL;

	if (text && asprintf(&whole, "%s" STUB, text) < 0)
		whole = NULL;
	free(text);
	free(bare);
	return whole;
}

char *demangle(const char *name)
{
	return is_stub(name) ? demangle_stub(name) : demangle_bare(name);
}
