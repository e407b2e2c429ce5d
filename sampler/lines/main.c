/*
 * postern-lines - source lines and inlined frames for libpostern, which runs it when it writes a
 * profile and talks to it on descriptor 0 (sampler/names/lines_protocol.h).  Not for use by hand.
 *
 * It is a program of its own so that no part of elfutils, and no file that elfutils stumbles over, is
 * ever in the profiled program.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sampler/lines/dwarf.h"
#include "sampler/lines/sandbox.h"
#include "sampler/names/lines_protocol.h"

#define SOCKET      0
#define DEBUG_FILES "/usr/lib/debug"

static char question_bytes[LINES_PACKET_MAX], answer_bytes[LINES_PACKET_MAX];

static bool send_packet(const struct buf *packet)
{
	ssize_t sent;

	do
		sent = send(SOCKET, packet->ptr, packet->len, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)packet->len;
}

/* The next question and the file that comes with it. False: there is nobody to ask any more. */
static bool receive(struct lines_question *question, int *file)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr aligned;
	} control = { { 0 } };

	struct iovec part = { question_bytes, sizeof(question_bytes) };
	struct msghdr message = { .msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	const struct cmsghdr *head;
	ssize_t got;

	do
		got = recvmsg(SOCKET, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	head = CMSG_FIRSTHDR(&message);
	if (got <= 0 || !head || head->cmsg_level != SOL_SOCKET ||
		head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(sizeof(int)))
		return false;
	memcpy(file, CMSG_DATA(head), sizeof(*file));
	return lines_question_read((struct sv){ question_bytes, (size_t)got }, question);
}

static bool answer_with(struct dwarf_file *file, struct lines_question *question)
{
	struct lines_record record = { 0 };
	struct lines_address address;
	char name[LINES_TEXT_MAX + 1];
	struct buf packet;

	buf_init_fixed(&packet, answer_bytes, sizeof(answer_bytes));
	lines_answer_begin(&packet, question->id);
	for (uint32_t i = 0; i < question->count; i++) {
		if (!lines_question_next(question, &address) ||
			!sv_to_cstr(address.name, name, sizeof(name)))
			return false;
		record.lines_len = 0;
		record.index = i;
		if (file)
			dwarf_find(file, address.address, name, &record);
		if (lines_answer_add(&packet, &record))
			continue;
		if (!send_packet(&packet))
			return false;
		buf_clear(&packet);
		lines_answer_begin(&packet, question->id);
		(void)lines_answer_add(&packet, &record); /* alone, it fits */
	}
	lines_answer_end(&packet, true);
	return send_packet(&packet);
}

/* What elfutils has read of files stays in memory: before it is too much, another process begins anew. */
static bool is_worn(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return mallinfo2().uordblks > SANDBOX_MEMORY_BYTES ||
	       usage.ru_utime.tv_sec + usage.ru_stime.tv_sec > SANDBOX_CPU_SECONDS;
}

/* Descriptors 1 and 2 shall be something: no file that is opened later may be taken for them. */
static void occupy_standard(void)
{
	int null = open("/dev/null", O_RDWR);

	while (null >= 0 && null <= STDERR_FILENO)
		null = open("/dev/null", O_RDWR);
	if (null > STDERR_FILENO)
		(void)close(null);
}

int main(int argc, char **argv)
{
	struct lines_question question;
	char path[LINES_TEXT_MAX + 1];
	struct stat status;
	int file = -1;

	if (fstat(SOCKET, &status) || !S_ISSOCK(status.st_mode)) {
		(void)fprintf(stderr, "postern-lines is run by libpostern only\n");
		return 2;
	}
	occupy_standard();
	dwarf_look_in(argc > 1 ? argv[1] : DEBUG_FILES);
	if (sandbox_enter())
		return 1;
	while (!is_worn() && receive(&question, &file)) {
		if (!sv_to_cstr(question.path, path, sizeof(path)) ||
			!answer_with(dwarf_open(file, path), &question))
			return 1;
	}
	return 0;
}
