/* Machine code from anywhere: nothing is read outside of it, and what is found keeps to its bounds. */
#include <stdint.h>
#include <stdlib.h>

#include "sampler/unwind/code.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int fine)
{
	if (!fine)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct code_frame whole = code_read_frame(data, size);
	uintptr_t target = 1, slot = 0;

	/* What stands later does not change what stood before. */
	for (size_t len = 0; len < size && len < 64; len++) {
		struct code_frame part = code_read_frame(data, len);

		check(!part.is_exact || part.size <= whole.size ||
			whole.size > (size_t)1 << 31);
		(void)code_sets_frame(data, size, len);
	}
	(void)code_is_dynamic(data, size);
	(void)code_popped(data, size);
	(void)code_is_marker(data, size);
	if (code_call_before(data, size, 0x1000, &target) != CODE_CALL_DIRECT)
		check(target == 0);
	check(!code_jump_slot(data, size, 0x1000, &slot) || size >= 6);
	return 0;
}
