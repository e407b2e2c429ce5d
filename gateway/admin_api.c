/*
 * What the admin plane is asked, and what it answers. No sockets here.
 */
#include "base/clock.h"
#include "base/json.h"
#include "gateway/admin.h"
#include "gateway/dialer.h"
#include "gateway/wish.h"

void admin_refuse(
	struct admin_reply *reply, unsigned status, const char *slug, const char *detail)
{
	reply->status = status;
	reply->content_type = "application/problem+json";
	reply->slug = slug;
	buf_clear(&reply->body);
	json_object_begin(&reply->body);
	json_key(&reply->body, "type");
	buf_printf(&reply->body, "\"urn:postern:problem:%s\"", slug);
	json_member_cstr(&reply->body, "title", slug);
	json_member_u64(&reply->body, "status", status);
	json_member_cstr(&reply->body, "detail", detail);
	json_object_end(&reply->body);
	buf_add_byte(&reply->body, '\n');
}

static void put_window(const struct keeper *keeper, struct buf *out)
{
	uint64_t now_ms = clock_boot_ms(), left_ms = switch_left_ms(keeper->state, now_ms);
	bool is_open = keeper->is_open && switch_is_open(keeper->state, now_ms);
	char until[CLOCK_RFC3339_SIZE];

	json_member_cstr(out, "state", is_open ? "open" : "closed");
	if (!is_open)
		return;
	if (left_ms != SWITCH_NO_LIMIT) {
		clock_rfc3339(clock_unix_us() + (int64_t)left_ms * 1000, until);
		json_member_cstr(out, "until", until);
		json_member_u64(out, "remaining_seconds", (left_ms + 999) / 1000);
	}
	json_member_cstr(out, "opened_by", keeper->opened_by);
	json_member_cstr(out, "reason", keeper->reason);
}

static void put_workers(const struct keeper *keeper, struct buf *out)
{
	json_key(out, "workers");
	json_array_begin(out);
	for (const struct child *child = keeper->workers; child; child = child->next) {
		json_object_begin(out);
		json_member_u64(out, "pid", (uint64_t)child->pid);
		json_member_u64(out, "generation", child->generation);
		json_member_bool(out, "draining", child->is_draining);
		json_object_end(out);
	}
	json_array_end(out);
}

static void put_targets(const struct keeper *keeper, struct buf *out)
{
	json_key(out, "targets");
	json_array_begin(out);
	for (size_t i = 0; i < keeper->conf->targets_len; i++) {
		json_object_begin(out);
		json_member_cstr(out, "name", keeper->conf->targets[i].name);
		json_member_bool(out, "up", dial_is_up(&keeper->conf->targets[i]));
		json_object_end(out);
	}
	json_array_end(out);
}

void admin_put_status(struct keeper *keeper, struct admin_reply *reply)
{
	struct buf *out = &reply->body;

	reply->status = 200;
	reply->content_type = "application/json";
	json_object_begin(out);
	put_window(keeper, out);
	json_member_u64(out, "generation", keeper->generation);
	json_key(out, "listening");
	json_array_begin(out);
	for (size_t i = 0; keeper->is_open && i < keeper->listeners.len; i++)
		json_cstr(out, keeper->listeners.items[i].text);
	json_array_end(out);
	put_workers(keeper, out);
	put_targets(keeper, out);
	json_key(out, "audit");
	json_object_begin(out);
	json_member_u64(out, "seq", keeper->head.seq);
	json_member_cstr(out, "hash", keeper->head.hash);
	json_object_end(out);
	json_member_cstr(out, "version", POSTERN_VERSION);
	json_object_end(out);
	buf_add_byte(out, '\n');
}

static void put_metric(
	struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name,
		(unsigned long long)value);
}

static void put_metrics(struct keeper *keeper, struct admin_reply *reply)
{
	uint64_t now_ms = clock_boot_ms(), left_ms = switch_left_ms(keeper->state, now_ms);
	struct buf *out = &reply->body;
	uint64_t workers = 0;

	for (const struct child *child = keeper->workers; child; child = child->next)
		workers += !child->is_draining;
	reply->status = 200;
	reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
	put_metric(out, "postern_access_open", "gauge", "1 while access is open.",
		keeper->is_open && left_ms > 0);
	put_metric(out, "postern_access_remaining_seconds", "gauge",
		"Until access closes by itself; 0 when closed or without a limit.",
		left_ms == SWITCH_NO_LIMIT ? 0 : left_ms / 1000);
	put_metric(out, "postern_workers", "gauge", "Workers that serve.", workers);
	put_metric(out, "postern_generation", "gauge", "Generation of the configuration.",
		keeper->generation);
	put_metric(out, "postern_audit_up", "gauge",
		"1 unless the audit log cannot be written.", keeper->scribe_lost_ms == 0);
	put_metric(out, "postern_audit_seq", "counter", "Last line of the audit log.",
		keeper->head.seq);
	put_metric(out, "postern_opened_total", "counter", "Openings of access.",
		keeper->opened_total);
	put_metric(out, "postern_worker_deaths_total", "counter", "Workers that died.",
		keeper->worker_deaths_total);
	put_metric(out, "postern_scribe_deaths_total", "counter", "Scribes that died.",
		keeper->scribe_deaths_total);
}

static void open_access(struct keeper *keeper, const struct actor *actor,
	const struct wish *wish, struct admin_reply *reply, void *later)
{
	uint64_t ttl_ms = wish->has_ttl ? wish->ttl_ms : keeper->conf->access.ttl_ms;
	struct buf detail;
	char text[128];

	if (wish->has_ttl && ttl_ms > keeper->conf->access.max_ttl_ms) {
		buf_init_fixed(&detail, text, sizeof(text));
		buf_printf(&detail, "ttl is over access.max_ttl, which is %llu s%c",
			(unsigned long long)keeper->conf->access.max_ttl_ms / 1000, 0);
		admin_refuse(reply, 400, "ttl-too-long", text);
		return;
	}
	if (keeper->conf->access.require_reason && wish->reason[0] == '\0') {
		admin_refuse(reply, 400, "reason-missing",
			"a reason is required, as in \"reason\": \"INC-1234\"");
		return;
	}
	reply->is_later = true;
	keeper_open(keeper, actor, ttl_ms, sv_from_cstr(wish->reason), admin_answer, later);
}

static void change_access(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	struct wish wish;
	const char *wrong = wish_parse(request->body, &wish);

	if (wrong) {
		admin_refuse(reply, 400, "bad-request", wrong);
	} else if (wish.is_open) {
		open_access(keeper, &request->actor, &wish, reply, later);
	} else {
		keeper_close(keeper, &request->actor, AUDIT_CLOSED,
			wish.reason[0] ? wish.reason : "admin");
		admin_put_status(keeper, reply);
	}
}

static void put_reload_errors(const struct conf_errors *errors, struct admin_reply *reply)
{
	struct sv rest = buf_sv(&errors->text);
	struct buf *out = &reply->body;

	reply->status = 422;
	reply->content_type = "application/problem+json";
	json_object_begin(out);
	json_member_cstr(out, "type", "urn:postern:problem:reload-failed");
	json_member_cstr(out, "title", "reload-failed");
	json_member_u64(out, "status", 422);
	json_member_cstr(
		out, "detail", "the new configuration has errors; nothing was changed");
	json_key(out, "errors");
	json_array_begin(out);
	while (rest.len > 0) {
		struct sv line = sv_cut(&rest, '\n');

		if (line.len > 0)
			json_text(out, line);
	}
	json_array_end(out);
	json_object_end(out);
	buf_add_byte(out, '\n');
}

static void reload(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	struct conf_errors errors = { .count = 0 };

	(void)later;
	buf_init(&errors.text, KEEPER_ERRORS_MAX);
	if (keeper_reload(keeper, &request->actor, &errors))
		put_reload_errors(&errors, reply);
	else
		admin_put_status(keeper, reply);
	buf_free(&errors.text);
}

static void get_status(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	(void)request;
	(void)later;
	admin_put_status(keeper, reply);
}

static void get_metrics(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	(void)request;
	(void)later;
	put_metrics(keeper, reply);
}

static void get_health(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	(void)keeper;
	(void)request;
	(void)later;
	reply->status = 200;
	reply->content_type = "text/plain; charset=utf-8";
	buf_add_cstr(&reply->body, "ok\n");
}

static void not_built(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	(void)keeper;
	(void)request;
	(void)later;
	admin_refuse(reply, 501, "not-built", "this version of posternd cannot do that");
}

static const struct {
	struct sv path;
	enum http_method method;
	void (*answer)(struct keeper *keeper, const struct admin_request *request,
		struct admin_reply *reply, void *later);
} routes[] = {
	{ SV_INIT("/v1/status"), HTTP_GET, get_status },
	{ SV_INIT("/metrics"), HTTP_GET, get_metrics },
	{ SV_INIT("/healthz"), HTTP_GET, get_health },
	{ SV_INIT("/v1/access"), HTTP_POST, change_access },
	{ SV_INIT("/v1/reload"), HTTP_POST, reload },
	{ SV_INIT("/v1/targets/*/rates"), HTTP_POST, admin_rates },
	{ SV_INIT("/v1/lease"), HTTP_POST, not_built },
	{ SV_INIT("/v1/ban"), HTTP_POST, not_built },
	{ SV_INIT("/v1/unban"), HTTP_POST, not_built },
};

/* "*" stands for one part of the path, which has at least one byte. */
static bool is_at(struct sv path, struct sv route)
{
	size_t at = 0;

	for (size_t i = 0; i < route.len; i++) {
		size_t begin = at;

		if (route.ptr[i] != '*' && (at == path.len || path.ptr[at] != route.ptr[i]))
			return false;
		if (route.ptr[i] != '*')
			at++;
		while (route.ptr[i] == '*' && at < path.len && path.ptr[at] != '/')
			at++;
		if (at == begin)
			return false;
	}
	return at == path.len;
}

/* "application/json", with or without parameters. */
static bool is_json(struct sv content_type)
{
	struct sv rest = content_type, type = sv_trim(sv_cut(&rest, ';'));

	return sv_is_nocase(type, SV("application/json"));
}

void admin_api(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	const struct http_request *head = request->head;

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (!is_at(head->path, routes[i].path))
			continue;
		if (head->method != routes[i].method) {
			reply->allow = routes[i].method == HTTP_GET ? "GET" : "POST";
			admin_refuse(reply, 405, "method-not-allowed",
				"GET asks, POST changes: see Allow");
		} else if (head->has_query) {
			admin_refuse(reply, 400, "bad-request", "no parameters are known here");
		} else if (head->method == HTTP_POST && !is_json(head->content_type)) {
			admin_refuse(reply, 415, "unsupported-media-type",
				"the Content-Type must be application/json");
		} else {
			routes[i].answer(keeper, request, reply, later);
		}
		return;
	}
	admin_refuse(reply, 404, "not-found", "there is no such thing in the admin plane");
}
