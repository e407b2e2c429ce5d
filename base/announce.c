#include "base/announce.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define FILES_MAX 65536
#define WAIT_S    5

/* Cut `ending` off, if something stands before it. */
static bool cut(struct sv *file, struct sv ending)
{
	if (file->len <= ending.len ||
		!sv_is((struct sv){ file->ptr + file->len - ending.len, ending.len }, ending))
		return false;
	file->len -= ending.len;
	return true;
}

bool announce_parse(struct sv file, struct announced *out)
{
	uint64_t number;
	size_t dot;

	if (!cut(&file, SV(ANNOUNCE_ENDING)))
		return false;
	out->is_fork = cut(&file, SV(ANNOUNCE_FORK));
	dot = file.len;
	while (dot > 0 && file.ptr[dot - 1] != '.')
		dot--;
	/* A name of at least one byte, then the dot. */
	if (dot < 2 ||
		!sv_to_u64((struct sv){ file.ptr + dot, file.len - dot }, INT32_MAX, &number) ||
		number == 0)
		return false;
	out->name = (struct sv){ file.ptr, dot - 1 };
	out->pid = (uint32_t)number;
	return true;
}

static char written(char byte)
{
	bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
		     (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == '-';

	return plain ? byte : '_';
}

void announce_write(struct sv name, struct buf *out)
{
	for (size_t i = 0; i < name.len; i++)
		buf_add_byte(out, written(name.ptr[i]));
}

bool announce_is_name(struct sv file, struct sv name)
{
	if (file.len != name.len)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		if (file.ptr[i] != written(name.ptr[i]))
			return false;
	}
	return true;
}

/* Is there such a socket? Whose, says its file, which is not followed if it is a link. */
static bool look_at(const char *folder, struct sv file, struct announced *out)
{
	struct stat status;
	int len;

	if (!announce_parse(file, out))
		return false;
	len = snprintf(out->path, sizeof(out->path), "%s/" SV_FMT, folder, SV_ARG(file));
	if (len < 0 || (size_t)len >= sizeof(out->path) || lstat(out->path, &status) ||
		!S_ISSOCK(status.st_mode))
		return false;
	out->name.ptr = out->path + strlen(folder) + 1;
	out->uid = status.st_uid;
	return true;
}

typedef bool announce_take(void *arg, const struct announced *found);

static void list_folder(DIR *listing, const char *folder, announce_take *take, void *arg)
{
	const struct dirent *entry;
	struct announced found;

	/* NOLINTNEXTLINE(concurrency-mt-unsafe): this DIR is nobody else's */
	for (size_t i = 0; i < FILES_MAX && (entry = readdir(listing)); i++) {
		if (look_at(folder, sv_from_cstr(entry->d_name), &found) && !take(arg, &found))
			return;
	}
}

/* The last word of a line of /proc/net/unix, when it is the path of a file right in `folder`. */
static struct sv file_of_line(char *line, const char *folder)
{
	const char *path = strstr(line, " /");
	size_t len = strlen(folder);
	struct sv file;

	if (!path || strncmp(path + 1, folder, len) != 0 || path[1 + len] != '/')
		return SV("");
	file = sv_from_cstr(path + 1 + len + 1);
	while (file.len > 0 && file.ptr[file.len - 1] == '\n')
		file.len--;
	return memchr(file.ptr, '/', file.len) ? SV("") : file;
}

static int list_kernel(const char *folder, announce_take *take, void *arg)
{
	FILE *sockets = fopen("/proc/net/unix", "re");
	struct announced found;
	char line[512];

	if (!sockets)
		return -1;
	while (fgets(line, sizeof(line), sockets)) {
		/* Connected ones show the path, too; "00010000" are those that are listened on. */
		if (strstr(line, " 00010000 ") &&
			look_at(folder, file_of_line(line, folder), &found) &&
			!take(arg, &found))
			break;
	}
	(void)fclose(sockets);
	return 0;
}

int announce_list(const char *folder, announce_take *take, void *arg, struct err *err)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	DIR *listing = fd < 0 ? NULL : fdopendir(fd);

	if (listing) {
		list_folder(listing, folder, take, arg);
		(void)closedir(listing);
		return 0;
	}
	if (fd >= 0)
		(void)close(fd);
	else if (errno == EACCES && list_kernel(folder, take, arg) == 0)
		return 0;
	return err_sys(err, "%s", folder);
}

static int fail(int fd, int error)
{
	(void)close(fd);
	errno = error;
	return -1;
}

int announce_connect(const struct announced *found, bool nonblocking, uint32_t *pid)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct timeval wait = { .tv_sec = WAIT_S };
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int fd = socket(
		AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);

	if (fd < 0)
		return -1;
	memcpy(to.sun_path, found->path, sizeof(to.sun_path));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return fail(fd, errno);
	if (peer.uid != found->uid)
		return fail(fd, EPERM);
	*pid = (uint32_t)peer.pid;
	return fd;
}
