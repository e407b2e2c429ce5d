/*
 * What a configuration names on disk: what @include finds, which file an error is in, who may write
 * and read, and what is never taken for something else.
 */
#include "unit.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/files.h"

#define TARGET "targets = ( { name = \"t\"; address = \"127.0.0.1:1\"; } );\n"
#define TLS    "tls = { certificate = \"@/pem\"; key = \"@/key\"; };\n"
#define GOOD   TLS TARGET

static char dir[] = "/tmp/postern-conf-files-XXXXXX";

/* Write a file, "@/" being the folder of it all. */
static void put(const char *name, mode_t mode, const char *text)
{
	char path[128];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)unlink(path);
	file = fopen(path, "we");
	assert_non_null(file);
	for (; *text; text++) {
		if (text[0] == '@' && text[1] == '/')
			assert_true(fputs(dir, file) >= 0);
		else
			assert_int_equal(fputc(*text, file), *text);
	}
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, mode), 0);
}

/* Load @/main.conf; what it says must hold `wanted`, or be nothing when that is NULL. */
static void check(const char *row, const char *wanted)
{
	struct conf_errors errors = { .count = 0 };
	struct conf_files *files = conf_files_disk();
	struct conf *conf;
	char path[128];
	bool good;

	(void)snprintf(path, sizeof(path), "%s/main.conf", dir);
	buf_init(&errors.text, 65536);
	assert_non_null(files);
	conf = conf_load(path, files, &errors);
	buf_add_byte(&errors.text, '\0');
	good = wanted ? !conf && strstr(errors.text.ptr, wanted) : conf && errors.count == 0;
	if (!good)
		print_message("%s: wanted: %s\ngot: %s", row, wanted ? wanted : "no error",
			errors.text.ptr);
	assert_true(good);
	conf_free(conf);
	conf_files_free(files);
	buf_free(&errors.text);
}

static int make_folder(void **state)
{
	char path[128];

	(void)state;
	(void)umask(077);
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/sub", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	put("pem", 0644, "bytes\n");
	put("key", 0600, "bytes\n");
	put("secret", 0600, "0123456789abcdef0123456789abcdef\n");
	put("short", 0600, "0123456789abcdef\n");
	put("open", 0644, "0123456789abcdef0123456789abcdef\n");
	put("empty", 0600, "");
	put("newline", 0600, "\n");
	put("blank", 0600, "two words\n");
	put("lines", 0600, "one\r\nX-More: two\n");
	return 0;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	(void)status;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int remove_folder(void **state)
{
	(void)state;
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void test_include(void **state)
{
	static const struct {
		const char *name, *main_text, *sub_text, *deep_text, *wanted;
	} rows[] = {
		{ "absolute", "@include \"@/sub/sub.conf\"\n" TLS, TARGET, "", NULL },
		{ "relative to its own file", "@include \"sub/sub.conf\"\n" TLS,
			"  @include \"deep.conf\"  # here\n", TARGET, NULL },
		{ "inside a group", "gateway = {\n@include \"sub/sub.conf\"\n};\n" GOOD,
			"workers = 2;", "", NULL },
		{ "a comment that ends in the other", "/*\n@include \"none\"\n*/\n" GOOD, "",
			"", NULL },
		{ "an error there", "\n@include \"sub/sub.conf\"\n" GOOD,
			"\n\ngateway = { workers = 0; };\n", "",
			"/sub/sub.conf:3: gateway.workers: 0 is not" },
		{ "an error behind it", "\n@include \"sub/sub.conf\"\nnone = 1;\n" GOOD,
			"\n\n\n\n", "", "/main.conf:3: none: there is no such setting" },
		{ "an error two deep", "@include \"sub/sub.conf\"\n" GOOD,
			"\n@include \"deep.conf\"\n", "\n\n\nnone = 1;\n",
			"/sub/deep.conf:4: none: there is no such setting" },
		{ "bad syntax there", "@include \"sub/sub.conf\"\n" GOOD, "\nworkers 1\n", "",
			"/sub/sub.conf:2: syntax: " },
		{ "what the whole is wrong about", "\n@include \"sub/sub.conf\"\n" GOOD,
			"\naccess = { ttl = \"5h\"; };\n", "",
			"/sub/sub.conf:2: access.ttl: \"5h\" is longer" },
		{ "itself", "@include \"main.conf\"\n" GOOD, "", "",
			"/main.conf:1: @include: more than 64 files, or one includes itself" },
		{ "none", "\n\n@include \"none.conf\"\n" GOOD, "", "",
			"/main.conf:3: @include: " },
		{ "none, from below", "@include \"sub/sub.conf\"\n" GOOD,
			"\n@include \"none.conf\"\n", "", "/sub/sub.conf:2: @include: " },
		{ "no quotes", "@include sub.conf\n" GOOD, "", "",
			"/main.conf:1: @include: a path in quotes" },
		{ "no end of quotes", "@include \"sub.conf\n" GOOD, "", "",
			"/main.conf:1: @include: a path in quotes" },
		{ "more behind it", "@include \"sub/sub.conf\" workers = 1;\n" GOOD, "", "",
			"/main.conf:1: @include: a path in quotes" },
		{ "set twice", "@include \"sub/sub.conf\"\n" GOOD, TLS, "",
			"/main.conf:2: syntax: duplicate" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		put("main.conf", 0644, rows[i].main_text);
		put("sub/sub.conf", 0644, rows[i].sub_text);
		put("sub/deep.conf", 0644, rows[i].deep_text);
		check(rows[i].name, rows[i].wanted);
	}
}

static void test_who_may_write_and_read(void **state)
{
	static const struct {
		const char *name, *file;
		mode_t mode;
		const char *wanted;
	} rows[] = {
		{ "all as it should be", "main.conf", 0644, NULL },
		{ "the group may write", "main.conf", 0664,
			"/main.conf: others than its owner may write it (mode 0664): chmod "
			"go-w" },
		{ "anybody may write", "main.conf", 0646, "/main.conf: others than its owner" },
		{ "an included one", "sub/sub.conf", 0666, "/main.conf:1: @include: " },
		{ "a certificate", "pem", 0664, "tls.certificate: " },
		{ "a key that the group may read", "key", 0640, "/main.conf:2: tls.key: " },
		{ "a key that anybody may read", "key", 0604,
			"it is a secret that others than its owner may read (mode 0604): chmod "
			"600" },
		{ "the folder", ".", 0777, "others may change the folder that it lies in" },
		{ "the included one's folder", "sub", 0770,
			"others may change the folder that it lies in" },
	};

	(void)state;
	put("main.conf", 0644, "@include \"sub/sub.conf\"\n" GOOD);
	put("sub/sub.conf", 0644, "\n");
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct stat was;
		char path[128];

		(void)snprintf(path, sizeof(path), "%s/%s", dir, rows[i].file);
		assert_int_equal(stat(path, &was), 0);
		assert_int_equal(chmod(path, rows[i].mode), 0);
		check(rows[i].name, rows[i].wanted);
		assert_int_equal(chmod(path, was.st_mode & 07777), 0);
	}
}

static void test_not_a_file(void **state)
{
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/main.conf", dir);
	(void)unlink(path);
	check("missing", "/main.conf: No such file or directory");
	/* Nobody writes there: opening it must not wait for that. */
	assert_int_equal(mkfifo(path, 0600), 0);
	check("a pipe", "/main.conf: it is not a regular file");
	(void)unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	check("a folder", "/main.conf: it is not a regular file");
	(void)rmdir(path);
}

static void test_secrets(void **state)
{
#define JWT(file)                                                                  \
	"jwt = ( { issuer = \"a\"; audience = \"b\"; algorithms = [ \"HS256\" ]; " \
	"key_file = \"@/" file "\"; } );\n"
#define TOKEN(file)                                                                    \
	"targets = ( { name = \"t\"; socket = \"/run/x.sock\"; token_file = \"@/" file \
	"\"; } );\n"

	static const struct {
		const char *name, *text, *wanted;
	} rows[] = {
		{ "audit key", GOOD "audit = { key_file = \"@/secret\"; };\n", NULL },
		{ "audit key, empty", GOOD "audit = { key_file = \"@/empty\"; };\n",
			"audit.key_file: " },
		{ "audit key, a newline", GOOD "audit = { key_file = \"@/newline\"; };\n",
			": it is empty" },
		{ "audit key, short", GOOD "audit = { key_file = \"@/short\"; };\n",
			"the key has 16 bytes; it must have at least 32" },
		{ "audit key, open", GOOD "audit = { key_file = \"@/open\"; };\n",
			"it is a secret" },
		{ "token secret", GOOD JWT("secret"), NULL },
		{ "token secret, empty", GOOD JWT("empty"), ": it is empty" },
		{ "token secret, a newline", GOOD JWT("newline"), ": it is empty" },
		{ "token secret, short", GOOD JWT("short"), ":3: jwt[0]: " },
		{ "token secret, open", GOOD JWT("open"), "it is a secret" },
		{ "target's token", TLS TOKEN("secret"), NULL },
		{ "target's token, empty", TLS TOKEN("empty"), ": it is empty" },
		{ "target's token, two words", TLS TOKEN("blank"),
			"a token is one line of visible characters" },
		{ "target's token, a header field behind it", TLS TOKEN("lines"),
			"a token is one line of visible characters" },
		{ "target's token, open", TLS TOKEN("open"), "it is a secret" },
		{ "a certificate, empty",
			"tls = { certificate = \"@/empty\"; key = \"@/key\"; };\n" TARGET,
			"/main.conf:1: tls.certificate: " },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		put("main.conf", 0644, rows[i].text);
		check(rows[i].name, rows[i].wanted);
	}
}

/* The same bytes give the same configuration in a worker, which has no files; and every other
 * message is refused whole. */
static void test_packed(void **state)
{
	struct conf_errors errors = { .count = 0 };
	struct conf_files *disk = conf_files_disk(), *packed;
	struct conf *conf, *again;
	struct buf text, pack, printed;
	struct sv handed;
	struct err err;
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/main.conf", dir);
	put("main.conf", 0644, GOOD JWT("secret") "audit = { key_file = \"@/secret\"; };\n");
	buf_init(&errors.text, 65536);
	buf_init(&text, 65536);
	buf_init(&pack, 1 << 20);
	buf_init(&printed, 65536);
	conf = conf_load(path, disk, &errors);
	assert_non_null(conf);
	conf_print(conf, &text);
	assert_null(memmem(text.ptr, text.len, "0123456789abcdef", 16));
	conf_files_pack(disk, buf_sv(&text), &pack);
	packed = conf_files_packed(buf_sv(&pack), &handed, &err);
	assert_non_null(packed);
	again = conf_parse(handed, "configuration", packed, &errors);
	assert_non_null(again);
	assert_true(sv_is(again->audit.key, conf->audit.key));
	assert_int_equal(again->issuers_len, 1);
	conf_print(again, &printed);
	assert_true(sv_is(buf_sv(&printed), buf_sv(&text)));
	conf_free(again);
	conf_free(conf);
	conf_files_free(packed);
	conf_files_free(disk);
	for (size_t len = 0; len < pack.len; len++)
		assert_null(conf_files_packed((struct sv){ pack.ptr, len }, &handed, &err));
	buf_add_byte(&pack, 'x');
	assert_null(conf_files_packed(buf_sv(&pack), &handed, &err));
	/* Lengths that reach beyond it, or around the end of numbers. */
	for (size_t at = 0; at < 16; at++) {
		char was = pack.ptr[at];

		pack.ptr[at] = (char)0xff;
		assert_null(conf_files_packed(
			(struct sv){ pack.ptr, pack.len - 1 }, &handed, &err));
		pack.ptr[at] = was;
	}
	buf_free(&errors.text);
	buf_free(&text);
	buf_free(&pack);
	buf_free(&printed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_include),
		cmocka_unit_test(test_who_may_write_and_read),
		cmocka_unit_test(test_not_a_file),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_packed),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
