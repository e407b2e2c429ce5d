#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/ipc.h"
#include "gateway/switch.h"

static const struct ipc_message sample = { .type = IPC_RECEIPT,
	.worker = 7,
	.number = UINT64_C(0x1122334455667788),
	.result = 0,
	.payload = SV_INIT("vtp"),
	.fd = -1 };

static void test_round_trip(void **state)
{
	struct ipc_message back;
	struct err err;
	struct buf out;

	(void)state;
	buf_init(&out, IPC_MESSAGE_MAX);
	ipc_encode(&sample, &out);
	assert_false(out.failed);
	assert_int_equal(ipc_decode(buf_sv(&out), &back, &err), 0);
	assert_int_equal(back.type, IPC_RECEIPT);
	assert_int_equal(back.worker, 7);
	assert_true(back.number == sample.number);
	assert_true(sv_is(back.payload, SV("vtp")));
	assert_int_equal(back.fd, -1);
	buf_free(&out);
}

static void test_refuses(void **state)
{
	static const struct {
		const char *name;
		size_t at;
		char byte;
	} rows[] = {
		{ "version 0", 0, 0 },
		{ "version 2", 0, 2 },
		{ "type 0", 1, 0 },
		{ "type too high", 1, IPC_TYPES_LEN },
		{ "reserved byte", 2, 1 },
		{ "negative result", 19, (char)0x80 },
		{ "length too small", 20, 2 },
		{ "length too great", 20, 4 },
		{ "length far too great", 23, 1 },
	};
	struct ipc_message back;
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char bytes[64];
		struct buf out;

		print_message("  %s\n", rows[i].name);
		buf_init_fixed(&out, bytes, sizeof(bytes));
		ipc_encode(&sample, &out);
		bytes[rows[i].at] = rows[i].byte;
		assert_int_equal(ipc_decode(buf_sv(&out), &back, &err), -1);
		assert_int_equal(err.kind, ERR_PEER);
	}
	for (size_t len = 0; len < IPC_HEAD_SIZE; len++) {
		char bytes[IPC_HEAD_SIZE] = { 1, 1 };

		assert_int_equal(ipc_decode((struct sv){ bytes, len }, &back, &err), -1);
	}
}

static void test_socket_with_descriptor(void **state)
{
	static char storage[IPC_MESSAGE_MAX];
	struct ipc_message out = sample, in;
	int fds[2], file;
	struct err err;

	(void)state;
	assert_int_equal(ipc_pair(fds, &err), 0);
	assert_int_equal(ipc_receive(fds[1], storage, &in, &err), IPC_EMPTY);
	file = memfd_create("x", MFD_CLOEXEC);
	out.type = IPC_TARGET;
	out.fd = file;
	assert_int_equal(ipc_send(fds[0], &out, &err), 0);
	assert_int_equal(ipc_receive(fds[1], storage, &in, &err), IPC_RECEIVED);
	assert_int_equal(in.type, IPC_TARGET);
	assert_true(in.fd >= 0 && in.fd != file);
	assert_true(fcntl(in.fd, F_GETFD) & FD_CLOEXEC);
	(void)close(in.fd);
	(void)close(file);
	(void)close(fds[0]);
	assert_int_equal(ipc_receive(fds[1], storage, &in, &err), IPC_GONE);
	assert_int_equal(ipc_send(fds[1], &sample, &err), -1);
	assert_int_equal(err.kind, ERR_PEER);
	(void)close(fds[1]);
}

/* Two descriptors in one packet, and a packet longer than any record: neither is taken. */
static void test_socket_refuses(void **state)
{
	static char storage[IPC_MESSAGE_MAX], big[IPC_MESSAGE_MAX + 1];

	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec part = { storage, 0 };
	struct msghdr packet = { .msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	struct ipc_message in;
	struct cmsghdr *item = CMSG_FIRSTHDR(&packet);
	int fds[2], pair[2] = { 0, 1 }, probe;
	struct err err;
	struct buf out;

	(void)state;
	assert_int_equal(ipc_pair(fds, &err), 0);
	buf_init_fixed(&out, storage, sizeof(storage));
	ipc_encode(&sample, &out);
	part.iov_len = out.len;
	item->cmsg_level = SOL_SOCKET;
	item->cmsg_type = SCM_RIGHTS;
	item->cmsg_len = CMSG_LEN(sizeof(pair));
	memcpy(CMSG_DATA(item), pair, sizeof(pair));
	probe = dup(0);
	(void)close(probe);
	assert_true(sendmsg(fds[0], &packet, 0) > 0);
	assert_int_equal(ipc_receive(fds[1], storage, &in, &err), IPC_GONE);
	assert_int_equal(dup(0), probe); /* neither descriptor stayed open */
	(void)close(probe);

	big[0] = 1;
	big[1] = IPC_AUDIT;
	assert_true(send(fds[0], big, sizeof(big), 0) > 0);
	assert_int_equal(ipc_receive(fds[1], storage, &in, &err), IPC_GONE);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void test_send_never_blocks(void **state)
{
	int fds[2], sent = 0;
	struct err err;

	(void)state;
	assert_int_equal(ipc_pair(fds, &err), 0);
	while (ipc_send(fds[0], &sample, &err) == 0)
		sent++;
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_true(sent > 0);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void test_switch(void **state)
{
	const struct switch_state *seen;
	struct switch_state *mine;
	struct err err;
	void *again;
	int fd;

	(void)state;
	mine = switch_create(&fd, &err);
	assert_non_null(mine);
	seen = switch_map(fd, &err);
	assert_non_null(seen);
	assert_false(switch_is_open(seen, 0));
	switch_set_generation(mine, 3);
	switch_open(mine, 1000);
	assert_true(switch_is_open(seen, 999));
	assert_false(switch_is_open(seen, 1000));
	assert_true(switch_left_ms(seen, 400) == 600);
	assert_true(switch_left_ms(seen, 1001) == 0);
	assert_true(switch_may_serve(seen, 3, 999));
	assert_false(switch_may_serve(seen, 2, 999));
	switch_open(mine, SWITCH_NO_LIMIT);
	assert_true(switch_is_open(seen, UINT64_MAX - 1));
	assert_true(switch_left_ms(seen, 5) == SWITCH_NO_LIMIT);
	switch_close(mine);
	assert_false(switch_is_open(seen, 0));
	assert_true(switch_left_ms(seen, 0) == 0);

	again = mmap(NULL, sizeof(*mine), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_equal(again, MAP_FAILED); /* sealed: no second writer */
	assert_int_equal(write(fd, "x", 1), -1);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_socket_with_descriptor),
		cmocka_unit_test(test_socket_refuses),
		cmocka_unit_test(test_send_never_blocks),
		cmocka_unit_test(test_switch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
