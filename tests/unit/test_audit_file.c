#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/audit_file.h"

/* A folder of its own with the log in it, and a way to write, damage and read it again. */
struct stage {
	char folder[64], path[96];
	int folder_fd;
	struct audit_file file;
};

static void stage_open(struct stage *stage)
{
	struct err err;

	memset(&stage->file, 0, sizeof(stage->file));
	stage->file.fd = audit_file_open(stage->path, &err);
	assert_true(stage->file.fd >= 0);
	stage->file.folder = stage->folder_fd;
	stage->file.torn_name = "torn";
	buf_init(&stage->file.batch, AUDIT_LINE_MAX * 4);
	audit_chain_init(&stage->file.chain, SV(""));
}

static void stage_close(struct stage *stage)
{
	buf_free(&stage->file.batch);
	(void)close(stage->file.fd);
}

static void stage_init(struct stage *stage)
{
	(void)snprintf(stage->folder, sizeof(stage->folder), "/tmp/ptu.XXXXXX");
	assert_non_null(mkdtemp(stage->folder));
	(void)snprintf(stage->path, sizeof(stage->path), "%s/audit.jsonl", stage->folder);
	stage->folder_fd = open(stage->folder, O_RDONLY | O_DIRECTORY);
	stage_open(stage);
}

static void stage_fini(struct stage *stage)
{
	(void)unlinkat(stage->folder_fd, "torn", 0);
	(void)unlink(stage->path);
	(void)close(stage->folder_fd);
	(void)rmdir(stage->folder);
}

static void add(struct stage *stage, unsigned count)
{
	struct audit_record record = { .event = AUDIT_STARTED, .detail = SV("unit") };
	struct err err;

	for (unsigned i = 0; i < count; i++)
		assert_int_equal(audit_file_add(&stage->file, &record, 0, &err), 0);
	assert_int_equal(audit_file_flush(&stage->file, &err), 0);
}

static void append_bytes(const struct stage *stage, const char *bytes)
{
	assert_int_equal(write(stage->file.fd, bytes, strlen(bytes)), (ssize_t)strlen(bytes));
}

static int resume(struct stage *stage, enum audit_check check, const struct audit_head *kept,
	struct err *recovered, struct err *err)
{
	static const struct audit_head unknown = { .seq = 0 };

	return audit_file_resume(&stage->file, check, kept ? kept : &unknown, recovered, err);
}

static void test_goes_on(void **state)
{
	struct err recovered, err;
	struct audit_head head;
	struct stage stage;

	(void)state;
	for (int check = AUDIT_CHECK_TAIL; check <= AUDIT_CHECK_ALL; check++) {
		stage_init(&stage);
		assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
		add(&stage, 3);
		head = stage.file.chain.head;
		stage_close(&stage);
		stage_open(&stage);
		assert_int_equal(
			resume(&stage, (enum audit_check)check, &head, &recovered, &err), 0);
		assert_int_equal(recovered.kind, ERR_NONE);
		assert_true(stage.file.chain.head.seq == 3);
		assert_string_equal(stage.file.chain.head.hash, head.hash);
		add(&stage, 1000);
		stage_close(&stage);
		stage_open(&stage);
		assert_int_equal(
			resume(&stage, (enum audit_check)check, &head, &recovered, &err), 0);
		assert_true(stage.file.chain.head.seq == 1003);
		stage_close(&stage);
		stage_fini(&stage);
	}
}

static void test_torn_line(void **state)
{
	struct err recovered, err;
	struct stage stage;
	char kept[64];
	int fd;

	(void)state;
	stage_init(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
	add(&stage, 2);
	append_bytes(&stage, "{\"v\":1,\"seq\":3,\"half");
	stage_close(&stage);

	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_TAIL, NULL, &recovered, &err), 0);
	assert_int_equal(recovered.kind, ERR_INPUT);
	assert_non_null(strstr(recovered.text, "torn"));
	add(&stage, 1);
	stage_close(&stage);

	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
	assert_int_equal(recovered.kind, ERR_NONE);
	assert_true(stage.file.chain.head.seq == 3);
	stage_close(&stage);
	fd = openat(stage.folder_fd, "torn", O_RDONLY);
	memset(kept, 0, sizeof(kept));
	assert_true(read(fd, kept, sizeof(kept) - 1) > 0);
	assert_string_equal(kept, "{\"v\":1,\"seq\":3,\"half\n");
	(void)close(fd);
	stage_fini(&stage);
}

static void test_only_a_torn_line(void **state)
{
	struct err recovered, err;
	struct stage stage;

	(void)state;
	stage_init(&stage);
	append_bytes(&stage, "{");
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
	assert_int_equal(recovered.kind, ERR_INPUT);
	add(&stage, 1);
	stage_close(&stage);
	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
	assert_true(stage.file.chain.head.seq == 1);
	stage_close(&stage);
	stage_fini(&stage);
}

static void test_broken(void **state)
{
	static const struct {
		const char *name;
		off_t at;
		bool tail_sees_it;
	} rows[] = {
		{ "an edited first line", 5, false },
		{ "a newline in the middle", -1, true },
	};
	struct err recovered, err;
	struct stage stage;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct stat info;
		int fd;

		print_message("  %s\n", rows[i].name);
		stage_init(&stage);
		assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
		add(&stage, 5);
		assert_int_equal(fstat(stage.file.fd, &info), 0);
		stage_close(&stage);
		fd = open(stage.path, O_WRONLY);
		assert_int_equal(
			pwrite(fd, "\n", 1, rows[i].at < 0 ? info.st_size - 20 : rows[i].at),
			1);
		(void)close(fd);
		stage_open(&stage);
		assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), -1);
		assert_non_null(strstr(err.text, "broken"));
		stage_close(&stage);
		stage_open(&stage);
		assert_int_equal(resume(&stage, AUDIT_CHECK_TAIL, NULL, &recovered, &err),
			rows[i].tail_sees_it ? -1 : 0);
		stage_close(&stage);
		stage_fini(&stage);
	}
}

static void test_kept_head(void **state)
{
	struct err recovered, err;
	struct audit_head first, last, other;
	struct stage stage;

	(void)state;
	stage_init(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
	add(&stage, 2);
	first = stage.file.chain.head;
	assert_int_equal(first.seq, 2);
	add(&stage, 2);
	last = other = stage.file.chain.head;
	stage_close(&stage);

	stage_open(&stage); /* what was kept lags behind: fine */
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, &first, &recovered, &err), 0);
	assert_int_equal(recovered.kind, ERR_NONE);
	stage_close(&stage);

	other.seq += 3; /* lines that were written are not there */
	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, &other, &recovered, &err), 0);
	assert_non_null(strstr(recovered.text, "cut off"));
	stage_close(&stage);

	other = last; /* the last line is another one */
	other.hash[0] = other.hash[0] == 'a' ? 'b' : 'a';
	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, &other, &recovered, &err), 0);
	assert_non_null(strstr(recovered.text, "rewritten"));
	stage_close(&stage);

	other = first; /* rewritten before, and longer than what was kept */
	other.hash[0] = other.hash[0] == 'a' ? 'b' : 'a';
	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, &other, &recovered, &err), 0);
	assert_non_null(strstr(recovered.text, "rewritten"));
	stage_close(&stage);

	assert_int_equal(truncate(stage.path, 0), 0); /* a rotated log: the chain goes on */
	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_TAIL, &last, &recovered, &err), 0);
	assert_int_equal(recovered.kind, ERR_NONE);
	assert_true(stage.file.chain.head.seq == last.seq);
	add(&stage, 1);
	stage_close(&stage);
	stage_open(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, &last, &recovered, &err), 0);
	assert_true(stage.file.chain.head.seq == last.seq + 1);
	stage_close(&stage);
	stage_fini(&stage);
}

static void test_open_refuses(void **state)
{
	struct stage stage;
	char other[128];
	struct err err;

	(void)state;
	stage_init(&stage);
	assert_int_equal(audit_file_open(stage.path, &err), -1); /* locked: we have it */
	assert_int_equal(err.kind, ERR_DENIED);
	stage_close(&stage);

	(void)snprintf(other, sizeof(other), "%s/link", stage.folder);
	assert_int_equal(symlink(stage.path, other), 0);
	assert_int_equal(audit_file_open(other, &err), -1);
	assert_non_null(strstr(err.text, "symbolic link"));
	(void)unlink(other);
	assert_int_equal(link(stage.path, other), 0);
	assert_int_equal(audit_file_open(other, &err), -1);
	assert_non_null(strstr(err.text, "single name"));
	(void)unlink(other);
	assert_int_equal(mkfifo(other, 0600), 0);
	assert_int_equal(audit_file_open(other, &err), -1);
	(void)unlink(other);
	assert_int_equal(audit_file_open(stage.folder, &err), -1);
	stage_fini(&stage);
}

static void test_failed_write_is_final(void **state)
{
	struct audit_record record = { .event = AUDIT_STARTED };
	struct err recovered, err;
	struct stage stage;
	int good;

	(void)state;
	stage_init(&stage);
	assert_int_equal(resume(&stage, AUDIT_CHECK_ALL, NULL, &recovered, &err), 0);
	good = stage.file.fd;
	stage.file.fd = open("/dev/full", O_WRONLY);
	assert_int_equal(audit_file_add(&stage.file, &record, 0, &err), 0);
	assert_int_equal(audit_file_flush(&stage.file, &err), -1);
	assert_true(stage.file.failed);
	(void)close(stage.file.fd);
	stage.file.fd = good;
	assert_int_equal(audit_file_flush(&stage.file, &err), -1);
	stage_close(&stage);
	stage_fini(&stage);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_torn_line),
		cmocka_unit_test(test_only_a_torn_line),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_kept_head),
		cmocka_unit_test(test_open_refuses),
		cmocka_unit_test(test_failed_write_is_final),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
