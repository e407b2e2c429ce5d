#include "sampler/serve/endpoint.h"

#include <fcntl.h>
#include <unistd.h>

#define CMDLINE_MAX ((size_t)4 << 20)

/* The program's arguments, NUL between them and none at the end. */
static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	(void)capture;
	answer_text(question->arena, answer, CMDLINE_MAX);
	while (file >= 0 && answer->body.max > answer->body.len &&
		(got = read(file, answer->body.ptr + answer->body.len,
			 answer->body.max - answer->body.len)) > 0)
		answer->body.len += (size_t)got;
	if (file >= 0)
		(void)close(file);
	while (answer->body.len > 0 && answer->body.ptr[answer->body.len - 1] == '\0')
		answer->body.len--;
	return ENDPOINT_ANSWERED;
}

const struct endpoint endpoint_cmdline = {
	.name = "cmdline",
	.description = "The command line of this program",
	.ask = ask,
};
