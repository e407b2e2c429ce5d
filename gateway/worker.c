#include "gateway/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/conn.h"
#include "gateway/ipc.h"
#include "gateway/log.h"
#include "gateway/memfile.h"
#include "gateway/sandbox.h"
#include "gateway/stream.h"
#include "gateway/tls.h"

#define TOKENS_MAX      1024 /* verified ones that are remembered */
#define KEEPERS_TURN_MS UINT64_C(1000)

static struct sv bucket_key(const struct addr *addr, struct addr *storage)
{
	*storage = addr_bucket(addr);
	return (struct sv){ (const char *)storage->bytes, sizeof(storage->bytes) };
}

/* What a new connection must pass before it gets a byte. */
static enum problem judge_address(struct worker *worker, const struct addr *addr)
{
	uint64_t now = clock_boot_ms();
	struct addr bucket;
	struct sv key = bucket_key(addr, &bucket);

	if (worker->draining ||
		!switch_may_serve(worker->access, worker->start.generation, now))
		return PROBLEM_ACCESS_CLOSED;
	if (table_left_ms(worker->table, TABLE_BANNED, key, now) > 0)
		return PROBLEM_ADDRESS_BANNED;
	if (acl_check(worker->conf->acl, addr) != ACL_ALLOW)
		return PROBLEM_ADDRESS_NOT_ALLOWED;
	if (!table_connection_add(worker->table, worker->start.index, key,
		    worker->conf->rate_limits.connections,
		    worker->conf->rate_limits.connections_per_address))
		return PROBLEM_TOO_MANY_CONNECTIONS;
	return PROBLEM_NONE;
}

static void on_accepted(void *arg, int fd, const struct sockaddr_storage *peer)
{
	struct worker *worker = arg;
	enum problem problem;
	struct addr addr;
	uint16_t port;

	if (!addr_from_sockaddr(peer, &addr, &port)) {
		(void)close(fd);
		return;
	}
	problem = judge_address(worker, &addr);
	if (problem != PROBLEM_NONE) {
		(void)close(fd);
		conn_refuse_address(worker, &addr, port, problem);
		return;
	}
	conn_begin(worker, fd, &addr, port);
}

static struct conn *find_request(struct worker *worker, uint64_t number)
{
	struct conn *conn = worker->conns;

	while (conn && (!conn->request || conn->request->number != number))
		conn = conn->next;
	return conn;
}

static void on_acked(void *arg, uint64_t number, bool on_disk)
{
	struct conn *conn = find_request(arg, number);

	if (conn)
		conn_received(conn, on_disk);
}

static void tell_keeper(struct worker *worker, enum ipc_type type)
{
	struct ipc_message message = { .type = type, .fd = -1 };
	struct err err;

	(void)worker;
	if (ipc_send(CHILD_FD_CONTROL, &message, &err))
		log_warning("the keeper was not told: %s", err.text);
}

void worker_check_drained(struct worker *worker)
{
	static const struct timeval soon = { .tv_usec = 50000 };

	if (!worker->draining || worker->running > 0 || worker->conns || worker->told_drained)
		return;
	/* The keeper ends who is drained: not before the last answers are out. */
	if (stream_count() > 0 && event_add(worker->goodbyes, &soon) == 0)
		return;
	worker->told_drained = true;
	tell_keeper(worker, IPC_DRAINED);
}

static void on_goodbyes(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	worker_check_drained(arg);
}

static void stop_listening(struct worker *worker)
{
	for (uint32_t i = 0; i < worker->start.listeners_len; i++) {
		listener_free(worker->listeners[i]);
		worker->listeners[i] = NULL;
	}
}

/* `keep` says which connections may go on. Closing one may take others off the list only behind the
 * one that is looked at next, since callbacks run from the loop alone. */
static void end_conns(struct worker *worker, bool (*keep)(struct conn *, void *), void *arg,
	const char *reason)
{
	struct conn *next;

	for (struct conn *conn = worker->conns; conn; conn = next) {
		next = conn->next;
		if (keep(conn, arg))
			continue;
		if (conn->request)
			conn_cut(conn, reason);
		else
			conn_close(conn);
	}
}

static bool keep_running(struct conn *conn, void *unused)
{
	(void)unused;
	return conn->request != NULL;
}

static bool keep_none(struct conn *conn, void *unused)
{
	(void)conn;
	(void)unused;
	return false;
}

struct rules {
	const struct conf *conf;
	SSL_CTX *tls;
};

static bool keep_allowed(struct conn *conn, void *arg)
{
	const struct rules *rules = arg;

	return !conn->request || !conn->request->number ||
	       conn_may_go_on(conn, rules->conf, rules->tls);
}

static struct conf *read_conf(int fd, struct conf_files **files, struct err *err)
{
	struct conf_errors errors = { 0 };
	struct sv packed, text;
	struct conf *conf;

	buf_init(&errors.text, 65536);
	if (memfile_map(fd, &packed, err))
		return NULL;
	*files = conf_files_packed(packed, &text, err);
	if (!*files)
		return NULL;
	conf = conf_parse(text, "configuration", *files, &errors);
	if (!conf)
		(void)err_set(err, ERR_INPUT, SV_FMT, SV_ARG(buf_sv(&errors.text)));
	buf_free(&errors.text);
	return conf;
}

/* What runs but would not be allowed any more ends at once. */
static void apply_new_rules(struct worker *worker, int fd)
{
	struct conf_files *files = NULL;
	struct err err;
	struct conf *conf = read_conf(fd, &files, &err);
	struct rules rules = { .conf = conf, .tls = conf ? tls_context_new(conf, &err) : NULL };

	if (!rules.tls) {
		log_error("new configuration: %s", err.text);
		end_conns(worker, keep_none, NULL, "no-longer-allowed");
	} else {
		end_conns(worker, keep_allowed, &rules, "no-longer-allowed");
	}
	SSL_CTX_free(rules.tls);
	conf_free(conf);
	conf_files_free(files);
}

static void drain(struct worker *worker, int conf_fd)
{
	worker->draining = true;
	stop_listening(worker);
	if (conf_fd >= 0)
		apply_new_rules(worker, conf_fd);
	end_conns(worker, keep_running, NULL, "");
	worker_check_drained(worker);
}

/* The message's descriptor becomes the callee's. */
static int take_fd(struct ipc_message *message)
{
	int fd = message->fd;

	message->fd = -1;
	return fd;
}

static void take_message(struct worker *worker, struct ipc_message *message)
{
	char reason[64];
	struct conn *conn;

	switch (message->type) {
	case IPC_CHANNEL:
		audit_queue_replace(worker->audit, take_fd(message));
		break;
	case IPC_TARGET:
		conn = find_request(worker, message->number);
		if (conn)
			conn_dialed(conn, take_fd(message), message->result);
		break;
	case IPC_DRAIN:
		drain(worker, message->fd);
		break;
	case IPC_CUT:
		if (!sv_to_cstr(message->payload, reason, sizeof(reason)))
			reason[0] = '\0';
		worker->draining = true;
		stop_listening(worker);
		end_conns(worker, keep_none, NULL, reason);
		worker_check_drained(worker);
		break;
	case IPC_NOTHING:
	case IPC_AUDIT:
	case IPC_ACK:
	case IPC_RECEIPT:
	case IPC_HEAD:
	case IPC_REOPEN:
	case IPC_CONF:
	case IPC_READY:
	case IPC_DRAINED:
	case IPC_TYPES_LEN:
		log_error("the keeper sent a message that is not for a worker");
		break;
	}
}

static void on_control(evutil_socket_t fd, short what, void *arg)
{
	struct worker *worker = arg;
	char storage[IPC_MESSAGE_MAX];
	struct ipc_message message;
	enum ipc_result result;
	struct err err;

	(void)what;
	while ((result = ipc_receive(fd, storage, &message, &err)) == IPC_RECEIVED) {
		take_message(worker, &message);
		if (message.fd >= 0)
			(void)close(message.fd);
	}
	if (result == IPC_GONE)
		(void)event_base_loopbreak(
			worker->base); /* the keeper is gone, or done with us */
}

static bool keep_while_open(struct conn *conn, void *arg)
{
	return conn->request != NULL ||
	       switch_is_open(((struct worker *)arg)->access, clock_boot_ms());
}

/* The keeper cuts what outlasts gateway.drain; a keeper that is stopped cannot. */
static void cut_when_overdue(struct worker *worker, uint64_t now_ms)
{
	if (switch_is_open(worker->access, now_ms))
		worker->closed_ms = 0;
	else if (worker->closed_ms == 0)
		worker->closed_ms = now_ms;
	else if (now_ms - worker->closed_ms > worker->conf->gateway.drain_ms + KEEPERS_TURN_MS)
		end_conns(worker, keep_none, NULL, "access-closed");
}

/* The time to live holds with a keeper that is stopped, too. */
static void on_second(evutil_socket_t fd, short what, void *arg)
{
	struct worker *worker = arg;

	(void)fd;
	(void)what;
	audit_queue_tick(worker->audit);
	end_conns(worker, keep_while_open, worker, "");
	cut_when_overdue(worker, clock_boot_ms());
}

static int open_loop(struct worker *worker, struct err *err)
{
	struct timeval second = { .tv_sec = 1 };

	worker->base = event_base_new();
	if (!worker->base)
		return err_set(err, ERR_SYSTEM, "libevent gave no event loop");
	worker->audit = audit_queue_new(
		worker->base, WORKER_FD_AUDIT, worker->start.index, on_acked, worker);
	worker->control = event_new(
		worker->base, CHILD_FD_CONTROL, EV_READ | EV_PERSIST, on_control, worker);
	worker->every_second = event_new(worker->base, -1, EV_PERSIST, on_second, worker);
	worker->goodbyes = evtimer_new(worker->base, on_goodbyes, worker);
	worker->listeners = calloc(worker->start.listeners_len, sizeof(struct listener *));
	if (!worker->audit || !worker->control || !worker->every_second || !worker->goodbyes ||
		!worker->listeners || event_add(worker->control, NULL) ||
		event_add(worker->every_second, &second))
		return err_set(err, ERR_NOMEM, "out of memory");
	return 0;
}

static int load(struct worker *worker, struct err *err)
{
	worker->conf = read_conf(WORKER_FD_CONF, &worker->files, err);
	if (!worker->conf)
		return -1;
	log_setup("worker", worker->conf->log.level, worker->conf->log.json,
		worker->conf->log.syslog);
	worker->tls = tls_context_new(worker->conf, err);
	worker->access = switch_map(WORKER_FD_SWITCH, err);
	worker->table = table_map(WORKER_FD_TABLE, err);
	if (!worker->tls || !worker->access || !worker->table)
		return -1;
	worker->tokens =
		token_cache_new(TOKENS_MAX, worker->conf->issuers, worker->conf->issuers_len);
	worker->targets_seen = calloc(worker->conf->targets_len, sizeof(*worker->targets_seen));
	if (!worker->tokens || !worker->targets_seen)
		return err_set(err, ERR_NOMEM, "out of memory");
	return 0;
}

/* Only behind the sandbox does the first byte from outside come in. */
static int start_listening(struct worker *worker, struct err *err)
{
	for (uint32_t i = 0; i < worker->start.listeners_len; i++) {
		worker->listeners[i] = listener_new(
			worker->base, WORKER_FD_LISTENERS + (int)i, on_accepted, worker);
		if (!worker->listeners[i])
			return err_set(err, ERR_NOMEM, "out of memory");
	}
	return 0;
}

static void free_worker(struct worker *worker)
{
	if (worker->listeners)
		stop_listening(worker);
	free((void *)worker->listeners);
	if (worker->base)
		end_conns(worker, keep_none, NULL, "stopped");
	audit_queue_free(worker->audit);
	if (worker->control)
		event_free(worker->control);
	if (worker->every_second)
		event_free(worker->every_second);
	if (worker->goodbyes)
		event_free(worker->goodbyes);
	if (worker->base)
		event_base_free(worker->base);
	SSL_CTX_free(worker->tls);
	token_cache_free(worker->tokens);
	table_unmap(worker->table);
	free(worker->targets_seen);
	conf_free(worker->conf);
	conf_files_free(worker->files);
}

int worker_main(const struct worker_start *start)
{
	struct worker worker = { .start = *start };
	struct err err;
	int rc = 1;

	if (load(&worker, &err) || open_loop(&worker, &err) ||
		sandbox_enter(SANDBOX_WORKER, worker.conf, &err) ||
		start_listening(&worker, &err)) {
		log_error("%s", err.text);
	} else {
		tell_keeper(&worker, IPC_READY);
		rc = event_base_dispatch(worker.base) < 0 ? 1 : 0;
	}
	free_worker(&worker);
	return rc;
}
