/*
 * preload.c - takes effect by being loaded: linked, or preloaded by `postern exec`.
 */
#include <dlfcn.h>

#include "sampler/life.h"

/*
 * AddressSanitizer ends a program in which another library than its own comes first, as ours does when it
 * is preloaded; unless its options, which it asks this function for, say otherwise.  All that we stand in
 * front of, we pass on to it.
 */
const char *asan_options(void) __asm__("__asan_default_options");

__attribute__((visibility("default"))) const char *asan_options(void)
{
	return "verify_asan_link_order=0";
}

__attribute__((constructor)) static void on_load(void)
{
	static const char here;
	Dl_info self;

	if (dladdr(&here, &self) && self.dli_fname)
		life_begin(self.dli_fname);
	else
		life_begin("libpostern.so");
}
