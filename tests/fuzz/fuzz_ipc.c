/*
 * A packet from a process that was taken over: what is decoded encodes to the same bytes again.
 */
#include <assert.h>
#include <stdint.h>

#include "gateway/ipc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char storage[IPC_MESSAGE_MAX];
	struct sv bytes = { (const char *)data, size };
	struct ipc_message message;
	struct err err;
	struct buf out;

	if (ipc_decode(bytes, &message, &err))
		return 0;
	buf_init_fixed(&out, storage, sizeof(storage));
	ipc_encode(&message, &out);
	assert(!out.failed && sv_is(buf_sv(&out), bytes));
	return 0;
}
