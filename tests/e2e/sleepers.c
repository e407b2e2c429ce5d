/*
 * Threads that sleep in every way, below frames of every shape; test_threads.py compiles it (as C and as
 * C++, with and without frame pointers) and expects of each thread the whole stack:
 *
 *   in_WAY ← SHAPE ← outer ← run ← the C library's
 *
 * Before it goes to sleep each thread has gone through the same functions by other ways and come back, so
 * that old frames lie where uninitialised memory will be.  Prints a line for each interrupted wait, and
 * "asleep" when all sleep.
 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEEP    __attribute__((noinline, noclone))
#define FRAME() __asm__ volatile("" ::: "memory") /* after a call: it is no jump then */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, free_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static sem_t none;
static int pipe_ends[2], polled, word;

static KEEP void wrong(const char *what)
{
	printf("wrong: %s (errno %d)\n", what, errno);
	fflush(stdout);
}

#define WAY(name, wait)                       \
	static KEEP int in_##name(int really) \
	{                                     \
		if (really) {                 \
			(void)(wait);         \
			wrong(#name);         \
		}                             \
		FRAME();                      \
		return really;                \
	}

static struct timespec hour = { 3600, 0 };
static char byte;
static struct epoll_event event;

static KEEP int wait_cond(void)
{
	int rc = pthread_mutex_lock(&free_lock);

	while (rc == 0)
		rc = pthread_cond_wait(&never, &free_lock);
	return rc;
}

WAY(cond, wait_cond())
WAY(sleep, nanosleep(&hour, NULL))
WAY(read, read(pipe_ends[0], &byte, 1))
WAY(epoll, epoll_wait(polled, &event, 1, -1))
WAY(poll, poll(NULL, 0, -1))
WAY(mutex, pthread_mutex_lock(&lock))
WAY(sem, sem_wait(&none))
WAY(futex, syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL))

typedef int way(int);
static way *const ways[] = { in_cond, in_sleep, in_read, in_epoll, in_poll, in_mutex, in_sem,
	in_futex };
#define WAYS ((int)(sizeof(ways) / sizeof(ways[0])))

static KEEP int plain(way *wait, int really)
{
	int result = wait(really);

	FRAME();
	return result;
}

static KEEP int with_array(way *wait, int really)
{
	volatile char room[3000]; /* mostly never written */
	int result;

	room[7] = 1;
	result = wait(really) + room[7];
	FRAME();
	return result;
}

static KEEP int with_alloca(way *wait, int really)
{
	volatile char *room = (volatile char *)__builtin_alloca((size_t)(400 + 400 * really));
	int result;

	room[3] = 1;
	result = wait(really) + room[3];
	FRAME();
	return result;
}

static KEEP int with_saved(way *wait, int really)
{
	int a = really * 3, b = a ^ 5, c = b * 7, d = c + a, result;

	__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d)::"rbx", "r12", "r13");
	result = wait(really);
	__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
	return result + a + b + c + d;
}

static KEEP int many(
	int a, int b, int c, int d, int e, int f, int g, int h, way *wait, int really)
{
	int result = wait(really);

	FRAME();
	return result + a + b + c + d + e + f + g + h;
}

static KEEP int with_pushed(way *wait, int really)
{
	int result = many(1, 2, 3, 4, 5, 6, really, 8, wait, really);

	FRAME();
	return result;
}

static KEEP int with_aligned(way *wait, int really)
{
	volatile char room[96] __attribute__((aligned(64)));
	int result;

	room[1] = 1;
	result = wait(really) + room[1];
	FRAME();
	return result;
}

static KEEP int with_large(way *wait, int really)
{
	volatile char room[70000];
	int result;

	room[1] = 1;
	result = wait(really) + room[1];
	FRAME();
	return result;
}

typedef int shape(way *, int);
static shape *const shapes[] = { plain, with_array, with_alloca, with_saved, with_pushed,
	with_aligned, with_large };
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

static KEEP int outer(int number, int really)
{
	int result = shapes[number % SHAPES](ways[number / SHAPES % WAYS], really);

	FRAME();
	return result;
}

/* Leaves frames behind, somewhat further down than they will be needed. */
static KEEP int dirty(int number)
{
	volatile char room[64];
	int result = 0;

	room[number % 64] = 1;
	for (int i = 0; i < SHAPES * WAYS; i++)
		result += outer(number + i, 0);
	return result + room[number % 64];
}

static void *run(void *arg)
{
	int number = (int)(size_t)arg;

	(void)dirty(number);
	(void)outer(number, 1);
	wrong("a thread woke up");
	return arg;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0;
	pthread_attr_t small;

	(void)sem_init(&none, 0, 0);
	polled = epoll_create1(0);
	if (pipe(pipe_ends) || polled < 0 || pthread_mutex_lock(&lock) ||
		pthread_attr_init(&small))
		return 1;
	(void)pthread_attr_setstacksize(&small, 256 << 10);
	for (int i = 0; i < count; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &small, run, (void *)(size_t)i))
			return 1;
	}
	printf("started\n");
	fflush(stdout);
	(void)in_poll(1);
	return 0;
}
