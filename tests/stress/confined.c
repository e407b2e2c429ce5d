/* Row 20: processes that confine themselves while they are profiled. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/stress/stress.h"

/* All threads at once: these system calls fail with EPERM from now on, or end the program. */
static void confine(unsigned action, const int *calls, size_t len)
{
	struct sock_filter code[64];
	size_t at = 0;
	struct sock_fprog program;

	code[at++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < len; i++) {
		code[at++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
	}
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program = (struct sock_fprog){ (unsigned short)at, code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			&program))
		wrong("seccomp");
}

/* Somewhere in the second half of its time. */
static void work_until_then(void)
{
	double whole = seconds_left(), then = whole * (double)(getpid() % 50) / 100;

	start(burn_on, NULL);
	start(allocate_on, (void *)(uintptr_t)getpid());
	while (seconds_left() > then)
		(void)burn(100000);
}

static void refused(void)
{
	static const int calls[] = { SYS_perf_event_open, SYS_timer_create, SYS_timer_settime,
		SYS_timer_delete, SYS_setitimer, SYS_process_vm_readv, SYS_openat, SYS_open,
		SYS_getdents64, SYS_socket, SYS_tgkill, SYS_memfd_create, SYS_readlink,
		SYS_sendto, SYS_accept4, SYS_close_range };

	work_until_then();
	confine(SECCOMP_RET_ERRNO | EPERM, calls, COUNT(calls));
	join_all();
	(void)atomic_fetch_add(&stress_rounds, 1);
}

/* What sandboxes kill for, and a profiler need not do once it runs. */
static void killed(void)
{
	static const int calls[] = { SYS_perf_event_open, SYS_process_vm_readv, SYS_ptrace,
		SYS_bpf, SYS_userfaultfd, SYS_kcmp, SYS_execve, SYS_personality, SYS_unshare,
		SYS_setns, SYS_prlimit64, SYS_memfd_create };

	work_until_then();
	confine(SECCOMP_RET_KILL_PROCESS, calls, COUNT(calls));
	join_all();
	(void)atomic_fetch_add(&stress_rounds, 1);
}

const struct mode modes_confined[] = { { "20-refused", refused }, { "20-killed", killed },
	{ NULL, NULL } };
