/*
 * locks exact|sampled RATE - threads that wait for each other in every way, and know how long they did.
 *
 * One thread holds, another waits: only when the kernel says that it sleeps does the first count the time
 * for which it holds on, so each event is a wait.  At the end a line for each kind: its name, events, what
 * the waiters lost in all (ns, measured around the call), what they had lost when they were let go, the
 * variances that estimates of events and of loss have at one sample for RATE ns, and the sum of
 * squares of what they had lost when they were let go.  Then it waits for the end of its input.
 *
 * exact: 40 events of a kind, 2 ms and longer.  sampled: 3000, of about 0.2 ms.
 */
#include <atomic>
#include <mutex>

#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SITE       extern "C" __attribute__((noinline))
#define NOT_A_JUMP __asm__ volatile("" ::: "memory")

#define WAITERS_MAX 3

static std::atomic<unsigned> holds, asked[WAITERS_MAX], done;
static std::atomic<pid_t> waiter_tid[WAITERS_MAX];
static uint64_t asked_at[WAITERS_MAX];
static double rate;
static uint64_t hold_ns;
static unsigned waiters;

static struct sums {
	uint64_t events;
	double lost, events_variance, lost_variance;
	double charged, charged_squares;
} sums;

static uint64_t now_ns()
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static bool sleeps(pid_t tid)
{
	char path[64], text[256], *state;
	FILE *file;
	bool is_so = false;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (fgets(text, sizeof(text), file) && (state = strrchr(text, ')')))
		is_so = state[2] == 'S';
	(void)fclose(file);
	return is_so;
}

/* The holder has what it holds: until all waiters sleep, and for as long as it shall. */
static void hold_on(unsigned round)
{
	uint64_t until;

	holds = round;
	for (unsigned i = 0; i < waiters; i++) {
		while (asked[i] != round || !sleeps(waiter_tid[i]))
			(void)sched_yield();
	}
	until = now_ns() + hold_ns;
	if (hold_ns >= 1000000) {
		struct timespec pause = { 0, (long)hold_ns };

		(void)nanosleep(&pause, nullptr);
	}
	while (now_ns() < until)
		continue;
	for (unsigned i = 0; i < waiters; i++) {
		double lost = (double)(now_ns() - asked_at[i]);

		sums.charged += lost;
		sums.charged_squares += lost * lost;
	}
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static std::mutex standard;
static mtx_t c11;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static unsigned cond_round;
static sem_t semaphore;

#define HOLD(kind, take, release)             \
	SITE void hold_##kind(unsigned round) \
	{                                     \
		take;                         \
		hold_on(round);               \
		release;                      \
		NOT_A_JUMP;                   \
	}
#define WAIT(kind, take, release)                            \
	SITE void wait_##kind(unsigned round, uint64_t *got) \
	{                                                    \
		(void)round;                                 \
		take;                                        \
		*got = now_ns();                             \
		release;                                     \
		NOT_A_JUMP;                                  \
	}

HOLD(mutex, pthread_mutex_lock(&mutex), pthread_mutex_unlock(&mutex))
WAIT(mutex, pthread_mutex_lock(&mutex), pthread_mutex_unlock(&mutex))
HOLD(many, pthread_mutex_lock(&mutex), pthread_mutex_unlock(&mutex))
WAIT(many, pthread_mutex_lock(&mutex), usleep(300); pthread_mutex_unlock(&mutex))
HOLD(reader, pthread_rwlock_wrlock(&rwlock), pthread_rwlock_unlock(&rwlock))
WAIT(reader, pthread_rwlock_rdlock(&rwlock), pthread_rwlock_unlock(&rwlock))
HOLD(writer, pthread_rwlock_rdlock(&rwlock), pthread_rwlock_unlock(&rwlock))
WAIT(writer, pthread_rwlock_wrlock(&rwlock), pthread_rwlock_unlock(&rwlock))
HOLD(standard, standard.lock(), standard.unlock())
WAIT(standard, standard.lock(), standard.unlock())
HOLD(c11, mtx_lock(&c11), mtx_unlock(&c11))
WAIT(c11, mtx_lock(&c11), mtx_unlock(&c11))
/* Nobody holds these: somebody lets the waiter go. */
HOLD(semaphore, , sem_post(&semaphore))
WAIT(semaphore, sem_wait(&semaphore), )

SITE void hold_cond(unsigned round)
{
	hold_on(round);
	(void)pthread_mutex_lock(&cond_mutex);
	cond_round = round;
	(void)pthread_mutex_unlock(&cond_mutex);
	(void)pthread_cond_signal(&cond);
	NOT_A_JUMP;
}

SITE void wait_cond(unsigned round, uint64_t *got)
{
	(void)pthread_mutex_lock(&cond_mutex);
	while (cond_round != round)
		(void)pthread_cond_wait(&cond, &cond_mutex);
	*got = now_ns();
	(void)pthread_mutex_unlock(&cond_mutex);
	NOT_A_JUMP;
}

static const struct kind {
	const char *name;
	void (*hold)(unsigned round);
	void (*wait)(unsigned round, uint64_t *got);
	unsigned waiters;
	bool is_sampled; /* has a part in `sampled` */
} kinds[] = {
	{ "mutex", hold_mutex, wait_mutex, 1, true },
	{ "reader", hold_reader, wait_reader, 1, true },
	{ "writer", hold_writer, wait_writer, 1, false },
	{ "standard", hold_standard, wait_standard, 1, true },
	{ "c11", hold_c11, wait_c11, 1, false },
	{ "cond", hold_cond, wait_cond, 1, true },
	{ "semaphore", hold_semaphore, wait_semaphore, 1, true },
	{ "many", hold_many, wait_many, WAITERS_MAX, false },
};

static const struct kind *kind;
static unsigned rounds;
static pthread_mutex_t sum_lock = PTHREAD_MUTEX_INITIALIZER;

static void *wait_all(void *number)
{
	unsigned me = (unsigned)(uintptr_t)number;
	struct sums mine = { 0, 0, 0, 0, 0, 0 };

	waiter_tid[me] = (pid_t)syscall(SYS_gettid);
	for (unsigned round = 1; round <= rounds; round++) {
		uint64_t got = 0;
		double lost;

		while (holds != round)
			(void)sched_yield();
		asked_at[me] = now_ns();
		asked[me] = round;
		kind->wait(round, &got);
		lost = (double)(got - asked_at[me]);
		mine.events++;
		mine.lost += lost;
		if (lost < rate) { /* longer ones are all kept */
			mine.events_variance += rate / lost - 1;
			mine.lost_variance += lost * rate - lost * lost;
		}
		done++;
	}
	while (pthread_mutex_trylock(&sum_lock))
		(void)sched_yield();
	sums.events += mine.events;
	sums.lost += mine.lost;
	sums.events_variance += mine.events_variance;
	sums.lost_variance += mine.lost_variance;
	(void)pthread_mutex_unlock(&sum_lock);
	return nullptr;
}

static void play(const struct kind *played)
{
	pthread_t threads[WAITERS_MAX];

	kind = played;
	waiters = kind->waiters;
	memset(&sums, 0, sizeof(sums));
	holds = 0;
	for (unsigned i = 0; i < waiters; i++) {
		asked[i] = 0;
		if (pthread_create(&threads[i], nullptr, wait_all, (void *)(uintptr_t)i))
			abort();
	}
	for (unsigned round = 1; round <= rounds; round++) {
		done = 0;
		kind->hold(round);
		while (done != waiters)
			(void)sched_yield();
	}
	for (unsigned i = 0; i < waiters; i++)
		(void)pthread_join(threads[i], nullptr);
	printf("%s %lu %.0f %.0f %g %g %g\n", kind->name, (unsigned long)sums.events, sums.lost,
		sums.charged, sums.events_variance, sums.lost_variance, sums.charged_squares);
}

int main(int argc, char **argv)
{
	bool sampled = argc == 3 && strcmp(argv[1], "sampled") == 0;
	char byte;

	if (argc != 3)
		return 2;
	rate = strtod(argv[2], nullptr);
	rounds = sampled ? 3000 : 40;
	hold_ns = sampled ? 100000 : 2000000;
	(void)mtx_init(&c11, mtx_plain);
	(void)sem_init(&semaphore, 0, 0);
	for (const struct kind &each : kinds) {
		if (!sampled || each.is_sampled)
			play(&each);
	}
	printf("end\n");
	(void)fflush(stdout);
	return read(STDIN_FILENO, &byte, 1) < 0;
}
