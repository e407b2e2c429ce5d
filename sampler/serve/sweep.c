#include "sampler/serve/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/announce.h"
#include "base/buf.h"

#define FILES_MAX   4096
#define YOUNG_S     2 /* a socket is bound a moment before it is listened on */
#define FOLDER_SIZE 2048

/* getdents64(2) by hand: opendir() would take memory from the program's heap. */
struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t len;
	uint8_t type;
	char name[];
};

/* Refused: nobody listens there. Not asked of anything but a socket of our own user. */
static bool is_left(int folder, const struct settings *settings, const char *file)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timespec now;
	struct stat status;
	struct buf path;
	bool refused;
	int probe;

	if (fstatat(folder, file, &status, AT_SYMLINK_NOFOLLOW) || !S_ISSOCK(status.st_mode) ||
		status.st_uid != geteuid() || clock_gettime(CLOCK_REALTIME, &now) ||
		now.tv_sec - status.st_ctim.tv_sec < YOUNG_S)
		return false;
	buf_init_fixed(&path, address.sun_path, sizeof(address.sun_path) - 1);
	buf_add_cstr(&path, settings->runtime_dir);
	buf_add_byte(&path, '/');
	buf_add_cstr(&path, file);
	probe = path.failed ? -1
			    : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return false;
	refused = connect(probe, (const struct sockaddr *)&address, sizeof(address)) &&
		  errno == ECONNREFUSED;
	(void)close(probe);
	return refused;
}

/* Without /proc nobody is. Not kill(2): a filter of the program's may not like it. */
static bool is_gone(uint32_t pid)
{
	char path[32];
	struct stat status;
	struct buf text;

	buf_init_fixed(&text, path, sizeof(path));
	buf_add_cstr(&text, "/proc/");
	buf_add_u64(&text, pid);
	buf_add_byte(&text, '\0');
	return stat("/proc/self", &status) == 0 && stat(path, &status) && errno == ENOENT;
}

static void take(int folder, const struct settings *settings, const char *file)
{
	struct announced found;

	if (announce_parse(sv_from_cstr(file), &found) &&
		announce_is_name(found.name, sv_from_cstr(settings->name)) &&
		is_gone(found.pid) && is_left(folder, settings, file))
		(void)unlinkat(folder, file, 0);
}

void sweep_stale(const struct settings *settings)
{
	int folder = open(settings->runtime_dir,
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char bytes[FOLDER_SIZE];
	size_t files = 0;
	long got;

	while (folder >= 0 && files < FILES_MAX &&
		(got = syscall(SYS_getdents64, folder, bytes, sizeof(bytes))) > 0) {
		for (long at = 0; at < got; files++) {
			uint16_t len;

			memcpy(&len, bytes + at + offsetof(struct entry, len), sizeof(len));
			take(folder, settings, bytes + at + offsetof(struct entry, name));
			at += len;
		}
	}
	if (folder >= 0)
		(void)close(folder);
}
