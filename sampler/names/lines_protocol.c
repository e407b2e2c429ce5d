#include "sampler/names/lines_protocol.h"

#include <string.h>

#define QUESTION_MAGIC 0x31514c50U /* "PLQ1" */
#define ANSWER_MAGIC   0x31414c50U /* "PLA1" */

struct question_head {
	uint32_t magic, id, count;
	uint16_t path_len;
} __attribute__((packed));

struct address_head {
	uint64_t address;
	uint16_t name_len;
} __attribute__((packed));

struct answer_head {
	uint32_t magic, id, count, last;
} __attribute__((packed));

struct record_head {
	uint32_t index;
	uint8_t lines_len;
} __attribute__((packed));

struct line_head {
	uint32_t line, start_line;
	uint16_t function_len, system_name_len, file_len;
} __attribute__((packed));

static bool cut(struct sv *rest, void *to, size_t len)
{
	if (rest->len < len)
		return false;
	memcpy(to, rest->ptr, len);
	rest->ptr += len;
	rest->len -= len;
	return true;
}

/* A text without control characters, so that it can stand in any profile. */
static bool cut_text(struct sv *rest, size_t len, struct sv *out)
{
	if (rest->len < len || len > LINES_TEXT_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)rest->ptr[i];

		if (c < 0x20 || c == 0x7f)
			return false;
	}
	*out = (struct sv){ rest->ptr, len };
	rest->ptr += len;
	rest->len -= len;
	return true;
}

/* All of it, or nothing. */
static bool is_added(struct buf *packet, size_t before)
{
	if (!packet->failed)
		return true;
	packet->failed = false;
	packet->len = before;
	return false;
}

void lines_question_begin(struct buf *packet, uint32_t id, struct sv path)
{
	struct question_head head = { QUESTION_MAGIC, id, 0, (uint16_t)path.len };

	buf_add(packet, &head, sizeof(head));
	buf_add_sv(packet, path);
}

static void count_one(struct buf *packet, size_t at)
{
	uint32_t count;

	memcpy(&count, packet->ptr + at, sizeof(count));
	count++;
	memcpy(packet->ptr + at, &count, sizeof(count));
}

bool lines_question_add(struct buf *packet, const struct lines_address *address)
{
	struct address_head head = { address->address, (uint16_t)address->name.len };
	size_t before = packet->len;

	buf_add(packet, &head, sizeof(head));
	buf_add_sv(packet, address->name);
	if (!is_added(packet, before))
		return false;
	count_one(packet, offsetof(struct question_head, count));
	return true;
}

/* What files hold is not always a text that can be read back. */
static void add_text(struct buf *packet, struct sv text)
{
	size_t at = packet->len;

	buf_add_sv(packet, text);
	for (; at < packet->len; at++) {
		unsigned char c = (unsigned char)packet->ptr[at];

		if (c < 0x20 || c == 0x7f)
			packet->ptr[at] = '?';
	}
}

void lines_answer_begin(struct buf *packet, uint32_t id)
{
	struct answer_head head = { ANSWER_MAGIC, id, 0, 0 };

	buf_add(packet, &head, sizeof(head));
}

bool lines_answer_add(struct buf *packet, const struct lines_record *record)
{
	struct record_head head = { record->index, record->lines_len };
	size_t before = packet->len;

	buf_add(packet, &head, sizeof(head));
	for (size_t i = 0; i < record->lines_len; i++) {
		const struct lines_line *line = &record->lines[i];
		struct line_head line_head = { line->line, line->start_line,
			(uint16_t)line->function.len, (uint16_t)line->system_name.len,
			(uint16_t)line->file.len };

		buf_add(packet, &line_head, sizeof(line_head));
		add_text(packet, line->function);
		add_text(packet, line->system_name);
		add_text(packet, line->file);
	}
	if (!is_added(packet, before))
		return false;
	count_one(packet, offsetof(struct answer_head, count));
	return true;
}

void lines_answer_end(struct buf *packet, bool last)
{
	uint32_t flag = last;

	memcpy(packet->ptr + offsetof(struct answer_head, last), &flag, sizeof(flag));
}

bool lines_question_read(struct sv packet, struct lines_question *out)
{
	struct question_head head;

	out->rest = packet;
	if (!cut(&out->rest, &head, sizeof(head)) || head.magic != QUESTION_MAGIC ||
		!cut_text(&out->rest, head.path_len, &out->path))
		return false;
	out->id = head.id;
	out->count = head.count;
	return true;
}

bool lines_question_next(struct lines_question *question, struct lines_address *out)
{
	struct address_head head;

	if (!cut(&question->rest, &head, sizeof(head)) ||
		!cut_text(&question->rest, head.name_len, &out->name))
		return false;
	out->address = head.address;
	return true;
}

bool lines_answer_read(struct sv packet, struct lines_answer *out)
{
	struct answer_head head;

	out->rest = packet;
	if (!cut(&out->rest, &head, sizeof(head)) || head.magic != ANSWER_MAGIC ||
		head.last > 1)
		return false;
	out->id = head.id;
	out->count = head.count;
	out->last = head.last == 1;
	return true;
}

static bool read_line(struct sv *rest, struct lines_line *out)
{
	struct line_head head;

	if (!cut(rest, &head, sizeof(head)) ||
		!cut_text(rest, head.function_len, &out->function) ||
		!cut_text(rest, head.system_name_len, &out->system_name) ||
		!cut_text(rest, head.file_len, &out->file))
		return false;
	out->line = head.line;
	out->start_line = head.start_line;
	if (out->file.len == 0 && (head.line != 0 || head.start_line != 0))
		return false;
	return out->function.len > 0 && out->system_name.len > 0 && head.line <= INT32_MAX &&
	       head.start_line <= INT32_MAX;
}

bool lines_answer_next(struct lines_answer *answer, struct lines_record *out)
{
	struct record_head head;

	if (!cut(&answer->rest, &head, sizeof(head)) || head.lines_len > LINES_CHAIN_MAX)
		return false;
	out->index = head.index;
	out->lines_len = head.lines_len;
	for (size_t i = 0; i < head.lines_len; i++) {
		if (!read_line(&answer->rest, &out->lines[i]))
			return false;
	}
	return true;
}
