#include "sampler/serve/endpoint.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/query.h"
#include "sampler/collect/cpu.h"
#include "sampler/collect/threads.h"
#include "sampler/write/pprof.h"

#define DEFAULT_SECONDS 30
#define SECONDS_MAX     ((int64_t)7 * 24 * 3600)
#define CMDLINE_MAX     ((size_t)4 << 20)

static const char text_plain[] = "text/plain; charset=utf-8";

void add_hex(struct buf *out, uint64_t value)
{
	char digits[16];
	size_t at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value);
	buf_add_cstr(out, "0x");
	buf_add(out, digits + at, sizeof(digits) - at);
}

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

int64_t question_int(const struct question *question, struct sv name, bool *present)
{
	struct sv rest = question->request->query, key, value;
	int64_t number = 0;

	*present = false;
	while (http_query_next(&rest, &key, &value)) {
		if (sv_is(key, name) && value.len > 0) {
			*present = true;
			return parse_int(value, &number) ? number : 0;
		}
	}
	return 0;
}

static void begin_text(const struct question *question, struct answer *answer, size_t max)
{
	*answer = (struct answer){ .status = 200, .content_type = text_plain };
	if (arena_buf(question->arena, max, &answer->body))
		answer_error(question->arena, answer, 500, "out of memory");
}

/* The program's arguments, NUL between them and none at the end. */
static void ask_cmdline(const struct question *question, struct answer *answer)
{
	int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	begin_text(question, answer, CMDLINE_MAX);
	while (file >= 0 && answer->body.max > answer->body.len &&
		(got = read(file, answer->body.ptr + answer->body.len,
			 answer->body.max - answer->body.len)) > 0)
		answer->body.len += (size_t)got;
	if (file >= 0)
		(void)close(file);
	while (answer->body.len > 0 && answer->body.ptr[answer->body.len - 1] == '\0')
		answer->body.len--;
}

/* 0x12, 012 or 12, as strconv.ParseUint with base 0 takes them. */
static bool parse_address(struct sv text, uint64_t *out)
{
	unsigned base = 10;

	*out = 0;
	if (text.len > 2 && text.ptr[0] == '0' && (text.ptr[1] == 'x' || text.ptr[1] == 'X')) {
		base = 16;
		text.ptr += 2;
		text.len -= 2;
	} else if (text.len > 1 && text.ptr[0] == '0') {
		base = 8;
	}
	for (size_t i = 0; i < text.len; i++) {
		char c = (char)(text.ptr[i] | 0x20);
		unsigned digit = c >= 'a' ? (unsigned)(c - 'a') + 10
					  : (unsigned)(unsigned char)text.ptr[i] - '0';

		if (digit >= base || __builtin_mul_overflow(*out, base, out) ||
			__builtin_add_overflow(*out, digit, out))
			return false;
	}
	return text.len > 0;
}

static void ask_symbol(const struct question *question, struct answer *answer)
{
	struct sv rest = question->request->method == HTTP_POST ? question->body
								: question->request->query;
	struct symbols *symbols;
	struct symbol symbol;
	struct err err;
	uint64_t outside;
	uintptr_t real;

	begin_text(question, answer, ANSWER_BODY_MAX);
	buf_add_cstr(&answer->body, "num_symbols: 1\n");
	if (symbols_open(question->arena, &symbols, &err))
		return;
	while (rest.len > 0) {
		struct sv word = sv_trim(sv_cut(&rest, '+'));

		if (!parse_address(word, &outside) || !symbols_real(symbols, outside, &real))
			continue;
		symbols_find(symbols, real, &symbol);
		add_hex(&answer->body, outside);
		buf_add_byte(&answer->body, ' ');
		buf_add_cstr(&answer->body, symbol.name);
		buf_add_byte(&answer->body, '\n');
	}
}

static enum endpoint_result ask_profile(
	const struct question *question, struct answer *answer, uint64_t *capture_ms)
{
	static const char prefix[] = "Could not enable CPU profiling: ";
	bool present;
	int64_t seconds = question_int(question, SV("seconds"), &present);
	char text[sizeof(prefix) + sizeof(((struct err *)0)->text)];
	struct buf message;
	struct err err;

	if (seconds <= 0)
		seconds = DEFAULT_SECONDS;
	if (seconds > SECONDS_MAX)
		seconds = SECONDS_MAX;
	if (cpu_start(&err) == 0) {
		*capture_ms = (uint64_t)seconds * 1000;
		return ENDPOINT_CAPTURE;
	}
	buf_init_fixed(&message, text, sizeof(text) - 1);
	buf_add_cstr(&message, prefix);
	buf_add_cstr(&message, err.text);
	text[message.len] = '\0';
	answer_error(question->arena, answer, 500, text);
	return ENDPOINT_ANSWERED;
}

static const char *rate_comment(struct arena *arena, const struct cpu_result *result)
{
	struct buf text;

	if (arena_buf(arena, 256, &text))
		return NULL;
	buf_add_cstr(&text, "source: per-thread CPU timers, 100 Hz; samples: ");
	buf_add_u64(&text, result->samples);
	buf_add_cstr(&text, ", of which without their outermost frame: ");
	buf_add_u64(&text, result->incomplete);
	buf_add_cstr(&text, "; dropped: ");
	buf_add_u64(&text, result->dropped);
	buf_add_cstr(&text, "; CPU time not seen (ms): ");
	buf_add_u64(&text, result->unseen_ns / 1000000);
	buf_add_byte(&text, '\0');
	return text.ptr;
}

static void add_samples(struct pprof *pprof, const struct cpu_result *result)
{
	const struct stack *stack;
	size_t at = 0;

	while ((stack = stacks_next(&result->stacks, &at))) {
		int64_t values[2] = { (int64_t)stack->count,
			(int64_t)stack->count * CPU_PERIOD_NS };
		struct pprof_label label = { .key = "thread", .text = stack->label };

		pprof_add(pprof, &(struct pprof_stack){ stack->pcs, stack->len, true }, values,
			&label, stack->label[0] ? 1 : 0);
	}
	if (result->dropped + result->stacks.lost > 0) {
		int64_t values[2] = { (int64_t)(result->dropped + result->stacks.lost) };

		values[1] = values[0] * CPU_PERIOD_NS;
		pprof_add_named(pprof, "[samples lost]", values);
	}
}

static int write_profile(struct arena *arena, struct answer *answer, struct err *err)
{
	const struct cpu_result *result = cpu_stop();
	struct pprof_settings settings = {
		.values = { { "samples", "count" }, { "cpu", "nanoseconds" } },
		.values_len = 2,
		.period_type = { "cpu", "nanoseconds" },
		.period = CPU_PERIOD_NS,
		.time_unix_ns = result->began_unix_ns,
		.duration_ns = (int64_t)result->duration_ns,
		.comments = { rate_comment(arena, result) },
	};
	struct symbols *symbols;
	struct pprof *pprof;

	*answer = (struct answer){
		.status = 200, .content_type = "application/octet-stream", .filename = "profile"
	};
	if (symbols_open(arena, &symbols, err))
		return -1;
	pprof = pprof_open(arena, symbols, &settings);
	if (!pprof || arena_buf(arena, ANSWER_BODY_MAX, &answer->body))
		return err_set(err, ERR_NOMEM, "out of memory for the profile");
	add_samples(pprof, result);
	return pprof_finish(pprof, &answer->body, err);
}

void endpoint_captured(struct arena *arena, struct answer *answer)
{
	struct err err;

	if (write_profile(arena, answer, &err))
		answer_error(arena, answer, 500, err.text);
}

static const struct {
	const char *name, *description;
	bool is_profile; /* has a count, and debug=1 */
} shown[] = {
	{ "cmdline", "The command line of this program", false },
	{ "goroutine", "Stacks of all threads; debug=2 shows each with its state", true },
	{ "profile",
		"CPU profile: seconds= is how long; read it with go tool pprof or postern top",
		false },
	{ "symbol", "Maps the addresses of a request to names", false },
};

static void ask_index(const struct question *question, struct answer *answer)
{
	struct buf *body;

	begin_text(question, answer, 65536);
	answer->content_type = "text/html; charset=utf-8";
	body = &answer->body;
	buf_add_cstr(body,
		"<!DOCTYPE html>\n<html>\n<head>\n<title>/debug/pprof/</title>\n<style>\n"
		".profile-name{display:inline-block;width:6rem;}\n</style>\n</head>\n<body>\n"
		"/debug/pprof/\n<br>\n<p>Set debug=1 as a query parameter to export in text "
		"format.</p>\n<br>\nTypes of profiles available:\n<table>\n"
		"<thead><td>Count</td><td>Profile</td></thead>\n");
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
		buf_add_cstr(body, "<tr><td>");
		buf_add_u64(body, shown[i].is_profile ? threads_count(question->arena) : 0);
		buf_add_cstr(body, "</td><td><a href='");
		buf_add_cstr(body, shown[i].name);
		buf_add_cstr(body, "?debug=1'>");
		buf_add_cstr(body, shown[i].name);
		buf_add_cstr(body, "</a></td></tr>\n");
	}
	buf_add_cstr(body,
		"</table>\n<a href=\"goroutine?debug=2\">full goroutine stack dump</a>\n<br>\n"
		"<p>\nProfile Descriptions:\n<ul>\n");
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
		buf_add_cstr(body, "<li><div class=profile-name>");
		buf_add_cstr(body, shown[i].name);
		buf_add_cstr(body, ": </div> ");
		buf_add_cstr(body, shown[i].description);
		buf_add_cstr(body, "</li>\n");
	}
	buf_add_cstr(body,
		"</ul>\n</p>\n<p>CPU source: per-thread CPU timers, 100 Hz.</p>\n</body>\n"
		"</html>\n");
}

static bool is_allowed(const struct question *question, struct sv name, struct answer *answer)
{
	bool is_symbol = sv_is(name, SV("symbol"));

	if (question->request->method == HTTP_GET || question->request->method == HTTP_HEAD ||
		(is_symbol && question->request->method == HTTP_POST))
		return true;
	answer_error(question->arena, answer, 405, "Method Not Allowed");
	answer->is_error = false;
	answer->allow = is_symbol ? "GET, HEAD, POST" : "GET, HEAD";
	return false;
}

static void redirect(const struct question *question, struct answer *answer)
{
	begin_text(question, answer, 64);
	answer->status = 307;
	answer->location = "/debug/pprof/";
}

enum endpoint_result endpoint_ask(
	const struct question *question, struct answer *answer, uint64_t *capture_ms)
{
	static const struct sv prefix = SV_INIT("/debug/pprof/");
	struct sv name = question->request->path;
	bool present;

	if (sv_is(name, SV("/debug/pprof"))) {
		redirect(question, answer);
		return ENDPOINT_ANSWERED;
	}
	if (!sv_starts_with(name, prefix)) {
		answer_error(question->arena, answer, 404, "404 page not found");
		answer->is_error = false;
		return ENDPOINT_ANSWERED;
	}
	name.ptr += prefix.len;
	name.len -= prefix.len;
	if (!is_allowed(question, name, answer))
		return ENDPOINT_ANSWERED;
	if (name.len == 0)
		ask_index(question, answer);
	else if (sv_is(name, SV("cmdline")))
		ask_cmdline(question, answer);
	else if (sv_is(name, SV("symbol")))
		ask_symbol(question, answer);
	else if (sv_is(name, SV("profile")))
		return ask_profile(question, answer, capture_ms);
	else if (sv_is(name, SV("goroutine")) || sv_is(name, SV("threads")))
		endpoint_goroutine(
			question, question_int(question, SV("debug"), &present), answer);
	else
		answer_error(question->arena, answer, 404, "Unknown profile");
	return ENDPOINT_ANSWERED;
}
