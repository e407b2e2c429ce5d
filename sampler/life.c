/*
 * life.c - when the sampler starts, what becomes of it in forked children, and the public API.
 */
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "sampler/collect/collect.h"
#include "sampler/collect/cpu.h"
#include "sampler/collect/heap.h"
#include "sampler/collect/rate.h"
#include "sampler/last.h"
#include "sampler/life.h"
#include "sampler/postern.h"
#include "sampler/proc/host.h"
#include "sampler/serve/server.h"
#include "sampler/store/self.h"

#define STACK_BYTES   ((size_t)256 << 10)
#define START_WAIT_NS UINT64_C(500000000)
#define STOP_WAIT_NS  UINT64_C(2000000000)

static struct settings settings;
static const char *library_path = ""; /* our own file */
static size_t tls_bytes; /* what the program's thread-local variables take of a stack */
static struct server server;
static atomic_bool running;                 /* a thread of this process runs the server */
static atomic_flag busy = ATOMIC_FLAG_INIT; /* somebody is starting or stopping it */

static void *run_thread(void *unused)
{
	(void)unused;
	server_run(&server);
	return NULL;
}

static int add_tls(struct dl_phdr_info *info, size_t size, void *sum)
{
	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];

		if (header->p_type == PT_TLS)
			*(size_t *)sum += header->p_memsz + header->p_align;
	}
	return 0;
}

/* Our thread takes no signal of the program's, from its first instruction on. */
static int start_thread(void *(*run)(void *))
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	if (pthread_attr_init(&attributes))
		return -1;
	(void)pthread_attr_setstacksize(&attributes, STACK_BYTES + tls_bytes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	self.inside++; /* it is none of the program's */
	rc = pthread_create(&thread, &attributes, run, NULL);
	self.inside--;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)pthread_attr_destroy(&attributes);
	return rc ? -1 : 0;
}

static void await_start(uint64_t most_ns)
{
	uint64_t give_up = clock_mono_ns() + most_ns;
	struct timespec pause = { .tv_nsec = 50000 };

	while (atomic_load(&server.state) == SERVER_STARTING && clock_mono_ns() < give_up)
		(void)nanosleep(&pause, NULL);
}

static void await_end(uint64_t most_ns)
{
	uint64_t give_up = clock_mono_ns() + most_ns;
	struct timespec pause = { .tv_nsec = 50000 };

	while (atomic_load(&server.state) != SERVER_STOPPED &&
		atomic_load(&server.state) != SERVER_FAILED && clock_mono_ns() < give_up)
		(void)nanosleep(&pause, NULL);
}

/* In the child of a fork only the forking thread is there. */
static void in_child(void)
{
	collect_after_fork();
	if (!atomic_load(&running))
		return;
	atomic_store(&running, false);
	if (settings.children == CHILDREN_OFF) {
		rate_sleep(true);
		return;
	}
	/* Whoever holds the parent awake does not hold its children. */
	if (settings.asleep)
		rate_sleep(true);
	for (enum rate rate = 0; rate < RATES_LEN; rate++)
		rate_lease(rate, RATE_NOT_SET);
	memset(&server, 0, sizeof(server));
	server.settings = &settings;
	server.parent = (uint32_t)getppid();
	if (start_thread(run_thread) == 0) {
		atomic_store(&running, true);
		last_watch(start_thread, postern_stop);
	}
}

static const char *start(void)
{
	static bool watching_forks;

	memset(&server, 0, sizeof(server));
	server.settings = &settings;
	/* glibc takes static TLS out of a thread's stack; in a forked child it is too late to ask. */
	tls_bytes = 0;
	(void)dl_iterate_phdr(add_tls, &tls_bytes);
	if (!watching_forks && pthread_atfork(NULL, NULL, in_child) == 0)
		watching_forks = true;
	cpu_choose(settings.cpu_source);
	rate_sleep(settings.asleep);
	rate_default(RATE_MUTEX, (uint64_t)settings.mutex_fraction);
	rate_default(RATE_BLOCK, (uint64_t)settings.block_rate_ns);
	if (start_thread(run_thread))
		return "the server's thread cannot be made";
	await_start(START_WAIT_NS);
	if (atomic_load(&server.state) == SERVER_FAILED)
		return server.err.text;
	atomic_store(&running, true);
	last_watch(start_thread, postern_stop);
	rate_default(RATE_HEAP, settings.heap_rate);
	return NULL;
}

static void say(const char *what, const char *detail)
{
	char text[512];
	struct buf line;

	buf_init_fixed(&line, text, sizeof(text) - 1);
	buf_add_cstr(&line, "postern: ");
	buf_add_cstr(&line, what);
	buf_add_cstr(&line, detail);
	text[line.len++] = '\n';
	(void)!write(STDERR_FILENO, text, line.len);
}

void life_begin(const char *library)
{
	const char *wrong = host_forbids();

	/* A program that runs with more rights than its caller is not to be looked into. */
	if (getauxval(AT_SECURE)) {
		heap_set_rate(0);
		return;
	}
	library_path = library;
	settings_read(&settings, library_path);
	if (settings.children != CHILDREN_FOLLOW)
		settings_hide(library);
	if (!wrong && settings.err.kind != ERR_NONE)
		wrong = settings.err.text;
	if (settings.off || wrong) {
		heap_set_rate(0);
		if (!settings.off)
			say("off: ", wrong);
		return;
	}
	if (atomic_flag_test_and_set(&busy))
		return;
	wrong = start();
	if (wrong) {
		rate_sleep(true);
		say("off: ", wrong);
	}
	if (!wrong && atomic_load(&server.state) == SERVER_ELSEWHERE)
		say("the address is taken; listening on ", server.address);
	atomic_flag_clear(&busy);
}

const char *postern_start(const char *listen, const char *name)
{
	static char error[256];
	const char *wrong = NULL;

	if (getauxval(AT_SECURE))
		return "this program runs with more rights than its caller: the sampler stays "
		       "off";
	if (host_forbids())
		return host_forbids();
	if (atomic_flag_test_and_set(&busy))
		return "the sampler is being started or stopped";
	if (atomic_load(&running)) {
		if (listen && strcmp(listen, settings.listen) != 0)
			wrong = "the sampler listens on another address already; "
				"POSTERN_LISTEN=off "
				"keeps it from starting by itself";
	} else {
		settings_read(&settings, library_path);
		if ((listen && !sv_to_cstr(sv_from_cstr(listen), settings.listen,
				       sizeof(settings.listen))) ||
			(name && !sv_to_cstr(sv_from_cstr(name), settings.name,
					 sizeof(settings.name))))
			(void)err_set(&settings.err, ERR_INPUT, "address or name is too long");
		wrong = settings.err.kind != ERR_NONE ? settings.err.text : start();
	}
	if (wrong) {
		if (!sv_to_cstr(sv_from_cstr(wrong), error, sizeof(error)))
			error[0] = '\0';
		wrong = error;
	}
	atomic_flag_clear(&busy);
	return wrong;
}

void postern_stop(void)
{
	if (atomic_flag_test_and_set(&busy))
		return;
	if (atomic_load(&running)) {
		atomic_store(&server.stop, true);
		server_wake(&server);
		await_end(STOP_WAIT_NS);
		atomic_store(&running, false);
		rate_sleep(true); /* nobody can read it */
	}
	atomic_flag_clear(&busy);
}

void postern_set_heap_rate(uint64_t bytes)
{
	(void)rate_ask(RATE_HEAP, bytes < SETTINGS_RATE_MAX ? bytes : SETTINGS_RATE_MAX);
}

/* The server's thread sleeps until somebody comes; what is to be recorded wants tables from it. */
static void wake_server(void)
{
	int error = errno;

	if (atomic_load(&running))
		server_wake(&server);
	errno = error;
}

int postern_set_mutex_fraction(int fraction)
{
	uint64_t before = rate_asked(RATE_MUTEX);

	if (fraction < 0 || getauxval(AT_SECURE))
		return (int)before;
	before = rate_ask(RATE_MUTEX, (uint64_t)fraction);
	if (fraction > 0)
		wake_server();
	return (int)before;
}

void postern_set_block_rate(long long ns)
{
	if (getauxval(AT_SECURE))
		return;
	(void)rate_ask(RATE_BLOCK, ns > 0 ? (uint64_t)ns : 0);
	if (ns > 0)
		wake_server();
}
