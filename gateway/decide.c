/*
 * decide.c - may this request be served? The steps in the order of the contract; the first that
 * says no ends it.
 */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "gateway/conn.h"
#include "http/query.h"

/* One step: false and the refusal, or true. */
struct decision {
	struct conn *conn;
	struct request *request;
	const struct http_request *head;
	struct sv body;
	const struct conf *conf;
	uint64_t now_ms;
	int64_t now_s;
	struct refusal refusal;
	char detail[256]; /* what refusal.audit_detail points to */
};

static bool refuse(struct decision *decision, enum problem problem)
{
	decision->refusal.problem = problem;
	return false;
}

static struct sv address_key(const struct conn *conn, struct addr *storage)
{
	*storage = addr_bucket(&conn->addr);
	return (struct sv){ (const char *)storage->bytes, sizeof(storage->bytes) };
}

static uint64_t seconds_up(uint64_t ms)
{
	return (ms + 999) / 1000;
}

static bool is_open(struct decision *decision)
{
	const struct worker *worker = decision->conn->worker;

	decision->refusal.close = true;
	if (!switch_is_open(worker->access, decision->now_ms))
		return refuse(decision, PROBLEM_ACCESS_CLOSED);
	/* A newer configuration holds already, and its workers are told it sooner than this one. */
	if (!switch_may_serve(worker->access, worker->start.generation, decision->now_ms)) {
		decision->refusal.retry_after_s = 1;
		return refuse(decision, PROBLEM_RELOADED);
	}
	decision->refusal.close = false;
	return true;
}

static bool has_our_host(struct decision *decision)
{
	conf_list hosts = decision->conf->gateway.hosts;
	struct sv name, port;

	if (!http_host_split(decision->head->host, &name, &port)) {
		decision->refusal.close = true;
		return refuse(decision, PROBLEM_MALFORMED_REQUEST);
	}
	if (!hosts || !hosts[0])
		return true;
	for (size_t i = 0; hosts[i]; i++) {
		if (sv_is_nocase(name, sv_from_cstr(hosts[i])))
			return true;
	}
	return refuse(decision, PROBLEM_MISDIRECTED_REQUEST);
}

/* A certificate is ambient in a browser: a page elsewhere must not spend it. */
static bool is_same_site(struct decision *decision)
{
	static const struct sv https = SV_INIT("https://");
	struct sv site, origin;

	if (http_request_field(decision->head, SV("sec-fetch-site"), &site) &&
		!sv_is(site, SV("same-origin")) && !sv_is(site, SV("none")))
		return refuse(decision, PROBLEM_CROSS_SITE);
	if (!http_request_field(decision->head, SV("origin"), &origin))
		return true;
	if (sv_starts_with(origin, https) &&
		sv_is_nocase((struct sv){ origin.ptr + https.len, origin.len - https.len },
			decision->head->host))
		return true;
	return refuse(decision, PROBLEM_CROSS_SITE);
}

static bool has_rate_by_address(struct decision *decision)
{
	const struct conf_rate *rate = &decision->conf->rate_limits.per_address;
	struct addr bucket;
	uint64_t wait_ms = table_take(decision->conn->worker->table, TABLE_PER_ADDRESS,
		address_key(decision->conn, &bucket), rate->rate, rate->burst,
		decision->now_ms);

	decision->refusal.retry_after_s = seconds_up(wait_ms);
	return wait_ms == 0 || refuse(decision, PROBLEM_RATE_LIMITED);
}

static void ban(struct decision *decision, struct sv key)
{
	struct conn *conn = decision->conn;
	struct audit_record record = { .event = AUDIT_BANNED,
		.reason = SV("wrong-credentials") };
	struct record_texts texts;

	table_set_until(conn->worker->table, TABLE_BANNED, key,
		decision->now_ms + decision->conf->rate_limits.ban_ms, decision->now_ms);
	conn_fill_record(conn, &record, &texts);
	(void)audit_queue_send(conn->worker->audit, 0, &record);
}

/* Wrong credentials count; too many and the address is banned, or slowed where it may not be. */
static bool refuse_credential(struct decision *decision, const char *why)
{
	const struct conf *conf = decision->conf;
	struct table *table = decision->conn->worker->table;
	struct addr bucket;
	struct sv key = address_key(decision->conn, &bucket);
	double rate = conf->rate_limits.auth_failures_max * 1000.0 /
		      (double)conf->rate_limits.auth_failures_window_ms;
	uint64_t wait_ms = table_take(table, TABLE_FAILURES, key, rate,
		conf->rate_limits.auth_failures_max, decision->now_ms);

	decision->refusal.audit_detail = why;
	if (wait_ms == 0)
		return refuse(decision, PROBLEM_INVALID_CREDENTIAL);
	if (addr_is_loopback(&decision->conn->addr) ||
		table_left_ms(table, TABLE_TRUSTED, key, decision->now_ms) > 0) {
		decision->refusal.retry_after_s = seconds_up(wait_ms);
		return refuse(decision, PROBLEM_RATE_LIMITED);
	}
	ban(decision, key);
	decision->refusal.close = true;
	return refuse(decision, PROBLEM_INVALID_CREDENTIAL);
}

static bool has_good_token(struct decision *decision)
{
	struct worker *worker = decision->conn->worker;
	struct sv token = decision->head->authorization, scheme = sv_cut(&token, ' ');
	struct err err;

	if (!sv_is_nocase(scheme, SV("Bearer")))
		return refuse_credential(decision, "Authorization is not of the scheme Bearer");
	if (token_cache_verify(
		    worker->tokens, token, decision->now_s, &decision->request->token, &err)) {
		(void)sv_to_cstr(
			sv_from_cstr(err.text), decision->detail, sizeof(decision->detail));
		return refuse_credential(decision, decision->detail);
	}
	decision->request->identity.token = &decision->request->token;
	return true;
}

static bool has_good_certificate(struct decision *decision)
{
	const struct cert *cert = decision->conn->cert;

	/* TLS checked it once; the connection may be older than its end. */
	if (cert && (decision->now_s < cert->not_before || decision->now_s > cert->not_after)) {
		decision->refusal.audit_detail = "certificate: expired meanwhile";
		decision->refusal.close = true;
		return refuse(decision, PROBLEM_INVALID_CREDENTIAL);
	}
	decision->request->identity.cert = cert;
	return true;
}

static bool is_authenticated(struct decision *decision)
{
	if (!has_good_certificate(decision))
		return false;
	if (decision->head->has_authorization && !has_good_token(decision))
		return false;
	if (!decision->request->identity.cert && !decision->request->identity.token)
		return refuse(decision, PROBLEM_AUTHENTICATION_REQUIRED);
	return true;
}

/* A credential in a URL ends up in logs everywhere: said before anything else is asked. */
static bool has_no_credential_in_query(struct decision *decision)
{
	if (!params_hold_credential(decision->head->query))
		return true;
	decision->refusal.close = true;
	return refuse(decision, PROBLEM_CREDENTIAL_PLACEMENT);
}

static uint64_t take_identity(struct decision *decision, struct sv key)
{
	const struct conf_rate *rate = &decision->conf->rate_limits.per_identity;

	return table_take(decision->conn->worker->table, TABLE_PER_IDENTITY, key, rate->rate,
		rate->burst, decision->now_ms);
}

/* Each proof has its own bucket, and both are charged. */
static bool has_rate_by_identity(struct decision *decision)
{
	const struct identity *identity = &decision->request->identity;
	char names[2 * TOKEN_TEXT_MAX], principal[CERT_TEXT_MAX];
	uint64_t wait_ms = 0, other_ms;
	struct buf key;

	if (identity->token) {
		buf_init_fixed(&key, names, sizeof(names));
		buf_add_cstr(&key, identity->token->issuer);
		buf_add_byte(&key, '\0');
		buf_add_cstr(&key, identity->token->subject);
		wait_ms = take_identity(decision, buf_sv(&key));
	}
	if (identity->cert) {
		cert_principal(identity->cert, principal);
		other_ms = take_identity(decision, sv_from_cstr(principal));
		wait_ms = other_ms > wait_ms ? other_ms : wait_ms;
	}
	decision->refusal.retry_after_s = seconds_up(wait_ms);
	return wait_ms == 0 || refuse(decision, PROBLEM_RATE_LIMITED);
}

static const struct conf_target *find_target(const struct conf *conf, struct sv name)
{
	for (size_t i = 0; i < conf->targets_len; i++) {
		const struct conf_target *target = &conf->targets[i];

		if (name.len == 0 ? target->is_default
				  : sv_is(name, sv_from_cstr(target->name)))
			return target;
	}
	return NULL;
}

static bool grant_holds(const struct conf_grant *grant, const struct conn *conn,
	const struct identity *identity)
{
	return grant_matches(&grant->grant, identity) &&
	       (!grant->acl || acl_check(grant->acl, &conn->addr) == ACL_ALLOW);
}

/* Is anything at all of this target granted to this identity, from wherever? NULL: of any. */
static bool sees_target(
	const struct conf *conf, const struct identity *identity, const char *target)
{
	for (size_t i = 0; i < conf->grants_len; i++) {
		const struct grant *grant = &conf->grants[i].grant;

		if (grant_matches(grant, identity) &&
			(!target || grant_covers_target(grant, sv_from_cstr(target))))
			return true;
	}
	return false;
}

static bool has_any_grant(const struct conn *conn, const struct conf *conf)
{
	for (size_t i = 0; i < conf->grants_len; i++)
		if (grant_holds(&conf->grants[i], conn, &conn->request->identity))
			return true;
	return false;
}

static bool is_forwarded(const struct route *route)
{
	return route->kind == ROUTE_PPROF || route->kind == ROUTE_TARGET_METRICS;
}

/* A target that is unknown, and one that this client may see nothing of, are the same. */
static bool has_path(struct decision *decision)
{
	struct request *request = decision->request;
	const struct conf_target *target;

	/* Who is granted nothing learns nothing of paths and targets. */
	if (!sees_target(decision->conf, &request->identity, NULL))
		return refuse(decision, PROBLEM_NO_GRANT);
	if (request->route.kind == ROUTE_NONE)
		return refuse(decision, PROBLEM_NOT_FOUND);
	if (is_forwarded(&request->route)) {
		target = find_target(decision->conf, request->route.target);
		if (!target || !sees_target(decision->conf, &request->identity, target->name))
			return refuse(decision, PROBLEM_NOT_FOUND);
		request->target = target;
		(void)sv_to_cstr(sv_from_cstr(target->name), request->target_name,
			sizeof(request->target_name));
	}
	if (!route_takes(&request->route, request->method))
		return refuse(decision, PROBLEM_METHOD_NOT_ALLOWED);
	return true;
}

static bool keep_symbols(struct decision *decision)
{
	struct request *request = decision->request;
	struct sv symbols =
		request->method == HTTP_POST ? decision->body : request->what.symbols;

	if (symbols.len == 0)
		return true;
	if (!params_is_symbols(symbols)) {
		decision->refusal.detail =
			"the body is not hexadecimal addresses with + between";
		return refuse(decision, PROBLEM_BAD_PARAMETER);
	}
	request->body = malloc(symbols.len);
	if (!request->body)
		return refuse(decision, PROBLEM_INTERNAL);
	memcpy(request->body, symbols.ptr, symbols.len);
	request->body_len = symbols.len;
	/* They are the request's own now; the query that they came from goes. */
	request->what.symbols = SV("");
	return true;
}

static bool has_parameters(struct decision *decision)
{
	struct request *request = decision->request;
	enum problem problem = params_parse(&request->route, decision->head,
		decision->conf->limits.max_seconds, &request->what, &decision->refusal.detail);
	struct buf params;

	decision->refusal.audit_detail = decision->refusal.detail;
	if (problem != PROBLEM_NONE) {
		/* What is not ours may hold a credential: nothing of this connection is trusted. */
		decision->refusal.close = problem_status(problem) == 400;
		return refuse(decision, problem);
	}
	buf_init_fixed(&params, request->params, sizeof(request->params) - 1);
	params_write(&request->what, &params);
	request->params[params.len] = '\0';
	return keep_symbols(decision);
}

/* One grant must cover all of it: target, every profile bit, the seconds. */
static bool grant_covers(const struct conf_grant *grant, const struct request *request)
{
	uint32_t needed = request->what.profiles | 1U << request->route.profile;

	if ((grant->grant.profiles & needed) != needed)
		return false;
	if (request->target &&
		!grant_covers_target(&grant->grant, sv_from_cstr(request->target->name)))
		return false;
	return request->what.span_ms <= grant->grant.max_seconds * UINT64_C(1000);
}

bool conn_is_allowed(const struct conn *conn, const struct conf *conf, enum problem *why)
{
	const struct request *request = conn->request;
	const struct conf_target *target = NULL;

	*why = PROBLEM_NO_GRANT;
	if (request->target) {
		target = find_target(conf, sv_from_cstr(request->target_name));
		if (!target)
			return false;
	}
	if (target && target->acl && acl_check(target->acl, &conn->addr) != ACL_ALLOW)
		return false;
	if (request->route.kind == ROUTE_WHOAMI || request->route.kind == ROUTE_TARGETS)
		return has_any_grant(conn, conf);
	for (size_t i = 0; i < conf->grants_len; i++) {
		if (grant_holds(&conf->grants[i], conn, &request->identity) &&
			grant_covers(&conf->grants[i], request))
			return true;
	}
	return false;
}

static bool is_granted(struct decision *decision)
{
	enum problem why;

	return conn_is_allowed(decision->conn, decision->conf, &why) || refuse(decision, why);
}

/* A capture that access would cut off had better not begin. */
static bool fits_window(struct decision *decision)
{
	const struct worker *worker = decision->conn->worker;
	uint64_t left_ms = switch_left_ms(worker->access, decision->now_ms);

	if (decision->request->what.capture_ms == 0 || left_ms == SWITCH_NO_LIMIT ||
		decision->request->what.capture_ms <=
			left_ms + decision->conf->gateway.drain_ms)
		return true;
	(void)snprintf(decision->detail, sizeof(decision->detail),
		"access closes in %llu seconds, before this capture could end",
		(unsigned long long)(left_ms / 1000));
	decision->refusal.detail = decision->refusal.audit_detail = decision->detail;
	return refuse(decision, PROBLEM_WINDOW_TOO_SHORT);
}

/* A capture takes long enough that a reload may take its key away. */
static bool keeps_token(struct decision *decision)
{
	struct request *request = decision->request;
	struct sv token = decision->head->authorization;

	if (request->what.capture_ms == 0 || !request->identity.token)
		return true;
	(void)sv_cut(&token, ' ');
	request->token_text = OPENSSL_memdup(token.ptr, token.len);
	request->token_len = token.len;
	return request->token_text || refuse(decision, PROBLEM_INTERNAL);
}

static bool has_slot(struct decision *decision)
{
	struct request *request = decision->request;
	struct worker *worker = decision->conn->worker;
	struct table_capture capture;
	uint64_t left_ms;

	if (request->what.capture_ms == 0)
		return true;
	capture = (struct table_capture){ .key = sv_from_cstr(request->target_name),
		.max = decision->conf->rate_limits.captures_per_target,
		.until_ms = decision->now_ms + request->what.capture_ms };
	request->slot = table_slot_take(
		worker->table, worker->start.index, &capture, decision->now_ms, &left_ms);
	if (request->slot >= 0) {
		worker->metrics.captures++;
		worker->metrics.captures_running++;
		return true;
	}
	decision->refusal.retry_after_s = seconds_up(left_ms) ? seconds_up(left_ms) : 1;
	return refuse(decision, PROBLEM_SLOT_TAKEN);
}

static bool can_be_recorded(struct decision *decision)
{
	if (audit_queue_works(decision->conn->worker->audit))
		return true;
	decision->refusal.retry_after_s = 5;
	return refuse(decision, PROBLEM_AUDIT_UNAVAILABLE);
}

/* The page holds no data and needs no sign-in; everything that it shows it asks for. */
static bool is_public(const struct request *request, const struct conf *conf)
{
	return request->route.kind == ROUTE_PAGE && conf->gateway.web;
}

void conn_decide(struct conn *conn, const struct http_request *head, struct sv body)
{
	static bool (*const to_all[])(struct decision *) = { is_open, has_our_host,
		is_same_site, has_rate_by_address, has_no_credential_in_query,
		can_be_recorded };
	static bool (*const to_others[])(struct decision *) = { is_authenticated,
		has_rate_by_identity, has_path, has_parameters, is_granted, fits_window,
		keeps_token, has_slot };
	struct decision decision = { .conn = conn,
		.request = conn->request,
		.head = head,
		.body = body,
		.conf = conn->worker->conf,
		.now_ms = clock_boot_ms(),
		.now_s = clock_unix_us() / 1000000 };
	bool good = true;

	route_find(head->path, &conn->request->route);
	if (conn->request->route.kind == ROUTE_PAGE && !decision.conf->gateway.web)
		conn->request->route.kind = ROUTE_NONE;
	for (size_t i = 0; good && i < sizeof(to_all) / sizeof(to_all[0]); i++)
		good = to_all[i](&decision);
	if (is_public(conn->request, decision.conf))
		good = good && (route_takes(&conn->request->route, head->method) ||
				       refuse(&decision, PROBLEM_METHOD_NOT_ALLOWED));
	else
		for (size_t i = 0; good && i < sizeof(to_others) / sizeof(to_others[0]); i++)
			good = to_others[i](&decision);
	if (good)
		conn_record_received(conn);
	else
		conn_refuse(conn, &decision.refusal);
}
