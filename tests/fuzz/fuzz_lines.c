/* Packets between libpostern and postern-lines, either way: what is taken apart lies inside the packet,
 * and what was understood says the same when it is written and read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/names/lines_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int fine)
{
	if (!fine)
		abort();
}

static void check_text(struct sv text, struct sv packet)
{
	check(text.len <= LINES_TEXT_MAX);
	check(text.ptr >= packet.ptr && text.ptr + text.len <= packet.ptr + packet.len);
	for (size_t i = 0; i < text.len; i++)
		check((unsigned char)text.ptr[i] >= 0x20 && text.ptr[i] != 0x7f);
}

static void check_again(const struct lines_record *record)
{
	static char bytes[4 * LINES_PACKET_MAX];
	struct lines_answer answer;
	struct lines_record again;
	struct buf packet;

	buf_init_fixed(&packet, bytes, sizeof(bytes));
	lines_answer_begin(&packet, 7);
	check(lines_answer_add(&packet, record));
	lines_answer_end(&packet, true);
	check(lines_answer_read(buf_sv(&packet), &answer) && answer.count == 1 && answer.last);
	check(lines_answer_next(&answer, &again) && answer.rest.len == 0);
	check(again.index == record->index && again.lines_len == record->lines_len);
	for (size_t i = 0; i < again.lines_len; i++) {
		check(sv_is(again.lines[i].function, record->lines[i].function));
		check(sv_is(again.lines[i].file, record->lines[i].file));
		check(again.lines[i].line == record->lines[i].line);
	}
}

static void read_answer(struct sv packet)
{
	struct lines_answer answer;
	struct lines_record record;

	if (!lines_answer_read(packet, &answer))
		return;
	for (uint32_t i = 0; i < answer.count; i++) {
		if (!lines_answer_next(&answer, &record))
			return;
		for (size_t k = 0; k < record.lines_len; k++) {
			check_text(record.lines[k].function, packet);
			check_text(record.lines[k].system_name, packet);
			check_text(record.lines[k].file, packet);
			check(record.lines[k].function.len > 0);
		}
		check_again(&record);
	}
}

static void read_question(struct sv packet)
{
	struct lines_question question;
	struct lines_address address;

	if (!lines_question_read(packet, &question))
		return;
	check_text(question.path, packet);
	for (uint32_t i = 0; i < question.count; i++) {
		if (!lines_question_next(&question, &address))
			return;
		check_text(address.name, packet);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv packet = { (const char *)data, size };

	read_answer(packet);
	read_question(packet);
	return 0;
}
