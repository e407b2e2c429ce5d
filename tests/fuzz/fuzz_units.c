/*
 * Sizes, durations and numbers of settings and queries: what is taken begins as it must, and no number is
 * negative or not one.
 */
#include <assert.h>
#include <stdint.h>

#include "base/units.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv text = { (const char *)data, size };
	uint64_t number;
	double value;

	if (units_bytes(text, &number))
		assert(size > 1 && data[size - 1] == 'B');
	if (units_duration(text, &number))
		assert(data[0] >= '0' && data[0] <= '9');
	if (units_decimal(text, &value))
		assert(value >= 0 && value < 1e37);
	return 0;
}
