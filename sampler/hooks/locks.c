/*
 * locks.c - in front of the C library's mutexes, read-write locks, condition variables, semaphores and
 * joins: POSIX's and C11's, and so C++'s, but for what waits on a futex of its own
 * (std::counting_semaphore, std::atomic::wait, std::call_once).
 *
 * On (switch.h), a lock is first tried: only who finds it taken is timed and walked, in a wait_… function.
 * What the trial says is what the lock would have said, but for EBUSY and for errors, where the lock
 * itself is asked.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <threads.h>
#include <time.h>

#include "sampler/collect/contention.h"
#include "sampler/collect/locks.h"
#include "sampler/hooks/switch.h"
#include "sampler/store/self.h"

#define COND_VERSION "GLIBC_2.3.2"

/* clang-format off */
#define HOOKS(X) \
	X(int, pthread_mutex_lock, NULL, ANY, 1, pthread_mutex_t *) \
	X(int, pthread_mutex_trylock, NULL, ANY, 1, pthread_mutex_t *) \
	X(int, pthread_mutex_timedlock, NULL, ANY, 2, pthread_mutex_t *, const struct timespec *) \
	X(int, pthread_mutex_clocklock, NULL, ANY, 3, pthread_mutex_t *, clockid_t, const struct timespec *) \
	X(int, pthread_mutex_unlock, NULL, RELEASES, 1, pthread_mutex_t *) \
	X(int, pthread_rwlock_rdlock, NULL, ANY, 1, pthread_rwlock_t *) \
	X(int, pthread_rwlock_tryrdlock, NULL, ANY, 1, pthread_rwlock_t *) \
	X(int, pthread_rwlock_timedrdlock, NULL, ANY, 2, pthread_rwlock_t *, const struct timespec *) \
	X(int, pthread_rwlock_clockrdlock, NULL, ANY, 3, pthread_rwlock_t *, clockid_t, const struct timespec *) \
	X(int, pthread_rwlock_wrlock, NULL, ANY, 1, pthread_rwlock_t *) \
	X(int, pthread_rwlock_trywrlock, NULL, ANY, 1, pthread_rwlock_t *) \
	X(int, pthread_rwlock_timedwrlock, NULL, ANY, 2, pthread_rwlock_t *, const struct timespec *) \
	X(int, pthread_rwlock_clockwrlock, NULL, ANY, 3, pthread_rwlock_t *, clockid_t, const struct timespec *) \
	X(int, pthread_rwlock_unlock, NULL, RELEASES, 1, pthread_rwlock_t *) \
	X(int, pthread_cond_wait, COND_VERSION, ANY, 2, pthread_cond_t *, pthread_mutex_t *) \
	X(int, pthread_cond_timedwait, COND_VERSION, ANY, 3, pthread_cond_t *, pthread_mutex_t *, const struct timespec *) \
	X(int, pthread_cond_clockwait, NULL, ANY, 4, pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *) \
	X(int, pthread_cond_signal, COND_VERSION, LOCKS_TRACE, 1, pthread_cond_t *) \
	X(int, pthread_cond_broadcast, COND_VERSION, LOCKS_TRACE, 1, pthread_cond_t *) \
	X(int, sem_wait, NULL, WAITS, 1, sem_t *) \
	X(int, sem_timedwait, NULL, WAITS, 2, sem_t *, const struct timespec *) \
	X(int, sem_clockwait, NULL, WAITS, 3, sem_t *, clockid_t, const struct timespec *) \
	X(int, sem_post, NULL, LOCKS_TRACE, 1, sem_t *) \
	X(int, pthread_join, NULL, LOCKS_TRACE, 2, pthread_t, void **) \
	X(int, mtx_lock, NULL, ANY, 1, mtx_t *) \
	X(int, mtx_trylock, NULL, ANY, 1, mtx_t *) \
	X(int, mtx_timedlock, NULL, ANY, 2, mtx_t *, const struct timespec *) \
	X(int, mtx_unlock, NULL, RELEASES, 1, mtx_t *) \
	X(int, cnd_wait, NULL, ANY, 2, cnd_t *, mtx_t *) \
	X(int, cnd_timedwait, NULL, ANY, 3, cnd_t *, mtx_t *, const struct timespec *) \
	X(int, cnd_signal, NULL, LOCKS_TRACE, 1, cnd_t *) \
	X(int, cnd_broadcast, NULL, LOCKS_TRACE, 1, cnd_t *) \
	X(int, thrd_join, NULL, LOCKS_TRACE, 2, thrd_t, int *)
/* clang-format on */

#define RELEASES (LOCKS_MUTEX | LOCKS_TRACE)
#define WAITS    (LOCKS_BLOCK | LOCKS_TRACE)
#define ANY      (LOCKS_MUTEX | LOCKS_BLOCK | LOCKS_TRACE)

HOOKS(SWITCH_DECLARE)
HOOKS(SWITCH_FIRST)
HOOKS(SWITCH_DEFINE)

static void follow_mode(unsigned mode)
{
	HOOKS(SWITCH_FOLLOW)
}

__attribute__((constructor)) static void find_all(void)
{
	HOOKS(SWITCH_FIND)
	(void)dlerror();
	locks_tell(follow_mode);
}

/* --- on ---
 *
 * No state is kept across a wait but in its own frame: a thread may be cancelled in those for conditions,
 * semaphores and threads, and then runs `cancelled` on its way out.
 */

static enum lock_end end_of(int rc)
{
	if (rc == 0 || rc == EOWNERDEAD)
		return LOCK_GOT;
	return rc == ETIMEDOUT ? LOCK_GAVE_UP : LOCK_REFUSED;
}

static enum lock_end end_of_c11(int rc)
{
	if (rc == thrd_success)
		return LOCK_GOT;
	return rc == thrd_timedout ? LOCK_GAVE_UP : LOCK_REFUSED;
}

/* sem_wait() and its kin. */
static enum lock_end end_of_sem(int rc)
{
	if (rc == 0)
		return LOCK_GOT;
	return errno == ETIMEDOUT || errno == EINTR ? LOCK_GAVE_UP : LOCK_REFUSED;
}

static void cancelled(void *wait)
{
	locks_waited_sigsafe(wait, LOCK_GAVE_UP);
}

static bool nobody_waits(void)
{
	return atomic_load_explicit(&contention_waiting, memory_order_relaxed) == 0;
}

/* For a function that the program's call has led to by jumps alone, or one more call down, which shows as
 * a frame then. */
#define WAIT(wait, lock_, reason_, name)           \
	struct unwind_regs regs;                   \
	struct lock_wait wait = { .lock = (lock_), \
		.reason = (reason_),               \
		.leaf = (uintptr_t)own_##name + 1, \
		.regs = &regs };                   \
                                                   \
	UNWIND_REGS_OF_CALLER(&regs)

#define ON_TRY(name, end, type)                                  \
	static int on_##name(type a)                             \
	{                                                        \
		int rc = REAL(name)(a);                          \
                                                                 \
		if (end(rc) == LOCK_GOT && LIKELY(!self.inside)) \
			locks_got_sigsafe(a, RETURN_ADDRESS);    \
		return rc;                                       \
	}

#define ON_LOCK(name, try, reason, end, len, ...)      \
	SLOW int wait_##name ARGS_##len(__VA_ARGS__)   \
	{                                              \
		WAIT(wait, a, reason, name);           \
		int rc;                                \
                                                       \
		locks_wait_sigsafe(&wait);             \
		rc = REAL(name) PASS_##len;            \
		locks_waited_sigsafe(&wait, end(rc));  \
		return rc;                             \
	}                                              \
	static int on_##name ARGS_##len(__VA_ARGS__)   \
	{                                              \
		int rc;                                \
                                                       \
		if (UNLIKELY(self.inside))             \
			return REAL(name) PASS_##len;  \
		rc = REAL(try)(a);                     \
		if (UNLIKELY(end(rc) != LOCK_GOT))     \
			return wait_##name PASS_##len; \
		locks_got_sigsafe(a, RETURN_ADDRESS);  \
		return rc;                             \
	}

/* The walk comes when the lock is free again. */
#define ON_RELEASE(name, reason, frees, type)                                               \
	SLOW int release_##name(type a)                                                     \
	{                                                                                   \
		struct lock_release release;                                                \
		bool waited_for = frees(a) && locks_release_sigsafe(&release, a, reason);   \
		int rc = REAL(name)(a);                                                     \
                                                                                            \
		if (waited_for && rc == 0) {                                                \
			struct unwind_regs regs;                                            \
                                                                                            \
			UNWIND_REGS_OF_CALLER(&regs);                                       \
			locks_released_sigsafe(&release, (uintptr_t)own_##name + 1, &regs); \
		}                                                                           \
		return rc;                                                                  \
	}                                                                                   \
	static int on_##name(type a)                                                        \
	{                                                                                   \
		if (LIKELY(nobody_waits()) || self.inside)                                  \
			return REAL(name)(a);                                               \
		return release_##name(a);                                                   \
	}

/* Waiting for a condition lets the mutex go, and has it again afterwards. */
#define ON_COND(name, end, len, ...)                                                   \
	static int on_##name ARGS_##len(__VA_ARGS__)                                   \
	{                                                                              \
		WAIT(wait, a, WAIT_COND, name);                                        \
		struct lock_release release;                                           \
		int rc;                                                                \
                                                                                       \
		if (UNLIKELY(self.inside))                                             \
			return REAL(name) PASS_##len;                                  \
		if (!nobody_waits() && locks_release_sigsafe(&release, b, WAIT_MUTEX)) \
			locks_released_sigsafe(&release, wait.leaf, &regs);            \
		locks_wait_sigsafe(&wait);                                             \
		pthread_cleanup_push(cancelled, &wait);                                \
		rc = REAL(name) PASS_##len;                                            \
		pthread_cleanup_pop(0);                                                \
		locks_waited_sigsafe(&wait, end(rc));                                  \
		if (end(rc) != LOCK_REFUSED)                                           \
			locks_got_sigsafe(b, RETURN_ADDRESS);                          \
		return rc;                                                             \
	}

/* A cancellation point also when it need not wait. */
#define ON_SEM(name, len, ...)                               \
	SLOW int wait_##name ARGS_##len(__VA_ARGS__)         \
	{                                                    \
		WAIT(wait, a, WAIT_SEMAPHORE, name);         \
		int rc;                                      \
                                                             \
		locks_wait_sigsafe(&wait);                   \
		pthread_cleanup_push(cancelled, &wait);      \
		rc = REAL(name) PASS_##len;                  \
		pthread_cleanup_pop(0);                      \
		locks_waited_sigsafe(&wait, end_of_sem(rc)); \
		return rc;                                   \
	}                                                    \
	static int on_##name ARGS_##len(__VA_ARGS__)         \
	{                                                    \
		int error = errno;                           \
                                                             \
		if (UNLIKELY(self.inside))                   \
			return REAL(name) PASS_##len;        \
		pthread_testcancel();                        \
		if (LIKELY(sem_trywait(a) == 0))             \
			return 0;                            \
		errno = error;                               \
		return wait_##name PASS_##len;               \
	}

#define ON_JOIN(name, end, type, result_type)                                \
	static int on_##name(type a, result_type b)                          \
	{                                                                    \
		/* NOLINTNEXTLINE(performance-no-int-to-ptr): a name only */ \
		WAIT(wait, (const void *)a, WAIT_JOIN, name);                \
		int rc;                                                      \
                                                                             \
		if (UNLIKELY(self.inside))                                   \
			return REAL(name)(a, b);                             \
		locks_wait_sigsafe(&wait);                                   \
		pthread_cleanup_push(cancelled, &wait);                      \
		rc = REAL(name)(a, b);                                       \
		pthread_cleanup_pop(0);                                      \
		locks_waited_sigsafe(&wait, end(rc));                        \
		return rc;                                                   \
	}

/* Does unlocking free it? Who holds a recursive mutex more than once keeps it. */
static bool frees_mutex(const void *mutex)
{
	const pthread_mutex_t *lock = mutex;

	return (lock->__data.__kind & 3) != PTHREAD_MUTEX_RECURSIVE_NP ||
	       lock->__data.__count <= 1;
}

/* The writer, or the last of the readers, who are counted from this bit on (pthread_rwlock_common.c). As in
 * Go, readers that leave others behind have kept nobody waiting. */
#define READER_SHIFT 3

static bool frees_rwlock(const pthread_rwlock_t *lock)
{
	return (lock->__data.__readers >> READER_SHIFT) <= 1;
}

static bool frees_one(const void *what)
{
	(void)what;
	return true;
}

typedef const struct timespec *deadline;

ON_TRY(pthread_mutex_trylock, end_of, pthread_mutex_t *)
ON_TRY(pthread_rwlock_tryrdlock, end_of, pthread_rwlock_t *)
ON_TRY(pthread_rwlock_trywrlock, end_of, pthread_rwlock_t *)
ON_TRY(mtx_trylock, end_of_c11, mtx_t *)

#define MUTEX(name, len, ...) \
	ON_LOCK(name, pthread_mutex_trylock, WAIT_MUTEX, end_of, len, __VA_ARGS__)
#define READ(name, len, ...) \
	ON_LOCK(name, pthread_rwlock_tryrdlock, WAIT_RWLOCK, end_of, len, __VA_ARGS__)
#define WRITE(name, len, ...) \
	ON_LOCK(name, pthread_rwlock_trywrlock, WAIT_RWLOCK, end_of, len, __VA_ARGS__)

MUTEX(pthread_mutex_lock, 1, pthread_mutex_t *)
MUTEX(pthread_mutex_timedlock, 2, pthread_mutex_t *, deadline)
MUTEX(pthread_mutex_clocklock, 3, pthread_mutex_t *, clockid_t, deadline)
READ(pthread_rwlock_rdlock, 1, pthread_rwlock_t *)
READ(pthread_rwlock_timedrdlock, 2, pthread_rwlock_t *, deadline)
READ(pthread_rwlock_clockrdlock, 3, pthread_rwlock_t *, clockid_t, deadline)
WRITE(pthread_rwlock_wrlock, 1, pthread_rwlock_t *)
WRITE(pthread_rwlock_timedwrlock, 2, pthread_rwlock_t *, deadline)
WRITE(pthread_rwlock_clockwrlock, 3, pthread_rwlock_t *, clockid_t, deadline)
ON_LOCK(mtx_lock, mtx_trylock, WAIT_MUTEX, end_of_c11, 1, mtx_t *)
ON_LOCK(mtx_timedlock, mtx_trylock, WAIT_MUTEX, end_of_c11, 2, mtx_t *, deadline)

ON_RELEASE(pthread_mutex_unlock, WAIT_MUTEX, frees_mutex, pthread_mutex_t *)
ON_RELEASE(mtx_unlock, WAIT_MUTEX, frees_mutex, mtx_t *)
ON_RELEASE(pthread_rwlock_unlock, WAIT_RWLOCK, frees_rwlock, pthread_rwlock_t *)
ON_RELEASE(pthread_cond_signal, WAIT_COND, frees_one, pthread_cond_t *)
ON_RELEASE(pthread_cond_broadcast, WAIT_COND, frees_one, pthread_cond_t *)
ON_RELEASE(cnd_signal, WAIT_COND, frees_one, cnd_t *)
ON_RELEASE(cnd_broadcast, WAIT_COND, frees_one, cnd_t *)
ON_RELEASE(sem_post, WAIT_SEMAPHORE, frees_one, sem_t *)

ON_COND(pthread_cond_wait, end_of, 2, pthread_cond_t *, pthread_mutex_t *)
ON_COND(pthread_cond_timedwait, end_of, 3, pthread_cond_t *, pthread_mutex_t *, deadline)
ON_COND(pthread_cond_clockwait, end_of, 4, pthread_cond_t *, pthread_mutex_t *, clockid_t,
	deadline)
ON_COND(cnd_wait, end_of_c11, 2, cnd_t *, mtx_t *)
ON_COND(cnd_timedwait, end_of_c11, 3, cnd_t *, mtx_t *, deadline)

ON_SEM(sem_wait, 1, sem_t *)
ON_SEM(sem_timedwait, 2, sem_t *, deadline)
ON_SEM(sem_clockwait, 3, sem_t *, clockid_t, deadline)

ON_JOIN(pthread_join, end_of, pthread_t, void **)
ON_JOIN(thrd_join, end_of_c11, thrd_t, int *)
