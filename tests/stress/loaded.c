/* Loaded and unloaded by loader.c: code that burns, allocates, and is gone; with NESTED its constructor loads
 * another; with TLS it has variables of each thread. */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN __attribute__((visibility("default")))

__attribute__((noinline)) static unsigned long work_here(unsigned long rounds)
{
	unsigned long x = rounds;

	for (unsigned long i = 0; i < rounds; i++) {
		x = x * 6364136223846793005UL + 1;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

SHOWN int stress_work(void *(*take)(size_t), void (*give)(void *));

SHOWN int stress_work(void *(*take)(size_t), void (*give)(void *))
{
	void *taken[64];

	for (unsigned i = 0; i < 64; i++) {
		taken[i] = take(1000 * (i + 1));
		(void)work_here(5000);
	}
	for (unsigned i = 0; i < 64; i++) {
		if (!taken[i])
			return 0;
		give(taken[i]);
	}
	return 42;
}

#ifdef TLS
static _Thread_local char large[50000];
static _Thread_local int small = 42;

SHOWN int stress_touch(void);

SHOWN int stress_touch(void)
{
	(void)work_here(100000);
	for (size_t i = 0; i < sizeof(large); i += 1000) {
		if (large[i])
			return 0;
	}
	memset(large, 1, sizeof(large));
	return small;
}
#endif

#ifdef NESTED
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *inner;
static int (*inner_work)(void *(*take)(size_t), void (*give)(void *));

static void *run(void *unused)
{
	(void)work_here(20000);
	return unused;
}

__attribute__((constructor)) static void load_inner(void)
{
	char path[PATH_MAX + 32];
	pthread_t thread;
	Dl_info info;
	char *slash;

	(void)pthread_mutex_lock(&lock);
	if (pthread_create(&thread, NULL, run, NULL) == 0)
		(void)pthread_join(thread, NULL);
	free(malloc(100000));
	if (dladdr((void *)&inner, &info) && info.dli_fname) {
		(void)snprintf(path, sizeof(path), "%s", info.dli_fname);
		slash = strrchr(path, '/');
		if (slash)
			memcpy(slash, "/stress_code_1.so", sizeof("/stress_code_1.so"));
		inner = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (inner)
			*(void **)&inner_work = dlsym(inner, "stress_work");
		if (inner_work && inner_work(malloc, free) != 42)
			abort();
	}
	(void)pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) static void unload_inner(void)
{
	if (inner)
		(void)dlclose(inner);
}
#endif
