/* test_audit.c - records on the wire, lines of JSON, and the chain that shows what was done to them. */
#include "tests/unit/unit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "audit/chain.h"

#define LINES 5

static const struct audit_record whole = {
	.event = AUDIT_RECEIVED,
	.request_id = SV_INIT("0af1"),
	.client_address = SV_INIT("192.0.2.7"),
	.client_port = 4711,
	.method_of_identity = SV_INIT("both"),
	.subject = SV_INIT("alice"),
	.issuer = SV_INIT("https://login.test"),
	.token_id = SV_INIT("t-1"),
	.fingerprint = SV_INIT("ab12"),
	.san = SV_INIT("URI:spiffe://x/y"),
	.http_method = SV_INIT("GET"),
	.target = SV_INIT("vtp"),
	.path = SV_INIT("/debug/pprof/profile"),
	.params = SV_INIT("seconds=30"),
	.status = 200,
	.reason = SV_INIT("INC-1"),
	.detail = SV_INIT("all \"well\"\n\x01\xff"),
	.bytes = 1,
	.ms = INT64_MAX,
	.count = 3,
	.has_bytes = true,
	.has_ms = true,
	.has_count = true,
	.has_peer = true,
	.peer_uid = 1000,
	.peer_pid = 42,
	.peer_login_uid = 7,
	.until_ms_left = 900000,
};

/* ---- the wire form */

static void test_wire_round_trip(void **state)
{
	struct audit_record back;
	struct buf first, second;
	struct err err;

	(void)state;
	buf_init(&first, AUDIT_MESSAGE_MAX);
	buf_init(&second, AUDIT_MESSAGE_MAX);
	audit_record_encode(&whole, &first);
	assert_int_equal(audit_record_decode(buf_sv(&first), &back, &err), 0);
	assert_int_equal(back.event, AUDIT_RECEIVED);
	assert_true(sv_is(back.detail, whole.detail));
	assert_int_equal(back.ms, INT64_MAX);
	assert_true(back.has_peer && back.has_count);
	audit_record_encode(&back, &second);
	assert_true(sv_is(buf_sv(&first), buf_sv(&second)));
	buf_free(&first);
	buf_free(&second);
}

static void test_wire_refuses(void **state)
{
	struct audit_record back;
	struct buf message;
	struct err err;

	(void)state;
	buf_init(&message, AUDIT_MESSAGE_MAX);
	audit_record_encode(&whole, &message);
	for (size_t len = 0; len < message.len; len++) {
		struct sv cut = { message.ptr, len };

		assert_int_equal(audit_record_decode(cut, &back, &err), -1);
	}
	message.ptr[0] = 0;
	assert_int_equal(audit_record_decode(buf_sv(&message), &back, &err), -1);
	message.ptr[0] = AUDIT_EVENTS_LEN;
	assert_int_equal(audit_record_decode(buf_sv(&message), &back, &err), -1);
	message.ptr[0] = AUDIT_RECEIVED;
	message.ptr[1] = 16;
	assert_int_equal(audit_record_decode(buf_sv(&message), &back, &err), -1);
	message.ptr[1] = 15;
	assert_int_equal(audit_record_decode(buf_sv(&message), &back, &err), 0);
	buf_add_byte(&message, 'x');
	assert_int_equal(audit_record_decode(buf_sv(&message), &back, &err), -1);
	buf_free(&message);
}

static void test_long_text_is_cut(void **state)
{
	char text[2000];
	const struct audit_record record = { .event = AUDIT_REFUSED,
		.path = { text, sizeof(text) } };
	struct audit_record back;
	struct buf message;
	struct err err;

	(void)state;
	memset(text, 'a', sizeof(text));
	buf_init(&message, AUDIT_MESSAGE_MAX);
	audit_record_encode(&record, &message);
	assert_int_equal(audit_record_decode(buf_sv(&message), &back, &err), 0);
	assert_int_equal(back.path.len, AUDIT_TEXT_MAX);
	assert_memory_equal(back.path.ptr + AUDIT_TEXT_MAX - 4, "a...", 4);
	buf_free(&message);
}

/* ---- the line */

static void test_line(void **state)
{
	struct audit_chain chain;
	struct buf out;
	struct err err;
	json_t *line, *client, *identity;
	json_error_t why;

	(void)state;
	buf_init(&out, AUDIT_LINE_MAX);
	audit_chain_init(&chain, SV(""));
	assert_int_equal(audit_chain_append(&chain, &whole, 1700000000000000, &out, &err), 0);
	assert_int_equal(out.ptr[out.len - 1], '\n');
	assert_null(memchr(out.ptr, '\n', out.len - 1));
	line = json_loadb(out.ptr, out.len, JSON_REJECT_DUPLICATES, &why);
	assert_non_null(line);
	assert_int_equal(json_integer_value(json_object_get(line, "v")), 1);
	assert_int_equal(json_integer_value(json_object_get(line, "seq")), 1);
	assert_string_equal(
		json_string_value(json_object_get(line, "ts")), "2023-11-14T22:13:20.000000Z");
	assert_string_equal(json_string_value(json_object_get(line, "event")), "received");
	client = json_object_get(line, "client");
	assert_int_equal(json_integer_value(json_object_get(client, "port")), 4711);
	identity = json_object_get(line, "identity");
	assert_string_equal(json_string_value(json_object_get(identity, "jti")), "t-1");
	assert_string_equal(json_string_value(json_object_get(line, "hash")), chain.head.hash);
	json_decref(line);
	buf_free(&out);
}

/* Fields that do not apply are left out. */
static void test_least_line(void **state)
{
	const struct audit_record record = { .event = AUDIT_STARTED };
	struct audit_chain chain;
	struct buf out;
	struct err err;
	json_t *line;

	(void)state;
	buf_init(&out, AUDIT_LINE_MAX);
	audit_chain_init(&chain, SV(""));
	assert_int_equal(audit_chain_append(&chain, &record, 0, &out, &err), 0);
	line = json_loadb(out.ptr, out.len, 0, NULL);
	assert_int_equal(json_object_size(line), 6);
	json_decref(line);
	buf_free(&out);
}

/* Every byte of the longest texts escaped: it must still fit. */
static void test_largest_line_fits(void **state)
{
	char text[AUDIT_TEXT_MAX];
	const struct sv full = { text, sizeof(text) };
	struct audit_record record = whole;
	struct audit_chain chain;
	struct buf out;
	struct err err;

	(void)state;
	memset(text, 1, sizeof(text));
	record.request_id = record.client_address = record.method_of_identity = full;
	record.subject = record.issuer = record.token_id = record.fingerprint = record.san =
		full;
	record.http_method = record.target = record.path = record.params = full;
	record.reason = record.detail = full;
	buf_init(&out, AUDIT_LINE_MAX);
	audit_chain_init(&chain, SV(""));
	assert_int_equal(audit_chain_append(&chain, &record, 0, &out, &err), 0);
	buf_free(&out);
}

static void test_no_room(void **state)
{
	char mem[100];
	struct audit_chain chain;
	struct audit_head before;
	struct buf out;
	struct err err;

	(void)state;
	buf_init_fixed(&out, mem, sizeof(mem));
	audit_chain_init(&chain, SV(""));
	before = chain.head;
	assert_int_equal(audit_chain_append(&chain, &whole, 0, &out, &err), -1);
	assert_int_equal(out.len, 0);
	assert_memory_equal(&before, &chain.head, sizeof(before));
}

/* ---- the chain */

struct log {
	struct buf text;
	struct sv lines[LINES];
};

static void write_log(struct log *log, struct sv key)
{
	struct audit_chain chain;
	struct sv rest;
	struct err err;

	buf_init(&log->text, AUDIT_LINE_MAX);
	audit_chain_init(&chain, key);
	for (int i = 0; i < LINES; i++)
		assert_int_equal(
			audit_chain_append(&chain, &whole, 1000000 * i, &log->text, &err), 0);
	rest = buf_sv(&log->text);
	for (int i = 0; i < LINES; i++)
		log->lines[i] = sv_cut(&rest, '\n');
}

/* The first line (from 1) that does not verify, and why; 0 when all do. */
static int first_bad(const struct sv *lines, int len, struct sv key, struct err *err)
{
	struct audit_chain chain;

	audit_chain_init(&chain, key);
	for (int i = 0; i < len; i++)
		if (audit_chain_verify(&chain, lines[i], err))
			return i + 1;
	return 0;
}

static void test_chain_holds(void **state)
{
	static const struct sv keys[] = { SV_INIT(""), SV_INIT("0123456789abcdef") };
	struct err err = { 0 };
	struct log log;

	(void)state;
	for (size_t i = 0; i < COUNT(keys); i++) {
		write_log(&log, keys[i]);
		assert_int_equal(first_bad(log.lines, LINES, keys[i], &err), 0);
		assert_int_equal(first_bad(log.lines, LINES, keys[1 - i], &err), 1);
		assert_non_null(strstr(err.text, "key"));
		buf_free(&log.text);
	}
}

static void test_chain_shows_every_changed_byte(void **state)
{
	struct err err;
	struct log log;

	(void)state;
	write_log(&log, SV(""));
	for (size_t i = 0; i < log.lines[1].len; i++) {
		char *byte = log.text.ptr + (log.lines[1].ptr - log.text.ptr) + i;
		int bad;

		*byte ^= 1;
		bad = first_bad(log.lines, LINES, SV(""), &err);
		if (bad != 2)
			fail_msg("byte %zu: line %d", i, bad);
		*byte ^= 1;
	}
	buf_free(&log.text);
}

static void test_chain_shows_moved_lines(void **state)
{
	static const struct {
		const char *name, *said;
		int order[LINES], len, bad;
	} table[] = {
		{ "deleted in the middle", "seq is 4, 3 is due", { 0, 1, 3, 4 }, 4, 3 },
		{ "deleted at the front", "seq is 2, 1 is due", { 1, 2, 3, 4 }, 4, 1 },
		{ "swapped", "seq is 3, 2 is due", { 0, 2, 1, 3, 4 }, 5, 2 },
		{ "doubled", "seq is 1, 2 is due", { 0, 0, 1, 2, 3 }, 5, 2 },
	};
	struct log log;

	(void)state;
	write_log(&log, SV(""));
	for (size_t i = 0; i < COUNT(table); i++) {
		struct sv lines[LINES];
		struct err err;
		int bad;

		for (int j = 0; j < table[i].len; j++)
			lines[j] = log.lines[table[i].order[j]];
		bad = first_bad(lines, table[i].len, SV(""), &err);
		if (bad != table[i].bad || !strstr(err.text, table[i].said))
			fail_msg("%s: line %d, %s", table[i].name, bad, err.text);
	}
	buf_free(&log.text);
}

/* Somebody recomputes one line's hash: the next line shows it. */
static void test_chain_shows_a_rewritten_line(void **state)
{
	struct audit_record other = whole;
	struct audit_chain chain;
	struct buf forged;
	struct sv lines[3];
	struct log log;
	struct err err;

	(void)state;
	write_log(&log, SV(""));
	buf_init(&forged, AUDIT_LINE_MAX);
	audit_chain_init(&chain, SV(""));
	assert_int_equal(audit_chain_verify(&chain, log.lines[0], &err), 0);
	other.subject = SV("mallory");
	assert_int_equal(audit_chain_append(&chain, &other, 1000000, &forged, &err), 0);
	lines[0] = log.lines[0];
	lines[1] = (struct sv){ forged.ptr, forged.len - 1 };
	lines[2] = log.lines[2];
	assert_int_equal(first_bad(lines, 3, SV(""), &err), 3);
	assert_non_null(strstr(err.text, "the line before"));
	buf_free(&forged);
	buf_free(&log.text);
}

static void test_resume(void **state)
{
	struct audit_chain chain;
	struct buf more;
	struct log log;
	struct err err;

	(void)state;
	write_log(&log, SV(""));
	buf_init(&more, AUDIT_LINE_MAX);
	audit_chain_init(&chain, SV(""));
	assert_int_equal(audit_chain_resume(&chain, log.lines[LINES - 1], &err), 0);
	assert_int_equal(chain.head.seq, LINES);
	assert_int_equal(audit_chain_append(&chain, &whole, 0, &more, &err), 0);
	audit_chain_init(&chain, SV(""));
	for (int i = 0; i < LINES; i++)
		assert_int_equal(audit_chain_verify(&chain, log.lines[i], &err), 0);
	assert_int_equal(
		audit_chain_verify(&chain, (struct sv){ more.ptr, more.len - 1 }, &err), 0);
	log.text.ptr[log.text.len - 3] ^= 1;
	assert_int_equal(audit_chain_resume(&chain, log.lines[LINES - 1], &err), -1);
	buf_free(&more);
	buf_free(&log.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wire_round_trip),
		cmocka_unit_test(test_wire_refuses),
		cmocka_unit_test(test_long_text_is_cut),
		cmocka_unit_test(test_line),
		cmocka_unit_test(test_least_line),
		cmocka_unit_test(test_largest_line_fits),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_chain_holds),
		cmocka_unit_test(test_chain_shows_every_changed_byte),
		cmocka_unit_test(test_chain_shows_moved_lines),
		cmocka_unit_test(test_chain_shows_a_rewritten_line),
		cmocka_unit_test(test_resume),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
