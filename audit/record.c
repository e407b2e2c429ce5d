#include "audit/record.h"

#include <string.h>

/*
 * The wire form: numbers of fixed size, little-endian, then every text as two bytes of length and
 * its bytes, in the order of this table. Both sides are of one binary; nothing is negotiated.
 */
#define TEXTS                    \
	TEXT(request_id)         \
	TEXT(client_address)     \
	TEXT(method_of_identity) \
	TEXT(subject)            \
	TEXT(issuer)             \
	TEXT(token_id)           \
	TEXT(fingerprint)        \
	TEXT(san)                \
	TEXT(http_method)        \
	TEXT(target)             \
	TEXT(path)               \
	TEXT(params)             \
	TEXT(reason)             \
	TEXT(detail)

static const size_t texts[] = {
#define TEXT(name) offsetof(struct audit_record, name),
	TEXTS
#undef TEXT
};

#define TEXTS_LEN (sizeof(texts) / sizeof(texts[0]))

enum {
	FLAG_BYTES = 1,
	FLAG_MS = 2,
	FLAG_COUNT = 4,
	FLAG_PEER = 8,
	FLAGS_ALL = 15,
};

const char *audit_event_name(enum audit_event event)
{
	static const char *const names[] = {
		[AUDIT_NO_EVENT] = "",
#define EVENT(name, text) [AUDIT_##name] = (text),
#include "audit/events.def"
#undef EVENT
	};

	return (unsigned)event < AUDIT_EVENTS_LEN ? names[event] : "";
}

static void put_number(struct buf *out, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		buf_add_byte(out, (char)(value >> (8 * i) & 0xff));
}

static void put_text(struct buf *out, struct sv text)
{
	static const struct sv dots = SV_INIT("...");
	bool is_cut = text.len > AUDIT_TEXT_MAX;
	size_t len = is_cut ? AUDIT_TEXT_MAX - dots.len : text.len;

	put_number(out, is_cut ? AUDIT_TEXT_MAX : len, 2);
	buf_add(out, text.ptr, len);
	if (is_cut)
		buf_add_sv(out, dots);
}

void audit_record_encode(const struct audit_record *record, struct buf *out)
{
	unsigned flags =
		(record->has_bytes ? FLAG_BYTES : 0U) | (record->has_ms ? FLAG_MS : 0U) |
		(record->has_count ? FLAG_COUNT : 0U) | (record->has_peer ? FLAG_PEER : 0U);

	put_number(out, record->event, 1);
	put_number(out, flags, 1);
	put_number(out, record->client_port, 2);
	put_number(out, record->status, 2);
	put_number(out, record->peer_uid, 4);
	put_number(out, record->peer_pid, 4);
	put_number(out, record->peer_login_uid, 4);
	put_number(out, record->bytes, 8);
	put_number(out, record->ms, 8);
	put_number(out, record->count, 8);
	put_number(out, record->until_ms_left, 8);
	for (size_t i = 0; i < TEXTS_LEN; i++)
		put_text(out,
			*(const struct sv *)(const void *)((const char *)record + texts[i]));
}

/* What is left of a message; `is_short` once more was asked for than there was. */
struct reader {
	struct sv rest;
	bool is_short;
};

static struct sv take_bytes(struct reader *reader, size_t len)
{
	struct sv bytes = { reader->rest.ptr, len };

	if (len > reader->rest.len) {
		reader->is_short = true;
		return (struct sv){ NULL, 0 };
	}
	reader->rest.ptr += len;
	reader->rest.len -= len;
	return bytes;
}

static uint64_t take_number(struct reader *reader, unsigned size)
{
	struct sv bytes = take_bytes(reader, size);
	uint64_t value = 0;

	for (size_t i = bytes.len; i-- > 0;)
		value = value << 8 | (unsigned char)bytes.ptr[i];
	return value;
}

int audit_record_decode(struct sv message, struct audit_record *out, struct err *err)
{
	struct reader reader = { .rest = message };
	uint64_t event = take_number(&reader, 1), flags = take_number(&reader, 1);

	*out = (struct audit_record){ 0 };
	out->client_port = (uint16_t)take_number(&reader, 2);
	out->status = (uint16_t)take_number(&reader, 2);
	out->peer_uid = (uint32_t)take_number(&reader, 4);
	out->peer_pid = (uint32_t)take_number(&reader, 4);
	out->peer_login_uid = (uint32_t)take_number(&reader, 4);
	out->bytes = take_number(&reader, 8);
	out->ms = take_number(&reader, 8);
	out->count = take_number(&reader, 8);
	out->until_ms_left = take_number(&reader, 8);
	for (size_t i = 0; i < TEXTS_LEN; i++) {
		size_t len = (size_t)take_number(&reader, 2);

		if (len > AUDIT_TEXT_MAX)
			return err_set(err, ERR_PEER, "audit record: a text of %zu bytes", len);
		*(struct sv *)(void *)((char *)out + texts[i]) = take_bytes(&reader, len);
	}
	if (reader.is_short || reader.rest.len > 0)
		return err_set(err, ERR_PEER, "audit record: %zu bytes are not one record",
			message.len);
	if (event == AUDIT_NO_EVENT || event >= AUDIT_EVENTS_LEN || flags > FLAGS_ALL)
		return err_set(err, ERR_PEER, "audit record: unknown event %u or flags %u",
			(unsigned)event, (unsigned)flags);
	out->event = (enum audit_event)event;
	out->has_bytes = flags & FLAG_BYTES;
	out->has_ms = flags & FLAG_MS;
	out->has_count = flags & FLAG_COUNT;
	out->has_peer = flags & FLAG_PEER;
	return 0;
}
