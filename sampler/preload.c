/*
 * preload.c - takes effect by being loaded: linked, or preloaded by `postern exec`.
 */
#include <dlfcn.h>

#include "sampler/life.h"

__attribute__((constructor)) static void on_load(void)
{
	static const char here;
	Dl_info self;

	if (dladdr(&here, &self) && self.dli_fname)
		life_begin(self.dli_fname);
	else
		life_begin("libpostern.so");
}
