/*
 * builtin.c - what the gate answers itself: the page, who you are, which targets you may see, its
 * metrics.
 */
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "gateway/conn.h"
#include "gateway/page.h"

#define BODY_MAX ((size_t)1 << 20)

static void write_list_of_profiles(uint32_t bits, struct buf *out)
{
	json_array_begin(out);
	for (unsigned i = 0; i < PROFILES_LEN; i++) {
		if (bits >> i & 1)
			json_cstr(out, profile_name((enum profile)i));
	}
	json_array_end(out);
}

static bool holds(const struct conn *conn, const struct conf_grant *grant)
{
	return grant_matches(&grant->grant, &conn->request->identity) &&
	       (!grant->acl || acl_check(grant->acl, &conn->addr) == ACL_ALLOW);
}

static void write_identity(const struct conn *conn, struct buf *out)
{
	const struct identity *identity = &conn->request->identity;
	char principal[CERT_TEXT_MAX];

	json_member_cstr(out, "method", identity_method(identity));
	json_key(out, "identity");
	json_object_begin(out);
	if (identity->token) {
		json_member_cstr(out, "subject", identity->token->subject);
		json_member_cstr(out, "issuer", identity->token->issuer);
		json_member_u64(out, "expires", (uint64_t)identity->token->expires);
	}
	if (identity->cert) {
		cert_principal(identity->cert, principal);
		json_member_cstr(out, "certificate", principal);
		json_member_cstr(out, "fingerprint", identity->cert->fingerprint);
		json_member_u64(
			out, "certificate_expires", (uint64_t)identity->cert->not_after);
	}
	json_object_end(out);
}

static void write_grants(const struct conn *conn, struct buf *out)
{
	const struct conf *conf = conn->worker->conf;

	json_key(out, "grants");
	json_array_begin(out);
	for (size_t i = 0; i < conf->grants_len; i++) {
		const struct grant *grant = &conf->grants[i].grant;

		if (!holds(conn, &conf->grants[i]))
			continue;
		json_object_begin(out);
		json_key(out, "targets");
		json_array_begin(out);
		for (size_t k = 0; k < GRANT_LIST_MAX && grant->targets[k]; k++)
			json_cstr(out, grant->targets[k]);
		json_array_end(out);
		json_key(out, "profiles");
		write_list_of_profiles(grant->profiles, out);
		json_member_u64(out, "max_seconds", grant->max_seconds);
		json_object_end(out);
	}
	json_array_end(out);
}

static void write_whoami(const struct conn *conn, struct buf *out)
{
	const struct conf *conf = conn->worker->conf;
	uint64_t left_ms = switch_left_ms(conn->worker->access, clock_boot_ms());

	json_object_begin(out);
	write_identity(conn, out);
	write_grants(conn, out);
	json_key(out, "limits");
	json_object_begin(out);
	json_member_u64(out, "max_seconds", conf->limits.max_seconds);
	json_member_u64(out, "captures_per_target", conf->rate_limits.captures_per_target);
	json_object_end(out);
	if (left_ms != SWITCH_NO_LIMIT)
		json_member_u64(out, "remaining_seconds", left_ms / 1000);
	json_object_end(out);
}

/* All profiles that some grant gives this client of a target. */
static uint32_t profiles_of(const struct conn *conn, const char *target)
{
	const struct conf *conf = conn->worker->conf;
	uint32_t bits = 0;

	for (size_t i = 0; i < conf->grants_len; i++) {
		if (holds(conn, &conf->grants[i]) &&
			grant_covers_target(&conf->grants[i].grant, sv_from_cstr(target)))
			bits |= conf->grants[i].grant.profiles;
	}
	return bits;
}

static void write_targets(const struct conn *conn, struct buf *out)
{
	const struct worker *worker = conn->worker;

	json_object_begin(out);
	json_key(out, "targets");
	json_array_begin(out);
	for (size_t i = 0; i < worker->conf->targets_len; i++) {
		const struct conf_target *target = &worker->conf->targets[i];
		uint32_t bits = profiles_of(conn, target->name);

		if (bits == 0)
			continue;
		json_object_begin(out);
		json_member_cstr(out, "name", target->name);
		json_member_bool(out, "default", target->is_default);
		/* As the last request found it; left out when there was none. */
		if (worker->targets_seen[i] != TARGET_NOT_TRIED)
			json_member_bool(out, "up", worker->targets_seen[i] == TARGET_UP);
		json_key(out, "profiles");
		write_list_of_profiles(bits, out);
		json_object_end(out);
	}
	json_array_end(out);
	json_object_end(out);
}

/* Body and its type. */
static const char *write_body(const struct conn *conn, struct buf *out)
{
	switch (conn->request->route.kind) {
	case ROUTE_WHOAMI:
		write_whoami(conn, out);
		return "application/json";
	case ROUTE_TARGETS:
		write_targets(conn, out);
		return "application/json";
	case ROUTE_METRICS:
		metrics_write(&conn->worker->metrics, conn->worker->start.index, out);
		return "text/plain; version=0.0.4; charset=utf-8";
	case ROUTE_PAGE:
		buf_add_sv(out, page_html());
		return "text/html; charset=utf-8";
	case ROUTE_NONE:
	case ROUTE_PPROF:
	case ROUTE_TARGET_METRICS:
	case ROUTE_REDIRECT:
		break;
	}
	return "text/plain; charset=utf-8";
}

static void write_head(const struct conn *conn, const char *type, size_t len, struct buf *out)
{
	const struct request *request = conn->request;
	bool redirects = request->route.kind == ROUTE_REDIRECT;

	buf_printf(out, "HTTP/1.1 %s\r\n", redirects ? "307 Temporary Redirect" : "200 OK");
	if (redirects)
		buf_printf(out, "Location: %s/\r\n", request->path);
	if (request->route.kind == ROUTE_PAGE)
		buf_printf(out, "Content-Security-Policy: %s\r\n", page_policy());
	buf_printf(out,
		"Content-Type: %s\r\nContent-Length: %zu\r\nX-Content-Type-Options: nosniff\r\n"
		"Referrer-Policy: no-referrer\r\nCache-Control: no-store\r\n"
		"X-Request-Id: %s\r\n%s\r\n",
		type, len, request->id,
		request->close || conn->worker->draining ? "Connection: close\r\n" : "");
}

void builtin_answer(struct conn *conn)
{
	struct request *request = conn->request;
	struct buf body, head;
	const char *type;
	bool sent;

	buf_init(&body, BODY_MAX);
	buf_init(&head, 4096);
	type = write_body(conn, &body);
	write_head(conn, type, body.len, &head);
	if (request->method == HTTP_HEAD)
		buf_clear(&body);
	request->status = request->route.kind == ROUTE_REDIRECT ? 307 : 200;
	request->bytes = body.len;
	sent = !body.failed && !head.failed && stream_write(conn->stream, buf_sv(&head)) &&
	       (body.len == 0 || stream_write(conn->stream, buf_sv(&body)));
	buf_free(&body);
	buf_free(&head);
	if (sent)
		conn_completed(conn);
	else
		conn_cut(conn, problem_slug(PROBLEM_INTERNAL));
}
