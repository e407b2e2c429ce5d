/*
 * The keeper: it holds the switch, and starts, watches and ends everything else.
 */
#include "gateway/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/admin.h"
#include "gateway/log.h"
#include "gateway/wakers.h"

#define STOP_WAIT_MS 5000 /* for the last records, once nothing else runs */

/* An opening or a prolongation that waits for its record. */
struct opening {
	struct keeper *keeper;
	uint64_t ttl_ms;
	uint64_t closings; /* when asked: a close since then cancels it */
	char by[KEEPER_TEXT_MAX], reason[AUDIT_TEXT_MAX];
	void (*answer)(void *arg, int status, const char *detail);
	void *arg;
};

static const struct actor configuration = { .via = "configuration" };
static const struct actor myself = { .via = "keeper" };

/* Times on CLOCK_BOOTTIME: a suspended machine's access ends on time, too. */
void keeper_set_expiry(struct keeper *keeper)
{
	struct itimerspec when = { .it_value = { 0, 0 } };
	uint64_t until_ms = keeper->window.until_ms;

	if (until_ms != 0 && until_ms != SWITCH_NO_LIMIT) {
		when.it_value.tv_sec = (time_t)(until_ms / 1000);
		when.it_value.tv_nsec = (long)(until_ms % 1000 * 1000000);
	}
	if (timerfd_settime(keeper->expiry_fd, TFD_TIMER_ABSTIME, &when, NULL)) {
		/* Cannot be, but a time that nobody watches must not stay open. */
		log_error("the timer of the end of access cannot be set (errno %d)", errno);
		keeper_close(keeper, &myself, AUDIT_CLOSED, "no-timer");
	}
}

/* What it takes to serve, once the record is on disk. The status of the answer. */
static int begin_access(struct keeper *keeper, struct opening *opening, struct err *err)
{
	if (keeper->is_open)
		return 200;
	if (listeners_listen(&keeper->listeners, err)) {
		listeners_close(&keeper->listeners);
		return 409;
	}
	keeper->is_open = true;
	keeper->opened_total++;
	(void)snprintf(keeper->opened_by, sizeof(keeper->opened_by), "%s", opening->by);
	(void)snprintf(keeper->reason, sizeof(keeper->reason), "%s", opening->reason);
	return 200;
}

static void on_opened_recorded(struct keeper *keeper, void *arg, bool ok)
{
	struct opening *opening = arg;
	struct err err = { .kind = ERR_NONE };
	int status = 503;

	keeper->openings--;
	if (!ok) {
		(void)err_set(&err, ERR_SYSTEM, "the audit record cannot be written");
	} else if (opening->closings != keeper->closings) {
		(void)err_set(&err, ERR_DENIED, "access was closed in the meantime");
	} else {
		status = begin_access(keeper, opening, &err);
	}
	if (status == 200) {
		(void)access_open(&keeper->window, clock_boot_ms(), opening->ttl_ms,
			keeper->conf->access.max_ttl_ms);
		switch_set_generation(keeper->state, keeper->generation);
		switch_open(keeper->state, keeper->window.until_ms);
		workers_start(keeper);
		keeper_set_expiry(keeper);
		log_info("access is open (%s): %s", opening->by, opening->reason);
	} else {
		log_error("access was not opened: %s", err.text);
		if (ok) {
			struct audit_record record = { .event = AUDIT_CLOSED,
				.reason = SV("not-opened"),
				.detail = sv_from_cstr(err.text) };

			audit_record(keeper, &myself, &record, NULL, NULL);
		}
		if (!keeper->is_open && keeper->openings == 0)
			listeners_close(&keeper->listeners);
	}
	opening->answer(opening->arg, status, err.text);
	free(opening);
}

static void describe_actor(const struct actor *actor, char out[static KEEPER_TEXT_MAX])
{
	if (actor->has_peer)
		(void)snprintf(out, KEEPER_TEXT_MAX, "%s: uid %u, pid %u", actor->via,
			actor->uid, actor->pid);
	else
		(void)snprintf(out, KEEPER_TEXT_MAX, "%s", actor->via);
}

void keeper_open(struct keeper *keeper, const struct actor *actor, uint64_t ttl_ms,
	struct sv reason, void (*answer)(void *arg, int status, const char *detail), void *arg)
{
	struct audit_record record = { .event = AUDIT_OPENED, .reason = reason };
	struct opening *opening;
	struct err err;

	if (keeper->is_stopping) {
		answer(arg, 503, "posternd is stopping");
		return;
	}
	/* Bound now, so that a taken port is told before anything is written; taken connections
	 * are from listen() on only. */
	if (!keeper->is_open && keeper->listeners.len == 0 &&
		listeners_bind(&keeper->listeners, keeper->conf, NULL, &err)) {
		log_error("access was not opened: %s", err.text);
		answer(arg, 409, err.text);
		return;
	}
	opening = calloc(1, sizeof(*opening));
	if (!opening) {
		answer(arg, 503, "out of memory");
		return;
	}
	opening->keeper = keeper;
	opening->ttl_ms = ttl_ms;
	opening->closings = keeper->closings;
	opening->answer = answer;
	opening->arg = arg;
	describe_actor(actor, opening->by);
	(void)snprintf(opening->reason, sizeof(opening->reason), SV_FMT, SV_ARG(reason));
	keeper->openings++;
	record.until_ms_left = ttl_ms;
	audit_record(keeper, actor, &record, on_opened_recorded, opening);
	keeper_settle(keeper);
}

void keeper_close(struct keeper *keeper, const struct actor *actor, enum audit_event event,
	const char *reason)
{
	struct audit_record record = { .event = event, .reason = sv_from_cstr(reason) };

	keeper->closings++;
	if (!keeper->is_open)
		return;
	switch_close(keeper->state);
	access_close(&keeper->window);
	keeper->is_open = false;
	keeper->opened_by[0] = keeper->reason[0] = '\0';
	listeners_close(&keeper->listeners);
	(void)timerfd_settime(keeper->expiry_fd, 0, &(struct itimerspec){ 0 }, NULL);
	workers_drain(keeper, keeper->conf->gateway.drain_ms, -1);
	audit_record(keeper, actor, &record, NULL, NULL);
	log_info("access is closed: %s", reason);
	keeper_settle(keeper);
}

/* Let go what is not needed any more. */
void keeper_settle(struct keeper *keeper)
{
	const struct timeval turn = { .tv_usec = KEEPER_TICK_MS * 1000L };
	bool is_idle;

	wakers_settle(keeper);
	is_idle = !keeper->is_open && !keeper->workers && keeper->openings == 0;
	if (is_idle && keeper->is_stopping && !keeper->has_stop_record) {
		struct audit_record record = { .event = AUDIT_STOPPED };

		keeper->has_stop_record = true;
		keeper->stop_ms = clock_boot_ms() + STOP_WAIT_MS;
		audit_record(keeper, NULL, &record, NULL, NULL);
	}
	if (is_idle && !keeper->records)
		audit_let_go(keeper);
	if (is_idle && keeper->is_stopping && !keeper->records && !keeper->scribe)
		(void)event_base_loopbreak(keeper->base);
	if (is_idle && !keeper->records && !keeper->scribe)
		(void)event_del(keeper->tick);
	else if (!event_pending(keeper->tick, EV_TIMEOUT, NULL))
		(void)event_add(keeper->tick, &turn);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct keeper *keeper = arg;
	uint64_t now_ms = clock_boot_ms();

	(void)fd;
	(void)what;
	workers_tick(keeper, now_ms);
	audit_tick(keeper, now_ms);
	if (keeper->stop_ms != 0 && now_ms >= keeper->stop_ms) {
		log_error("the last audit records could not be written");
		keeper->exit_code = 1;
		(void)event_base_loopbreak(keeper->base);
	}
	keeper_settle(keeper);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
	struct keeper *keeper = arg;
	uint64_t count;

	(void)what;
	if (read(fd, &count, sizeof(count)) < 0)
		return;
	/* It may have been prolonged since the timer ran out. */
	if (keeper->is_open && !switch_is_open(keeper->state, clock_boot_ms()))
		keeper_close(keeper, &myself, AUDIT_EXPIRED, "ttl");
}

static void stop(struct keeper *keeper, const struct actor *actor)
{
	if (keeper->is_stopping) {
		workers_cut(keeper, "stopping");
		return;
	}
	log_info("stopping");
	keeper->is_stopping = true;
	keeper_close(keeper, actor, AUDIT_CLOSED, "stopping");
	keeper_settle(keeper);
}

static void on_signal_opened(void *arg, int status, const char *detail)
{
	(void)arg;
	(void)status;
	(void)detail; /* logged already */
}

static void open_by_signal(struct keeper *keeper, const struct actor *actor)
{
	if (!keeper->conf->access.signal)
		log_warning("SIGUSR1 does not open: access.signal = false");
	else if (!keeper->is_open && keeper->openings == 0)
		keeper_open(keeper, actor, keeper->conf->access.ttl_ms, SV("signal"),
			on_signal_opened, NULL);
}

static void close_by_signal(struct keeper *keeper, const struct actor *actor)
{
	if (keeper->is_open || keeper->openings > 0)
		keeper_close(keeper, actor, AUDIT_CLOSED, "signal");
	else
		workers_cut(keeper, "access-closed");
}

static void reap(struct keeper *keeper)
{
	int status;

	for (;;) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid <= 0)
			return;
		if (keeper->scribe && keeper->scribe->pid == pid)
			audit_scribe_died(keeper, status);
		else
			(void)workers_died(keeper, pid, status);
	}
}

static uint32_t login_uid(uint32_t pid)
{
	char path[64], text[16];
	uint64_t uid;
	ssize_t got;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%u/loginuid", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return UINT32_MAX;
	got = read(fd, text, sizeof(text));
	(void)close(fd);
	if (got <= 0 || !sv_to_u64((struct sv){ text, (size_t)got }, UINT32_MAX, &uid))
		return UINT32_MAX;
	return (uint32_t)uid;
}

struct actor keeper_actor(const char *via, uint32_t uid, uint32_t pid)
{
	return (struct actor){ .has_peer = true,
		.uid = uid,
		.pid = pid,
		.login_uid = login_uid(pid),
		.via = via };
}

static void reload_by_signal(struct keeper *keeper, const struct actor *actor)
{
	struct conf_errors errors = { .count = 0 };

	buf_init(&errors.text, KEEPER_ERRORS_MAX);
	(void)keeper_reload(keeper, actor, &errors);
	buf_free(&errors.text);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
	struct keeper *keeper = arg;
	struct signalfd_siginfo info;

	(void)what;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		struct actor actor = keeper_actor("signal", info.ssi_uid, info.ssi_pid);

		if (info.ssi_signo == SIGCHLD)
			reap(keeper);
		else if (info.ssi_signo == SIGUSR1)
			open_by_signal(keeper, &actor);
		else if (info.ssi_signo == SIGUSR2)
			close_by_signal(keeper, &actor);
		else if (info.ssi_signo == SIGHUP)
			reload_by_signal(keeper, &actor);
		else
			stop(keeper, &actor);
	}
	keeper_settle(keeper);
}

static int watch(struct keeper *keeper, int fd, event_callback_fn callback, struct event **out)
{
	*out = event_new(keeper->base, fd, EV_READ | EV_PERSIST, callback, keeper);
	return *out && event_add(*out, NULL) == 0 ? 0 : -1;
}

static int watch_signals(struct keeper *keeper, struct err *err)
{
	static const int wanted[] = { SIGUSR1, SIGUSR2, SIGHUP, SIGTERM, SIGINT, SIGCHLD };
	sigset_t set;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		(void)sigaddset(&set, wanted[i]);
	(void)signal(SIGPIPE, SIG_IGN);
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return err_sys(err, "signals");
	keeper->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (keeper->signal_fd < 0 ||
		watch(keeper, keeper->signal_fd, on_signal, &keeper->signals))
		return err_sys(err, "signals");
	return 0;
}

static int make_parts(struct keeper *keeper, struct err *err)
{
	keeper->base = event_base_new();
	if (!keeper->base)
		return err_set(err, ERR_SYSTEM, "no event loop");
	if (watch_signals(keeper, err))
		return -1;
	keeper->self_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (keeper->self_fd < 0)
		return err_sys(err, "/proc/self/exe (is /proc mounted?)");
	keeper->expiry_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	keeper->tick = event_new(keeper->base, -1, EV_PERSIST, on_tick, keeper);
	if (keeper->expiry_fd < 0 || !keeper->tick ||
		watch(keeper, keeper->expiry_fd, on_expiry, &keeper->expiry))
		return err_sys(err, "timers");
	keeper->state = switch_create(&keeper->switch_fd, err);
	if (!keeper->state)
		return -1;
	keeper->table = table_create(&keeper->table_fd, err);
	return keeper->table ? 0 : -1;
}

/* The first record is on disk: the audit file is one that can be appended to. */
static void on_started(struct keeper *keeper, void *arg, bool ok)
{
	struct err err;

	(void)arg;
	keeper->is_started = ok;
	if (ok && admin_start(keeper->admin, &err)) {
		log_error("%s", err.text);
		ok = false;
	}
	if (!ok) {
		keeper->exit_code = 1;
		(void)event_base_loopbreak(keeper->base);
		return;
	}
	log_info("posternd %s is ready, access is %s", POSTERN_VERSION,
		keeper->conf->access.initially_open ? "about to open" : "closed");
	if (keeper->conf->access.initially_open)
		keeper_open(keeper, &configuration, keeper->conf->access.ttl_ms,
			SV("initially open"), on_signal_opened, NULL);
}

static int start(struct keeper *keeper, struct err *err)
{
	struct audit_record record = { .event = AUDIT_STARTED };

	if (make_parts(keeper, err) || audit_open(keeper, err))
		return -1;
	keeper->admin = admin_new(keeper, err);
	if (!keeper->admin)
		return -1;
	keeper->generation = 1;
	switch_set_generation(keeper->state, keeper->generation);
	audit_record(keeper, NULL, &record, on_started, NULL);
	keeper_settle(keeper);
	return 0;
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

static void fini(struct keeper *keeper)
{
	listeners_close(&keeper->listeners);
	audit_stop(keeper);
	while (keeper->workers) {
		struct child *child = keeper->workers;

		keeper->workers = child->next;
		child_free(child);
	}
	wakers_free(keeper);
	admin_free(keeper->admin);
	free_event(keeper->signals);
	free_event(keeper->expiry);
	free_event(keeper->tick);
	if (keeper->base)
		event_base_free(keeper->base);
	conf_free(keeper->conf);
	conf_files_free(keeper->files);
}

int keeper_main(const char *conf_path)
{
	struct conf_errors errors = { .count = 0 };
	struct keeper keeper = { .conf_path = conf_path,
		.audit_fd = -1,
		.audit_folder = -1,
		.switch_fd = -1,
		.table_fd = -1 };
	struct err err;
	int rc;

	keeper.records_end = &keeper.records;
	buf_init(&errors.text, KEEPER_ERRORS_MAX);
	rc = keeper_load(conf_path, &keeper.conf, &keeper.files, &keeper.conf_fd, &errors);
	if (rc && errors.text.len > 0)
		(void)fwrite(errors.text.ptr, 1, errors.text.len, stderr);
	buf_free(&errors.text);
	if (rc)
		return 78; /* EX_CONFIG */
	log_setup("keeper", keeper.conf->log.level, keeper.conf->log.json,
		keeper.conf->log.syslog);
	if (start(&keeper, &err)) {
		log_error("%s", err.text);
		keeper.exit_code = 1;
	} else if (event_base_dispatch(keeper.base) < 0) {
		log_error("the event loop failed");
		keeper.exit_code = 1;
	}
	fini(&keeper);
	return keeper.exit_code;
}
