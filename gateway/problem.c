#include "gateway/problem.h"

#include <assert.h>

#include "base/json.h"

#define BODY_MAX 1024

static const struct {
	unsigned status;
	const char *slug, *title, *detail;
} problems[PROBLEMS_LEN] = {

#define PROBLEM(name, status, slug, title, detail) \
	[PROBLEM_##name] = { status, slug, title, detail },
#include "gateway/problems.def"
#undef PROBLEM
};

unsigned problem_status(enum problem problem)
{
	return problems[problem].status;
}

const char *problem_slug(enum problem problem)
{
	return problem == PROBLEM_NONE ? "" : problems[problem].slug;
}

enum problem problem_of_refusal(const struct http_refusal *refusal)
{
	for (unsigned i = 1; i < PROBLEMS_LEN; i++) {
		if (strcmp(problems[i].slug, refusal->slug) == 0)
			return (enum problem)i;
	}
	return PROBLEM_MALFORMED_REQUEST;
}

bool problem_wants_plain(const struct http_request *request)
{
	struct sv value;

	if (http_request_field(request, SV("user-agent"), &value) &&
		sv_starts_with(value, SV("Go-http-client/")))
		return true;
	if (!http_request_field(request, SV("accept"), &value))
		return false;
	while (value.len > 0) {
		struct sv item = sv_cut(&value, ',');

		if (sv_is_nocase(sv_trim(sv_cut(&item, ';')), SV("text/plain")))
			return true;
	}
	return false;
}

static void write_json(const struct problem_answer *answer, const char *detail, struct buf *out)
{
	enum problem problem = answer->problem;
	char type[96];
	struct buf text;

	buf_init_fixed(&text, type, sizeof(type));
	buf_printf(&text, "urn:postern:problem:%s", problems[problem].slug);
	json_object_begin(out);
	json_member_string(out, "type", buf_sv(&text));
	json_member_cstr(out, "title", problems[problem].title);
	json_member_u64(out, "status", problems[problem].status);
	json_member_cstr(out, "detail", detail);
	json_member_string(out, "request_id", answer->request_id);
	json_object_end(out);
	buf_add_byte(out, '\n');
}

void problem_write(const struct problem_answer *answer, struct buf *out)
{
	enum problem problem = answer->problem;
	unsigned status = problems[problem].status;
	const char *detail = answer->detail ? answer->detail : problems[problem].detail;
	char body[BODY_MAX];
	struct buf text;

	assert(status >= 400);
	buf_init_fixed(&text, body, sizeof(body));
	if (answer->plain)
		buf_printf(&text, "%s: %s (request " SV_FMT ")\n", problems[problem].slug,
			detail, SV_ARG(answer->request_id));
	else
		write_json(answer, detail, &text);
	buf_printf(out, "HTTP/1.1 %u %s\r\nContent-Type: %s\r\n", status,
		problems[problem].title,
		answer->plain ? "text/plain; charset=utf-8" : "application/problem+json");
	if (answer->plain)
		buf_add_cstr(out, "X-Go-Pprof: 1\r\n");
	if (status == 401)
		buf_add_cstr(out, "WWW-Authenticate: Bearer realm=\"postern\", "
				  "error=\"invalid_token\"\r\n");
	if (answer->allow)
		buf_printf(out, "Allow: %s\r\n", answer->allow);
	if (answer->retry_after_s > 0)
		buf_printf(out, "Retry-After: %llu\r\n",
			(unsigned long long)answer->retry_after_s);
	buf_printf(out, "X-Request-Id: " SV_FMT "\r\n", SV_ARG(answer->request_id));
	buf_printf(out,
		"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
		"Content-Length: %zu\r\n%s\r\n",
		text.len, answer->close ? "Connection: close\r\n" : "");
	if (!answer->to_head)
		buf_add(out, text.ptr, text.len);
}
