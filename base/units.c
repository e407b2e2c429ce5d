#include "base/units.h"

#include <stddef.h>

#define DIGITS_MAX 18

struct unit {
	struct sv name;
	uint64_t factor;
};

static const struct unit bytes_units[] = {
	{ SV_INIT("B"), 1 },
	{ SV_INIT("KiB"), UINT64_C(1) << 10 },
	{ SV_INIT("MiB"), UINT64_C(1) << 20 },
	{ SV_INIT("GiB"), UINT64_C(1) << 30 },
	{ SV_INIT(""), 0 },
};

static const struct unit time_units[] = {
	{ SV_INIT("ns"), 1 },
	{ SV_INIT("us"), UINT64_C(1000) },
	{ SV_INIT("ms"), UINT64_C(1000000) },
	{ SV_INIT("s"), UINT64_C(1000000000) },
	{ SV_INIT("m"), UINT64_C(60000000000) },
	{ SV_INIT("h"), UINT64_C(3600000000000) },
	{ SV_INIT(""), 0 },
};

static bool parse(struct sv text, const struct unit *units, uint64_t *out)
{
	struct sv digits = { text.ptr, 0 }, unit;
	uint64_t number;

	while (digits.len < text.len && text.ptr[digits.len] >= '0' &&
		text.ptr[digits.len] <= '9')
		digits.len++;
	unit = (struct sv){ text.ptr + digits.len, text.len - digits.len };
	if (unit.len == 0 || !sv_to_u64(digits, UINT64_MAX, &number))
		return false;
	while (units->factor && !sv_is(unit, units->name))
		units++;
	return units->factor && !__builtin_mul_overflow(number, units->factor, out);
}

bool units_bytes(struct sv text, uint64_t *bytes)
{
	return parse(text, bytes_units, bytes);
}

bool units_duration(struct sv text, uint64_t *ns)
{
	return parse(text, time_units, ns);
}

/* Digits, which may have a point among them, taken off the front. */
static bool take_digits(struct sv *text, double *value)
{
	double scale = 1;
	bool has_point = false;
	size_t len = 0;

	for (*value = 0; text->len > 0; text->ptr++, text->len--) {
		if (*text->ptr == '.' && !has_point) {
			has_point = true;
			continue;
		}
		if (*text->ptr < '0' || *text->ptr > '9')
			break;
		if (++len > DIGITS_MAX)
			return false;
		*value = *value * 10 + (*text->ptr - '0');
		scale *= has_point ? 10 : 1;
	}
	*value /= scale;
	return len > 0;
}

static bool take_one_of(struct sv *text, char one, char other)
{
	if (text->len == 0 || (text->ptr[0] != one && text->ptr[0] != other))
		return false;
	text->ptr++;
	text->len--;
	return true;
}

bool units_decimal(struct sv text, double *value)
{
	double exponent;
	bool is_small;

	(void)take_one_of(&text, '+', '+');
	if (!take_digits(&text, value))
		return false;
	if (text.len == 0)
		return true;
	if (!take_one_of(&text, 'e', 'E'))
		return false;
	is_small = take_one_of(&text, '-', '-');
	if (!is_small)
		(void)take_one_of(&text, '+', '+');
	if (!take_digits(&text, &exponent) || text.len > 0 || exponent > DIGITS_MAX ||
		exponent != (double)(unsigned)exponent)
		return false;
	for (unsigned i = (unsigned)exponent; i > 0; i--)
		*value = is_small ? *value / 10 : *value * 10;
	return true;
}
