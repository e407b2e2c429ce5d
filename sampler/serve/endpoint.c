#include "sampler/serve/endpoint.h"

#include <string.h>

#include "http/query.h"
#include "sampler/collect/cpu.h"

static const char text_plain[] = "text/plain; charset=utf-8";

void answer_error(struct arena *arena, struct answer *answer, unsigned status, const char *text)
{
	*answer = (struct answer){
		.status = status, .content_type = text_plain, .is_error = true
	};
	if (arena_buf(arena, strlen(text) + 2, &answer->body) == 0) {
		buf_add_cstr(&answer->body, text);
		buf_add_byte(&answer->body, '\n');
	}
}

/* strconv.Atoi: an optional sign and digits. */
static bool parse_int(struct sv text, int64_t *out)
{
	bool negative = text.len > 0 && text.ptr[0] == '-';
	uint64_t magnitude = 0;

	if (text.len > 0 && (negative || text.ptr[0] == '+')) {
		text.ptr++;
		text.len--;
	}
	if (text.len == 0 || text.len > 18)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] < '0' || text.ptr[i] > '9')
			return false;
		magnitude = magnitude * 10 + (unsigned)(text.ptr[i] - '0');
	}
	*out = negative ? -(int64_t)magnitude : (int64_t)magnitude;
	return true;
}

/* One name or value of a form as it is meant; false when it is not well-formed. */
static bool decode(struct arena *arena, struct sv *text)
{
	char *room;
	size_t len;

	if (!memchr(text->ptr, '%', text->len) && !memchr(text->ptr, '+', text->len))
		return true;
	room = arena_alloc(arena, text->len);
	len = room ? http_form_decode(*text, room) : SIZE_MAX;
	*text = (struct sv){ room, len };
	return len != SIZE_MAX;
}

/* The first of that name counts, and what is not well-formed does not, as Request.FormValue of net/http. */
struct sv question_text(const struct question *question, struct sv name)
{
	struct sv rest = question->request->query, key, value;

	while (http_query_next(&rest, &key, &value)) {
		if (memchr(key.ptr, ';', key.len) || memchr(value.ptr, ';', value.len))
			continue;
		if (decode(question->arena, &key) && decode(question->arena, &value) &&
			sv_is(key, name))
			return value;
	}
	return SV("");
}

int64_t question_int(const struct question *question, struct sv name, bool *present)
{
	struct sv value = question_text(question, name);
	int64_t number = 0;

	*present = value.len > 0;
	return parse_int(value, &number) ? number : 0;
}

bool question_is_json(const struct question *question)
{
	struct sv rest = question->request->content_type, type = sv_trim(sv_cut(&rest, ';'));

	return sv_is_nocase(type, SV("application/json"));
}

void answer_text(struct arena *arena, struct answer *answer, size_t max)
{
	*answer = (struct answer){ .status = 200, .content_type = text_plain };
	if (arena_buf(arena, max, &answer->body))
		answer_error(arena, answer, 500, "out of memory");
}

int answer_attachment(struct arena *arena, struct answer *answer, const char *filename)
{
	*answer = (struct answer){
		.status = 200, .content_type = "application/octet-stream", .filename = filename
	};
	if (arena_buf(arena, ANSWER_BODY_MAX, &answer->body) == 0)
		return 0;
	answer_error(arena, answer, 500, "out of memory");
	return -1;
}

/* Sorted by name, as the index page shows them. */
static const struct endpoint *const all[] = {
	&endpoint_allocs,
	&endpoint_block,
	&endpoint_cmdline,
	&endpoint_delta_block,
	&endpoint_delta_heap,
	&endpoint_delta_mutex,
	&endpoint_goroutine,
	&endpoint_heap,
	&endpoint_mutex,
	&endpoint_offcpu,
	&endpoint_profile,
	&endpoint_rates,
	&endpoint_symbol,
	&endpoint_threadcreate,
	&endpoint_threads,
	&endpoint_trace,
	&endpoint_wall,
};

#define ALL_LEN (sizeof(all) / sizeof(all[0]))

static void ask_index(const struct question *question, struct answer *answer)
{
	struct buf *body;

	answer_text(question->arena, answer, 65536);
	answer->content_type = "text/html; charset=utf-8";
	body = &answer->body;
	buf_add_cstr(body,
		"<!DOCTYPE html>\n<html>\n<head>\n<title>/debug/pprof/</title>\n<style>\n"
		".profile-name{display:inline-block;width:6rem;}\n</style>\n</head>\n<body>\n"
		"/debug/pprof/\n<br>\n<p>Set debug=1 as a query parameter to export in text "
		"format.</p>\n<br>\nTypes of profiles available:\n<table>\n"
		"<thead><td>Count</td><td>Profile</td></thead>\n");
	for (size_t i = 0; i < ALL_LEN; i++) {
		if (!all[i]->description)
			continue;
		buf_add_cstr(body, "<tr><td>");
		buf_add_u64(body, all[i]->count ? all[i]->count(question->arena) : 0);
		buf_add_cstr(body, "</td><td><a href='");
		buf_add_cstr(body, all[i]->name);
		buf_add_cstr(body, "?debug=1'>");
		buf_add_cstr(body, all[i]->name);
		buf_add_cstr(body, "</a></td></tr>\n");
	}
	buf_add_cstr(body,
		"</table>\n<a href=\"goroutine?debug=2\">full goroutine stack dump</a>\n<br>\n"
		"<p>\nProfile Descriptions:\n<ul>\n");
	for (size_t i = 0; i < ALL_LEN; i++) {
		if (!all[i]->description)
			continue;
		buf_add_cstr(body, "<li><div class=profile-name>");
		buf_add_cstr(body, all[i]->name);
		buf_add_cstr(body, ": </div> ");
		buf_add_cstr(body, all[i]->description);
		buf_add_cstr(body, "</li>\n");
	}
	buf_add_cstr(body, "</ul>\n</p>\n<p>CPU source: ");
	cpu_describe(body);
	buf_add_cstr(body, ".</p>\n</body>\n</html>\n");
}

static const struct endpoint *find(struct sv name)
{
	for (size_t i = 0; i < ALL_LEN; i++) {
		if (sv_is(name, sv_from_cstr(all[i]->name)))
			return all[i];
	}
	return NULL;
}

static bool is_allowed(
	const struct question *question, const struct endpoint *endpoint, struct answer *answer)
{
	bool takes_post = endpoint && endpoint->takes_post;

	if (question->request->method == HTTP_GET || question->request->method == HTTP_HEAD ||
		(takes_post && question->request->method == HTTP_POST))
		return true;
	answer_error(question->arena, answer, 405, "Method Not Allowed");
	answer->is_error = false;
	answer->allow = takes_post ? "GET, HEAD, POST" : "GET, HEAD";
	return false;
}

static void redirect(const struct question *question, struct answer *answer)
{
	answer_text(question->arena, answer, 64);
	answer->content_type = "text/html; charset=utf-8";
	buf_add_cstr(&answer->body, "<a href=\"/debug/pprof/\">Temporary Redirect</a>.\n\n");
	answer->status = 307;
	answer->location = "/debug/pprof/";
}

enum endpoint_result endpoint_ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	static const struct sv prefix = SV_INIT("/debug/pprof/");
	struct sv name = question->request->path;
	const struct endpoint *endpoint;

	if (sv_is(name, SV("/debug/pprof"))) {
		redirect(question, answer);
		return ENDPOINT_ANSWERED;
	}
	if (sv_is(name, SV("/metrics"))) {
		if (is_allowed(question, NULL, answer))
			return endpoint_metrics.ask(question, answer, capture);
		return ENDPOINT_ANSWERED;
	}
	if (!sv_starts_with(name, prefix)) {
		answer_error(question->arena, answer, 404, "404 page not found");
		answer->is_error = false;
		return ENDPOINT_ANSWERED;
	}
	name.ptr += prefix.len;
	name.len -= prefix.len;
	endpoint = find(name);
	if (!is_allowed(question, endpoint, answer))
		return ENDPOINT_ANSWERED;
	if (endpoint)
		return endpoint->ask(question, answer, capture);
	if (name.len == 0)
		ask_index(question, answer);
	else
		answer_error(question->arena, answer, 404, "Unknown profile");
	return ENDPOINT_ANSWERED;
}
