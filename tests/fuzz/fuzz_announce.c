/*
 * File names in a runtime folder into which others may write: what is taken for a control socket's has its parts.
 */
#include <assert.h>
#include <stdint.h>

#include "base/announce.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv file = { (const char *)data, size };
	struct announced found;
	char mem[512];
	struct buf out;

	if (!announce_parse(file, &found))
		return 0;
	assert(found.pid > 0 && found.name.len > 0 && found.name.ptr == file.ptr);
	buf_init_fixed(&out, mem, sizeof(mem));
	announce_write(found.name, &out);
	if (out.failed)
		return 0;
	assert(announce_is_name(buf_sv(&out), found.name));
	buf_add_byte(&out, '.');
	buf_add_u64(&out, found.pid);
	if (found.is_fork)
		buf_add_cstr(&out, ANNOUNCE_FORK);
	buf_add_cstr(&out, ANNOUNCE_ENDING);
	assert(out.failed || out.len == size);
	return 0;
}
