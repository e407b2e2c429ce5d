#include "sampler/names/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/names/lines_protocol.h"
#include "sampler/proc/helper.h"

#define IDLE_NS       UINT64_C(60000000000)
#define STUCK_NS      UINT64_C(30000000000) /* with one question: then it is killed */
#define REAP_NS       UINT64_C(10000000)
#define STATUS_BYTES  4096
#define ADDRESSES_MAX 1024 /* in a question */

/* A question that is not wholly answered yet. */
struct pending {
	bool any;
	uint32_t id, count;
	uint32_t answered;     /* addresses of it that an answer has passed */
	struct lines_job *job; /* NULL: it was given up */
	uint64_t asked_ns;
};

static struct {
	const struct settings *settings;
	const char *forbidden; /* why it is not to be run at all; NULL: it is */
	struct helper helper;
	struct pending pending;
	struct lines_job *first; /* jobs that are not done, the first is being worked on */
	uint32_t last_id;
	uint64_t used_ns;
	char packet[LINES_PACKET_MAX];
} lines;

/* ---- may it be run? */

/* Under seccomp(2) a call like clone() may be punished. And a program in a chroot has other files. */
static const char *look_at_host(void)
{
	static const char field[] = "\nSeccomp:\t0\n";
	char text[STATUS_BYTES], root[2];
	int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t len = file < 0 ? -1 : read(file, text, sizeof(text) - 1);

	if (file >= 0)
		(void)close(file);
	if (len <= 0)
		return "/proc cannot be read";
	text[len] = '\0';
	if (!strstr(text, field))
		return "the process is confined by seccomp";
	if (readlink("/proc/self/root", root, sizeof(root)) != 1 || root[0] != '/')
		return "the process has a root folder of its own";
	return NULL;
}

static const char *look_at_program(const char *path)
{
	struct stat status;

	if (!path[0])
		return "postern-lines is not installed";
	if (stat(path, &status) || !S_ISREG(status.st_mode) || access(path, X_OK))
		return "postern-lines is not where it was";
	if (status.st_mode & S_IWOTH)
		return "everybody may write to postern-lines";
	return NULL;
}

static const char *start_program(void)
{
	const char *wrong = lines.forbidden;

	if (!wrong)
		wrong = look_at_host();
	if (!wrong)
		wrong = look_at_program(lines.settings->lines);
	if (!wrong)
		wrong = helper_start(
			&lines.helper, lines.settings->lines, lines.settings->debug_dir);
	return wrong;
}

void lines_start(const struct settings *settings)
{
	memset(&lines, 0, sizeof(lines));
	helper_forget(&lines.helper);
	lines.settings = settings;
	lines.forbidden = settings->lines_off ? "POSTERN_LINES is off" : NULL;
}

static void end_program(void)
{
	struct timespec pause = { .tv_nsec = 200000 };

	helper_kill(&lines.helper);
	lines.pending.any = false;
	/* It takes a moment. */
	for (unsigned i = 0; i < 10 && !helper_is_gone(&lines.helper); i++)
		(void)nanosleep(&pause, NULL);
}

void lines_stop(void)
{
	end_program();
}

/* ---- jobs */

static void finish(struct lines_job *job, const char *wrong)
{
	job->done = true;
	if (wrong)
		job->wrong = wrong;
}

static void finish_first(const char *wrong)
{
	struct lines_job *job = lines.first;

	lines.first = job->next;
	finish(job, wrong);
}

/* Put a question for the next addresses of one module into the packet; how many. */
static uint32_t write_question(struct lines_job *job, size_t module, struct buf *packet)
{
	struct sv path = sv_from_cstr(symbols_module(job->symbols, module)->path);
	uint32_t count = 0;

	if (path.len > LINES_TEXT_MAX)
		path.len = 0;
	lines_question_begin(packet, ++lines.last_id, path);
	while (job->at + count < job->len && count < ADDRESSES_MAX) {
		const struct asked *asked = job->asked[job->at + count];
		struct lines_address address = { .address = asked->in_file };

		if (asked->symbol.module != module)
			break;
		address.name = sv_from_cstr(asked->has_name ? asked->symbol.name : "");
		if (address.name.len > LINES_TEXT_MAX)
			address.name.len = 0;
		if (!lines_question_add(packet, &address))
			break;
		count++;
	}
	return count;
}

/* The file goes with it: what it is was looked at already, and the program needs no way to it. */
static bool send_question(struct sv packet, int file)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr aligned;
	} control = { { 0 } };

	/* NOLINTNEXTLINE(performance-no-int-to-ptr): takes the const away */
	struct iovec part = { (void *)(uintptr_t)packet.ptr, packet.len };
	struct msghdr message = { .msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &file, sizeof(file));
	return sendmsg(lines.helper.socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) ==
	       (ssize_t)packet.len;
}

/* Pass over the rest of a module that has no file any more. */
static void skip_module(struct lines_job *job, size_t module)
{
	while (job->at < job->len && job->asked[job->at]->symbol.module == module)
		job->at++;
}

/* False when the program has gone. */
static bool ask_next(struct lines_job *job, uint64_t now)
{
	size_t module = job->asked[job->at]->symbol.module;
	int file = symbols_open_file(job->symbols, module);
	struct buf packet;
	uint32_t count;
	bool sent;

	if (file < 0) {
		skip_module(job, module);
		return true;
	}
	buf_init_fixed(&packet, lines.packet, sizeof(lines.packet));
	count = write_question(job, module, &packet);
	sent = send_question(buf_sv(&packet), file);
	(void)close(file);
	if (sent)
		lines.pending = (struct pending){
			.any = true,
			.id = lines.last_id,
			.count = count,
			.job = job,
			.asked_ns = now,
		};
	return sent;
}

/* The program has gone, or must. A job that it was working on gets one more try: it may have ended
 * because it had read enough. */
static void fail(const char *wrong)
{
	end_program();
	if (!lines.first)
		return;
	if (lines.first->tried_again)
		finish_first(wrong);
	else
		lines.first->tried_again = true;
}

static void work(uint64_t now)
{
	while (lines.first && !lines.pending.any) {
		bool is_there = lines.helper.socket >= 0;
		const char *wrong;

		if (!is_there && !helper_is_gone(&lines.helper))
			break; /* the last one is being ended: soon */
		wrong = is_there ? NULL : start_program();
		if (wrong)
			finish_first(wrong);
		else if (lines.first->at == lines.first->len)
			finish_first(NULL);
		else if (!ask_next(lines.first, now))
			fail("postern-lines ended");
	}
	if (lines.first)
		lines.used_ns = now;
}

void lines_begin(struct lines_job *job, struct symbols *symbols, uint64_t now)
{
	struct lines_job **end = &lines.first;

	*job = (struct lines_job){ .symbols = symbols };
	job->asked = symbols_asked(symbols, &job->len);
	if (!job->asked || job->len == 0) {
		finish(job, job->asked ? NULL : "no memory");
		return;
	}
	while (*end)
		end = &(*end)->next;
	*end = job;
	lines.used_ns = now;
	work(now);
}

void lines_cancel(struct lines_job *job)
{
	struct lines_job **at = &lines.first;

	while (*at && *at != job)
		at = &(*at)->next;
	if (*at)
		*at = job->next;
	/* Its question goes on to be answered, for what is read then is kept for the next. */
	if (lines.pending.job == job)
		lines.pending.job = NULL;
}

void lines_end(struct lines_job *job)
{
	struct buf text;

	if (!job->done) {
		lines_cancel(job);
		finish(job, "they took too long; they may be there the next time");
	}
	if (!job->wrong || arena_buf(symbols_arena(job->symbols), 256, &text))
		return;
	buf_add_cstr(&text, "source lines: ");
	buf_add_cstr(&text, job->at > 0 ? "not for all: " : "none: ");
	buf_add_cstr(&text, job->wrong);
	buf_add_byte(&text, '\0');
	symbols_remark(job->symbols, text.ptr);
}

/* ---- answers */

static const char *copy(struct arena *arena, struct sv text)
{
	return text.len > 0 ? arena_strndup(arena, text.ptr, text.len) : NULL;
}

static void take_record(struct lines_job *job, const struct lines_record *record)
{
	struct asked *asked = job->asked[job->at + record->index];
	struct arena *arena = symbols_arena(job->symbols);
	struct symbol_line *to;

	if (record->lines_len == 0)
		return;
	to = arena_alloc(arena, record->lines_len * sizeof(*to));
	if (!to)
		return;
	for (size_t i = 0; i < record->lines_len; i++) {
		const struct lines_line *from = &record->lines[i];

		to[i] = (struct symbol_line){ .function = copy(arena, from->function),
			.system_name = copy(arena, from->system_name),
			.file = copy(arena, from->file),
			.line = from->line,
			.start_line = from->start_line };
		if (!to[i].function || !to[i].system_name)
			return;
	}
	asked->symbol.lines = to;
	asked->symbol.lines_len = record->lines_len;
}

/* False: it makes no sense. */
static bool take_answer(struct sv packet)
{
	struct pending *pending = &lines.pending;
	struct lines_answer answer;
	struct lines_record record;

	if (!pending->any || !lines_answer_read(packet, &answer) || answer.id != pending->id)
		return false;
	for (uint32_t i = 0; i < answer.count; i++) {
		if (!lines_answer_next(&answer, &record) || record.index < pending->answered ||
			record.index >= pending->count)
			return false;
		pending->answered = record.index + 1;
		if (pending->job)
			take_record(pending->job, &record);
	}
	if (answer.rest.len > 0)
		return false;
	if (answer.last) {
		if (pending->job)
			pending->job->at += pending->count;
		pending->any = false;
	}
	return true;
}

static void receive(uint64_t now)
{
	while (lines.helper.socket >= 0) {
		ssize_t got = recv(
			lines.helper.socket, lines.packet, sizeof(lines.packet), MSG_DONTWAIT);

		if (got < 0 && errno == EAGAIN)
			return;
		if (got <= 0)
			fail("postern-lines ended");
		else if (!take_answer((struct sv){ lines.packet, (size_t)got }))
			fail("postern-lines gave an answer that makes no sense");
		work(now);
	}
}

int lines_descriptor(void)
{
	return lines.helper.socket;
}

void lines_poll(uint64_t now)
{
	receive(now);
	if (lines.helper.socket < 0)
		(void)helper_is_gone(&lines.helper);
	else if (lines.pending.any && now >= lines.pending.asked_ns + STUCK_NS)
		fail("postern-lines does not answer");
	else if (!lines.pending.any && now >= lines.used_ns + IDLE_NS)
		end_program();
	work(now);
}

uint64_t lines_deadline(void)
{
	if (lines.helper.shared && lines.helper.socket < 0)
		return clock_mono_ns() + REAP_NS;
	if (lines.helper.socket < 0)
		return UINT64_MAX;
	return lines.pending.any ? lines.pending.asked_ns + STUCK_NS : lines.used_ns + IDLE_NS;
}
