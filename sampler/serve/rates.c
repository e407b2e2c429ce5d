#include "sampler/serve/rates.h"

const char *const rate_names[RATES_LEN] = { "heap", "mutex", "block" };

struct unit {
	struct sv name;
	uint64_t factor;
};

/* The last of each list has no name. */
static const struct unit bytes[] = {
	{ SV_INIT("KiB"), UINT64_C(1) << 10 },
	{ SV_INIT("MiB"), UINT64_C(1) << 20 },
	{ SV_INIT("GiB"), UINT64_C(1) << 30 },
	{ SV_INIT("B"), 1 },
	{ SV_INIT(""), 1 },
};
static const struct unit durations[] = {
	{ SV_INIT("ns"), 1 },
	{ SV_INIT("us"), 1000 },
	{ SV_INIT("ms"), 1000000 },
	{ SV_INIT("s"), 1000000000 },
	{ SV_INIT(""), 1 },
};
static const struct unit none[] = { { SV_INIT(""), 1 } };

static const struct {
	const struct unit *units;
	const char *right; /* what would be */
} kinds[RATES_LEN] = {
	{ bytes, "\"heap\" is bytes, as \"512KiB\" or 524288; 0 is off" },
	{ none, "\"mutex\" is one in how many, as 1 or 100; 0 is off" },
	{ durations, "\"block\" is a duration, as \"1us\" or 1000 (ns); 0 is off" },
};

static void skip_space(struct sv *at)
{
	while (at->len > 0 &&
		(*at->ptr == ' ' || *at->ptr == '\t' || *at->ptr == '\n' || *at->ptr == '\r')) {
		at->ptr++;
		at->len--;
	}
}

/* The next byte that counts, when it is this one. */
static bool take(struct sv *at, char byte)
{
	skip_space(at);
	if (at->len == 0 || *at->ptr != byte)
		return false;
	at->ptr++;
	at->len--;
	return true;
}

/* A string of plain characters: none of ours needs an escape. */
static bool take_string(struct sv *at, struct sv *out)
{
	if (!take(at, '"'))
		return false;
	out->ptr = at->ptr;
	for (out->len = 0; out->len < at->len; out->len++) {
		char c = at->ptr[out->len];

		if (c == '"') {
			at->ptr += out->len + 1;
			at->len -= out->len + 1;
			return true;
		}
		if (c == '\\' || c < ' ' || c > '~')
			return false;
	}
	return false;
}

static bool take_number(struct sv *at, struct sv *out)
{
	skip_space(at);
	*out = (struct sv){ at->ptr, 0 };
	while (at->len > 0 && *at->ptr >= '0' && *at->ptr <= '9') {
		at->ptr++;
		at->len--;
		out->len++;
	}
	return out->len > 0;
}

static bool with_unit(struct sv text, const struct unit *units, uint64_t *out)
{
	while (units->name.len > 0) {
		size_t rest = text.len - units->name.len;

		if (text.len > units->name.len &&
			sv_is((struct sv){ text.ptr + rest, units->name.len }, units->name)) {
			text.len = rest;
			break;
		}
		units++;
	}
	return sv_to_u64(text, UINT64_MAX / units->factor, out) &&
	       !__builtin_mul_overflow(*out, units->factor, out);
}

static int take_member(struct sv *at, struct rates *out, struct err *err)
{
	struct sv name, text;
	size_t rate = 0;

	if (!take_string(at, &name) || !take(at, ':'))
		return err_set(err, ERR_INPUT,
			"the body must be JSON, as {\"heap\":\"512KiB\",\"mutex\":1}");
	while (rate < RATES_LEN && !sv_is(name, sv_from_cstr(rate_names[rate])))
		rate++;
	if (rate == RATES_LEN)
		return err_set(err, ERR_INPUT,
			"'" SV_FMT "' is not a rate: heap, mutex or block", SV_ARG(name));
	if (out->is_set[rate])
		return err_set(err, ERR_INPUT, "'%s' is there twice", rate_names[rate]);
	if (!(take_string(at, &text) || take_number(at, &text)) ||
		!with_unit(text, kinds[rate].units, &out->values[rate]))
		return err_set(err, ERR_INPUT, "%s", kinds[rate].right);
	out->is_set[rate] = true;
	return 0;
}

int rates_parse(struct sv json, struct rates *out, struct err *err)
{
	*out = (struct rates){ 0 };
	if (!take(&json, '{'))
		return err_set(err, ERR_INPUT,
			"the body must be JSON, as {\"heap\":\"512KiB\",\"mutex\":1}");
	if (!take(&json, '}')) {
		do {
			if (take_member(&json, out, err))
				return -1;
		} while (take(&json, ','));
		if (!take(&json, '}'))
			return err_set(err, ERR_INPUT, "the JSON object does not end");
	}
	skip_space(&json);
	if (json.len > 0)
		return err_set(err, ERR_INPUT, "something follows the JSON object");
	return 0;
}
