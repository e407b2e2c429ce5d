#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acl/acl.h"
#include "base/buf.h"

static struct addr addr_of(const char *text)
{
	struct addr addr;
	struct err err;

	assert_int_equal(addr_parse(sv_from_cstr(text), &addr, &err), 0);
	return addr;
}

static int add_all(struct acl *acl, enum acl_verdict side, const char *nets, struct err *err)
{
	struct sv rest = sv_from_cstr(nets);

	while (rest.len > 0) {
		struct sv net = sv_trim(sv_cut(&rest, ' '));

		if (net.len > 0 && acl_add(acl, side, net, err))
			return -1;
	}
	return 0;
}

static const struct {
	const char *name, *allow, *deny, *client;
	enum acl_verdict want;
	const char *entry;
} checks[] = {
	{ "an empty list denies", "", "", "192.0.2.1", ACL_DENY, "" },
	{ "first of a net", "192.0.2.0/24", "", "192.0.2.0", ACL_ALLOW, "192.0.2.0/24" },
	{ "last of a net", "192.0.2.0/24", "", "192.0.2.255", ACL_ALLOW, "192.0.2.0/24" },
	{ "one past the net", "192.0.2.0/24", "", "192.0.3.0", ACL_DENY, "" },
	{ "a single host", "10.1.2.3", "", "10.1.2.3", ACL_ALLOW, "10.1.2.3/32" },
	{ "its neighbour", "10.1.2.3", "", "10.1.2.2", ACL_DENY, "" },
	{ "all of IPv4", "0.0.0.0/0", "", "203.0.113.9", ACL_ALLOW, "0.0.0.0/0" },
	{ "all of IPv4 is not IPv6", "0.0.0.0/0", "", "2001:db8::1", ACL_DENY, "" },
	{ "all of IPv6", "::/0", "", "2001:db8::1", ACL_ALLOW, "::/0" },
	{ "all of IPv6 is not IPv4", "::/0", "", "203.0.113.9", ACL_DENY, "" },
	{ "half of IPv6 is not IPv4", "::/1", "", "203.0.113.9", ACL_DENY, "" },
	{ "denying IPv6 leaves IPv4", "10.0.0.0/8", "::/0", "10.0.0.1", ACL_ALLOW,
		"10.0.0.0/8" },
	{ "denying IPv4 leaves IPv6", "::/0", "0.0.0.0/0", "::1", ACL_ALLOW, "::/0" },
	{ "deny inside allow", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", ACL_DENY,
		"10.1.0.0/16" },
	{ "beside the deny", "10.0.0.0/8", "10.1.0.0/16", "10.2.2.3", ACL_ALLOW, "10.0.0.0/8" },
	{ "allow inside deny stays denied", "10.1.2.3", "10.0.0.0/8", "10.1.2.3", ACL_DENY,
		"10.0.0.0/8" },
	{ "deny of one address under /0", "0.0.0.0/0", "192.0.2.7", "192.0.2.7", ACL_DENY,
		"192.0.2.7/32" },
	{ "same net on both sides", "10.0.0.0/8", "10.0.0.0/8", "10.0.0.1", ACL_DENY,
		"10.0.0.0/8" },
	{ "the longest allow is named", "10.0.0.0/8 10.1.0.0/16", "", "10.1.2.3", ACL_ALLOW,
		"10.1.0.0/16" },
	{ "IPv6", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:2::1", ACL_ALLOW,
		"2001:db8::/32" },
	{ "IPv6 denied", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::1", ACL_DENY,
		"2001:db8:1::/48" },
	{ "order does not matter", "10.1.2.0/24 10.0.0.0/8 10.1.0.0/16", "", "10.200.0.1",
		ACL_ALLOW, "10.0.0.0/8" },
};

static void test_verdicts(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(checks); i++) {
		struct acl *acl = acl_new();
		struct addr client = addr_of(checks[i].client);
		char entry[ADDR_TEXT_SIZE + 4];
		struct err err;

		print_message("  %s\n", checks[i].name);
		assert_non_null(acl);
		assert_int_equal(add_all(acl, ACL_ALLOW, checks[i].allow, &err), 0);
		assert_int_equal(add_all(acl, ACL_DENY, checks[i].deny, &err), 0);
		assert_int_equal(acl_check(acl, &client), checks[i].want);
		assert_int_equal(acl_explain(acl, &client, entry), checks[i].want);
		assert_string_equal(entry, checks[i].entry);
		acl_free(acl);
	}
}

static const struct {
	const char *net, *want;
} rejects[] = {
	{ "10.0.0.0/33", "'10.0.0.0/33' needs a prefix length of 0 to 32 after the slash" },
	{ "10.0.0.0/", "'10.0.0.0/' needs a prefix length of 0 to 32 after the slash" },
	{ "10.0.0.0/08", "'10.0.0.0/08' needs a prefix length of 0 to 32 after the slash" },
	{ "::/129", "'::/129' needs a prefix length of 0 to 128 after the slash" },
	{ "10.0.0.1/8", "'10.0.0.1/8' has bits set after the prefix: write 10.0.0.0/8, or the "
			"address alone" },
	{ "2001:db8::1/32", "'2001:db8::1/32' has bits set after the prefix: write "
			    "2001:db8::/32, or the address alone" },
	{ "010.0.0.1", "'010.0.0.1' is not an IP address" },
	{ "localhost", "'localhost' is not an IP address" },
	{ "fe80::1%eth0", "'fe80::1%eth0' is not an IP address" },
	{ "[::1]", "'[::1]' is not an IP address" },
	{ "::ffff:10.0.0.0/104",
		"'::ffff:10.0.0.0' is an IPv4 address in IPv6 clothes: write it "
		"as a.b.c.d" },
	{ "", "'' is not an IP address" },
};

static void test_rejects_say_what_would_be_right(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(rejects); i++) {
		struct acl *acl = acl_new();
		struct err err = { 0 };

		print_message("  '%s'\n", rejects[i].net);
		assert_int_equal(
			acl_add(acl, ACL_ALLOW, sv_from_cstr(rejects[i].net), &err), -1);
		assert_int_equal(err.kind, ERR_INPUT);
		assert_string_equal(err.text, rejects[i].want);
		acl_free(acl);
	}
}

static void test_loopback_only(void **state)
{
	static const struct {
		const char *allow;
		bool want;
	} rows[] = {
		{ "", true },
		{ "127.0.0.0/8 ::1/128", true },
		{ "127.0.0.1", true },
		{ "127.0.0.0/8 10.0.0.1", false },
		{ "126.0.0.0/7", false },
		{ "0.0.0.0/0", false },
		{ "::/127", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct acl *acl = acl_new();
		struct err err;

		print_message("  '%s'\n", rows[i].allow);
		assert_int_equal(add_all(acl, ACL_ALLOW, rows[i].allow, &err), 0);
		assert_int_equal(acl_is_loopback_only(acl), rows[i].want);
		acl_free(acl);
	}
}

static void test_buckets(void **state)
{
	struct addr a = addr_of("2001:db8::1"), b = addr_of("2001:db8::ffff"), bucket_a,
		    bucket_b;

	(void)state;
	bucket_a = addr_bucket(&a);
	bucket_b = addr_bucket(&b);
	assert_true(addr_is_same(&bucket_a, &bucket_b));
	a = addr_of("192.0.2.1");
	b = addr_of("192.0.2.2");
	bucket_a = addr_bucket(&a);
	bucket_b = addr_bucket(&b);
	assert_false(addr_is_same(&bucket_a, &bucket_b));
}

/* Every verdict of the trie is that of a list searched from end to end. */
static void test_same_as_a_linear_search(void **state)
{
	enum {
		NETS = 400,
		CLIENTS = 4000
	};
	struct acl *acl = acl_new();

	struct {
		uint32_t addr, mask;
		bool deny;
	} nets[NETS];

	uint64_t random = 88172645463325252U;

	(void)state;
	for (size_t i = 0; i < NETS + CLIENTS; i++) {
		char text[64];
		struct err err;
		struct addr client;
		uint32_t addr;

		random = random * 6364136223846793005U + 1442695040888963407U;
		/* Few different top bits, so that prefixes nest. */
		addr = (uint32_t)(random >> 32) & 0x0a0f03ff;
		if (i < NETS) {
			unsigned len = 4 + (unsigned)(random >> 20) % 29;

			nets[i].mask = UINT32_MAX << (32 - len);
			nets[i].addr = addr & nets[i].mask;
			nets[i].deny = (random >> 10) % 3 == 0;
			(void)snprintf(text, sizeof(text), "%u.%u.%u.%u/%u", nets[i].addr >> 24,
				nets[i].addr >> 16 & 255, nets[i].addr >> 8 & 255,
				nets[i].addr & 255, len);
			assert_int_equal(acl_add(acl, nets[i].deny ? ACL_DENY : ACL_ALLOW,
						 sv_from_cstr(text), &err),
				0);
			continue;
		}
		bool allow = false, deny = false;

		for (size_t k = 0; k < NETS; k++) {
			if ((addr & nets[k].mask) == nets[k].addr) {
				deny |= nets[k].deny;
				allow |= !nets[k].deny;
			}
		}
		(void)snprintf(text, sizeof(text), "%u.%u.%u.%u", addr >> 24, addr >> 16 & 255,
			addr >> 8 & 255, addr & 255);
		client = addr_of(text);
		assert_int_equal(
			acl_check(acl, &client), allow && !deny ? ACL_ALLOW : ACL_DENY);
	}
	acl_free(acl);
}

static void note_entry(void *arg, enum acl_verdict side, bool is_v4, const char *entry)
{
	struct buf *out = arg;

	buf_printf(out, "%c%c %s\n", side == ACL_ALLOW ? '+' : '-', is_v4 ? '4' : '6', entry);
}

static void test_each(void **state)
{
	struct acl *acl = acl_new();
	struct err err;
	char text[256];
	struct buf out;

	(void)state;
	buf_init_fixed(&out, text, sizeof(text));
	assert_int_equal(add_all(acl, ACL_ALLOW, "0.0.0.0/0 10.0.0.0/8 ::/0", &err), 0);
	assert_int_equal(add_all(acl, ACL_DENY, "10.0.0.0/8 10.1.2.3 2001:db8::/32", &err), 0);
	acl_each(acl, note_entry, &out);
	assert_true(sv_is(buf_sv(&out), SV("+4 0.0.0.0/0\n+4 10.0.0.0/8\n-4 10.0.0.0/8\n"
					   "+6 ::/0\n-4 10.1.2.3/32\n-6 2001:db8::/32\n")));
	acl_free(acl);
}

/* A long list loads at once; a look-up walks the differing bits, not the list. */
static void test_a_hundred_thousand_entries(void **state)
{
	enum {
		NETS = 100000
	};
	struct acl *acl = acl_new();
	struct addr client;
	struct err err;
	unsigned allowed = 0;

	(void)state;
	for (uint32_t i = 0; i < NETS; i++) {
		/* An odd multiplier visits each address once, in no order. */
		uint32_t addr = (i * 2654435761U) & ~1U;
		char text[64];

		(void)snprintf(text, sizeof(text), "%u.%u.%u.%u/31", addr >> 24,
			addr >> 16 & 255, addr >> 8 & 255, addr & 255);
		assert_int_equal(acl_add(acl, ACL_ALLOW, sv_from_cstr(text), &err), 0);
	}
	client = addr_of("0.0.0.0");
	for (uint32_t i = 0; i < NETS; i++) {
		uint32_t addr = (i * 2654435761U) | 1U;

		for (size_t k = 0; k < 4; k++)
			client.bytes[12 + k] = (uint8_t)(addr >> (24 - 8 * k));
		allowed += acl_check(acl, &client) == ACL_ALLOW;
	}
	assert_int_equal(allowed, NETS);
	acl_free(acl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_rejects_say_what_would_be_right),
		cmocka_unit_test(test_loopback_only),
		cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_same_as_a_linear_search),
		cmocka_unit_test(test_each),
		cmocka_unit_test(test_a_hundred_thousand_entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
