#include "conf/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX ((size_t)16 << 20)
#define FILES_MAX      ((uint32_t)256)

struct file {
	char *path;
	struct buf bytes; /* of a packed one: views into the packed message */
};

struct files {
	struct conf_files base;
	bool packed, unchecked;
	size_t len;
	struct file list[FILES_MAX];
};

static struct file *find(struct files *files, const char *path)
{
	for (size_t i = 0; i < files->len; i++) {
		if (strcmp(files->list[i].path, path) == 0)
			return &files->list[i];
	}
	return NULL;
}

static bool is_ours(const struct stat *status)
{
	return status->st_uid == 0 || status->st_uid == geteuid();
}

/* What others may write they may replace: the file, and the folder it really lies in. */
static int check_rights(const char *path, const struct stat *file, bool secret, struct err *err)
{
	char real[PATH_MAX];
	struct stat folder;

	if (!S_ISREG(file->st_mode))
		return err_set(err, ERR_INPUT, "%s: it is not a regular file", path);
	if (!is_ours(file))
		return err_set(err, ERR_INPUT,
			"%s: it belongs to user %u; it must belong to root or to the user that "
			"runs this",
			path, file->st_uid);
	if (file->st_mode & (S_IWGRP | S_IWOTH))
		return err_set(err, ERR_INPUT,
			"%s: others than its owner may write it (mode %04o): chmod go-w", path,
			file->st_mode & 07777);
	if (secret && file->st_mode & (S_IRWXG | S_IRWXO))
		return err_set(err, ERR_INPUT,
			"%s: it is a secret that others than its owner may read (mode %04o): "
			"chmod 600",
			path, file->st_mode & 07777);
	if (!realpath(path, real) || !strrchr(real, '/'))
		return err_sys(err, "%s", path);
	*strrchr(real, '/') = '\0';
	if (stat(real[0] ? real : "/", &folder))
		return err_sys(err, "%s", real);
	if (!is_ours(&folder) || folder.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(err, ERR_INPUT,
			"%s: others may change the folder that it lies in, %s (user %u, mode "
			"%04o)",
			path, real, folder.st_uid, folder.st_mode & 07777);
	return 0;
}

static int read_whole(int fd, const char *path, struct buf *out, struct err *err)
{
	for (;;) {
		char *room = buf_reserve(out, 65536);
		ssize_t got = room ? read(fd, room, 65536) : 0;

		if (!room)
			return err_set(err, ERR_INPUT, "%s: it is longer than %zu MiB", path,
				FILE_BYTES_MAX >> 20);
		if (got < 0)
			return err_sys(err, "%s", path);
		if (got == 0)
			return 0;
		buf_commit(out, (size_t)got);
	}
}

static int read_file(const struct files *files, const char *path, bool secret, struct buf *out,
	struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc = -1;
	struct stat status;

	if (fd < 0)
		return err_sys(err, "%s", path);
	if (fstat(fd, &status))
		(void)err_sys(err, "%s", path);
	else if (files->unchecked || check_rights(path, &status, secret, err) == 0)
		rc = read_whole(fd, path, out, err);
	(void)close(fd);
	return rc;
}

static int get_from_disk(struct conf_files *base, const char *path, bool secret,
	struct sv *bytes, struct err *err)
{
	struct files *files = (struct files *)(void *)base;
	struct file *file = find(files, path);

	/* A file that is used twice is read twice when only now its secrecy matters. */
	if (file && !secret) {
		*bytes = buf_sv(&file->bytes);
		return 0;
	}
	if (files->len == FILES_MAX)
		return err_set(err, ERR_INPUT, "%s: more than %u files", path, FILES_MAX);
	file = &files->list[files->len];
	buf_init(&file->bytes, FILE_BYTES_MAX + 65536);
	if (read_file(files, path, secret, &file->bytes, err)) {
		buf_free(&file->bytes);
		return -1;
	}
	file->path = strdup(path);
	if (!file->path) {
		buf_free(&file->bytes);
		return err_set(err, ERR_NOMEM, "%s: out of memory", path);
	}
	files->len++;
	*bytes = buf_sv(&file->bytes);
	return 0;
}

static int get_from_pack(struct conf_files *base, const char *path, bool secret,
	struct sv *bytes, struct err *err)
{
	struct file *file = find((struct files *)(void *)base, path);

	(void)secret; /* judged by who packed it */
	if (!file)
		return err_set(err, ERR_INPUT, "%s: it was not handed over", path);
	*bytes = buf_sv(&file->bytes);
	return 0;
}

struct conf_files *conf_files_disk(void)
{
	struct files *files = calloc(1, sizeof(*files));

	if (!files)
		return NULL;
	files->base.get = get_from_disk;
	return &files->base;
}

struct conf_files *conf_files_unchecked(void)
{
	struct conf_files *base = conf_files_disk();

	if (base)
		((struct files *)(void *)base)->unchecked = true;
	return base;
}

void conf_files_free(struct conf_files *files)
{
	struct files *all = (struct files *)(void *)files;

	for (size_t i = 0; all && i < all->len; i++) {
		if (!all->packed && all->list[i].bytes.ptr)
			explicit_bzero(all->list[i].bytes.ptr, all->list[i].bytes.len);
		buf_free(&all->list[i].bytes);
		free(all->list[i].path);
	}
	free(all);
}

/*
 * Packed: the number of entries, then for each the length of its path (32 bits), of its bytes (64
 * bits), the path, the bytes; all in this machine's order.  The first has no path: it is the text.
 */
static void pack_entry(struct buf *out, struct sv path, struct sv bytes)
{
	uint32_t path_len = (uint32_t)path.len;
	uint64_t bytes_len = bytes.len;

	buf_add(out, &path_len, sizeof(path_len));
	buf_add(out, &bytes_len, sizeof(bytes_len));
	buf_add_sv(out, path);
	buf_add_sv(out, bytes);
}

void conf_files_pack(struct conf_files *files, struct sv conf_text, struct buf *out)
{
	const struct files *all = (struct files *)(void *)files;
	uint32_t count = (uint32_t)all->len + 1;

	buf_add(out, &count, sizeof(count));
	pack_entry(out, (struct sv){ "", 0 }, conf_text);
	for (size_t i = 0; i < all->len; i++)
		pack_entry(out, sv_from_cstr(all->list[i].path), buf_sv(&all->list[i].bytes));
}

static bool take(struct sv *rest, void *out, size_t len)
{
	if (rest->len < len)
		return false;
	memcpy(out, rest->ptr, len);
	rest->ptr += len;
	rest->len -= len;
	return true;
}

static bool take_view(struct sv *rest, uint64_t len, struct sv *out)
{
	if (rest->len < len)
		return false;
	*out = (struct sv){ rest->ptr, (size_t)len };
	rest->ptr += len;
	rest->len -= len;
	return true;
}

static bool unpack_entry(struct sv *rest, char path[static PATH_MAX], struct sv *bytes)
{
	uint32_t path_len;
	uint64_t bytes_len;
	struct sv name;

	return take(rest, &path_len, sizeof(path_len)) &&
	       take(rest, &bytes_len, sizeof(bytes_len)) && take_view(rest, path_len, &name) &&
	       take_view(rest, bytes_len, bytes) && sv_to_cstr(name, path, PATH_MAX);
}

static bool unpack(struct files *files, struct sv rest, struct sv *conf_text)
{
	char path[PATH_MAX];
	uint32_t count;

	if (!take(&rest, &count, sizeof(count)) || count == 0 || count - 1 > FILES_MAX ||
		!unpack_entry(&rest, path, conf_text) || path[0])
		return false;
	for (uint32_t i = 1; i < count; i++) {
		struct file *file = &files->list[files->len];
		struct sv bytes;

		if (!unpack_entry(&rest, path, &bytes))
			return false;
		file->path = strdup(path);
		if (!file->path)
			return false;
		/* A fixed buffer of what is there already: never written, never freed. */
		file->bytes = (struct buf){ .ptr = (char *)(uintptr_t)bytes.ptr, /* NOLINT */
			.len = bytes.len,
			.cap = bytes.len,
			.max = bytes.len,
			.fixed = true };
		files->len++;
	}
	return rest.len == 0;
}

struct conf_files *conf_files_packed(struct sv packed, struct sv *conf_text, struct err *err)
{
	struct files *files = calloc(1, sizeof(*files));

	if (!files) {
		(void)err_set(err, ERR_NOMEM, "out of memory for the configuration's files");
		return NULL;
	}
	files->base.get = get_from_pack;
	files->base.judged = true;
	files->packed = true;
	if (!unpack(files, packed, conf_text)) {
		(void)err_set(err, ERR_INPUT, "the packed configuration is broken");
		conf_files_free(&files->base);
		return NULL;
	}
	return &files->base;
}
