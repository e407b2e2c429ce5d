#include "gateway/audit_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int audit_file_open(const char *path, struct err *err)
{
	int fd = open(
		path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	struct stat info;

	if (fd < 0 && errno == ELOOP)
		return err_set(err, ERR_INPUT,
			"audit.file %s is a symbolic link: name the file itself", path);
	if (fd < 0)
		return err_sys(err, "audit.file %s cannot be opened for appending", path);
	if (fstat(fd, &info)) {
		(void)err_sys(err, "audit.file %s", path);
	} else if (!S_ISREG(info.st_mode) || info.st_nlink != 1) {
		(void)err_set(err, ERR_INPUT,
			"audit.file %s is not a regular file with a single name", path);
	} else if (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			(void)err_set(err, ERR_DENIED,
				"audit.file %s is held by another process: is posternd running "
				"already?",
				path);
		else
			(void)err_sys(err, "audit.file %s cannot be locked", path);
	} else {
		return fd;
	}
	(void)close(fd);
	return -1;
}

static int write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t written = write(fd, bytes, len);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return -1;
		bytes += written;
		len -= (size_t)written;
	}
	return 0;
}

/* Reading lines from `at` on: a window of two lines at most. */
struct reader {
	int fd;
	off_t at; /* of window.ptr[0] in the file */
	struct buf window;
	uint64_t number;   /* of lines given out */
	bool is_rewritten; /* the line of the kept head is another one */
};

enum line {
	LINE_END,
	LINE_TORN,
	LINE_WHOLE,
	LINE_BAD
};

static enum line read_line(struct reader *reader, struct sv *line, struct err *err)
{
	for (size_t scanned = 0;;) {
		struct buf *window = &reader->window;
		char *end = NULL, *to;
		ssize_t got;

		if (window->len > scanned)
			end = memchr(window->ptr + scanned, '\n', window->len - scanned);
		if (end) {
			*line = (struct sv){ window->ptr, (size_t)(end - window->ptr) };
			reader->number++;
			return LINE_WHOLE;
		}
		scanned = window->len;
		to = buf_reserve(window, AUDIT_LINE_MAX / 4);
		if (!to) {
			(void)err_set(err, ERR_INPUT, "line %llu is too long",
				(unsigned long long)reader->number + 1);
			return LINE_BAD;
		}
		got = pread(
			reader->fd, to, AUDIT_LINE_MAX / 4, reader->at + (off_t)window->len);
		if (got < 0) {
			(void)err_sys(err, "cannot be read");
			return LINE_BAD;
		}
		if (got == 0)
			return window->len ? LINE_TORN : LINE_END;
		buf_commit(window, (size_t)got);
	}
}

static void drop_line(struct reader *reader, struct sv line)
{
	buf_drop(&reader->window, line.len + 1);
	reader->at += (off_t)line.len + 1;
}

/* Where the last whole line begins; 0 when everything is to be read, or there is only one. */
static off_t find_last_line(int fd, struct err *err)
{
	static char block[AUDIT_LINE_MAX * 2];
	struct stat info;
	off_t from;
	ssize_t got;
	unsigned ends = 0;

	if (fstat(fd, &info))
		return err_sys(err, "cannot be read");
	from = info.st_size > (off_t)sizeof(block) ? info.st_size - (off_t)sizeof(block) : 0;
	got = pread(fd, block, sizeof(block), from);
	if (got < 0)
		return err_sys(err, "cannot be read");
	for (ssize_t i = got; i > 0; i--) {
		if (block[i - 1] == '\n' && ++ends == 2)
			return from + i;
	}
	return 0;
}

/* The line that the kept head is of, and another hash. */
static bool is_other_line(const struct audit_head *head, const struct audit_head *kept)
{
	return head->seq == kept->seq && kept->seq > 0 &&
	       memcmp(head->hash, kept->hash, sizeof(head->hash)) != 0;
}

/* Read to the end. LINE_END, LINE_TORN (the reader stands before it) or LINE_BAD. */
static enum line read_chain(struct audit_chain *chain, struct reader *reader,
	const struct audit_head *kept, struct err *err)
{
	for (;;) {
		struct sv line;
		enum line found = read_line(reader, &line, err);
		int rc;

		if (found != LINE_WHOLE)
			return found;
		rc = reader->number == 1 ? audit_chain_resume(chain, line, err)
					 : audit_chain_verify(chain, line, err);
		if (rc) {
			(void)err_wrap(err, "at byte %lld: the chain is broken",
				(long long)reader->at);
			return LINE_BAD;
		}
		reader->is_rewritten =
			reader->is_rewritten || is_other_line(&chain->head, kept);
		drop_line(reader, line);
	}
}

/* Keep the torn end beside the file, then cut it off. */
static int cut_torn(const struct reader *reader, const struct audit_file *file, struct err *err)
{
	int fd = openat(file->folder, file->torn_name,
		O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, "the torn last line cannot be kept in %s", file->torn_name);
	if (write_all(fd, reader->window.ptr, reader->window.len) || write_all(fd, "\n", 1) ||
		fsync(fd) || ftruncate(reader->fd, reader->at) || fsync(reader->fd)) {
		(void)err_sys(err, "the torn last line cannot be cut off");
		(void)close(fd);
		return -1;
	}
	(void)close(fd);
	return 0;
}

/* What the file says beside what was kept elsewhere. */
static void compare_heads(struct audit_file *file, const struct audit_head *kept,
	const struct reader *reader, struct err *recovered)
{
	struct audit_head *head = &file->chain.head;

	if (kept->seq == 0)
		return;
	if (reader->number == 0)
		*head = *kept;
	else if (head->seq < kept->seq)
		(void)err_set(recovered, ERR_INPUT,
			"its end was cut off: it ends at line %llu, but line %llu was written",
			(unsigned long long)head->seq, (unsigned long long)kept->seq);
	else if (reader->is_rewritten)
		(void)err_set(recovered, ERR_INPUT,
			"it was rewritten: line %llu is not the one that was written",
			(unsigned long long)kept->seq);
}

int audit_file_resume(struct audit_file *file, enum audit_check check,
	const struct audit_head *kept, struct err *recovered, struct err *err)
{
	struct reader reader = { .fd = file->fd };
	enum line end;
	int rc = -1;

	recovered->text[0] = '\0';
	recovered->kind = ERR_NONE;
	buf_init(&reader.window, AUDIT_LINE_MAX * 2);
	if (check == AUDIT_CHECK_TAIL) {
		reader.at = find_last_line(file->fd, err);
		if (reader.at < 0)
			goto out;
	}
	end = read_chain(&file->chain, &reader, kept, err);
	if (end == LINE_BAD)
		goto out;
	compare_heads(file, kept, &reader, recovered);
	if (reader.number == 0 && kept->seq > 0 && check == AUDIT_CHECK_ALL)
		(void)err_set(recovered, ERR_INPUT,
			"it is empty, but line %llu was written: the chain goes on from there",
			(unsigned long long)kept->seq);
	if (end == LINE_TORN) {
		if (cut_torn(&reader, file, err))
			goto out;
		(void)err_set(recovered, ERR_INPUT,
			"a torn last line of %zu bytes was cut off and kept in %s",
			reader.window.len, file->torn_name);
	}
	rc = 0;
out:
	buf_free(&reader.window);
	return rc;
}

int audit_file_add(struct audit_file *file, const struct audit_record *record, int64_t unix_us,
	struct err *err)
{
	return audit_chain_append(&file->chain, record, unix_us, &file->batch, err);
}

int audit_file_flush(struct audit_file *file, struct err *err)
{
	if (file->failed)
		return err_set(err, ERR_SYSTEM, "the audit file failed before");
	if (file->batch.len > 0) {
		if (write_all(file->fd, file->batch.ptr, file->batch.len)) {
			file->failed = true;
			return err_sys(err, "the audit file cannot be written");
		}
		file->is_dirty = true;
		buf_clear(&file->batch);
	}
	return file->sync == CONF_SYNC_ALWAYS ? audit_file_sync(file, err) : 0;
}

int audit_file_sync(struct audit_file *file, struct err *err)
{
	if (!file->is_dirty || file->sync == CONF_SYNC_NONE)
		return 0;
	if (fdatasync(file->fd)) {
		file->failed = file->is_sync_failed = true;
		return err_sys(err, "the audit file cannot be brought to disk");
	}
	file->is_dirty = false;
	return 0;
}
