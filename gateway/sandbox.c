#include "gateway/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <seccomp.h>

#include "gateway/log.h"

/* LeakSanitizer looks for leaks at exit: it opens /proc, clones and traces. Under a sanitizer a process
 * stays dumpable, and there is neither Landlock nor a seccomp filter. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER true
#else
#define HAS_SANITIZER false
#endif

/* What both need: memory, time, their channels, the end. */
static const int common_calls[] = {
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(close),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto), /* syslog */
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(fstat),
	SCMP_SYS(lseek),
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(futex),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(getrandom),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(tgkill), /* abort() */
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

static const int worker_calls[] = {
	SCMP_SYS(accept4),
	SCMP_SYS(recvfrom),
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(timerfd_settime),
};

static const int scribe_calls[] = {
	SCMP_SYS(fdatasync),
};

/* Whoever asks for these has taken the process over. */
static const int deadly_calls[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
};

static int drop_user(const struct conf *conf, struct err *err)
{
	const struct passwd *user;
	gid_t gid;

	if (geteuid() != 0)
		return 0;
	if (!conf->gateway.user || !*conf->gateway.user)
		return err_set(err, ERR_INPUT,
			"gateway.user must be set when posternd is started as root");
	errno = 0;
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	user = getpwnam(conf->gateway.user);
	if (!user)
		return err_set(err, ERR_INPUT, "gateway.user = \"%s\": there is no such user",
			conf->gateway.user);
	gid = user->pw_gid;
	if (user->pw_uid == 0)
		return err_set(
			err, ERR_INPUT, "gateway.user = \"%s\" is root", conf->gateway.user);
	if (setgroups(1, &gid) || setresgid(gid, gid, gid) ||
		setresuid(user->pw_uid, user->pw_uid, user->pw_uid))
		return err_sys(err, "cannot become user %s", conf->gateway.user);
	return 0;
}

static void force_lazy(void)
{
	unsigned char byte;

	(void)OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL);
	(void)RAND_bytes(&byte, 1);
	json_object_seed(0);
	tzset();
}

/* No file, no TCP port: no rule gives anything back. 1: the kernel has no Landlock. */
static int enter_landlock(struct err *err)
{
	/* As far as this kernel knows them: a bit that it does not know is an error. */
	static const uint64_t fs_by_abi[] = { 0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff };

	struct {
		uint64_t fs, net;
	} attr = { 0, 0 };

	long abi =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	size_t size = abi >= 4 ? sizeof(attr) : sizeof(attr.fs);
	long ruleset;
	int rc = 0;

	if (abi < 1)
		return 1;
	attr.fs = fs_by_abi[abi > 5 ? 5 : abi];
	attr.net = 3; /* bind and connect of TCP */
	ruleset = syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (ruleset < 0)
		return err_sys(err, "landlock");
	if (syscall(SYS_landlock_restrict_self, ruleset, 0))
		rc = err_sys(err, "landlock");
	(void)close((int)ruleset);
	return rc;
}

static int allow(scmp_filter_ctx filter, const int *calls, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0))
			return -1;
	}
	return 0;
}

/* Calls that are fine with some arguments only. */
static int allow_some(scmp_filter_ctx filter)
{
	/* F_GET_SEALS: of a new configuration. */
	static const int fcntl_orders[] = { F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GET_SEALS };

	for (size_t i = 0; i < sizeof(fcntl_orders) / sizeof(fcntl_orders[0]); i++) {
		if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
			    SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)fcntl_orders[i], 0)))
			return -1;
	}
	/* fstat() of this libc is newfstatat() of an empty path. */
	if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
		    SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH)))
		return -1;
	/* Memory, but none that can be executed. */
	if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
		    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) ||
		seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
			SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)))
		return -1;
	return 0;
}

static int enter_seccomp(enum sandbox_role role, struct err *err)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	const int *own = role == SANDBOX_WORKER ? worker_calls : scribe_calls;
	size_t own_len = role == SANDBOX_WORKER
				 ? sizeof(worker_calls) / sizeof(worker_calls[0])
				 : sizeof(scribe_calls) / sizeof(scribe_calls[0]);
	int rc = -1;

	if (!filter)
		return err_set(err, ERR_SYSTEM, "seccomp: no filter can be made");
	if (allow(filter, common_calls, sizeof(common_calls) / sizeof(common_calls[0])) ||
		allow(filter, own, own_len) || allow_some(filter))
		goto out;
	for (size_t i = 0; i < sizeof(deadly_calls) / sizeof(deadly_calls[0]); i++) {
		if (seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly_calls[i], 0))
			goto out;
	}
	if (seccomp_load(filter) == 0)
		rc = 0;
out:
	if (rc)
		(void)err_set(err, ERR_SYSTEM, "seccomp: the filter cannot be loaded");
	seccomp_release(filter);
	return rc;
}

int sandbox_enter(enum sandbox_role role, const struct conf *conf, struct err *err)
{
	const struct rlimit no_core = { 0, 0 };
	bool is_required = conf->gateway.sandbox == CONF_SANDBOX_REQUIRED;
	int landlock;

	force_lazy();
	if (drop_user(conf, err))
		return -1;
	/* The kernel forgets it when the user changes. The scribe outlives the keeper by the records
	 * that are still under way. */
	if (prctl(PR_SET_PDEATHSIG, role == SANDBOX_WORKER ? SIGKILL : 0))
		return err_sys(err, "PR_SET_PDEATHSIG");
	if (conf->gateway.sandbox == CONF_SANDBOX_OFF) {
		log_warning("gateway.sandbox = \"off\": this process is not locked in");
		return 0;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || setrlimit(RLIMIT_CORE, &no_core))
		return err_sys(err, "cannot give up privileges");
	if (HAS_SANITIZER) {
		log_debug("a sanitizer build: not locked in");
		return is_required ? err_set(err, ERR_SYSTEM,
					     "gateway.sandbox = \"required\", but this is a "
					     "sanitizer build, which cannot be locked in")
				   : 0;
	}
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return err_sys(err, "cannot give up privileges");
	landlock = enter_landlock(err);
	if (landlock < 0)
		return -1;
	if (landlock > 0 && is_required)
		return err_set(err, ERR_SYSTEM,
			"gateway.sandbox = \"required\", but this kernel has no Landlock");
	return enter_seccomp(role, err);
}
