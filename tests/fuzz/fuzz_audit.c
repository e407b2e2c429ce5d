/*
 * fuzz_audit.c - a record as the scribe gets it: what is accepted is the only spelling of itself,
 * makes one line, and the line verifies.
 */
#include <assert.h>
#include <stdlib.h>

#include "audit/chain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct sv message = { (const char *)data, size };
	struct audit_record record;
	struct audit_chain chain;
	struct buf out;
	struct err err;

	audit_chain_init(&chain, SV(""));
	(void)audit_chain_verify(&chain, message, &err);
	(void)audit_chain_resume(&chain, message, &err);
	if (audit_record_decode(message, &record, &err))
		return 0;
	buf_init(&out, AUDIT_LINE_MAX);
	audit_record_encode(&record, &out);
	assert(sv_is(buf_sv(&out), message));
	buf_clear(&out);
	audit_chain_init(&chain, SV("k"));
	if (audit_chain_append(&chain, &record, 0, &out, &err))
		abort();
	assert(!memchr(out.ptr, '\n', out.len - 1));
	audit_chain_init(&chain, SV("k"));
	if (audit_chain_verify(&chain, (struct sv){ out.ptr, out.len - 1 }, &err))
		abort();
	buf_free(&out);
	return 0;
}
