#include "unit.h"

#include <string.h>

#include "gateway/metrics.h"

static void test_text(void **state)
{
	struct metrics metrics = { .connections = 7, .sent_bytes = 1234567890123 };
	char text[16384];
	struct buf out;

	(void)state;
	metrics_answer(&metrics, 200);
	metrics_answer(&metrics, 204);
	metrics_answer(&metrics, 999);
	metrics_refusal(&metrics, PROBLEM_NO_GRANT);
	metrics_refusal(&metrics, PROBLEM_ADDRESS_BANNED); /* has no status */
	buf_init_fixed(&out, text, sizeof(text) - 1);
	metrics_write(&metrics, 3, &out);
	assert_false(out.failed);
	text[out.len] = '\0';
	assert_non_null(strstr(text, "\npostern_connections_total{worker=\"3\"} 7\n"));
	assert_non_null(
		strstr(text, "\npostern_sent_bytes_total{worker=\"3\"} 1234567890123\n"));
	assert_non_null(
		strstr(text, "\npostern_answers_total{worker=\"3\",class=\"2xx\"} 2\n"));
	assert_non_null(
		strstr(text, "\npostern_answers_total{worker=\"3\",class=\"4xx\"} 1\n"));
	assert_non_null(
		strstr(text, "\npostern_refusals_total{worker=\"3\",reason=\"no-grant\"} 1\n"));
	assert_non_null(strstr(
		text, "\npostern_refusals_total{worker=\"3\",reason=\"address-banned\"} 1\n"));
}

/* Each line is a comment or "name{labels} number", each name with one HELP and TYPE before it. */
static void test_every_line_is_well_formed(void **state)
{
	struct metrics metrics = { 0 };
	char text[16384];
	struct buf out;
	struct sv rest, name = SV("");

	(void)state;
	buf_init_fixed(&out, text, sizeof(text));
	metrics_write(&metrics, 0, &out);
	for (rest = buf_sv(&out); rest.len > 0;) {
		struct sv line = sv_cut(&rest, '\n');

		if (sv_starts_with(line, SV("# HELP "))) {
			struct sv words = { line.ptr + 7, line.len - 7 };

			name = sv_cut(&words, ' ');
			assert_true(words.len > 5);
			continue;
		}
		if (sv_starts_with(line, SV("# TYPE ")))
			continue;
		assert_true(sv_is(sv_cut(&line, '{'), name));
		assert_non_null(memchr(line.ptr, '}', line.len));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_every_line_is_well_formed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
