/* test_grant.c - who may do what. */
#include "tests/unit/unit.h"

#include <string.h>

#include "auth/grant.h"

static void test_patterns(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool matches;
	} table[] = {
		{ "", "", true },
		{ "", "a", false },
		{ "a", "a", true },
		{ "a", "A", false },
		{ "a", "ab", false },
		{ "ab", "a", false },
		{ "*", "", true },
		{ "*", "abc", true },
		{ "*", "a/b", false },
		{ "a*", "a", true },
		{ "a*c", "abbbc", true },
		{ "a*c", "abbbd", false },
		{ "a*c*e", "abcde", true },
		{ "a*b*c", "abbcbbc", true },
		{ "**", "abc", true },
		{ "URI:spiffe://x/oncall/*", "URI:spiffe://x/oncall/alice", true },
		{ "URI:spiffe://x/oncall/*", "URI:spiffe://x/oncall/a/b", false },
		{ "URI:spiffe://x/oncall/*", "URI:spiffe://x/oncall", false },
		{ "URI:spiffe://x/*/alice", "URI:spiffe://x/oncall/alice", true },
		{ "URI:spiffe://x/*/alice", "URI:spiffe://x/a/b/alice", false },
		{ "*.example.com", "a.example.com", true },
		{ "*.example.com", "example.com", false },
		{ "*.example.com", "a.example.com.evil", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		if (pattern_matches(table[i].pattern, sv_from_cstr(table[i].text)) !=
			table[i].matches)
			fail_msg("'%s' and '%s'", table[i].pattern, table[i].text);
}

/* A pattern that goes wrong in exponential time would not end. */
static void test_pattern_of_many_stars(void **state)
{
	char pattern[129], text[4097];

	(void)state;
	for (size_t i = 0; i < 128; i += 2)
		memcpy(pattern + i, "*a", 2);
	memcpy(pattern + 126, "*b", 3);
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_false(pattern_matches(pattern, sv_from_cstr(text)));
}

static void test_profile_names(void **state)
{
	const uint32_t star = profile_bits(SV("*"));

	static const enum profile named[] = { PROFILE_SYMBOL, PROFILE_CMDLINE, PROFILE_METRICS,
		PROFILE_ADMIN, PROFILE_GOROUTINE_FULL, PROFILE_HEAP_GC };

	uint32_t rest = 0;

	(void)state;
	for (unsigned i = 0; i < PROFILES_LEN; i++)
		assert_int_equal(
			profile_bits(sv_from_cstr(profile_name((enum profile)i))), 1U << i);
	for (size_t i = 0; i < COUNT(named); i++)
		rest |= 1U << named[i];
	assert_int_equal(star & rest, 0);
	assert_int_equal(star | rest, (1U << PROFILES_LEN) - 1);
	assert_int_equal(profile_bits(SV("")), 0);
	assert_int_equal(profile_bits(SV("Heap")), 0);
	assert_int_equal(profile_bits(SV("heap ")), 0);
	assert_string_equal(profile_name(PROFILES_LEN), "");
}

static const struct claims alice_token = {
	.issuer = "https://login", .subject = "alice", .scope = "a pprof:read b"
};
static const struct cert alice_cert = { .fingerprint = "ab12",
	.cn = "alice",
	.sans_len = 2,
	.sans = { "URI:spiffe://x/oncall/alice", "DNS:alice.example.com" } };

static void test_matches(void **state)
{
	const struct identity jwt = { .token = &alice_token }, mtls = { .cert = &alice_cert },
			      both = { &alice_token, &alice_cert }, none = { NULL, NULL };

	const struct {
		const char *name;
		struct grant grant;
		bool jwt, mtls, both;
	} table[] = {
		{ "scope", { .scope = "pprof:read" }, true, false, true },
		{ "scope's beginning", { .scope = "pprof" }, false, false, false },
		{ "scopes together", { .scope = "a pprof:read" }, false, false, false },
		{ "issuer and subject", { .issuer = "https://login", .subject = "alice" }, true,
			false, true },
		{ "another issuer", { .issuer = "https://evil", .subject = "alice" }, false,
			false, false },
		{ "SAN", { .san = "URI:spiffe://x/oncall/*" }, false, true, true },
		{ "second SAN", { .san = "DNS:alice.example.com" }, false, true, true },
		{ "SAN without its kind", { .san = "alice.example.com" }, false, false, false },
		{ "CN", { .cn = "alice" }, false, true, true },
		{ "fingerprint", { .fingerprint = "ab12" }, false, true, true },
		{ "method jwt", { .method = "jwt", .subject = "alice" }, true, false, true },
		{ "method mtls", { .method = "mtls", .cn = "alice" }, false, true, true },
		{ "method both", { .method = "both", .subject = "alice", .cn = "alice" }, false,
			false, true },
		{ "all of one, one of the other", { .subject = "alice", .cn = "bob" }, false,
			false, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		const struct grant *grant = &table[i].grant;

		if (grant_matches(grant, &jwt) != table[i].jwt ||
			grant_matches(grant, &mtls) != table[i].mtls ||
			grant_matches(grant, &both) != table[i].both ||
			grant_matches(grant, &none))
			fail_msg("%s: jwt %d, mtls %d, both %d, none %d", table[i].name,
				grant_matches(grant, &jwt), grant_matches(grant, &mtls),
				grant_matches(grant, &both), grant_matches(grant, &none));
	}
	assert_string_equal(identity_method(&jwt), "jwt");
	assert_string_equal(identity_method(&mtls), "mtls");
	assert_string_equal(identity_method(&both), "both");
	assert_string_equal(identity_method(&none), "none");
}

static void test_covers(void **state)
{
	const struct grant grant = { .targets = { "vtp", "job-*" },
		.profiles = 1U << PROFILE_HEAP };

	(void)state;
	assert_true(grant_covers_target(&grant, SV("vtp")));
	assert_true(grant_covers_target(&grant, SV("job-1")));
	assert_false(grant_covers_target(&grant, SV("vtp2")));
	assert_false(grant_covers_target(&grant, SV("")));
	assert_true(grant_covers_profile(&grant, PROFILE_HEAP));
	assert_false(grant_covers_profile(&grant, PROFILE_CPU));
}

static void test_check(void **state)
{
	static const struct {
		const char *name;
		struct grant grant;
		int rc;
	} table[] = {
		{ "empty", { .targets = { "*" } }, -1 },
		{ "method alone", { .method = "mtls" }, -1 },
		{ "unknown method", { .method = "password", .subject = "a" }, -1 },
		{ "scope", { .scope = "a" }, 0 },
		{ "method and SAN", { .method = "mtls", .san = "DNS:a" }, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct err err = { 0 };

		if (grant_check(&table[i].grant, &err) != table[i].rc)
			fail_msg("%s: %s", table[i].name, err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_pattern_of_many_stars),
		cmocka_unit_test(test_profile_names),
		cmocka_unit_test(test_matches),
		cmocka_unit_test(test_covers),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
