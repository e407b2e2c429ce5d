#include "unit.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "gateway/page.h"

/* What stands between the tags, which are there once. */
static struct sv between(struct sv html, const char *open, const char *close)
{
	char *from = memmem(html.ptr, html.len, open, strlen(open));
	char *to = memmem(html.ptr, html.len, close, strlen(close));

	assert_true(from && to && from < to);
	from += strlen(open);
	assert_null(
		memmem(to + 1, html.len - (size_t)(to + 1 - html.ptr), close, strlen(close)));
	return (struct sv){ from, (size_t)(to - from) };
}

static void check_hash(const char *directive, struct sv text)
{
	unsigned char hash[32], base64[64];
	char want[128];

	assert_int_equal(EVP_Digest(text.ptr, text.len, hash, NULL, EVP_sha256(), NULL), 1);
	(void)EVP_EncodeBlock(base64, hash, sizeof(hash));
	(void)snprintf(want, sizeof(want), "%s 'sha256-%s';", directive, (char *)base64);
	print_message("  page_policy() needs: %s\n", want);
	assert_non_null(strstr(page_policy(), want));
}

static void test_the_policy_allows_what_is_there(void **state)
{
	struct sv html = page_html();

	(void)state;
	check_hash("script-src", between(html, "<script>", "</script>"));
	check_hash("style-src", between(html, "<style>", "</style>"));
}

/* Nothing that the policy would forbid, or that asks elsewhere or keeps anything. */
static void test_the_page_keeps_to_itself(void **state)
{
	static const char *const words[] = { "http:", "https:", "//", " src=", "onclick",
		"style=", "innerHTML", "localStorage", "sessionStorage", "cookie", "eval(" };
	struct sv html = page_html();

	(void)state;
	assert_true(html.len > 1000);
	for (size_t i = 0; i < COUNT(words); i++) {
		print_message("  %s\n", words[i]);
		assert_null(memmem(html.ptr, html.len, words[i], strlen(words[i])));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_policy_allows_what_is_there),
		cmocka_unit_test(test_the_page_keeps_to_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
