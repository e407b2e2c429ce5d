/*
 * test_announce.c - names of control sockets: read, written, and found in a folder.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/announce.h"

static void names_are_read(void **state)
{
	static const struct {
		const char *file, *name;
		uint32_t pid;
	} cases[] = {
		{ "jobs.1.control", "jobs", 1 },
		{ "jobs.1.fork.control", "jobs", 1 },
		{ "jobs.1.fork.2.control", "jobs.1.fork", 2 },
		{ "jobs.fork.control", NULL, 0 },
		{ ".fork.control", NULL, 0 },
		{ "a.b.c.2147483647.control", "a.b.c", 2147483647 },
		{ "-.7.control", "-", 7 },
		{ "1.2.control", "1", 2 },
		{ "..3.control", ".", 3 },
		{ ".4.control", NULL, 0 },
		{ "4.control", NULL, 0 },
		{ "jobs.control", NULL, 0 },
		{ "jobs.0.control", NULL, 0 },
		{ "jobs.01.control", NULL, 0 },
		{ "jobs.-1.control", NULL, 0 },
		{ "jobs.2147483648.control", NULL, 0 },
		{ "jobs.1.controls", NULL, 0 },
		{ "jobs.1.control.", NULL, 0 },
		{ ".control", NULL, 0 },
		{ "control", NULL, 0 },
		{ "", NULL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct announced found;
		bool is_one = announce_parse(sv_from_cstr(cases[i].file), &found);

		assert_int_equal(is_one, cases[i].name != NULL);
		if (!is_one)
			continue;
		assert_true(sv_is(found.name, sv_from_cstr(cases[i].name)));
		assert_int_equal(found.pid, cases[i].pid);
		assert_int_equal(found.is_fork, strstr(cases[i].file, ".fork.control") != NULL);
	}
}

static void names_are_written(void **state)
{
	char mem[32];
	struct buf out;

	(void)state;
	buf_init_fixed(&out, mem, sizeof(mem));
	announce_write(SV("../a b\n\xff-Z.9_"), &out);
	assert_true(sv_is(buf_sv(&out), SV(".._a_b__-Z.9_")));
	assert_true(announce_is_name(buf_sv(&out), SV("../a b\n\xff-Z.9_")));
	assert_false(announce_is_name(SV("job"), SV("jobs")));
	assert_false(announce_is_name(SV("jobs"), SV("job\0")));
}

static bool count(void *arg, const struct announced *found)
{
	size_t *seen = arg;

	assert_true(sv_is(found->name, SV("jobs")));
	assert_int_equal(found->pid, 5);
	assert_int_equal(found->uid, geteuid());
	(*seen)++;
	return true;
}

static void only_sockets_are_found_and_only_those_that_listen_answer(void **state)
{
	char folder[] = "/tmp/postern-unit.XXXXXX", path[128];
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct announced found = { .uid = geteuid() };
	size_t seen = 0;
	struct err err;
	uint32_t pid;
	int server, client;

	(void)state;
	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof(path), "%s/jobs.6.control", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	(void)snprintf(path, sizeof(path), "%s/jobs.7.control", folder);
	(void)snprintf(at.sun_path, sizeof(at.sun_path), "%s/jobs.5.control", folder);
	assert_int_equal(symlink(at.sun_path, path), 0);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(announce_list(folder, count, &seen, &err), 0);
	assert_int_equal(seen, 1);

	memcpy(found.path, at.sun_path, sizeof(found.path));
	assert_int_equal(announce_connect(&found, true, &pid), -1);
	assert_int_equal(errno, ECONNREFUSED);
	assert_int_equal(listen(server, 1), 0);
	client = announce_connect(&found, true, &pid);
	assert_true(client >= 0);
	assert_int_equal(pid, getpid());
	(void)close(client);
	found.uid++;
	assert_int_equal(announce_connect(&found, true, &pid), -1);
	assert_int_equal(errno, EPERM);

	(void)close(server);
	for (int i = 5; i <= 7; i++) {
		(void)snprintf(path, sizeof(path), "%s/jobs.%d.control", folder, i);
		(void)unlink(path);
	}
	assert_int_equal(announce_list(path, count, &seen, &err), -1);
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_read),
		cmocka_unit_test(names_are_written),
		cmocka_unit_test(only_sockets_are_found_and_only_those_that_listen_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
