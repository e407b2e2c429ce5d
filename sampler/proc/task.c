#include "sampler/proc/task.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TASKS_MAX  ((size_t)65536)
#define FILE_BYTES 2048

/* Read a small file of a thread whole, ended by a NUL. Length, or 0. */
static size_t read_file(uint32_t tid, const char *name, char out[static FILE_BYTES])
{
	char path[64];
	struct buf text;
	ssize_t len;
	int file;

	buf_init_fixed(&text, path, sizeof(path));
	buf_add_cstr(&text, "/proc/self/task/");
	buf_add_u64(&text, tid);
	buf_add_byte(&text, '/');
	buf_add_cstr(&text, name);
	buf_add_byte(&text, '\0');
	out[0] = '\0';
	if (text.failed)
		return 0;
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return 0;
	len = read(file, out, FILE_BYTES - 1);
	(void)close(file);
	if (len <= 0)
		return 0;
	out[len] = '\0';
	return (size_t)len;
}

/* getdents64(2) by hand: opendir() would take memory from the program's heap. */
struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t len;
	uint8_t type;
	char name[];
};

static void take_entries(
	const char *bytes, size_t size, uint32_t self, uint32_t *tids, size_t *len)
{
	for (size_t at = 0; at < size;) {
		const char *name = bytes + at + offsetof(struct entry, name);
		uint16_t entry_len;
		uint64_t tid;

		memcpy(&entry_len, bytes + at + offsetof(struct entry, len), sizeof(entry_len));
		if (sv_to_u64(sv_from_cstr(name), UINT32_MAX, &tid) && tid != self &&
			*len < TASKS_MAX)
			tids[(*len)++] = (uint32_t)tid;
		at += entry_len;
	}
}

int task_list(struct arena *arena, uint32_t **tids, size_t *len)
{
	char bytes[4096];
	uint32_t self = (uint32_t)gettid();
	int folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long got;

	*len = 0;
	*tids = arena_alloc(arena, TASKS_MAX * sizeof(**tids));
	if (folder < 0)
		return -1;
	while (*tids && (got = syscall(SYS_getdents64, folder, bytes, sizeof(bytes))) > 0)
		take_entries(bytes, (size_t)got, self, *tids, len);
	(void)close(folder);
	return *tids ? 0 : -1;
}

void task_name(uint32_t tid, char out[static TASK_NAME_SIZE])
{
	char text[FILE_BYTES];
	struct sv rest = { text, read_file(tid, "comm", text) };
	struct sv name = sv_cut(&rest, '\n');

	if (!sv_to_cstr(name, out, TASK_NAME_SIZE))
		out[0] = '\0';
}

char task_state(uint32_t tid)
{
	char text[FILE_BYTES];
	const char *end;

	(void)read_file(tid, "stat", text);
	end = strrchr(text, ')'); /* the name may hold anything */
	return end && end[1] == ' ' ? end[2] : '\0';
}

bool task_blocks(uint32_t tid, int signal)
{
	static const char field[] = "\nSigBlk:\t";
	char text[FILE_BYTES];
	const char *at;

	(void)read_file(tid, "status", text);
	at = strstr(text, field);
	if (!at)
		return true;
	return strtoull(at + sizeof(field) - 1, NULL, 16) >> (signal - 1) & 1;
}

/* "NR ARG0 … ARG5 SP PC", "-1 SP PC", or "running" (proc(5)). */
bool task_place(uint32_t tid, struct task_place *out)
{
	char text[FILE_BYTES];
	uintptr_t words[16];
	size_t len = 0;
	char *at = text, *end;

	if (read_file(tid, "syscall", text) == 0 || text[0] == 'r')
		return false;
	out->call = strtol(at, &end, 10);
	while (end != at && len < 16) {
		at = end;
		words[len] = strtoull(at, &end, 16);
		len += end != at;
	}
	if (len < 2)
		return false;
	out->sp = words[len - 2];
	out->pc = words[len - 1];
	return out->pc != 0;
}
