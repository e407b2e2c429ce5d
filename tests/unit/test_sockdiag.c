#include "unit.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "base/sockdiag.h"

static void loopback(int family, struct sockaddr_storage *out, socklen_t *len)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
		.sin6_addr = IN6ADDR_LOOPBACK_INIT };

	memset(out, 0, sizeof(*out));
	*len = family == AF_INET ? sizeof(v4) : sizeof(v6);
	memcpy(out, family == AF_INET ? (void *)&v4 : (void *)&v6, *len);
}

static void check_family(int family)
{
	struct sockaddr_storage listening, client;
	socklen_t len, client_len = sizeof(client);
	int listener = socket(family, SOCK_STREAM, 0),
	    connected = socket(family, SOCK_STREAM, 0);
	uint32_t uid = UINT32_MAX;

	loopback(family, &listening, &len);
	if (bind(listener, (struct sockaddr *)&listening, len)) {
		print_message("  family %d is not there\n", family);
		(void)close(listener);
		(void)close(connected);
		return;
	}
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&listening, &len), 0);
	assert_int_equal(sockdiag_listener(&listening, &uid), 0);
	assert_int_equal(uid, getuid());

	assert_int_equal(connect(connected, (struct sockaddr *)&listening, len), 0);
	assert_int_equal(getsockname(connected, (struct sockaddr *)&client, &client_len), 0);
	uid = UINT32_MAX;
	assert_int_equal(sockdiag_owner(&client, &listening, &uid), 0);
	assert_int_equal(uid, getuid());
	/* What its process has closed would be shown as root's. */
	(void)close(connected);
	assert_int_equal(sockdiag_owner(&client, &listening, &uid), -1);
	(void)close(listener);
	/* Nobody listens there any more. */
	assert_int_equal(sockdiag_listener(&listening, &uid), -1);
}

static void test_both_families(void **state)
{
	(void)state;
	check_family(AF_INET);
	check_family(AF_INET6);
}

static void test_other_families_are_refused(void **state)
{
	struct sockaddr_storage local = { .ss_family = AF_UNIX };
	uint32_t uid;

	(void)state;
	assert_int_equal(sockdiag_listener(&local, &uid), -1);
	assert_int_equal(errno, EAFNOSUPPORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_families),
		cmocka_unit_test(test_other_families_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
