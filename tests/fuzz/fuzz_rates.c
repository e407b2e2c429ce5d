/*
 * The body of POST /debug/pprof/rates: what is taken has no member twice, and what is refused says why.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "sampler/serve/rates.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv json = { (const char *)data, size };
	struct rates rates;
	struct err err = { 0 };

	if (rates_parse(json, &rates, &err)) {
		assert(err.kind == ERR_INPUT && err.text[0]);
		return 0;
	}
	for (size_t i = 0; i < RATES_LEN; i++)
		assert(rates.is_set[i] || rates.values[i] == 0);
	assert(memchr(data, '{', size) && memchr(data, '}', size));
	return 0;
}
