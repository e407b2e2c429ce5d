/*
 * The keeper's files: the audit log itself (found, locked, rotated, given up), and beside it the head of
 * its chain.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/encode.h"
#include "gateway/audit_file.h"
#include "gateway/keeper.h"
#include "gateway/log.h"

#define HEAD_FILE    "audit-head"
#define LOCK_WAIT_MS 3000
#define PATH_BYTES   4096

static int head_path(
	const struct keeper *keeper, const char *suffix, char out[static PATH_BYTES])
{
	int len = snprintf(out, PATH_BYTES, "%s/" HEAD_FILE "%s",
		keeper->conf->gateway.runtime_dir, suffix);

	return len > 0 && len < PATH_BYTES ? 0 : -1;
}

/* "SEQ HASH FILE": what a cut or rewritten log is measured against at the next start. */
static void load_head(struct keeper *keeper)
{
	char path[PATH_BYTES], text[PATH_BYTES + 128];
	struct sv rest, seq, hash;
	unsigned char digest[AUDIT_HASH_SIZE];
	uint64_t number;
	ssize_t got;
	int fd;

	memset(keeper->head.hash, '0', AUDIT_HASH_HEX_SIZE - 1);
	if (head_path(keeper, "", path))
		return;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	got = read(fd, text, sizeof(text));
	(void)close(fd);
	rest = (struct sv){ text, got > 0 ? (size_t)got : 0 };
	rest = sv_cut(&rest, '\n');
	seq = sv_cut(&rest, ' ');
	hash = sv_cut(&rest, ' ');
	if (!sv_to_u64(seq, UINT64_MAX, &number) || !hex_decode(hash, digest, sizeof(digest))) {
		log_warning("%s is not what was written there, and is not used", path);
		return;
	}
	if (!sv_is(rest, sv_from_cstr(keeper->conf->audit.file)))
		return; /* of another log */
	keeper->head.seq = number;
	memcpy(keeper->head.hash, hash.ptr, hash.len);
}

void audit_save_head(struct keeper *keeper)
{
	char path[PATH_BYTES], temporary[PATH_BYTES];
	FILE *file;
	int fd;

	if (keeper->is_head_saved || head_path(keeper, "", path) ||
		head_path(keeper, ".new", temporary))
		return;
	keeper->is_head_saved = true;
	(void)unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file) {
		log_warning("the head of the audit chain cannot be kept in %s (errno %d)",
			temporary, errno);
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	(void)fprintf(file, "%llu %s %s\n", (unsigned long long)keeper->head.seq,
		keeper->head.hash, keeper->conf->audit.file);
	if (fclose(file) || rename(temporary, path))
		log_warning("the head of the audit chain cannot be kept in %s (errno %d)", path,
			errno);
}

static int open_folder(const char *file, struct err *err)
{
	const char *slash = strrchr(file, '/');
	char folder[PATH_BYTES];
	int fd;

	if (!sv_to_cstr((struct sv){ file, slash ? (size_t)(slash - file) : 0 }, folder,
		    sizeof(folder)))
		return err_set(err, ERR_INPUT, "audit.file: the path is too long");
	fd = open(slash ? (slash == file ? "/" : folder) : ".",
		O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, "audit.file: the folder of %s", file);
	return fd;
}

/* A scribe whose keeper was killed may still be writing its last records. */
static int open_file(const char *path, struct err *err)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	uint64_t until_ms = clock_boot_ms() + LOCK_WAIT_MS;
	int fd = audit_file_open(path, err);

	while (fd < 0 && err->kind == ERR_DENIED && clock_boot_ms() < until_ms) {
		(void)nanosleep(&pause, NULL);
		fd = audit_file_open(path, err);
	}
	return fd;
}

int audit_open(struct keeper *keeper, struct err *err)
{
	const char *folder = keeper->conf->gateway.runtime_dir;

	if (mkdir(folder, 0755) && errno != EEXIST)
		return err_sys(err, "gateway.runtime_dir %s", folder);
	load_head(keeper);
	keeper->is_head_saved = true;
	keeper->audit_folder = open_folder(keeper->conf->audit.file, err);
	if (keeper->audit_folder < 0)
		return -1;
	keeper->audit_fd = open_file(keeper->conf->audit.file, err);
	return keeper->audit_fd < 0 ? -1 : 0;
}

/* The file of that name is the one that we have. */
static bool is_ours(const struct keeper *keeper)
{
	struct stat mine, named;

	return fstat(keeper->audit_fd, &mine) == 0 &&
	       lstat(keeper->conf->audit.file, &named) == 0 && mine.st_dev == named.st_dev &&
	       mine.st_ino == named.st_ino;
}

/* Have the scribe go on in that file, and every later one. Takes `fd`. */
static void go_on_in(struct keeper *keeper, int fd)
{
	struct ipc_message message = { .type = IPC_REOPEN, .fd = fd };
	struct err err;

	if (keeper->scribe && !keeper->is_scribe_leaving &&
		ipc_send(keeper->scribe->control, &message, &err))
		audit_kill_scribe(keeper);
	(void)close(keeper->audit_fd);
	keeper->audit_fd = fd;
}

int audit_reopen(struct keeper *keeper, struct err *err)
{
	int fd, folder;

	if (is_ours(keeper))
		return 0;
	folder = open_folder(keeper->conf->audit.file, err);
	fd = folder < 0 ? -1 : audit_file_open(keeper->conf->audit.file, err);
	if (fd >= 0 && lseek(fd, 0, SEEK_END) != 0) {
		(void)err_set(err, ERR_INPUT,
			"audit.file %s is another file and not empty: the old one stays in use",
			keeper->conf->audit.file);
		(void)close(fd);
		fd = -1;
	}
	if (fd < 0) {
		if (folder >= 0)
			(void)close(folder);
		return -1;
	}
	go_on_in(keeper, fd);
	(void)close(keeper->audit_folder);
	keeper->audit_folder = folder;
	return 0;
}

void audit_next_segment(struct keeper *keeper)
{
	struct audit_record record = { .event = AUDIT_RECOVERED };
	const char *path = keeper->conf->audit.file;
	char aside[PATH_BYTES], detail[PATH_BYTES + 128];
	struct err err;
	int len, fd;

	if (!keeper->is_audit_file_failed)
		return;
	len = snprintf(
		aside, sizeof(aside), "%s.%llu", path, (unsigned long long)keeper->head.seq);
	if (len < 0 || (size_t)len >= sizeof(aside) || !is_ours(keeper) ||
		renameat2(AT_FDCWD, path, AT_FDCWD, aside, RENAME_NOREPLACE)) {
		log_error("audit.file %s failed, and cannot be put aside (errno %d)", path,
			errno);
		return;
	}
	fd = audit_file_open(path, &err);
	if (fd < 0) {
		log_error("%s", err.text);
		return;
	}
	keeper->is_audit_file_failed = false;
	go_on_in(keeper, fd);
	(void)snprintf(detail, sizeof(detail),
		"fdatasync failed: what comes before this line is in %s, and its end may not "
		"be "
		"on disk",
		aside);
	log_error("audit.file: %s", detail);
	record.detail = sv_from_cstr(detail);
	audit_record(keeper, NULL, &record, NULL, NULL);
}
