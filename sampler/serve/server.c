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
#include "sampler/serve/connection.h"
#include "sampler/serve/listener.h"
#include "sampler/store/self.h"

#define CONNECTIONS_MAX 16
#define LISTENERS_MAX   2
#define IDLE_POLL_MS    1000
#define CHILD_WAIT_MS   100 /* most forked children run another program before that */
#define PARENT_WATCH_NS UINT64_C(20000000000)

struct loop {
	struct server *server;
	int listeners[LISTENERS_MAX];
	size_t listeners_len;
	uint64_t watch_parent_until_ns; /* 0: not */
	struct connection connections[CONNECTIONS_MAX];
};

/* Too large for the thread's stack; there is one server in a process. */
static struct loop loop;

static bool listen_at(struct place *place)
{
	int listener = listener_open(place, &loop.server->err);

	if (listener < 0)
		return false;
	loop.listeners[loop.listeners_len++] = listener;
	place_format(place, loop.server->address, sizeof(loop.server->address));
	return true;
}

static void start_listening(void)
{
	struct server *server = loop.server;
	struct place place;

	if (place_parse(server->settings->listen, &place, &server->err)) {
		atomic_store(&server->state, SERVER_FAILED);
		return;
	}
	if (listen_at(&place)) {
		atomic_store(&server->state, SERVER_LISTENING);
		return;
	}
	if (errno == EADDRINUSE &&
		place_fallback(server->settings, &place, &server->err) == 0 &&
		listen_at(&place)) {
		if (server->parent)
			loop.watch_parent_until_ns = clock_mono_ns() + PARENT_WATCH_NS;
		atomic_store(&server->state, SERVER_ELSEWHERE);
		return;
	}
	atomic_store(&server->state, SERVER_FAILED);
}

/* A daemon's parent ends when its child has started: then its address is the child's. */
static void watch_parent(uint64_t now)
{
	struct place place;

	if (loop.watch_parent_until_ns == 0)
		return;
	if (now > loop.watch_parent_until_ns || loop.listeners_len == LISTENERS_MAX) {
		loop.watch_parent_until_ns = 0;
		return;
	}
	if ((uint32_t)getppid() == loop.server->parent ||
		place_parse(loop.server->settings->listen, &place, &loop.server->err))
		return;
	if (listen_at(&place))
		loop.watch_parent_until_ns = 0;
}

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
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (loop.connections[i].state == CONNECTION_FREE) {
			connection_begin(&loop.connections[i], client, now);
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

	if (loop.watch_parent_until_ns)
		until = now + CHILD_WAIT_MS * UINT64_C(1000000);
	if (collect_wait_ms() > 0)
		until = sooner(until, now + collect_wait_ms() * UINT64_C(1000000));
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

static void turn(void)
{
	struct pollfd polled[LISTENERS_MAX + CONNECTIONS_MAX];
	struct connection *owners[LISTENERS_MAX + CONNECTIONS_MAX] = { NULL };
	size_t len = 0;
	uint64_t now;

	for (size_t i = 0; i < loop.listeners_len; i++)
		polled[len++] = (struct pollfd){ .fd = loop.listeners[i], .events = POLLIN };
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (loop.connections[i].state == CONNECTION_FREE)
			continue;
		owners[len] = &loop.connections[i];
		polled[len++] = (struct pollfd){ .fd = loop.connections[i].socket,
			.events = connection_events(&loop.connections[i]) };
	}
	(void)poll(polled, len, wait_ms(clock_mono_ns()));
	now = clock_mono_ns();
	collect_poll(now);
	for (size_t i = 0; i < len; i++) {
		if (!owners[i] && polled[i].revents)
			take_client(polled[i].fd, now);
		else if (owners[i] && (polled[i].revents || now >= owners[i]->deadline_ns))
			connection_step(owners[i], loop.server->settings, now);
	}
	watch_parent(now);
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

	memset(&loop, 0, sizeof(loop));
	loop.server = server;
	(void)prctl(PR_SET_NAME, "postern", 0, 0, 0);
	self.inside = 1; /* for good: nothing that this thread does is to be recorded */
	if (server->parent)
		(void)nanosleep(&pause, NULL);
	if (leave_descriptors(&server->err)) {
		atomic_store(&server->state, SERVER_FAILED);
		return;
	}
	collect_poll(clock_mono_ns()); /* what is on from the start is so before main() */
	start_listening();
	if (atomic_load(&server->state) == SERVER_FAILED)
		return;
	while (!atomic_load(&server->stop))
		turn();
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (loop.connections[i].state != CONNECTION_FREE)
			connection_close(&loop.connections[i]);
	}
	for (size_t i = 0; i < loop.listeners_len; i++)
		(void)close(loop.listeners[i]);
	atomic_store(&server->state, SERVER_STOPPED);
}

void server_wake(const struct server *server)
{
	struct place place;
	struct err err;
	int probe;

	if (place_parse(server->address, &place, &err))
		return;
	probe = socket(place.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe < 0)
		return;
	(void)connect(probe, (struct sockaddr *)&place.address, place.len);
	(void)close(probe);
}
