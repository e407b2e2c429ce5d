#include "gateway/routes.h"
#include "http/query.h"

#define HZ_MAX      4000
#define SYMBOLS_MAX 4096

/* The state of reading one query. */
struct reader {
	const struct route *route;
	uint32_t max_seconds;
	struct params *params;
	const char **detail;
	bool has_format;
};

static enum problem bad(struct reader *reader, const char *detail)
{
	*reader->detail = detail;
	return PROBLEM_BAD_PARAMETER;
}

/* "5", and for a trace "0.25": Go reads that one as a float. */
static bool read_seconds(struct sv text, bool fraction_too, uint64_t *ms)
{
	struct sv decimals = text, whole = sv_cut(&decimals, '.');
	uint64_t seconds, part = 0;

	if (!sv_to_u64(whole, UINT32_MAX, &seconds))
		return false;
	if (whole.len < text.len) {
		if (!fraction_too || decimals.len < 1 || decimals.len > 3)
			return false;
		for (size_t i = 0; i < 3; i++) {
			char c = i < decimals.len ? decimals.ptr[i] : '0';

			if (c < '0' || c > '9')
				return false;
			part = part * 10 + (unsigned)(c - '0');
		}
	}
	*ms = seconds * 1000 + part;
	return true;
}

static enum problem take_seconds(struct reader *reader, struct sv value)
{
	struct params *params = reader->params;

	if (params->has_seconds)
		return bad(reader, "seconds is there twice");
	params->has_seconds = true;
	if (!read_seconds(
		    value, reader->route->profile == PROFILE_TRACE, &params->capture_ms) ||
		params->capture_ms == 0 ||
		params->capture_ms > (uint64_t)reader->max_seconds * 1000)
		return bad(reader, "seconds is not a whole number from 1 to the limit");
	return PROBLEM_NONE;
}

/* A whole number from `min` to `max`, once. */
struct number {
	struct sv name;
	uint32_t min, max;
	size_t has_offset, offset; /* in struct params */
	const char *detail;
};

#define NUMBER(field, min, max)                                                                \
	{                                                                                      \
		SV_INIT(#field), min, max, offsetof(struct params, has_##field),               \
			offsetof(struct params, field),                                        \
			#field " is there twice, or not a whole number from " #min " to " #max \
	}

static const struct number numbers[] = {
	NUMBER(debug, 0, 2),
	NUMBER(gc, 0, 1),
	NUMBER(hz, 1, HZ_MAX),
	NUMBER(peak, 0, 1),
};

static enum problem take_number(
	struct reader *reader, const struct number *number, struct sv value)
{
	char *base = (char *)reader->params;
	bool *has = (bool *)(base + number->has_offset);
	uint64_t read;
	uint32_t narrow;

	if (*has || !sv_to_u64(value, number->max, &read) || read < number->min)
		return bad(reader, number->detail);
	*has = true;
	narrow = (uint32_t)read;
	memcpy(base + number->offset, &narrow, sizeof(narrow));
	return PROBLEM_NONE;
}

/* How far back a trace shall reach: "10s", or the number alone. */
static enum problem take_last(struct reader *reader, struct sv value)
{
	struct params *params = reader->params;
	uint64_t seconds;

	if (value.len > 1 && value.ptr[value.len - 1] == 's')
		value.len--;
	if (params->last > 0 || !sv_to_u64(value, reader->max_seconds, &seconds) ||
		seconds == 0)
		return bad(reader,
			"last is there twice, or not seconds from 1s to the limit of seconds");
	params->last = (uint32_t)seconds;
	return PROBLEM_NONE;
}

static enum problem take_format(struct reader *reader, struct sv value)
{
	if (reader->has_format || value.len == 0 || value.len >= PARAMS_TEXT_MAX)
		return bad(reader, "format is there twice, or too long");
	for (size_t i = 0; i < value.len; i++) {
		if (value.ptr[i] < 'a' || value.ptr[i] > 'z')
			return bad(reader, "format is lower-case letters");
	}
	reader->has_format = true;
	memcpy(reader->params->format, value.ptr, value.len);
	return PROBLEM_NONE;
}

/* Where people put tokens that do not belong there, and where logs would keep them. */
static bool is_credential(struct sv name)
{
	static const struct sv names[] = { SV_INIT("access_token"), SV_INIT("token"),
		SV_INIT("id_token"), SV_INIT("jwt"), SV_INIT("authorization"),
		SV_INIT("api_key"), SV_INIT("password") };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (sv_is_nocase(names[i], name))
			return true;
	}
	return false;
}

bool params_hold_credential(struct sv query)
{
	struct sv name, value;

	while (http_query_next(&query, &name, &value))
		if (is_credential(name))
			return true;
	return false;
}

static enum problem take_pair(struct reader *reader, struct sv name, struct sv value)
{
	if (is_credential(name))
		return PROBLEM_CREDENTIAL_PLACEMENT;
	if (sv_is(name, SV("seconds")))
		return take_seconds(reader, value);
	if (sv_is(name, SV("format")))
		return take_format(reader, value);
	if (sv_is(name, SV("last")))
		return take_last(reader, value);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (sv_is(name, numbers[i].name))
			return take_number(reader, &numbers[i], value);
	}
	return bad(reader, "a parameter is not one of ours");
}

static bool takes_parameters(const struct route *route)
{
	return route->kind == ROUTE_PPROF && route->profile != PROFILE_INDEX &&
	       route->profile != PROFILE_CMDLINE;
}

static enum problem read_query(struct reader *reader, struct sv query)
{
	struct sv rest = query, name, value;

	if (query.len > 0 && memchr(query.ptr, '%', query.len))
		return bad(reader, "nothing in a query is percent-encoded here");
	if (query.len > 0 && query.ptr[query.len - 1] == '&')
		return bad(reader, "a parameter is empty");
	while (http_query_next(&rest, &name, &value)) {
		enum problem problem = take_pair(reader, name, value);

		if (problem != PROBLEM_NONE)
			return problem;
	}
	if (query.len > 0 && !takes_parameters(reader->route))
		return bad(reader, "this path takes no parameters");
	return PROBLEM_NONE;
}

bool params_is_symbols(struct sv text)
{
	struct sv rest = text;

	while (rest.len > 0) {
		struct sv address = sv_cut(&rest, '+');

		if (sv_starts_with(address, SV("0x"))) {
			address.ptr += 2;
			address.len -= 2;
		}
		if (address.len == 0 || address.len > 16)
			return false;
		for (size_t i = 0; i < address.len; i++) {
			char c = address.ptr[i];

			if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ||
				    (c >= 'A' && c <= 'F')))
				return false;
		}
	}
	return text.len == 0 || text.ptr[text.len - 1] != '+';
}

static enum problem read_symbols(struct reader *reader, struct sv query)
{
	struct sv rest = query, name, value;

	/* The only query that is no list of parameters; a credential in it is still one. */
	while (http_query_next(&rest, &name, &value)) {
		if (is_credential(name))
			return PROBLEM_CREDENTIAL_PLACEMENT;
	}
	if (query.len > SYMBOLS_MAX || !params_is_symbols(query))
		return bad(reader, "symbol takes hexadecimal addresses joined by '+'");
	reader->params->symbols = query;
	return PROBLEM_NONE;
}

enum problem params_parse(const struct route *route, const struct http_request *request,
	uint32_t max_seconds, struct params *out, const char **detail)
{
	struct reader reader = { route, max_seconds, out, detail, false };
	enum problem problem;

	*out = (struct params){ 0 };
	*detail = NULL;
	problem = route->kind == ROUTE_PPROF && route->profile == PROFILE_SYMBOL
			  ? read_symbols(&reader, request->query)
			  : read_query(&reader, request->query);
	if (problem != PROBLEM_NONE)
		return problem;
	if (!out->has_seconds && out->last == 0)
		out->capture_ms = (uint64_t)route->default_seconds * 1000;
	if (out->capture_ms > (uint64_t)max_seconds * 1000)
		return bad(
			&reader, "the default length is over the limit: ask for fewer seconds");
	out->span_ms = out->last > 0 ? (uint64_t)out->last * 1000 : out->capture_ms;
	if (out->span_ms < out->capture_ms)
		out->span_ms = out->capture_ms;
	if (out->capture_ms > 0 && request->method == HTTP_HEAD)
		return PROBLEM_METHOD_NOT_ALLOWED;
	out->profiles = 1U << route->profile;
	if (route->profile == PROFILE_GOROUTINE && out->debug == 2)
		out->profiles |= 1U << PROFILE_GOROUTINE_FULL;
	if (out->gc == 1)
		out->profiles |= 1U << PROFILE_HEAP_GC;
	return PROBLEM_NONE;
}

static void add_number(struct buf *out, const char *name, uint64_t value)
{
	buf_printf(out, "%s%s=%llu", out->len > 0 ? "&" : "", name, (unsigned long long)value);
}

void params_write(const struct params *params, struct buf *out)
{
	const char *base = (const char *)params;
	char text[128];
	struct buf line;

	if (params->symbols.len > 0) {
		buf_add_sv(out, params->symbols);
		return;
	}
	buf_init_fixed(&line, text, sizeof(text));
	if (params->capture_ms > 0) {
		add_number(&line, "seconds", params->capture_ms / 1000);
		if (params->capture_ms % 1000)
			buf_printf(&line, ".%03u", (unsigned)(params->capture_ms % 1000));
	}
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		bool has;
		uint32_t value;

		memcpy(&has, base + numbers[i].has_offset, sizeof(has));
		memcpy(&value, base + numbers[i].offset, sizeof(value));
		if (has)
			add_number(&line, numbers[i].name.ptr, value);
	}
	if (params->last > 0)
		buf_printf(&line, "%slast=%us", line.len > 0 ? "&" : "", params->last);
	if (params->format[0] != '\0')
		buf_printf(&line, "%sformat=%s", line.len > 0 ? "&" : "", params->format);
	buf_add_sv(out, buf_sv(&line));
}
