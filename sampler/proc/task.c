#include "sampler/proc/task.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TASKS_MAX  ((size_t)65536)
#define FILE_BYTES 2048

int task_folder(void)
{
	return open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_file(int folder, uint32_t tid, const char *name)
{
	char path[64];
	struct buf text;

	buf_init_fixed(&text, path, sizeof(path));
	if (folder < 0)
		buf_add_cstr(&text, "/proc/self/task/");
	buf_add_u64(&text, tid);
	buf_add_byte(&text, '/');
	buf_add_cstr(&text, name);
	buf_add_byte(&text, '\0');
	return text.failed ? -1 : openat(folder, path, O_RDONLY | O_CLOEXEC);
}

/* Read a small file whole, ended by a NUL. Length, or 0. */
static size_t read_open(int file, char out[static FILE_BYTES])
{
	ssize_t len = file < 0 ? 0 : pread(file, out, FILE_BYTES - 1, 0);

	out[len > 0 ? len : 0] = '\0';
	return len > 0 ? (size_t)len : 0;
}

static size_t read_file(int folder, uint32_t tid, const char *name, char out[static FILE_BYTES])
{
	int file = open_file(folder, tid, name);
	size_t len = read_open(file, out);

	if (file >= 0)
		(void)close(file);
	return len;
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
	int folder = task_folder();
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
	struct sv rest = { text, read_file(-1, tid, "comm", text) };
	struct sv name = sv_cut(&rest, '\n');

	if (!sv_to_cstr(name, out, TASK_NAME_SIZE))
		out[0] = '\0';
}

char task_state(uint32_t tid)
{
	char text[FILE_BYTES];
	const char *end;

	(void)read_file(-1, tid, "stat", text);
	end = strrchr(text, ')'); /* the name may hold anything */
	return end && end[1] == ' ' ? end[2] : '\0';
}

bool task_blocks(uint32_t tid, int signal)
{
	static const char field[] = "\nSigBlk:\t";
	char text[FILE_BYTES];
	const char *at;

	(void)read_file(-1, tid, "status", text);
	at = strstr(text, field);
	if (!at || strstr(text, "\nSeccomp:\t1\n"))
		return true;
	return strtoull(at + sizeof(field) - 1, NULL, 16) >> (signal - 1) & 1;
}

/* "NR ARG0 … ARG5 SP PC", "-1 SP PC", or "running" (proc(5)). */
static bool read_place(int folder, uint32_t tid, struct task_look *out)
{
	char text[FILE_BYTES];
	uintptr_t words[16];
	size_t len = 0;
	char *at = text, *end;

	if (read_file(folder, tid, "syscall", text) == 0 || text[0] == 'r')
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

/* "CPU-TIME WAITING-TIME TIMES-ON-A-CPU" (the kernel's sched-stats.rst); where it is not built in,
 * status has the switches. */
static bool read_switches(int folder, uint32_t tid, int file, struct task_look *out)
{
	static const char field[] = "\nvoluntary_ctxt_switches:\t";
	char text[FILE_BYTES], *at = text;

	if (read_open(file, text)) {
		out->cpu_ns = strtoull(at, &at, 10);
		out->waited_ns = strtoull(at, &at, 10);
		out->switches = strtoull(at, NULL, 10);
		out->counted = true;
		return true;
	}
	(void)read_file(folder, tid, "status", text);
	at = strstr(text, field);
	if (at)
		out->switches = strtoull(at + sizeof(field) - 1, NULL, 10);
	return at != NULL;
}

bool task_look(int folder, uint32_t tid, struct task_look *out)
{
	*out = (struct task_look){ .call = -1, .file = open_file(folder, tid, "schedstat") };
	if (!read_switches(folder, tid, out->file, out)) {
		task_look_end(out);
		return false;
	}
	out->sleeps = read_place(folder, tid, out);
	return true;
}

bool task_look_holds(int folder, uint32_t tid, const struct task_look *look)
{
	struct task_look now;

	return read_switches(folder, tid, look->file, &now) && now.switches == look->switches;
}

bool task_look_counts(int folder, uint32_t tid, struct task_look *out)
{
	bool there;

	*out = (struct task_look){ .call = -1, .file = open_file(folder, tid, "schedstat") };
	there = read_switches(folder, tid, out->file, out);
	task_look_end(out);
	return there;
}

void task_look_end(struct task_look *look)
{
	if (look->file >= 0)
		(void)close(look->file);
	look->file = -1;
}

uint64_t task_last_run_ms(int folder, uint32_t tid)
{
	static const char field[] = "\nse.exec_start";
	char text[FILE_BYTES];
	const char *at;

	(void)read_file(folder, tid, "sched", text);
	at = strstr(text, field);
	at = at ? strchr(at, ':') : NULL;
	return at ? strtoull(at + 1, NULL, 10) : 0;
}
