/*
 * fuzz_profile.c - any bytes as a profile: what is accepted has every index in range, and can be
 * counted and printed for every type.
 */
#include <assert.h>
#include <stdlib.h>

#include "profile/top.h"
#include "profile/units.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tables(const struct profile *profile)
{
	for (size_t i = 0; i < profile->samples_len; i++)
		for (size_t j = 0; j < profile->samples[i].locations_len; j++)
			assert(profile->samples[i].locations[j] < profile->locations_len);
	for (size_t i = 0; i < profile->locations_len; i++) {
		const struct profile_location *location = &profile->locations[i];

		assert(location->mapping == PROFILE_NONE ||
			location->mapping < profile->mappings_len);
		for (size_t j = 0; j < location->lines_len; j++)
			assert(location->lines[j].function == PROFILE_NONE ||
				location->lines[j].function < profile->functions_len);
	}
	assert(profile->default_type < profile->types_len);
}

static void check_top(const struct profile *profile, size_t type)
{
	char text[UNITS_TEXT_SIZE];
	struct top *top;
	struct err err;

	if (top_new(profile, type, 0, &top, &err))
		abort();
	assert(top->rows_len == top->kept);
	for (size_t i = 0; i < top->rows_len; i++) {
		units_format(top->rows[i].flat, top->unit, top->unit_shown, text);
		units_format(top->rows[i].cum, top->unit, SV("auto"), text);
		units_percent(top->rows[i].cum, top->total, text);
	}
	top_free(top);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct profile *profile;
	struct err err;

	if (profile_parse((struct sv){ (const char *)data, size }, &profile, &err))
		return 0;
	check_tables(profile);
	for (size_t i = 0; i < profile->types_len && i < 8; i++)
		check_top(profile, i);
	profile_free(profile);
	return 0;
}
