#include "audit/chain.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "base/clock.h"
#include "base/encode.h"
#include "base/json.h"

#define HEX_LEN     ((size_t)2 * AUDIT_HASH_SIZE)
#define NO_LOGIN    UINT32_MAX /* what the kernel says of a process that nobody logged in for */
#define LINE_BEGIN  "{\"v\":1,\"seq\":"
#define PREV_BEGIN  ",\"prev\":\""
#define HASH_BEGIN  "\"hash\":\""
#define LINE_END    "\"}"
#define LEN(text)   (sizeof(text) - 1)
#define HASH_LEN    (LEN(HASH_BEGIN) + HEX_LEN + LEN(LINE_END))
#define CHAIN_LEN   (LEN(PREV_BEGIN) + HEX_LEN + LEN("\",") + HASH_LEN)
#define SEQ_MAX_LEN 20

void audit_chain_init(struct audit_chain *chain, struct sv key)
{
	*chain = (struct audit_chain){ .key = key };
	memset(chain->head.hash, '0', HEX_LEN);
}

/* ---- the record's JSON */

static void member(struct buf *out, const char *name, struct sv value)
{
	if (value.len > 0)
		json_member_string(out, name, value);
}

static void put_identity(struct buf *out, const struct audit_record *record)
{
	if (record->method_of_identity.len == 0)
		return;
	json_key(out, "identity");
	json_object_begin(out);
	member(out, "method", record->method_of_identity);
	member(out, "subject", record->subject);
	member(out, "issuer", record->issuer);
	member(out, "jti", record->token_id);
	member(out, "fingerprint", record->fingerprint);
	member(out, "san", record->san);
	json_object_end(out);
}

static void put_peer(struct buf *out, const struct audit_record *record)
{
	if (!record->has_peer)
		return;
	json_key(out, "peer");
	json_object_begin(out);
	json_member_u64(out, "uid", record->peer_uid);
	json_member_u64(out, "pid", record->peer_pid);
	if (record->peer_login_uid != NO_LOGIN)
		json_member_u64(out, "login_uid", record->peer_login_uid);
	json_object_end(out);
}

static void put_client(struct buf *out, const struct audit_record *record)
{
	if (record->client_address.len == 0)
		return;
	json_key(out, "client");
	json_object_begin(out);
	json_member_string(out, "address", record->client_address);
	if (record->client_port)
		json_member_u64(out, "port", record->client_port);
	json_object_end(out);
}

/* All but prev and hash; the object is left open. */
static void put_record(
	struct buf *out, const struct audit_record *record, uint64_t seq, int64_t unix_us)
{
	char ts[CLOCK_RFC3339_SIZE];

	clock_rfc3339(unix_us, ts);
	buf_add_cstr(out, LINE_BEGIN);
	buf_add_u64(out, seq);
	json_member_cstr(out, "ts", ts);
	json_member_cstr(out, "event", audit_event_name(record->event));
	member(out, "request_id", record->request_id);
	put_client(out, record);
	put_identity(out, record);
	put_peer(out, record);
	member(out, "method", record->http_method);
	member(out, "target", record->target);
	member(out, "path", record->path);
	member(out, "params", record->params);
	if (record->status)
		json_member_u64(out, "status", record->status);
	member(out, "reason", record->reason);
	member(out, "detail", record->detail);
	if (record->has_bytes)
		json_member_u64(out, "bytes", record->bytes);
	if (record->has_ms)
		json_member_u64(out, "ms", record->ms);
	if (record->has_count)
		json_member_u64(out, "count", record->count);
	if (record->until_ms_left)
		json_member_u64(out, "ttl_ms", record->until_ms_left);
}

/* ---- the chain */

static int hash_line(const struct audit_chain *chain, struct sv covered,
	char hex[static AUDIT_HASH_HEX_SIZE])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	bool good;

	if (chain->key.len > 0)
		good = chain->key.len <= INT32_MAX &&
		       HMAC(EVP_sha256(), chain->key.ptr, (int)chain->key.len,
			       (const unsigned char *)covered.ptr, covered.len, digest, &len);
	else
		good = EVP_Digest(covered.ptr, covered.len, digest, &len, EVP_sha256(), NULL);
	if (!good || len != AUDIT_HASH_SIZE)
		return -1;
	hex_encode(digest, AUDIT_HASH_SIZE, hex);
	return 0;
}

int audit_chain_append(struct audit_chain *chain, const struct audit_record *record,
	int64_t unix_us, struct buf *out, struct err *err)
{
	const size_t begin = out->len;
	char hex[AUDIT_HASH_HEX_SIZE];

	put_record(out, record, chain->head.seq + 1, unix_us);
	buf_add_cstr(out, PREV_BEGIN);
	buf_add(out, chain->head.hash, HEX_LEN);
	buf_add_cstr(out, "\",");
	if (!out->failed) {
		if (hash_line(chain, (struct sv){ out->ptr + begin, out->len - begin }, hex)) {
			out->len = begin;
			return err_set(err, ERR_SYSTEM, "audit: SHA-256 failed");
		}
		buf_add_cstr(out, HASH_BEGIN);
		buf_add(out, hex, HEX_LEN);
		buf_add_cstr(out, LINE_END "\n");
	}
	if (out->failed) {
		out->len = begin;
		return err_set(err, ERR_NOMEM, "audit: no room for a line");
	}
	chain->head.seq++;
	memcpy(chain->head.hash, hex, HEX_LEN);
	return 0;
}

/* ---- and back */

struct parts {
	uint64_t seq;
	struct sv prev, hash, covered;
};

static struct sv slice(struct sv line, size_t from, size_t len)
{
	return (struct sv){ line.ptr + from, len };
}

static bool is_hex(struct sv text)
{
	unsigned char bytes[AUDIT_HASH_SIZE];

	return hex_decode(text, bytes, sizeof(bytes));
}

/* A line is as put_record() and audit_chain_append() write it, or it is not ours. */
static bool split(struct sv line, struct parts *out)
{
	const size_t fixed = LEN(LINE_BEGIN) + 1 + CHAIN_LEN;
	struct sv rest, digits;
	size_t prev;

	if (line.len < fixed || !sv_starts_with(line, SV(LINE_BEGIN)))
		return false;
	rest = slice(line, LEN(LINE_BEGIN), line.len - LEN(LINE_BEGIN));
	digits = sv_cut(&rest, ',');
	if (digits.len > SEQ_MAX_LEN || !sv_to_u64(digits, UINT64_MAX, &out->seq))
		return false;
	prev = line.len - CHAIN_LEN;
	out->covered = slice(line, 0, line.len - HASH_LEN);
	out->prev = slice(line, prev + LEN(PREV_BEGIN), HEX_LEN);
	out->hash = slice(line, line.len - LEN(LINE_END) - HEX_LEN, HEX_LEN);
	return sv_is(slice(line, prev, LEN(PREV_BEGIN)), SV(PREV_BEGIN)) &&
	       sv_is(slice(line, line.len - HASH_LEN - 2, 2), SV("\",")) &&
	       sv_is(slice(line, line.len - HASH_LEN, LEN(HASH_BEGIN)), SV(HASH_BEGIN)) &&
	       sv_is(slice(line, line.len - LEN(LINE_END), LEN(LINE_END)), SV(LINE_END)) &&
	       is_hex(out->prev) && is_hex(out->hash);
}

/* False: `err` says what is wrong with the line by itself. */
static bool split_and_check(
	const struct audit_chain *chain, struct sv line, struct parts *parts, struct err *err)
{
	char hex[AUDIT_HASH_HEX_SIZE];

	if (!split(line, parts)) {
		(void)err_set(err, ERR_INPUT, "not a record of this log, or not whole");
		return false;
	}
	if (hash_line(chain, parts->covered, hex)) {
		(void)err_set(err, ERR_SYSTEM, "SHA-256 failed");
		return false;
	}
	if (CRYPTO_memcmp(hex, parts->hash.ptr, HEX_LEN) != 0) {
		(void)err_set(err, ERR_INPUT, "its hash does not fit: the line was changed%s",
			chain->key.len ? ", or this is not its key"
				       : ", or it was hashed with a key");
		return false;
	}
	return true;
}

static void move_head(struct audit_chain *chain, const struct parts *parts)
{
	chain->head.seq = parts->seq;
	memcpy(chain->head.hash, parts->hash.ptr, HEX_LEN);
	chain->head.hash[HEX_LEN] = '\0';
}

int audit_chain_verify(struct audit_chain *chain, struct sv line, struct err *err)
{
	struct parts parts = { 0 };

	if (!split_and_check(chain, line, &parts, err))
		return -1;
	if (parts.seq != chain->head.seq + 1)
		return err_set(err, ERR_INPUT,
			"seq is %" PRIu64 ", %" PRIu64
			" is due: lines are missing, doubled or out of order",
			parts.seq, chain->head.seq + 1);
	if (!sv_is(parts.prev, (struct sv){ chain->head.hash, HEX_LEN }))
		return err_set(err, ERR_INPUT,
			"prev is not the hash of the line before: that one was rewritten");
	move_head(chain, &parts);
	return 0;
}

int audit_chain_resume(struct audit_chain *chain, struct sv last_line, struct err *err)
{
	struct parts parts = { 0 };

	if (!split_and_check(chain, last_line, &parts, err))
		return -1;
	move_head(chain, &parts);
	return 0;
}
