#include "sampler/lines/sandbox.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <seccomp.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const int allowed_calls[] = {
	SCMP_SYS(read),
	SCMP_SYS(pread64),
	SCMP_SYS(write),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(close),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(getcwd),
	SCMP_SYS(getdents64),
	SCMP_SYS(lseek),
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(futex),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(getrusage),
	SCMP_SYS(getrandom),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(tgkill), /* abort() */
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

/* Whoever asks for these has taken it over. */
static const int deadly_calls[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(fork),
	SCMP_SYS(vfork),
	SCMP_SYS(clone),
	SCMP_SYS(clone3),
	SCMP_SYS(socket),
	SCMP_SYS(ptrace),
	SCMP_SYS(kill),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
};

/* Files may be read, the rest of what Landlock knows is handled and allowed nowhere. */
static void enter_landlock(void)
{
	static const __u64 by_abi[] = { 0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff };

	struct {
		__u64 fs, net;
	} attr = { 0, 3 };

	struct landlock_path_beneath_attr below = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
		.parent_fd = open("/", O_PATH | O_CLOEXEC),
	};
	long abi =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	long ruleset;

	if (abi >= 1 && below.parent_fd >= 0) {
		attr.fs = by_abi[abi > 5 ? 5 : abi];
		ruleset = syscall(SYS_landlock_create_ruleset, &attr,
			abi >= 4 ? sizeof(attr) : sizeof(attr.fs), 0);
		if (ruleset >= 0 && syscall(SYS_landlock_add_rule, ruleset,
					    LANDLOCK_RULE_PATH_BENEATH, &below, 0) == 0)
			(void)syscall(SYS_landlock_restrict_self, ruleset, 0);
		if (ruleset >= 0)
			(void)close((int)ruleset);
	}
	if (below.parent_fd >= 0)
		(void)close(below.parent_fd);
}

static int allow_some(scmp_filter_ctx filter)
{
	static const unsigned executable[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect) };
	static const int fcntl_orders[] = { F_GETFD, F_GETFL, F_DUPFD_CLOEXEC };

	for (size_t i = 0; i < LENGTH(executable); i++) {
		if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, (int)executable[i], 1,
			    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)))
			return -1;
	}
	for (size_t i = 0; i < LENGTH(fcntl_orders); i++) {
		if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
			    SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)fcntl_orders[i], 0)))
			return -1;
	}
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
		SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
}

static int enter_seccomp(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(1));
	int rc = filter ? allow_some(filter) : -1;

	for (size_t i = 0; rc == 0 && i < LENGTH(allowed_calls); i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0);
	for (size_t i = 0; rc == 0 && i < LENGTH(deadly_calls); i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly_calls[i], 0);
	if (rc == 0)
		rc = seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	return rc ? -1 : 0;
}

static int limit(__rlimit_resource_t resource, rlim_t most)
{
	struct rlimit limits;

	if (getrlimit(resource, &limits))
		return -1;
	if (limits.rlim_max < most)
		most = limits.rlim_max;
	limits = (struct rlimit){ most, most };
	return setrlimit(resource, &limits);
}

/* The profiled program's memory must not be what pays for ours, nor its time. */
static void stand_back(void)
{
	static const struct sched_param none;
	int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (file >= 0) {
		(void)!write(file, "1000", 4);
		(void)close(file);
	}
	(void)sched_setscheduler(0, SCHED_OTHER, &none);
	(void)setpriority(PRIO_PROCESS, 0, 5);
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	(void)syscall(SYS_capset, &head, none);
}

int sandbox_enter(void)
{
	stand_back();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ||
		limit(RLIMIT_CORE, 0) || limit(RLIMIT_FSIZE, 0) || limit(RLIMIT_NPROC, 0) ||
		limit(RLIMIT_NOFILE, 256) ||
		limit(RLIMIT_CPU, (rlim_t)2 * SANDBOX_CPU_SECONDS) ||
		limit(RLIMIT_DATA, 2 * SANDBOX_MEMORY_BYTES))
		return -1;
	drop_capabilities();
	enter_landlock();
	return enter_seccomp();
}
