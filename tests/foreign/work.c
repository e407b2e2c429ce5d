/* work: one thread that computes in spin() and allocates in keep(), called by work(), and one that sleeps,
 * until it is ended. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static volatile uint64_t sum;

static __attribute__((noinline)) void spin(void)
{
	for (unsigned i = 0; i < 100000; i++)
		sum += i * sum + 1;
}

static __attribute__((noinline)) void keep(void)
{
	static void **volatile kept;
	void **object = malloc(4096);

	if (!object)
		return;
	*object = (void *)kept;
	kept = object;
}

static __attribute__((noinline)) void *work(void *unused)
{
	for (;;) {
		spin();
		keep();
	}
	return unused;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, work, NULL))
		return 1;
	for (;;)
		(void)pause();
}
