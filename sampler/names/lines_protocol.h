/*
 * lines_protocol.h - what the server thread and postern-lines say to each other, on a socket of
 * sequenced packets: a question is one packet, its answer one or more.
 *
 * Both ends are of one build on one machine, so numbers are as that machine has them; but the program
 * reads files that may be hostile, so what it answers is taken apart as if it were, too: every
 * length checked, every text printable, every index in order.
 *
 *   question  u32 magic, id, count; u16 path_len; path; then `count` times
 *             u64 address in the file's own address space; u16 name_len; name
 *             With it comes one descriptor: the file.  The name is what the file's symbol table has
 *             there, as it is; "" when it has none.
 *   answer    u32 magic, id, count, last; then `count` times
 *             u32 index of the question's address (rising through all packets); u8 lines_len; then
 *             `lines_len` times, innermost first, u32 line, start_line; u16 function_len,
 *             system_name_len, file_len; function; system_name; file
 */
#ifndef SAMPLER_LINES_PROTOCOL_H
#define SAMPLER_LINES_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/sv.h"

#define LINES_PACKET_MAX ((size_t)64 << 10)
#define LINES_TEXT_MAX   ((size_t)1024) /* longer names and paths are cut by who sends them */
#define LINES_CHAIN_MAX  16 /* frames at one address; the outermost is always there */

struct lines_question {
	uint32_t id, count;
	struct sv path; /* where the file's debug information is looked for */
	struct sv rest; /* private: the addresses */
};

struct lines_address {
	uint64_t address;
	struct sv name;
};

struct lines_answer {
	uint32_t id, count;
	bool last;
	struct sv rest; /* private */
};

/* One frame. */
struct lines_line {
	struct sv function, system_name; /* readable, and as in the symbol table; never "" */
	struct sv file;                  /* "": not known, and then both numbers are 0 */
	uint32_t line, start_line;       /* start_line 0: not known */
};

struct lines_record {
	uint32_t index;
	uint8_t lines_len; /* 0: nothing is known of this address */
	struct lines_line lines[LINES_CHAIN_MAX];
};

/* Begin a packet, add to it until that fails (it then holds what fitted). Control characters of an answer's
 * texts become "?". */
void lines_question_begin(struct buf *packet, uint32_t id, struct sv path);
bool lines_question_add(struct buf *packet, const struct lines_address *address);
void lines_answer_begin(struct buf *packet, uint32_t id);
bool lines_answer_add(struct buf *packet, const struct lines_record *record);
void lines_answer_end(struct buf *packet, bool last);

/* Take a packet apart; texts point into it. False: it makes no sense. */
bool lines_question_read(struct sv packet, struct lines_question *out);
bool lines_question_next(struct lines_question *question, struct lines_address *out);
bool lines_answer_read(struct sv packet, struct lines_answer *out);
/* The next record; an answer whose `count` records were read must have nothing left in `rest`. */
bool lines_answer_next(struct lines_answer *answer, struct lines_record *out);

#endif
