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
	struct sv file = { (const char *)data, size }, name;
	char mem[512];
	struct buf out;
	uint32_t pid;

	if (!announce_parse(file, &name, &pid))
		return 0;
	assert(pid > 0 && name.len > 0 && name.ptr == file.ptr);
	buf_init_fixed(&out, mem, sizeof(mem));
	announce_write(name, &out);
	if (out.failed)
		return 0;
	assert(announce_is_name(buf_sv(&out), name));
	buf_add_byte(&out, '.');
	buf_add_u64(&out, pid);
	buf_add_cstr(&out, ANNOUNCE_ENDING);
	assert(out.failed || out.len == size);
	return 0;
}
