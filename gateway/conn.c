#include "gateway/conn.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/encode.h"
#include "gateway/log.h"
#include "gateway/tls.h"

#define RECORD_MS UINT64_C(4000)    /* for a record to be on disk; after 5 s access closes */
#define TRUST_MS  UINT64_C(3600000) /* addresses that showed a good certificate */

static struct sv bucket_key(const struct addr *addr, struct addr *storage)
{
	*storage = addr_bucket(addr);
	return (struct sv){ (const char *)storage->bytes, sizeof(storage->bytes) };
}

void conn_set_deadline(struct conn *conn, uint64_t ms)
{
	struct timeval after = { .tv_sec = (time_t)(ms / 1000),
		.tv_usec = (suseconds_t)(ms % 1000 * 1000) };

	(void)event_add(conn->deadline, &after);
}

static void free_request(struct conn *conn)
{
	struct request *request = conn->request;

	if (!request)
		return;
	proxy_free(request->proxy);
	if (request->dialed_fd >= 0)
		(void)close(request->dialed_fd);
	if (request->slot >= 0) {
		table_slot_free(conn->worker->table, conn->worker->start.index, request->slot);
		conn->worker->metrics.captures_running--;
	}
	if (request->number)
		conn->worker->running--;
	free(request->body);
	OPENSSL_clear_free(request->token_text, request->token_len);
	free(request);
	conn->request = NULL;
}

/* Its stream is gone already. */
static void free_conn(struct conn *conn)
{
	struct worker *worker = conn->worker;
	struct addr bucket;

	free_request(conn);
	if (conn->previous)
		conn->previous->next = conn->next;
	else
		worker->conns = conn->next;
	if (conn->next)
		conn->next->previous = conn->previous;
	table_connection_remove(
		worker->table, worker->start.index, bucket_key(&conn->addr, &bucket));
	if (conn->deadline)
		event_free(conn->deadline);
	worker->metrics.connections_open--;
	free(conn->cert);
	free(conn);
	worker_check_drained(worker);
}

void conn_close(struct conn *conn)
{
	stream_close(conn->stream);
	free_conn(conn);
}

static void abort_conn(struct conn *conn)
{
	stream_abort(conn->stream);
	free_conn(conn);
}

void conn_fill_record(
	const struct conn *conn, struct audit_record *record, struct record_texts *texts)
{
	const struct request *request = conn->request;

	addr_format(&conn->addr, texts->address);
	record->client_address = sv_from_cstr(texts->address);
	record->client_port = conn->port;
	if (conn->cert) {
		cert_principal(conn->cert, texts->principal);
		record->fingerprint = sv_from_cstr(conn->cert->fingerprint);
		record->san = sv_from_cstr(texts->principal);
	}
	if (!request)
		return;
	record->request_id = sv_from_cstr(request->id);
	record->http_method = sv_from_cstr(request->method_name);
	record->path = sv_from_cstr(request->path);
	record->params = sv_from_cstr(request->params);
	record->target = sv_from_cstr(request->target_name);
	if (request->identity.token || request->identity.cert)
		record->method_of_identity = sv_from_cstr(identity_method(&request->identity));
	if (request->identity.token) {
		record->subject = sv_from_cstr(request->token.subject);
		record->issuer = sv_from_cstr(request->token.issuer);
		record->token_id = sv_from_cstr(request->token.id);
	}
}

void conn_refuse_address(
	struct worker *worker, const struct addr *addr, uint16_t port, enum problem problem)
{
	char address[ADDR_TEXT_SIZE];
	struct audit_record record = { .event = AUDIT_REFUSED,
		.client_port = port,
		.reason = sv_from_cstr(problem_slug(problem)) };

	addr_format(addr, address);
	record.client_address = sv_from_cstr(address);
	metrics_refusal(&worker->metrics, problem);
	(void)audit_queue_refuse(worker->audit, addr, &record); /* it is closed in any case */
}

static const char no_id[] = "00000000000000000000000000000000";

static struct request *new_request(struct conn *conn)
{
	struct request *request = calloc(1, sizeof(*request));
	unsigned char random[REQUEST_ID_LEN / 2];

	if (!request)
		return NULL;
	if (RAND_bytes(random, sizeof(random)) == 1)
		hex_encode(random, sizeof(random), request->id);
	else
		memcpy(request->id, no_id, sizeof(no_id));
	request->slot = request->dialed_fd = -1;
	request->began_ms = clock_boot_ms();
	conn->request = request;
	return request;
}

static void describe_request(struct request *request, const struct http_request *head)
{
	request->method = head->method;
	request->plain = problem_wants_plain(head);
	request->close = head->close;
	(void)sv_to_cstr(head->method_name, request->method_name, sizeof(request->method_name));
	/* A path that is longer than any of ours is cut, for the log alone. */
	if (!sv_to_cstr(head->path, request->path, sizeof(request->path)))
		(void)sv_to_cstr((struct sv){ head->path.ptr, sizeof(request->path) - 1 },
			request->path, sizeof(request->path));
}

static bool record_refusal(const struct conn *conn, const struct refusal *refusal)
{
	const struct request *request = conn->request;
	struct audit_record record = { .event = AUDIT_REFUSED,
		.status = (uint16_t)problem_status(refusal->problem),
		.reason = sv_from_cstr(problem_slug(refusal->problem)),
		.detail = sv_from_cstr(refusal->audit_detail ? refusal->audit_detail : "") };
	struct record_texts texts;

	conn_fill_record(conn, &record, &texts);
	metrics_refusal(&conn->worker->metrics, refusal->problem);
	if (refusal->problem == PROBLEM_TLS_FAILED)
		conn->worker->metrics.handshakes_failed++;
	if (!request || !request->number || refusal->problem == PROBLEM_AUDIT_UNAVAILABLE)
		return audit_queue_refuse(conn->worker->audit, &conn->addr, &record);
	/* It was received: however it ends, that is the second of its two records. */
	record.event = AUDIT_COMPLETED;
	record.ms = clock_boot_ms() - request->began_ms;
	record.has_ms = true;
	return audit_queue_send(conn->worker->audit, 0, &record);
}

/* A request that came together with the one before is read in the loop's next turn, not from within
 * the end of that one. */
static void read_next(struct conn *conn)
{
	conn->state = CONN_READING;
	conn->in_head = false;
	stream_limit_input(conn->stream, conn->worker->conf->limits.header_bytes);
	conn->again = stream_input(conn->stream).len > 0;
	conn_set_deadline(conn, conn->again ? 0 : conn->worker->conf->limits.idle_ms);
}

/* Head and body were read, and what is kept of them was copied. */
static void let_go_of_input(struct conn *conn)
{
	stream_drain(conn->stream, conn->taken);
	conn->taken = 0;
}

static void end_request(struct conn *conn, bool close)
{
	let_go_of_input(conn);
	close = close || conn->worker->draining;
	free_request(conn);
	worker_check_drained(conn->worker);
	if (close)
		conn_close(conn);
	else
		read_next(conn);
}

static void answer_refusal(struct conn *conn, const struct refusal *refusal)
{
	const struct request *request = conn->request;
	bool recorded = record_refusal(conn, refusal);
	bool close = refusal->close || request->close;
	struct problem_answer answer = {
		.problem = recorded ? refusal->problem : PROBLEM_AUDIT_UNAVAILABLE,
		.detail = recorded ? refusal->detail : NULL,
		.request_id = sv_from_cstr(request->id),
		.retry_after_s = refusal->retry_after_s,
		.allow = refusal->problem == PROBLEM_METHOD_NOT_ALLOWED ? request->route.allow
									: NULL,
		.plain = request->plain,
		.to_head = request->method == HTTP_HEAD,
		.close = close,
	};
	struct buf out;

	if (problem_status(answer.problem) == 0) {
		abort_conn(conn);
		return;
	}
	buf_init(&out, 4096);
	problem_write(&answer, &out);
	if (out.failed || !stream_write(conn->stream, buf_sv(&out))) {
		buf_free(&out);
		abort_conn(conn);
		return;
	}
	buf_free(&out);
	end_request(conn, close);
}

void conn_refuse(struct conn *conn, const struct refusal *refusal)
{
	/* What could not be read has an id, too. */
	if (conn->request || new_request(conn))
		answer_refusal(conn, refusal);
	else
		abort_conn(conn);
}

static void send_end_record(struct conn *conn, enum audit_event event, const char *reason)
{
	struct request *request = conn->request;
	struct audit_record record = { .event = event,
		.status = request->status,
		.reason = sv_from_cstr(reason),
		.bytes = request->bytes,
		.has_bytes = true,
		.ms = clock_boot_ms() - request->began_ms,
		.has_ms = true };
	struct record_texts texts;

	conn_fill_record(conn, &record, &texts);
	metrics_answer(&conn->worker->metrics, request->status);
	conn->worker->metrics.sent_bytes += request->bytes;
	conn->worker->metrics.captures_cut += event == AUDIT_CUT && request->slot >= 0;
	/* If even this cannot be queued the scribe is gone, and with it every other request. */
	if (!audit_queue_send(conn->worker->audit, 0, &record))
		log_warning("request %s: its end could not be recorded", request->id);
}

void conn_completed(struct conn *conn)
{
	send_end_record(conn, AUDIT_COMPLETED, "");
	end_request(conn, conn->request->close);
}

void conn_cut(struct conn *conn, const char *reason)
{
	if (conn->request && conn->request->number)
		send_end_record(conn, AUDIT_CUT, reason);
	/* What was queued still goes out, and so does an alert of TLS. */
	stream_cut(conn->stream);
	free_conn(conn);
}

void conn_record_received(struct conn *conn)
{
	struct request *request = conn->request;
	struct audit_record record = { .event = AUDIT_RECEIVED };
	struct record_texts texts;

	let_go_of_input(conn);
	conn_fill_record(conn, &record, &texts);
	request->number = ++conn->worker->requests;
	conn->worker->running++;
	conn->state = CONN_RECORDING;
	conn_set_deadline(conn, RECORD_MS);
	if (!audit_queue_send(conn->worker->audit, request->number, &record))
		conn_received(conn, false);
}

static void refuse_target(struct conn *conn, enum problem problem, const char *detail)
{
	conn_refuse(conn, &(struct refusal){ .problem = problem, .audit_detail = detail });
}

static void go_to_target(struct conn *conn)
{
	struct request *request = conn->request;
	struct worker *worker = conn->worker;
	char reason[128] = "";
	int fd = request->dialed_fd;

	request->dialed_fd = -1;
	worker->targets_seen[request->target - worker->conf->targets] =
		fd >= 0 ? TARGET_UP : TARGET_DOWN;
	if (fd >= 0) {
		conn->state = CONN_PROXYING;
		proxy_begin(conn, fd);
		return;
	}
	refuse_target(conn,
		request->dialed_error == ETIMEDOUT ? PROBLEM_TARGET_TIMEOUT
						   : PROBLEM_TARGET_DOWN,
		strerror_r(request->dialed_error, reason, sizeof(reason)));
}

void conn_received(struct conn *conn, bool on_disk)
{
	if (conn->state != CONN_RECORDING)
		return;
	if (!on_disk) {
		conn_refuse(conn, &(struct refusal){ .problem = PROBLEM_AUDIT_UNAVAILABLE,
					  .retry_after_s = 5,
					  .close = true });
	} else if (conn->request->target) {
		conn->state = CONN_DIALING;
		conn_set_deadline(conn, conn->worker->conf->limits.connect_ms + 1000);
		if (conn->request->dialed)
			go_to_target(conn);
	} else {
		builtin_answer(conn);
	}
}

void conn_dialed(struct conn *conn, int fd, int error)
{
	struct request *request = conn->request;

	if (request->dialed || !request->target ||
		(conn->state != CONN_DIALING && conn->state != CONN_RECORDING)) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	request->dialed = true;
	request->dialed_fd = fd;
	request->dialed_error = error;
	if (conn->state == CONN_DIALING)
		go_to_target(conn);
}

/* A whole head is there: read the body that it announces, then decide. */
static void take_request(struct conn *conn, const struct http_request *head)
{
	struct sv input = stream_input(conn->stream);
	size_t whole = head->head_len + (size_t)head->content_length;
	struct sv body = { input.ptr + head->head_len, (size_t)head->content_length };

	if (input.len < whole) {
		stream_limit_input(conn->stream, whole);
		if (head->expect_continue && !conn->continued)
			(void)stream_write(conn->stream, SV("HTTP/1.1 100 Continue\r\n\r\n"));
		conn->continued = true;
		return;
	}
	conn->in_head = conn->continued = false;
	conn->taken = whole;
	if (!new_request(conn)) {
		abort_conn(conn);
		return;
	}
	describe_request(conn->request, head);
	conn_decide(conn, head, body);
}

static void read_head(struct conn *conn)
{
	const struct conf *conf = conn->worker->conf;
	struct http_policy policy = { .target_bytes = conf->limits.uri_bytes,
		.head_bytes = conf->limits.header_bytes,
		.body_bytes = conf->limits.body_bytes };
	struct sv input = stream_input(conn->stream);
	struct http_refusal refusal;
	struct http_request head;

	if (input.len > 0 && !conn->in_head) {
		conn->in_head = true;
		conn_set_deadline(conn, conf->limits.header_ms);
	}
	switch (http_request_parse(input, &policy, &head, &refusal)) {
	case HTTP_MORE:
		break;
	case HTTP_BAD:
		conn_refuse(conn, &(struct refusal){ .problem = problem_of_refusal(&refusal),
					  .detail = refusal.detail,
					  .audit_detail = refusal.detail,
					  .close = true });
		break;
	case HTTP_DONE:
		take_request(conn, &head);
		break;
	}
}

/* What the certificate says is kept; the certificate itself is not. */
static int keep_certificate(struct conn *conn, struct err *err)
{
	size_t len;
	unsigned char *der = stream_certificate(conn->stream, &len);
	struct cert cert;
	int rc = 0;

	if (!der)
		return 0;
	rc = cert_parse((struct sv){ (const char *)der, len }, &cert, err);
	OPENSSL_free(der);
	if (rc)
		return -1;
	len = offsetof(struct cert, sans) + cert.sans_len * sizeof(cert.sans[0]);
	conn->cert = malloc(len);
	if (!conn->cert)
		return err_set(err, ERR_NOMEM, "out of memory for a certificate");
	memcpy(conn->cert, &cert, len);
	return 0;
}

static void on_ready(void *arg)
{
	struct conn *conn = arg;
	struct worker *worker = conn->worker;
	uint64_t now = clock_boot_ms();
	struct addr bucket;
	struct err err;

	if (keep_certificate(conn, &err)) {
		(void)record_refusal(conn, &(struct refusal){ .problem = PROBLEM_TLS_FAILED,
						   .audit_detail = err.text });
		conn_close(conn);
		return;
	}
	if (conn->cert)
		table_set_until(worker->table, TABLE_TRUSTED, bucket_key(&conn->addr, &bucket),
			now + TRUST_MS, now);
	read_next(conn);
}

static void read_on(struct conn *conn)
{
	if (conn->again)
		conn_set_deadline(conn, conn->worker->conf->limits.idle_ms);
	conn->again = false;
	read_head(conn);
}

static void on_readable(void *arg)
{
	struct conn *conn = arg;

	/* What comes during an answer waits until that is out. */
	if (conn->state == CONN_READING)
		read_on(conn);
}

static void on_drained(void *arg)
{
	struct conn *conn = arg;

	if (conn->state == CONN_PROXYING)
		proxy_drained(conn);
}

static void on_ended(void *arg, const char *why)
{
	struct conn *conn = arg;

	if (conn->state != CONN_HANDSHAKE) {
		conn_cut(conn, "client-gone");
		return;
	}
	(void)record_refusal(
		conn, &(struct refusal){ .problem = PROBLEM_TLS_FAILED, .audit_detail = why });
	conn_close(conn); /* and not by a reset, which could overtake the alert */
}

static const struct stream_events events = {
	.ready = on_ready,
	.readable = on_readable,
	.drained = on_drained,
	.ended = on_ended,
};

/* While an answer goes out, a client that takes some of it now and then may take its time. */
static bool makes_progress(struct conn *conn)
{
	uint64_t sent = stream_sent(conn->stream);
	bool moved = sent != conn->progress;

	conn->progress = sent;
	return moved;
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = arg;

	(void)fd;
	(void)what;
	switch (conn->state) {
	case CONN_HANDSHAKE:
		(void)record_refusal(
			conn, &(struct refusal){ .problem = PROBLEM_TLS_FAILED,
				      .audit_detail = "handshake not done in time" });
		abort_conn(conn);
		break;
	case CONN_READING:
		if (conn->again)
			read_on(conn);
		else if (conn->in_head)
			conn_refuse(conn, &(struct refusal){ .problem = PROBLEM_REQUEST_TIMEOUT,
						  .close = true });
		else
			conn_close(conn);
		break;
	case CONN_RECORDING:
		conn_refuse(conn, &(struct refusal){ .problem = PROBLEM_AUDIT_UNAVAILABLE,
					  .retry_after_s = 5,
					  .close = true });
		break;
	case CONN_DIALING:
		refuse_target(conn, PROBLEM_TARGET_TIMEOUT, "no connection in time");
		break;
	case CONN_PROXYING:
		if (stream_queued(conn->stream) > 0 && makes_progress(conn))
			conn_set_deadline(conn, conn->worker->conf->limits.idle_ms);
		else if (conn->request->status)
			conn_cut(conn, stream_queued(conn->stream) > 0 ? "client-too-slow"
								       : "target-timeout");
		else
			refuse_target(conn, PROBLEM_TARGET_TIMEOUT, "no answer in time");
		break;
	}
}

void conn_begin(struct worker *worker, int fd, const struct addr *addr, uint16_t port)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	struct addr bucket;

	if (conn) {
		conn->worker = worker;
		conn->addr = *addr;
		conn->port = port;
		conn->deadline = evtimer_new(worker->base, on_deadline, conn);
	}
	if (!conn || !conn->deadline) {
		(void)close(fd);
		table_connection_remove(
			worker->table, worker->start.index, bucket_key(addr, &bucket));
		free(conn);
		return;
	}
	conn->next = worker->conns;
	if (worker->conns)
		worker->conns->previous = conn;
	worker->conns = conn;
	worker->metrics.connections++;
	worker->metrics.connections_open++;
	conn->stream = stream_new(worker->base, worker->tls, fd, &events, conn);
	if (!conn->stream) {
		free_conn(conn);
		return;
	}
	conn_set_deadline(conn, worker->conf->limits.handshake_ms);
}
