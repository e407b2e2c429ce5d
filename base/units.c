#include "base/units.h"

#include <stddef.h>

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
