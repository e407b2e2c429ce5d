/* Rows 1, 2, 13, 14, 16: the loader, its lock, libraries that come and go, and their thread-local memory. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/stress/stress.h"

#define LIBRARIES 3

static int count_object(struct dl_phdr_info *info, size_t size, void *count)
{
	(void)info;
	(void)size;
	(void)burn(2000); /* the loader's lock is held meanwhile */
	++*(int *)count;
	return 0;
}

static void *list_objects(void *unused)
{
	while (goes_on()) {
		int count = 0;

		(void)dl_iterate_phdr(count_object, &count);
		if (count < 3)
			wrong("objects are missing");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void *load_and_unload(void *unused)
{
	static const char bytes[65536];

	while (goes_on()) {
		void *library = dlopen("libz.so.1", RTLD_NOW);
		unsigned long (*checksum)(unsigned long, const void *, unsigned) = NULL;

		if (library)
			*(void **)&checksum = dlsym(library, "crc32");
		if (!checksum || checksum(0, bytes, sizeof(bytes)) != 0xd7978eebUL)
			wrong("a loaded function's result");
		if (library)
			(void)dlclose(library);
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void count_up(int *left)
{
	++*left;
}

static void (*const volatile end_thread)(void *) = pthread_exit; /* as if it might return */

/* The C library unwinds such a thread's stack, by libgcc, and runs what is to be cleaned up. */
__attribute__((noinline)) static void leave_deep(unsigned depth, int *left)
{
	__attribute__((cleanup(count_up))) int here = 0;

	(void)burn(1000);
	if (depth == 0)
		end_thread(left);
	else
		leave_deep(depth - 1, left);
	__asm__ volatile("" : "+m"(here));
}

static void *leave(void *left)
{
	leave_deep(40, left);
	return NULL;
}

static void *leave_and_leave(void *unused)
{
	while (goes_on()) {
		void *result = NULL;
		pthread_t thread;
		int left = 0;

		if (pthread_create(&thread, NULL, leave, &left) ||
			pthread_join(thread, &result) || result != &left)
			wrong("a thread that ends from deep within");
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void the_loaders_lock(void)
{
	start(list_objects, NULL);
	start(load_and_unload, NULL);
	start(leave_and_leave, NULL);
	start(burn_on, NULL);
	join_all();
}

static void *take_and_free(void *unused)
{
	while (goes_on()) {
		void *volatile taken = malloc(1 + (size_t)burn(10) % 5000);

		if (!taken)
			wrong("malloc");
		free(taken);
	}
	return unused;
}

/* libgcc is loaded at the first backtrace() of a process: run again and again. */
static void the_first_backtrace(void)
{
	start(take_and_free, NULL);
	start(take_and_free, NULL);
	(void)burn(30000000);
	while (goes_on()) {
		void *addresses[64];

		if (backtrace(addresses, COUNT(addresses)) < 2)
			wrong("backtrace() finds no caller");
		(void)atomic_fetch_add(&stress_rounds, 1);
		(void)burn(10000);
	}
	join_all();
}

static void call_loaded(const char *file, const char *name)
{
	int (*work)(void *(*take)(size_t), void (*give)(void *)) = NULL;
	char path[PATH_MAX];
	void *library = dlopen(beside(file, path, sizeof(path)), RTLD_NOW | RTLD_LOCAL);

	if (library)
		*(void **)&work = dlsym(library, name);
	if (!work) {
		wrong("a library that cannot be loaded");
		return;
	}
	if (work(malloc, free) != 42)
		wrong("a loaded function's result");
	if (dlclose(library))
		wrong("dlclose");
	(void)atomic_fetch_add(&stress_rounds, 1);
}

static void *use_library(void *number)
{
	char file[64];

	(void)snprintf(file, sizeof(file), "stress_code_%zu.so", (size_t)number);
	while (goes_on())
		call_loaded(file, "stress_work");
	return NULL;
}

/* Each thread unloads the code that it has just run. */
static void code_that_goes(void)
{
	for (size_t i = 0; i < LIBRARIES; i++)
		start(use_library, (void *)i);
	join_all();
}

static void *use_nested(void *unused)
{
	while (goes_on())
		call_loaded("stress_nested.so", "stress_work");
	return unused;
}

/* Constructors that load, allocate, lock and start threads themselves. */
static void loading_while_loading(void)
{
	start(use_nested, NULL);
	start(use_nested, NULL);
	start(use_library, (void *)0);
	join_all();
}

static void *touch_once(void *work)
{
	int (*touch)(void);

	*(void **)&touch = work;
	if (touch() != 42)
		wrong("a new thread's variables");
	return NULL;
}

/* Variables of a library that was loaded late are allocated when a thread first touches them. */
static void *touch_first(void *unused)
{
	char path[PATH_MAX];

	while (goes_on()) {
		void *library = dlopen(beside("stress_tls.so", path, sizeof(path)), RTLD_NOW);
		void *touch = library ? dlsym(library, "stress_touch") : NULL;
		pthread_t threads[8];
		size_t len = 0;

		if (!touch) {
			wrong("a library that cannot be loaded");
			break;
		}
		while (len < COUNT(threads) &&
			pthread_create(&threads[len], NULL, touch_once, touch) == 0)
			len++;
		if (len < COUNT(threads))
			wrong("pthread_create");
		while (len > 0)
			(void)pthread_join(threads[--len], NULL);
		(void)dlclose(library);
		(void)atomic_fetch_add(&stress_rounds, 1);
	}
	return unused;
}

static void late_thread_locals(void)
{
	start(touch_first, NULL);
	start(touch_first, NULL);
	start(burn_on, NULL);
	join_all();
}

const struct mode modes_loader[] = { { "01-loader", the_loaders_lock },
	{ "02-backtrace", the_first_backtrace }, { "13-unload", code_that_goes },
	{ "14-nested", loading_while_loading }, { "16-thread-locals", late_thread_locals },
	{ NULL, NULL } };
