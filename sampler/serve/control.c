#include "sampler/serve/control.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "sampler/proc/process.h"
#include "sampler/serve/lease.h"

#define BODY_MAX 2048

static void answer_json(const struct question *question, struct answer *answer)
{
	answer_text(question->arena, answer, BODY_MAX);
	if (!answer->is_error)
		answer->content_type = "application/json";
}

static void put_address(struct power *power, struct buf *out)
{
	const struct server *server = power->server;

	json_member_cstr(out, "address",
		power_is_awake(power) ? server->address : server->settings->listen);
}

static void announce(
	struct power *power, const struct question *question, struct answer *answer)
{
	struct process_state process;
	char started[CLOCK_RFC3339_SIZE];
	struct buf *out = &answer->body;

	process_read(question->arena, &process);
	clock_rfc3339((int64_t)(process.start_unix_ns / 1000), started);
	answer_json(question, answer);
	if (answer->is_error)
		return;
	json_object_begin(out);
	json_member_u64(out, "v", 1);
	json_member_cstr(out, "name", question->name);
	json_member_u64(out, "pid", (uint64_t)getpid());
	json_member_u64(out, "parent", power->server->parent);
	json_member_u64(out, "uid", geteuid());
	json_member_cstr(out, "started", started);
	put_address(power, out);
	json_member_bool(out, "asleep", !power_is_awake(power));
	json_member_u64(out, "leases", leases_held());
	json_member_cstr(out, "version", POSTERN_VERSION);
	json_object_end(out);
	buf_add_byte(out, '\n');
}

static void wake(struct power *power, const struct question *question, struct answer *answer)
{
	struct err err = { 0 };

	if (!question_is_json(question)) {
		answer_error(question->arena, answer, 415,
			"the Content-Type must be application/json");
		return;
	}
	if (power_wake(power, &err)) {
		answer_error(question->arena, answer, 503, err.text);
		return;
	}
	lease_take(question->lease);
	answer_json(question, answer);
	if (answer->is_error)
		return;
	json_object_begin(&answer->body);
	put_address(power, &answer->body);
	json_object_end(&answer->body);
	buf_add_byte(&answer->body, '\n');
}

static void refuse_method(
	const struct question *question, struct answer *answer, const char *allow)
{
	answer_error(question->arena, answer, 405, "Method Not Allowed");
	answer->allow = allow;
}

bool control_is_public(const struct http_request *request)
{
	return sv_is(request->path, SV("/control"));
}

void control_ask(struct power *power, const struct question *question, struct answer *answer)
{
	const struct http_request *request = question->request;
	struct capture none;

	if (sv_is(request->path, SV("/control"))) {
		if (request->method == HTTP_GET || request->method == HTTP_HEAD)
			announce(power, question, answer);
		else
			refuse_method(question, answer, "GET, HEAD");
	} else if (sv_is(request->path, SV("/control/wake"))) {
		if (request->method == HTTP_POST)
			wake(power, question, answer);
		else
			refuse_method(question, answer, "POST");
	} else if (!sv_is(request->path, SV("/debug/pprof/rates"))) {
		answer_error(question->arena, answer, 404, "404 page not found");
	} else if (request->method == HTTP_OTHER_METHOD) {
		refuse_method(question, answer, "GET, HEAD, POST");
	} else {
		(void)endpoint_rates.ask(question, answer, &none);
	}
}
