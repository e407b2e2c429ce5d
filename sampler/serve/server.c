#include "sampler/serve/server.h"

#include <errno.h>
#include <linux/close_range.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/collect.h"
#include "sampler/names/lines.h"
#include "sampler/serve/connection.h"
#include "sampler/serve/lease.h"
#include "sampler/serve/listener.h"
#include "sampler/serve/power.h"
#include "sampler/store/self.h"
#include "sampler/unwind/unwind.h"

#define CLIENTS_MAX     16
#define CONTROLS_MAX    8 /* of the control socket: its places are not taken by others */
#define CONNECTIONS_MAX (CLIENTS_MAX + CONTROLS_MAX)
#define POLLED_MAX      (POWER_LISTENERS_MAX + 1 + CONNECTIONS_MAX + 1)
#define IDLE_POLL_MS    1000
#define CHILD_WAIT_MS   100 /* most forked children run another program before that */

struct loop {
	struct server *server;
	struct power power;
	struct connection connections[CONNECTIONS_MAX]; /* those of the control socket last */
};

/* Too large for the thread's stack; there is one server in a process. */
static struct loop loop;

static void turn_away(int client, uint32_t uid)
{
	char text[512];
	struct buf answer;

	buf_init_fixed(&answer, text, sizeof(text));
	buf_add_cstr(&answer,
		"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n"
		"X-Go-Pprof: 1\r\nConnection: close\r\n\r\nuser ");
	buf_add_u64(&answer, uid);
	buf_add_cstr(&answer,
		" may not ask this process: only its own user, root, and those that "
		"POSTERN_ALLOW_UIDS lists\n");
	(void)send(client, answer.ptr, answer.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)shutdown(client, SHUT_WR);
	(void)close(client);
}

static void take_client(int listener, uint64_t now)
{
	int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	bool is_control = listener == loop.power.control;
	uint32_t uid = UINT32_MAX;

	if (client < 0) {
		/* Out of descriptors: the client stays in the queue, and we must not spin on it. */
		(void)nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
		return;
	}
	if (!listener_admits(client, loop.server->settings, &uid)) {
		turn_away(client, uid);
		return;
	}
	for (size_t i = is_control ? CLIENTS_MAX : 0;
		i < (is_control ? CONNECTIONS_MAX : CLIENTS_MAX); i++) {
		if (loop.connections[i].state == CONNECTION_FREE) {
			connection_begin(&loop.connections[i], client,
				is_control ? &loop.power : NULL, now);
			return;
		}
	}
	(void)close(client);
}

static uint64_t sooner(uint64_t until, uint64_t other)
{
	return other < until ? other : until;
}

static int wait_ms(uint64_t now)
{
	uint64_t until = UINT64_MAX;

	if (loop.power.watch_parent_until_ns)
		until = now + CHILD_WAIT_MS * UINT64_C(1000000);
	if (collect_wait_ms() > 0)
		until = sooner(until, now + collect_wait_ms() * UINT64_C(1000000));
	until = sooner(until, lines_deadline());
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (loop.connections[i].state != CONNECTION_FREE)
			until = sooner(until, loop.connections[i].deadline_ns);
	}
	if (until == UINT64_MAX)
		return -1; /* nothing to do until somebody comes */
	if (until - now > IDLE_POLL_MS * UINT64_C(1000000))
		return until > now ? IDLE_POLL_MS : 0;
	return (int)((until - now + 999999) / 1000000);
}

static size_t list_polled(
	struct pollfd polled[static POLLED_MAX], struct connection *owners[static POLLED_MAX])
{
	const struct power *power = &loop.power;
	size_t len = 0;

	for (size_t i = 0; i < power->listeners_len; i++)
		polled[len++] = (struct pollfd){ .fd = power->listeners[i], .events = POLLIN };
	if (power->control >= 0)
		polled[len++] = (struct pollfd){ .fd = power->control, .events = POLLIN };
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (loop.connections[i].state == CONNECTION_FREE)
			continue;
		owners[len] = &loop.connections[i];
		polled[len++] = (struct pollfd){ .fd = loop.connections[i].socket,
			.events = connection_events(&loop.connections[i]) };
	}
	/* poll() passes over a descriptor of -1. */
	polled[len] = (struct pollfd){ .fd = lines_descriptor(), .events = POLLIN };
	return len;
}

static void cut_connections(size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (loop.connections[i].state != CONNECTION_FREE)
			connection_close(&loop.connections[i]);
	}
}

/* Nobody holds it awake any more. */
static void sleep_if_left(void)
{
	if (!loop.server->settings->asleep || leases_held() > 0)
		return;
	if (power_is_awake(&loop.power)) {
		cut_connections(CLIENTS_MAX);
		lines_stop();
		power_sleep(&loop.power);
	}
	/* A thread of the program's may have had a sample under way. */
	if (unwind_has_tables_sigsafe() && collect_wait_ms() == 0)
		unwind_forget();
}

static void turn(void)
{
	struct pollfd polled[POLLED_MAX + COLLECT_DESCRIPTORS_MAX];
	struct connection *owners[POLLED_MAX] = { NULL };
	size_t len = list_polled(polled, owners), all = len + 1;
	int collectors[COLLECT_DESCRIPTORS_MAX];
	size_t collectors_len = collect_descriptors(collectors);
	uint64_t now;

	for (size_t i = 0; i < collectors_len; i++)
		polled[all++] = (struct pollfd){ .fd = collectors[i], .events = POLLIN };
	(void)poll(polled, all, wait_ms(clock_mono_ns()));
	now = clock_mono_ns();
	collect_poll(now);
	lines_poll(now);
	for (size_t i = 0; i < len; i++) {
		if (!owners[i] && polled[i].revents)
			take_client(polled[i].fd, now);
		else if (owners[i] && (polled[i].revents || connection_is_due(owners[i], now)))
			connection_step(owners[i], loop.server->settings, now);
	}
	sleep_if_left();
	power_watch_parent(&loop.power, now);
}

/* A table of our own, empty: the program's descriptors are neither used nor kept open by us. */
static int leave_descriptors(struct err *err)
{
	if (syscall(SYS_close_range, 0U, ~0U, CLOSE_RANGE_UNSHARE))
		return err_sys(err, "close_range");
	return 0;
}

void server_run(struct server *server)
{
	struct timespec pause = { .tv_nsec = CHILD_WAIT_MS * 1000000L };

	loop.server = server;
	/* One by one: memory that was never written to need not be there. */
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (loop.connections[i].state != CONNECTION_FREE)
			loop.connections[i].state = CONNECTION_FREE;
	}
	leases_forget();
	(void)prctl(PR_SET_NAME, "postern", 0, 0, 0);
	self.inside = 1; /* for good: nothing that this thread does is to be recorded */
	if (server->parent)
		(void)nanosleep(&pause, NULL);
	if (leave_descriptors(&server->err)) {
		atomic_store(&server->state, SERVER_FAILED);
		return;
	}
	lines_start(server->settings);
	collect_poll(clock_mono_ns()); /* what is on from the start is so before main() */
	if (power_begin(&loop.power, server)) {
		atomic_store(&server->state, SERVER_FAILED);
		return;
	}
	while (!atomic_load(&server->stop))
		turn();
	cut_connections(CONNECTIONS_MAX);
	lines_stop();
	power_end(&loop.power);
	atomic_store(&server->state, SERVER_STOPPED);
}

void server_wake(const struct server *server)
{
	/* The one stays where it is; the other comes and goes with the leases. */
	const char *address =
		atomic_load(&server->has_control) ? server->control : server->address;
	struct place place;
	struct err err;
	int probe;

	if (place_parse(address, &place, &err))
		return;
	probe = socket(place.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe < 0)
		return;
	(void)connect(probe, (struct sockaddr *)&place.address, place.len);
	(void)close(probe);
}
