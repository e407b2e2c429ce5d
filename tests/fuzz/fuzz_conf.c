/*
 * A configuration from anywhere: either errors, each a line that names the file, or one that prints
 * as a configuration which gives the same again.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libconfig 1.5 forgets texts that stand where none may: some bytes for each bad file. */
/* NOLINTNEXTLINE(readability-identifier-naming): LeakSanitizer's name */
const char *__lsan_default_suppressions(void);

/* NOLINTNEXTLINE(readability-identifier-naming): LeakSanitizer's name */
const char *__lsan_default_suppressions(void)
{
	return "leak:strbuf_append\nleak:libconfig_yylex\n";
}

#define TEXT_MAX ((size_t)4 << 20)

/* Every line begins with the name, and there are as many as were counted. */
static void check_errors(const struct conf_errors *errors)
{
	struct sv rest = buf_sv(&errors->text);
	size_t lines = 0;

	assert(errors->count > 0);
	while (rest.len > 0) {
		struct sv line = sv_cut(&rest, '\n');

		assert(sv_starts_with(line, SV("x.conf")));
		/* An @include that we took for text, or for a comment, and libconfig for its
		 * own. */
		(void)sv_cut(&line, ' ');
		assert(!sv_starts_with(line, SV("syntax: cannot open include")));
		lines++;
	}
	assert(lines == errors->count);
}

static struct conf *parse(struct sv text, struct buf *printed)
{
	struct conf_errors errors = { .count = 0 };
	struct conf *conf;

	buf_init(&errors.text, TEXT_MAX);
	conf = conf_parse(text, "x.conf", NULL, &errors);
	if (conf) {
		assert(errors.count == 0);
		conf_print(conf, printed);
		assert(!printed->failed);
	} else {
		check_errors(&errors);
	}
	buf_free(&errors.text);
	return conf;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf first, second;
	struct conf *conf, *again = NULL;

	if (size > 8192)
		return 0;
	buf_init(&first, TEXT_MAX);
	buf_init(&second, TEXT_MAX);
	conf = parse((struct sv){ (const char *)data, size }, &first);
	if (conf) {
		again = parse(buf_sv(&first), &second);
		assert(again);
		assert(sv_is(buf_sv(&first), buf_sv(&second)));
	}
	conf_free(conf);
	conf_free(again);
	buf_free(&first);
	buf_free(&second);
	return 0;
}
