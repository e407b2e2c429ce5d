#include "sampler/proc/process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sv.h"

#define FILE_BYTES ((size_t)16 << 10)

static struct sv read_file(struct arena *arena, const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct buf text = { 0 };

	if (file < 0)
		return SV("");
	if (arena_buf(arena, FILE_BYTES, &text) == 0) {
		ssize_t got;

		while (text.len < text.max &&
			(got = read(file, text.ptr + text.len, text.max - text.len)) > 0)
			text.len += (size_t)got;
	}
	(void)close(file);
	return buf_sv(&text);
}

/* "VmRSS:	    1234 kB" */
static uint64_t status_field(struct sv status, struct sv name)
{
	uint64_t value;

	while (status.len > 0) {
		struct sv line = sv_cut(&status, '\n'), words;

		if (!sv_starts_with(line, name))
			continue;
		words = sv_trim((struct sv){ line.ptr + name.len, line.len - name.len });
		return sv_to_u64(sv_cut(&words, ' '), UINT64_MAX, &value) ? value : 0;
	}
	return 0;
}

/* Field 22 of stat, counted after the name, which may hold anything. */
static uint64_t start_ticks(struct sv stat)
{
	size_t at = stat.len;
	uint64_t value;
	struct sv rest;

	while (at > 0 && stat.ptr[at - 1] != ')')
		at--;
	rest = (struct sv){ stat.ptr + at, stat.len - at };
	for (unsigned i = 0; i < 20; i++)
		(void)sv_cut(&rest, ' ');
	return sv_to_u64(sv_cut(&rest, ' '), UINT64_MAX, &value) ? value : 0;
}

/* Entries of a folder of /proc, counted by hand: opendir() would take memory from the program's heap. A
 * record of getdents64(2) has its length at byte 16. */
static uint64_t count_files(void)
{
	int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t count = 0;
	char bytes[4096];
	long got;

	while (folder >= 0 &&
		(got = syscall(SYS_getdents64, folder, bytes, sizeof(bytes))) > 0) {
		for (long at = 0; at < got; count++) {
			uint16_t len;

			memcpy(&len, bytes + at + 16, sizeof(len));
			at += len;
		}
	}
	if (folder >= 0)
		(void)close(folder);
	return count > 2 ? count - 2 : 0; /* "." and ".." */
}

static uint64_t limit(__rlimit_resource_t resource)
{
	struct rlimit limits;

	if (getrlimit(resource, &limits))
		return 0;
	return limits.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limits.rlim_cur;
}

void process_read(struct arena *arena, struct process_state *out)
{
	struct sv status = read_file(arena, "/proc/self/status");
	struct sv stat = read_file(arena, "/proc/self/stat");
	struct timespec cpu = { 0 };
	uint64_t ticks = start_ticks(stat), hz = (uint64_t)sysconf(_SC_CLK_TCK);

	memset(out, 0, sizeof(*out));
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	out->cpu_ns = (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec;
	out->virtual_bytes = status_field(status, SV("VmSize:")) * 1024;
	out->resident_bytes = status_field(status, SV("VmRSS:")) * 1024;
	out->resident_peak_bytes = status_field(status, SV("VmHWM:")) * 1024;
	out->resident_anonymous_bytes = status_field(status, SV("RssAnon:")) * 1024;
	out->resident_file_bytes = status_field(status, SV("RssFile:")) * 1024;
	out->threads = status_field(status, SV("Threads:"));
	out->max_fds = limit(RLIMIT_NOFILE);
	out->max_virtual_bytes = limit(RLIMIT_AS);
	out->open_fds = count_files();
	/* Since boot, so from now back. */
	if (ticks > 0 && hz > 0)
		out->start_unix_ns = (uint64_t)clock_unix_us() * 1000 -
				     (clock_boot_ms() * 1000000 - ticks * (1000000000 / hz));
}

/* "SigQ:	USED/LIMIT" of status. */
size_t process_spare_timers(void)
{
	static const char field[] = "\nSigQ:\t";
	char text[4096];
	int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t len = file < 0 ? 0 : read(file, text, sizeof(text) - 1);
	unsigned long long used, limit;
	char *at;

	if (file >= 0)
		(void)close(file);
	text[len > 0 ? len : 0] = '\0';
	at = strstr(text, field);
	if (!at)
		return 0;
	used = strtoull(at + sizeof(field) - 1, &at, 10);
	limit = *at == '/' ? strtoull(at + 1, NULL, 10) : 0;
	return used < limit ? (size_t)(limit - used) / 2 : 0;
}
