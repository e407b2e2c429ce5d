#include "gateway/wakers.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/announce.h"
#include "base/clock.h"
#include "base/json.h"
#include "gateway/log.h"
#include "http/head.h"

#define ANSWER_MAX   ((size_t)8 << 10)
#define ANSWER_S     5 /* that long a target may take to answer */
#define LOOK_MS      250
#define LOOK_SHIFT   4 /* after failures less often, at last this many times doubled */
#define REJECTED_MAX 8

enum waker_state {
	WAKER_IDLE = 0,
	WAKER_WAKING, /* asked to wake */
	WAKER_HELD,
	WAKER_RATING, /* held, and asked for rates */
};

struct waker {
	struct waker *next;
	struct keeper *keeper;
	const struct conf_target *target;
	enum waker_state state;
	int fd; /* of a lease; -1 when idle */
	uint32_t pid;
	struct event *event;
	struct buf in;
	uint64_t look_ms;                /* not before */
	unsigned failures;               /* since it was held last */
	bool is_missed;                  /* it was not found, and that was said */
	uint32_t rejected[REJECTED_MAX]; /* of its name, but others: until access closes */
	size_t rejected_len;
	struct buf rates; /* what it is asked for, too, once held; empty: nothing */
	void (*answer)(void *arg, int status, const char *detail); /* who waits for that */
	void *arg;
};

static void answer_rates(struct waker *waker, int status, const char *detail)
{
	void (*answer)(void *arg, int status, const char *detail) = waker->answer;

	waker->answer = NULL;
	if (answer)
		answer(waker->arg, status, detail);
}

static void let_go(struct waker *waker)
{
	if (waker->event)
		event_free(waker->event);
	if (waker->fd >= 0)
		(void)close(waker->fd);
	waker->event = NULL;
	waker->fd = -1;
	waker->state = WAKER_IDLE;
	buf_clear(&waker->in);
}

/* It cannot be had now: try again, but not at once. */
static void give_up(struct waker *waker, const char *why)
{
	log_warning("target %s (process %u): %s", waker->target->name, waker->pid, why);
	let_go(waker);
	waker->look_ms = clock_boot_ms() + ((uint64_t)LOOK_MS << waker->failures);
	if (waker->failures < LOOK_SHIFT)
		waker->failures++;
	answer_rates(waker, 502, why);
}

/* It is another process of that name. */
static void reject(struct waker *waker)
{
	log_warning("target %s: process %u has that name, but listens at another address",
		waker->target->name, waker->pid);
	if (waker->rejected_len < REJECTED_MAX)
		waker->rejected[waker->rejected_len++] = waker->pid;
	let_go(waker);
	waker->look_ms = clock_boot_ms() + LOOK_MS;
}

static int ask(struct waker *waker, const char *path, struct sv json)
{
	struct buf request;
	bool sent;

	buf_init(&request, ANSWER_MAX + waker->target->token.len);
	buf_printf(&request, "POST %s HTTP/1.1\r\nHost: localhost\r\n", path);
	if (waker->target->token.len > 0)
		buf_printf(&request, "Authorization: Bearer " SV_FMT "\r\n",
			SV_ARG(waker->target->token));
	buf_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
		json.len);
	buf_add_sv(&request, json);
	/* It is far less than a socket takes at once. */
	sent = !request.failed &&
	       send(waker->fd, request.ptr, request.len, MSG_NOSIGNAL) == (ssize_t)request.len;
	buf_free(&request);
	return sent ? 0 : -1;
}

static void on_readable(evutil_socket_t fd, short what, void *arg);

/* What comes next on the connection; `seconds` 0: however long it takes. */
static int await(struct waker *waker, time_t seconds)
{
	const struct timeval most = { .tv_sec = seconds };

	if (waker->event)
		event_free(waker->event);
	buf_clear(&waker->in);
	waker->event = event_new(
		waker->keeper->base, waker->fd, EV_READ | EV_PERSIST, on_readable, waker);
	return waker->event ? event_add(waker->event, seconds ? &most : NULL) : -1;
}

static void ask_rates(struct waker *waker)
{
	waker->state = WAKER_RATING;
	if (ask(waker, "/debug/pprof/rates", buf_sv(&waker->rates)) || await(waker, ANSWER_S))
		give_up(waker, "it cannot be asked for rates");
}

/* --- whose control socket --- */

/* Whoever owns the folder of its socket decides who serves there anyway. */
static bool owns_folder(const char *socket, uint32_t uid)
{
	char folder[PATH_MAX];
	struct stat status;
	size_t len = socket ? (size_t)(strrchr(socket, '/') - socket) : 0;

	if (len == 0 || !sv_to_cstr((struct sv){ socket, len }, folder, sizeof(folder)))
		return false;
	return lstat(folder, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == uid &&
	       !(status.st_mode & (S_IWGRP | S_IWOTH));
}

static bool may_be(const struct conf_target *target, uint32_t uid)
{
	if (target->has_uid)
		return uid == target->uid;
	return uid == 0 || uid == geteuid() || owns_folder(target->socket, uid);
}

struct search {
	struct waker *waker;
	int fd;
	uint32_t pid;
	bool is_fork;
};

static bool is_rejected(const struct waker *waker, uint32_t pid)
{
	for (size_t i = 0; i < waker->rejected_len; i++) {
		if (waker->rejected[i] == pid)
			return true;
	}
	return false;
}

/* Of a process and those that it has forked the process itself. */
static bool take(void *arg, const struct announced *found)
{
	struct search *search = arg;
	const struct conf_target *target = search->waker->target;
	uint32_t pid;
	int fd;

	if (!announce_is_name(found->name, sv_from_cstr(target->name)) ||
		!may_be(target, found->uid) || (search->fd >= 0 && found->is_fork))
		return true;
	fd = announce_connect(found, true, &pid);
	if (fd < 0)
		return true;
	if (is_rejected(search->waker, pid)) {
		(void)close(fd);
		return true;
	}
	if (search->fd >= 0)
		(void)close(search->fd);
	search->fd = fd;
	search->pid = pid;
	search->is_fork = found->is_fork;
	return found->is_fork;
}

static void look(struct waker *waker)
{
	struct search search = { .waker = waker, .fd = -1 };
	char folder[PATH_MAX];
	struct err err;

	waker->look_ms = clock_boot_ms() + LOOK_MS;
	(void)snprintf(
		folder, sizeof(folder), "%s/targets", waker->keeper->conf->gateway.runtime_dir);
	if (announce_list(folder, take, &search, &err) && !waker->is_missed)
		log_warning(
			"target %s cannot be looked for: %s", waker->target->name, err.text);
	if (search.fd < 0) {
		if (!waker->is_missed)
			log_warning(
				"target %s has no control socket in %s: it is woken as soon "
				"as there is one",
				waker->target->name, folder);
		waker->is_missed = true;
		answer_rates(waker, 501, "this target has no control socket");
		return;
	}
	waker->fd = search.fd;
	waker->pid = search.pid;
	waker->state = WAKER_WAKING;
	if (ask(waker, "/control/wake", SV("{}")) || await(waker, ANSWER_S))
		give_up(waker, "it cannot be asked to wake");
}

/* --- what it answers --- */

/* Byte for byte what a sampler at the target's address says. */
static bool says_address(const struct conf_target *target, struct sv body)
{
	char mem[512], host[ADDR_TEXT_SIZE], address[ADDR_TEXT_SIZE + 128];
	struct buf expected;

	if (target->socket) {
		(void)snprintf(address, sizeof(address), "unix:%s", target->socket);
	} else {
		addr_format(&target->addr, host);
		(void)snprintf(address, sizeof(address),
			addr_is_v4(&target->addr) ? "%s:%u" : "[%s]:%u", host,
			(unsigned)target->port);
	}
	buf_init_fixed(&expected, mem, sizeof(mem));
	json_object_begin(&expected);
	json_member_cstr(&expected, "address", address);
	json_object_end(&expected);
	buf_add_byte(&expected, '\n');
	return !expected.failed && sv_is(body, buf_sv(&expected));
}

static void note_awake(struct waker *waker)
{
	struct audit_record record = { .event = AUDIT_LEASED,
		.target = sv_from_cstr(waker->target->name),
		.reason = SV("access-open") };
	const struct actor self = { .via = "keeper" };
	char detail[32];

	(void)snprintf(detail, sizeof(detail), "pid %u", waker->pid);
	record.detail = sv_from_cstr(detail);
	audit_record(waker->keeper, &self, &record, NULL, NULL);
	log_info("target %s (process %u) is held awake", waker->target->name, waker->pid);
	waker->is_missed = false;
	waker->failures = 0;
}

static void hold(struct waker *waker)
{
	waker->state = WAKER_HELD;
	if (await(waker, 0))
		give_up(waker, "out of memory");
}

static void take_wake(struct waker *waker, unsigned status, struct sv body)
{
	char why[64];

	if (status != 200) {
		(void)snprintf(why, sizeof(why), "it refuses to wake (%u)", status);
		give_up(waker, why);
	} else if (!says_address(waker->target, body)) {
		reject(waker);
	} else {
		note_awake(waker);
		if (waker->rates.len > 0)
			ask_rates(waker);
		else
			hold(waker);
	}
}

static void take_rates(struct waker *waker, unsigned status)
{
	char why[64];

	(void)snprintf(why, sizeof(why), "the target refuses these rates (%u)", status);
	if (status != 200)
		buf_clear(&waker->rates); /* it would say so again */
	hold(waker);
	answer_rates(waker, status == 200 ? 200 : 502, why);
}

static void take_bytes(struct waker *waker)
{
	struct http_response head;
	const char *wrong;
	struct sv all = buf_sv(&waker->in);

	if (waker->state == WAKER_HELD) {
		give_up(waker, "it speaks without being asked");
		return;
	}
	switch (http_response_parse(all, ANSWER_MAX, false, &head, &wrong)) {
	case HTTP_BAD:
		give_up(waker, wrong);
		return;
	case HTTP_MORE:
		return;
	case HTTP_DONE:
		break;
	}
	if (head.framing != HTTP_LENGTH || head.content_length > ANSWER_MAX ||
		all.len - head.head_len > head.content_length)
		give_up(waker, "its answer is not a sampler's");
	else if (all.len - head.head_len < head.content_length)
		return;
	else if (waker->state == WAKER_RATING)
		take_rates(waker, head.status);
	else
		take_wake(waker, head.status,
			(struct sv){ all.ptr + head.head_len, (size_t)head.content_length });
}

static void read_some(struct waker *waker, int fd)
{
	char *to = buf_reserve(&waker->in, 1024);
	ssize_t got = to ? recv(fd, to, 1024, 0) : 0;

	if (got > 0) {
		buf_commit(&waker->in, (size_t)got);
		take_bytes(waker);
	} else if (to && got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	} else if (waker->state == WAKER_HELD) {
		log_warning("target %s (process %u) is gone", waker->target->name, waker->pid);
		let_go(waker);
		waker->look_ms = clock_boot_ms() + LOOK_MS; /* it may still be on its way out */
	} else {
		give_up(waker,
			"it does not answer: POSTERN_ALLOW_UIDS must name the gate's user");
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct waker *waker = arg;
	struct keeper *keeper = waker->keeper;

	if (what & EV_TIMEOUT)
		give_up(waker, "it does not answer");
	else
		read_some(waker, fd);
	keeper_settle(keeper);
}

/* --- when --- */

/* What still drains may be on its way to a target. */
static bool is_active(const struct keeper *keeper)
{
	return keeper->is_open || keeper->workers;
}

static void settle_one(struct waker *waker)
{
	if (!is_active(waker->keeper)) {
		let_go(waker);
		buf_clear(&waker->rates);
		waker->rejected_len = 0;
		waker->is_missed = false;
		waker->failures = 0;
		waker->look_ms = 0;
		answer_rates(waker, 409, "access is closed");
	} else if (waker->state == WAKER_IDLE &&
		   (waker->target->wake || waker->rates.len > 0) &&
		   clock_boot_ms() >= waker->look_ms) {
		look(waker);
	}
}

void wakers_settle(struct keeper *keeper)
{
	if (!keeper->has_wakers)
		wakers_new_conf(keeper, keeper->conf);
	for (struct waker *waker = keeper->wakers; waker; waker = waker->next)
		settle_one(waker);
}

static bool is_same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool is_same(const struct conf_target *a, const struct conf_target *b)
{
	return is_same_text(a->name, b->name) && is_same_text(a->socket, b->socket) &&
	       memcmp(&a->addr, &b->addr, sizeof(a->addr)) == 0 && a->port == b->port &&
	       a->has_uid == b->has_uid && a->uid == b->uid && sv_is(a->token, b->token) &&
	       a->wake == b->wake;
}

static void free_waker(struct waker *waker)
{
	let_go(waker);
	answer_rates(waker, 502, "the target is not in the new configuration");
	buf_free(&waker->in);
	buf_free(&waker->rates);
	free(waker);
}

/* The one that holds this target already, taken out of the list; else a new one; or NULL. */
static struct waker *make_waker(struct keeper *keeper, const struct conf_target *target)
{
	struct waker **at = &keeper->wakers, *waker;

	while (*at && !is_same((*at)->target, target))
		at = &(*at)->next;
	waker = *at;
	if (waker) {
		*at = waker->next;
	} else {
		waker = calloc(1, sizeof(*waker));
		if (!waker)
			return NULL;
		waker->fd = -1;
		waker->keeper = keeper;
		buf_init(&waker->in, 2 * ANSWER_MAX);
		buf_init(&waker->rates, ANSWER_MAX);
	}
	waker->target = target;
	return waker;
}

void wakers_free(struct keeper *keeper)
{
	while (keeper->wakers) {
		struct waker *waker = keeper->wakers;

		keeper->wakers = waker->next;
		free_waker(waker);
	}
}

void wakers_new_conf(struct keeper *keeper, const struct conf *conf)
{
	struct waker *made = NULL;

	for (size_t i = 0; i < conf->targets_len; i++) {
		struct waker *waker = make_waker(keeper, &conf->targets[i]);

		if (!waker) {
			log_error("no memory to wake target %s", conf->targets[i].name);
			continue;
		}
		waker->next = made;
		made = waker;
	}
	wakers_free(keeper);
	keeper->wakers = made;
	keeper->has_wakers = true;
}

void wakers_rates(struct keeper *keeper, const struct conf_target *target, struct sv json,
	void (*answer)(void *arg, int status, const char *detail), void *arg)
{
	struct waker *waker = keeper->wakers;

	while (waker && waker->target != target)
		waker = waker->next;
	if (!waker || !keeper->is_open) {
		answer(arg, waker ? 409 : 503, waker ? "access is closed" : "out of memory");
		return;
	}
	if (waker->answer || waker->state == WAKER_RATING) {
		answer(arg, 503, "this target is being asked already");
		return;
	}
	buf_clear(&waker->rates);
	buf_add_sv(&waker->rates, json);
	waker->answer = answer;
	waker->arg = arg;
	if (waker->state == WAKER_HELD)
		ask_rates(waker);
	else if (waker->state == WAKER_IDLE)
		look(waker);
}
