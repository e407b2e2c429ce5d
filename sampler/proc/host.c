#include "sampler/proc/host.h"

#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/* There when the program, or a library that it was linked with, was built with that sanitizer. */
extern void asan_init(void) __asm__("__asan_init") __attribute__((weak));
extern void hwasan_init(void) __asm__("__hwasan_init") __attribute__((weak));
extern void lsan_init(void) __asm__("__lsan_init") __attribute__((weak));
extern void msan_init(void) __asm__("__msan_init") __attribute__((weak));
extern void tsan_init(void) __asm__("__tsan_init") __attribute__((weak));

/* valgrind preloads its own helpers into the program that it runs. */
static int find_valgrind(struct dl_phdr_info *info, size_t size, void *found)
{
	(void)size;
	*(bool *)found = strstr(info->dlpi_name, "/vgpreload_") != NULL;
	return *(bool *)found;
}

static const char *sanitizer_sigsafe(void)
{
	if (asan_init || hwasan_init)
		return "this program is built with AddressSanitizer";
	if (lsan_init)
		return "this program is built with LeakSanitizer";
	if (msan_init)
		return "this program is built with MemorySanitizer";
	if (tsan_init)
		return "this program is built with ThreadSanitizer";
	return NULL;
}

bool host_is_sanitized_sigsafe(void)
{
	return sanitizer_sigsafe() != NULL;
}

static const char *ask(void)
{
	bool valgrind = false;

	if (sanitizer_sigsafe())
		return sanitizer_sigsafe();
	(void)dl_iterate_phdr(find_valgrind, &valgrind);
	return valgrind ? "this program runs under valgrind" : NULL;
}

const char *host_forbids(void)
{
	static const char fine[] = "";
	static _Atomic(const char *) kept;
	const char *answer = atomic_load_explicit(&kept, memory_order_relaxed);

	if (!answer) {
		answer = ask();
		atomic_store_explicit(&kept, answer ? answer : fine, memory_order_relaxed);
	}
	return answer == fine ? NULL : answer;
}
