#include "profile/units.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define ALIASES 3
#define COUNT   (sizeof(units) / sizeof(units[0]))

enum kind {
	KIND_TIME,
	KIND_MEMORY,
};

/* Ascending in each kind. */
static const struct unit {
	enum kind kind;
	const char *name;
	const char *aliases[ALIASES]; /* in the singular */
	double factor;
} units[] = {
	{ KIND_TIME, "ns", { "nanosecond" }, 1 },
	{ KIND_TIME, "us", { "microsecond" }, 1e3 },
	{ KIND_TIME, "ms", { "millisecond" }, 1e6 },
	{ KIND_TIME, "s", { "sec", "second" }, 1e9 },
	{ KIND_TIME, "hrs", { "hour", "hr" }, 3600e9 },
	{ KIND_MEMORY, "B", { "b", "byte" }, 1 },
	{ KIND_MEMORY, "kB", { "kb", "kbyte", "kilobyte" }, 1024.0 },
	{ KIND_MEMORY, "MB", { "mb", "mbyte", "megabyte" }, 1048576.0 },
	{ KIND_MEMORY, "GB", { "gb", "gbyte", "gigabyte" }, 1073741824.0 },
	{ KIND_MEMORY, "TB", { "tb", "tbyte", "terabyte" }, 1099511627776.0 },
	{ KIND_MEMORY, "PB", { "pb", "pbyte", "petabyte" }, 1125899906842624.0 },
};

static const struct unit *find(struct sv name)
{
	struct sv singular = name;

	if (name.len > 2 && name.ptr[name.len - 1] == 's')
		singular.len--;
	for (size_t i = 0; i < COUNT; i++) {
		if (sv_is(name, sv_from_cstr(units[i].name)))
			return &units[i];
		for (size_t j = 0; j < ALIASES && units[i].aliases[j]; j++)
			if (sv_is_nocase(singular, sv_from_cstr(units[i].aliases[j])))
				return &units[i];
	}
	return NULL;
}

/* The largest unit in which it is 1 or more; what is less than the smallest one (0) is left to the
 * kind's usual unit. */
static const struct unit *scale(int64_t value, const struct unit *from)
{
	double magnitude = fabs((double)value) * from->factor;
	const struct unit *best = NULL;

	for (size_t i = 0; i < COUNT; i++)
		if (units[i].kind == from->kind && magnitude / units[i].factor >= 1)
			best = &units[i];
	if (best)
		return best;
	return find(from->kind == KIND_TIME ? SV("s") : SV("B"));
}

struct sv units_choose(int64_t least, int64_t most, struct sv unit)
{
	const struct unit *from = find(unit), *low, *high;

	if (!from)
		return unit;
	low = scale(least, from);
	high = scale(most, from);
	/* Two decimals are shown: the least may be down to a hundredth. */
	if (low != high && (double)least * 100 < (double)most)
		low = scale(least > INT64_MAX / 100 ? INT64_MAX : least * 100, from);
	return sv_from_cstr(low->name);
}

static bool is_plain(struct sv unit)
{
	return sv_is(unit, SV("count")) || sv_is(unit, SV("sample")) ||
	       sv_is(unit, SV("unit")) || sv_is(unit, SV("auto"));
}

void units_format(
	int64_t value, struct sv unit, struct sv shown, char out[static UNITS_TEXT_SIZE])
{
	const struct unit *from = find(unit);
	double number = (double)value;
	size_t len;

	if (from) {
		const struct unit *to =
			sv_is(shown, SV("auto")) ? scale(value, from) : find(shown);

		number = number * from->factor / to->factor;
		shown = sv_from_cstr(to->name);
	} else if (is_plain(shown)) {
		shown = SV("");
	}
	(void)snprintf(out, UNITS_TEXT_SIZE, "%.2f", number);
	len = strlen(out);
	if (strcmp(out + len - 3, ".00") == 0)
		out[len -= 3] = '\0';
	if (strcmp(out, "0") == 0 || strcmp(out, "-0") == 0)
		(void)snprintf(out, UNITS_TEXT_SIZE, "0");
	else
		(void)snprintf(out + len, UNITS_TEXT_SIZE - len, SV_FMT,
			shown.len > 20 ? 20 : (int)shown.len, shown.ptr);
}

void units_percent(int64_t value, int64_t total, char out[static UNITS_TEXT_SIZE])
{
	double ratio = total ? fabs((double)value / (double)total) * 100 : 0;

	if (ratio >= 99.95 && ratio <= 100.05)
		(void)snprintf(out, UNITS_TEXT_SIZE, "  100%%");
	else
		(void)snprintf(out, UNITS_TEXT_SIZE, ratio >= 1 ? "%5.2f%%" : "%5.2g%%", ratio);
}
