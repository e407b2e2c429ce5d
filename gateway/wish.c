#include "gateway/wish.h"

#include <jansson.h>

/* "15m" and its like, as in the configuration. False unless it is a time above zero. */
static bool read_ttl(struct sv text, uint64_t *out_ms)
{
	static const struct {
		struct sv unit;
		uint64_t ms;
	} units[] = { { SV_INIT("ms"), 1 }, { SV_INIT("s"), 1000 }, { SV_INIT("m"), 60000 },
		{ SV_INIT("h"), 3600000 }, { SV_INIT("d"), 86400000 } };
	struct sv unit = text;
	uint64_t number;

	while (unit.len > 0 && unit.ptr[0] >= '0' && unit.ptr[0] <= '9') {
		unit.ptr++;
		unit.len--;
	}
	text.len -= unit.len;
	if (!sv_to_u64(text, UINT32_MAX, &number) || number == 0)
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (sv_is(unit, units[i].unit)) {
			*out_ms = number * units[i].ms;
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
	if (read_ttl(value, &out->ttl_ms))
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
