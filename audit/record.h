/*
 * record.h - one audit record: its fields, its wire form between processes, its line of JSON.
 *
 * A record is written by a worker or the keeper, travels as a flat message to the scribe, gets
 * sequence number, time and chain there, and ends as one line of JSON.  The scribe trusts nothing
 * in the message but its framing: audit_record_decode() checks every length, the JSON writer escapes
 * every byte.
 */
#ifndef AUDIT_RECORD_H
#define AUDIT_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sv.h"

enum audit_event {
	AUDIT_NO_EVENT = 0,
#define EVENT(name, text) AUDIT_##name,
#include "audit/events.def"
#undef EVENT
	AUDIT_EVENTS_LEN
};

const char *audit_event_name(enum audit_event event);

/* Fields that do not apply are empty (texts), or zero with their `has_` false. */
struct audit_record {
	enum audit_event event;
	struct sv request_id;
	struct sv client_address;
	uint16_t client_port;
	struct sv method_of_identity; /* "jwt", "mtls", "both" */
	struct sv subject, issuer, token_id, fingerprint, san;
	struct sv http_method, target, path, params;
	uint16_t status;  /* 0: left out */
	struct sv reason; /* slug of a refusal, or why access was opened */
	struct sv detail; /* for the operator: which check failed, errors of a reload */
	uint64_t bytes, ms, count;
	bool has_bytes, has_ms, has_count;
	bool has_peer; /* the admin plane's peer */
	uint32_t peer_uid, peer_pid, peer_login_uid;
	uint64_t until_ms_left; /* opened: time to live; 0: left out */
};

#define AUDIT_TEXT_MAX    512                /* a longer field is cut, and ends in "..." */
#define AUDIT_MESSAGE_MAX ((size_t)16 << 10) /* of the wire form */
#define AUDIT_LINE_MAX    ((size_t)64 << 10) /* of the JSON line: every byte may become six */

void audit_record_encode(const struct audit_record *record, struct buf *out);

/* The views in `out` point into `message`. -1 when it is not a whole, well-formed record. */
int audit_record_decode(struct sv message, struct audit_record *out, struct err *err);

#endif
