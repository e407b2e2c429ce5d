#include "gateway/wish.h"

#include <jansson.h>

struct unit {
	struct sv name; /* the last of a list has NULL */
	uint64_t factor;
};

static const struct unit times[] = { { SV_INIT("ms"), 1 }, { SV_INIT("s"), 1000 },
	{ SV_INIT("m"), 60000 }, { SV_INIT("h"), 3600000 }, { SV_INIT("d"), 86400000 },
	{ { NULL, 0 }, 0 } };
static const struct unit short_times[] = { { SV_INIT("ns"), 1 }, { SV_INIT("us"), 1000 },
	{ SV_INIT("ms"), 1000000 }, { SV_INIT("s"), 1000000000 }, { { NULL, 0 }, 0 } };
static const struct unit sizes[] = { { SV_INIT("B"), 1 }, { SV_INIT("KiB"), 1 << 10 },
	{ SV_INIT("MiB"), 1 << 20 }, { SV_INIT("GiB"), 1 << 30 }, { { NULL, 0 }, 0 } };
static const struct unit none[] = { { { NULL, 0 }, 0 } };

/* "15m" and its like. */
static bool read_amount(struct sv text, const struct unit *units, uint64_t *out)
{
	struct sv unit = text;
	uint64_t number;

	while (unit.len > 0 && unit.ptr[0] >= '0' && unit.ptr[0] <= '9') {
		unit.ptr++;
		unit.len--;
	}
	text.len -= unit.len;
	if (!sv_to_u64(text, UINT32_MAX, &number))
		return false;
	for (; units->name.ptr; units++) {
		if (sv_is(unit, units->name)) {
			*out = number * units->factor;
			return true;
		}
	}
	return false;
}

static bool is_blank(struct sv text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (!strchr(" \t\r\n", text.ptr[i]))
			return false;
	}
	return true;
}

static const char *take_state(struct sv value, struct wish *out)
{
	out->is_open = sv_is(value, SV("open"));
	if (out->is_open || sv_is(value, SV("closed")))
		return NULL;
	return "state must be \"open\" or \"closed\"";
}

static const char *take_ttl(struct sv value, struct wish *out)
{
	out->has_ttl = true;
	if (read_amount(value, times, &out->ttl_ms) && out->ttl_ms > 0)
		return NULL;
	return "ttl must be a time above zero with its unit, as in \"15m\"";
}

static const char *take_reason(struct sv value, struct wish *out)
{
	if (is_blank(value))
		return NULL;
	if (sv_to_cstr(value, out->reason, sizeof(out->reason) - 3))
		return NULL;
	return "the reason is too long: 508 bytes at most";
}

static const struct {
	const char *name;
	const char *(*take)(struct sv value, struct wish *out);
} fields[] = {
	{ "state", take_state },
	{ "ttl", take_ttl },
	{ "reason", take_reason },
};

static const char *take_field(const char *name, const json_t *value, struct wish *out)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strcmp(name, fields[i].name) != 0)
			continue;
		if (!json_is_string(value))
			return "state, ttl and reason are strings";
		return fields[i].take(
			(struct sv){ json_string_value(value), json_string_length(value) },
			out);
	}
	return "the fields are state, ttl and reason, and there is no other";
}

const char *wish_parse(struct sv body, struct wish *out)
{
	json_error_t where;
	json_t *object =
		json_loadb(body.len ? body.ptr : "", body.len, JSON_REJECT_DUPLICATES, &where);
	const char *wrong = NULL, *name;
	json_t *value;

	*out = (struct wish){ .is_open = false };
	if (!json_is_object(object)) {
		json_decref(object);
		return "the body must be one JSON object";
	}
	json_object_foreach(object, name, value)
	{
		wrong = take_field(name, value, out);
		if (wrong)
			break;
	}
	if (!wrong && !json_object_get(object, "state"))
		wrong = "state is missing: \"open\" or \"closed\"";
	if (!wrong && !out->is_open && out->has_ttl)
		wrong = "ttl goes with state \"open\" only";
	json_decref(object);
	return wrong;
}

#define RATE_MAX INT64_C(1000000000000) /* of any of them; far more than makes sense */

static const struct rate {
	const char *name;
	const struct unit *units;
	uint64_t least;
	const char *right;
} rates[] = {
	{ "heap", sizes, 64 << 10, "heap is 0, or bytes from 64KiB on, as in \"512KiB\"" },
	{ "mutex", none, 1, "mutex is 0, or one in how many, as in 1 or 100" },
	{ "block", short_times, 1000, "block is 0, or a time from 1us on, as in \"1us\"" },
};

static const char *take_rate(const struct rate *rate, const json_t *value, struct buf *out)
{
	uint64_t number = 0;
	bool is_read;

	if (json_is_string(value))
		is_read = read_amount(
			(struct sv){ json_string_value(value), json_string_length(value) },
			rate->units, &number);
	else
		is_read = json_is_integer(value) && json_integer_value(value) >= 0 &&
			  json_integer_value(value) <= RATE_MAX;
	if (!json_is_string(value))
		number = (uint64_t)json_integer_value(value);
	if (!is_read || number > RATE_MAX || (number > 0 && number < rate->least))
		return rate->right;
	buf_printf(out, "%s\"%s\":%llu", out->len > 1 ? "," : "", rate->name,
		(unsigned long long)number);
	return NULL;
}

const char *wish_rates(struct sv body, struct buf *out)
{
	json_error_t where;
	json_t *object =
		json_loadb(body.len ? body.ptr : "", body.len, JSON_REJECT_DUPLICATES, &where);
	const char *wrong = NULL;
	size_t found = 0;

	buf_add_byte(out, '{');
	for (size_t i = 0; !wrong && i < sizeof(rates) / sizeof(rates[0]); i++) {
		const json_t *value = json_object_get(object, rates[i].name);

		if (!value)
			continue;
		found++;
		wrong = take_rate(&rates[i], value, out);
	}
	buf_add_byte(out, '}');
	if (!wrong && (found == 0 || found != json_object_size(object)))
		wrong = "the body must be one JSON object with heap, mutex or block, and no "
			"other "
			"field";
	json_decref(object);
	return wrong;
}
