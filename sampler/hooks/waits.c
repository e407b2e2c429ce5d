/*
 * waits.c - in front of the C library's functions that sleep, or wait for input and output: each is passed
 * on as it is, between two looks at the clock while a trace is taken (switch.h).
 *
 * They are cancellation points, and a signal handler may jump out of them: so nothing is registered
 * around the call.  What the C library does within itself (stdio, getaddrinfo) is not seen here, and
 * neither is what jumps straight to system calls.
 *
 * Some open a signal mask for as long as they last, or wait for signals themselves: always, a trace or none,
 * our own signal, pending in a thread that blocks it, is neither to end the one nor to come out of the
 * other.  The program cannot tell, since it knows nothing of that signal; as the C library does it with
 * the signals of its own.
 */
#undef _FORTIFY_SOURCE /* its inline functions have the names of ours */

#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sampler/collect/signal.h"
#include "sampler/collect/waits.h"
#include "sampler/hooks/switch.h"
#include "sampler/store/self.h"

/* In which mode they are on, and why they wait. */
#define TRACED       1
#define REASON_SHIFT 8
#define SLEEP        (TRACED | WAIT_SLEEP << REASON_SHIFT)
#define IO           (TRACED | WAIT_IO << REASON_SHIFT)
#define OTHER        (TRACED | WAIT_OTHER << REASON_SHIFT)

typedef struct pollfd pollfd;
typedef const struct timespec spec;
typedef __SOCKADDR_ARG address;
typedef __CONST_SOCKADDR_ARG const_address;

/* clang-format off */
#define HOOKS(X) \
	X(int, nanosleep, NULL, SLEEP, 2, spec *, struct timespec *) \
	X(int, clock_nanosleep, NULL, SLEEP, 4, clockid_t, int, spec *, struct timespec *) \
	X(unsigned, sleep, NULL, SLEEP, 1, unsigned) \
	X(int, usleep, NULL, SLEEP, 1, useconds_t) \
	X(int, sigsuspend, NULL, SLEEP, 1, const sigset_t *) \
	X(int, poll, NULL, IO, 3, pollfd *, nfds_t, int) \
	X(int, ppoll, NULL, IO, 4, pollfd *, nfds_t, spec *, const sigset_t *) \
	X(int, select, NULL, IO, 5, int, fd_set *, fd_set *, fd_set *, struct timeval *) \
	X(int, pselect, NULL, IO, 6, int, fd_set *, fd_set *, fd_set *, spec *, const sigset_t *) \
	X(int, epoll_wait, NULL, IO, 4, int, struct epoll_event *, int, int) \
	X(int, epoll_pwait, NULL, IO, 5, int, struct epoll_event *, int, int, const sigset_t *) \
	X(int, epoll_pwait2, NULL, IO, 5, int, struct epoll_event *, int, spec *, const sigset_t *) \
	X(int, accept, NULL, IO, 3, int, address, socklen_t *) \
	X(int, accept4, NULL, IO, 4, int, address, socklen_t *, int) \
	X(int, connect, NULL, IO, 3, int, const_address, socklen_t) \
	X(ssize_t, read, NULL, IO, 3, int, void *, size_t) \
	X(ssize_t, readv, NULL, IO, 3, int, const struct iovec *, int) \
	X(ssize_t, recv, NULL, IO, 4, int, void *, size_t, int) \
	X(ssize_t, recvfrom, NULL, IO, 6, int, void *, size_t, int, address, socklen_t *) \
	X(ssize_t, recvmsg, NULL, IO, 3, int, struct msghdr *, int) \
	X(int, recvmmsg, NULL, IO, 5, int, struct mmsghdr *, unsigned, int, struct timespec *) \
	X(ssize_t, write, NULL, IO, 3, int, const void *, size_t) \
	X(ssize_t, writev, NULL, IO, 3, int, const struct iovec *, int) \
	X(ssize_t, send, NULL, IO, 4, int, const void *, size_t, int) \
	X(ssize_t, sendto, NULL, IO, 6, int, const void *, size_t, int, const_address, socklen_t) \
	X(ssize_t, sendmsg, NULL, IO, 3, int, const struct msghdr *, int) \
	X(int, sendmmsg, NULL, IO, 4, int, struct mmsghdr *, unsigned, int) \
	X(ssize_t, sendfile, NULL, IO, 4, int, int, off_t *, size_t) \
	X(ssize_t, __read_chk, NULL, IO, 4, int, void *, size_t, size_t) \
	X(ssize_t, __recv_chk, NULL, IO, 5, int, void *, size_t, size_t, int) \
	X(ssize_t, __recvfrom_chk, NULL, IO, 7, int, void *, size_t, size_t, int, address, socklen_t *) \
	X(int, __poll_chk, NULL, IO, 4, pollfd *, nfds_t, int, size_t) \
	X(int, __ppoll_chk, NULL, IO, 5, pollfd *, nfds_t, spec *, const sigset_t *, size_t) \
	X(int, fsync, NULL, OTHER, 1, int) \
	X(int, fdatasync, NULL, OTHER, 1, int) \
	X(int, flock, NULL, OTHER, 2, int, int) \
	X(pid_t, wait, NULL, OTHER, 1, int *) \
	X(pid_t, waitpid, NULL, OTHER, 3, pid_t, int *, int) \
	X(pid_t, wait4, NULL, OTHER, 4, pid_t, int *, int, struct rusage *) \
	X(int, waitid, NULL, OTHER, 4, idtype_t, id_t, siginfo_t *, int) \
	X(int, sigwait, NULL, OTHER, 2, const sigset_t *, int *) \
	X(int, sigwaitinfo, NULL, OTHER, 2, const sigset_t *, siginfo_t *) \
	X(int, sigtimedwait, NULL, OTHER, 3, const sigset_t *, siginfo_t *, spec *)
/* clang-format on */

/* What a program calls when it was compiled with _FORTIFY_SOURCE. */
ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __recv_chk(int, void *, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, address, socklen_t *);
int __poll_chk(pollfd *, nfds_t, int, size_t);
int __ppoll_chk(pollfd *, nfds_t, spec *, const sigset_t *, size_t);

HOOKS(SWITCH_DECLARE)
HOOKS(SWITCH_FIRST)
HOOKS(SWITCH_DEFINE)

/* name, the argument that is a set of signals, how it is changed, number and types of arguments */
#define OPENED signal_shut_out_sigsafe
#define TAKEN  signal_leave_out_sigsafe
/* clang-format off */
#define MASKED(X) \
	X(sigsuspend, a, OPENED, 1, const sigset_t *) \
	X(ppoll, d, OPENED, 4, pollfd *, nfds_t, spec *, const sigset_t *) \
	X(__ppoll_chk, d, OPENED, 5, pollfd *, nfds_t, spec *, const sigset_t *, size_t) \
	X(pselect, f, OPENED, 6, int, fd_set *, fd_set *, fd_set *, spec *, const sigset_t *) \
	X(epoll_pwait, e, OPENED, 5, int, struct epoll_event *, int, int, const sigset_t *) \
	X(epoll_pwait2, e, OPENED, 5, int, struct epoll_event *, int, spec *, const sigset_t *) \
	X(sigwait, a, TAKEN, 2, const sigset_t *, int *) \
	X(sigwaitinfo, a, TAKEN, 2, const sigset_t *, siginfo_t *) \
	X(sigtimedwait, a, TAKEN, 3, const sigset_t *, siginfo_t *, spec *)
/* clang-format on */

/* What stands for the C library's function then, on and off. */
#define MASKED_DEFINE(name, set, change, len, ...)                        \
	static _Atomic(type_##name *) behind_##name;                      \
	static int masked_##name ARGS_##len(__VA_ARGS__)                  \
	{                                                                 \
		sigset_t changed;                                         \
                                                                          \
		(set) = change((set), &changed);                          \
		return (*atomic_load_explicit(                            \
			&behind_##name, memory_order_relaxed))PASS_##len; \
	}
MASKED(MASKED_DEFINE)

#define MASKED_PUT(name, set, change, len, ...)                          \
	if (atomic_load(&real_##name) != first_##name) {                 \
		atomic_store(&behind_##name, atomic_load(&real_##name)); \
		atomic_store(&real_##name, masked_##name);               \
	}

HOOK int signalfd(int file, const sigset_t *set, int flags)
{
	static _Atomic(real_function *) real;
	int (*passed)(int, const sigset_t *, int) =
		(int (*)(int, const sigset_t *, int))real_of(&real, "signalfd", NULL);
	sigset_t changed;

	return passed(file, signal_leave_out_sigsafe(set, &changed), flags);
}

static void follow_mode(unsigned mode)
{
	HOOKS(SWITCH_FOLLOW)
}

__attribute__((constructor)) static void find_all(void)
{
	HOOKS(SWITCH_FIND)
	MASKED(MASKED_PUT)
	(void)dlerror();
	waits_tell(follow_mode);
}

#define ON(result, name, version, why, len, ...)                                       \
	static result on_##name ARGS_##len(__VA_ARGS__)                                \
	{                                                                              \
		struct wait wait;                                                      \
		result rc;                                                             \
                                                                                       \
		if (UNLIKELY(self.inside))                                             \
			return REAL(name) PASS_##len;                                  \
		waits_begin_sigsafe(&wait, (enum wait_reason)((why) >> REASON_SHIFT)); \
		rc = REAL(name) PASS_##len;                                            \
		if (UNLIKELY(waits_end_sigsafe(&wait))) {                              \
			struct unwind_regs regs;                                       \
                                                                                       \
			UNWIND_REGS_OF_CALLER(&regs);                                  \
			waits_record_sigsafe(&wait, (uintptr_t)own_##name + 1, &regs); \
		}                                                                      \
		return rc;                                                             \
	}
HOOKS(ON)
