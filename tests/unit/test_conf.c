#include "unit.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/files.h"
#include "conf/schema.h"

#define CERTIFICATE "tls = { certificate = \"c.pem\"; key = \"k.pem\"; };\n"
#define TARGET      "targets = ( { name = \"vtp\"; address = \"127.0.0.1:6060\"; } );\n"

static struct conf *parse(const char *text, struct conf_errors *errors)
{
	*errors = (struct conf_errors){ 0 };
	buf_init(&errors->text, 65536);
	return conf_parse(sv_from_cstr(text), "x.conf", NULL, errors);
}

/* abort() and not an assertion: the analyzer knows that it ends here. */
static struct conf *parse_good(const char *text, struct conf_errors *errors)
{
	struct conf *conf = parse(text, errors);

	if (!conf) {
		print_message(SV_FMT, SV_ARG(buf_sv(&errors->text)));
		abort();
	}
	return conf;
}

static void test_defaults(void **state)
{
	struct conf_errors errors;
	struct conf *conf = parse_good(CERTIFICATE TARGET, &errors);

	(void)state;
	assert_int_equal(conf->gateway.listen_len, 2);
	assert_int_equal(conf->gateway.listen[0].port, 6061);
	assert_int_equal(conf->gateway.workers, 1);
	assert_int_equal(conf->gateway.drain_ms, 30000);
	assert_true(conf->gateway.web);
	assert_int_equal(conf->tls.client_certificate, CONF_CLIENT_NONE);
	assert_int_equal(conf->access.ttl_ms, 900000);
	assert_int_equal(conf->access.max_ttl_ms, 4 * 3600000);
	assert_int_equal(conf->limits.header_bytes, 16384);
	assert_int_equal(conf->limits.capture_bytes, 512U << 20);
	assert_int_equal(conf->rate_limits.per_address.burst, 40);
	assert_int_equal(conf->audit.sync, CONF_SYNC_ALWAYS);
	assert_true(acl_is_loopback_only(conf->acl));
	assert_true(conf->targets[0].is_default);
	conf_free(conf);
	buf_free(&errors.text);
}

/* What -T prints is a configuration that gives the same again. */
static void test_printed_parses_to_the_same(void **state)
{
	static const char text[] = CERTIFICATE
		"gateway = { listen = [ \"127.0.0.1:0\" ]; workers = 3; hosts = [ \"a\", "
		"\"b\\\"c\" ]; "
		"drain = \"90s\"; sandbox = \"off\"; web = false; };\n"
		"rate_limits = { per_address = { rate = 0.5; burst = 4000000000L; }; };\n"
		"grants = ( { match = { subject = \"x\"; method = \"jwt\"; }; targets = [ "
		"\"*\" ]; "
		"profiles = [ \"*\", \"symbol\" ]; max_seconds = 7; allow = [ \"10.0.0.0/8\" "
		"]; } "
		");\n"
		"targets = ( { name = \"a\"; socket = \"/run/a.sock\"; }, { name = \"b\"; "
		"address = "
		"\"[::1]:1\"; uid = 0; default = true; } );\n";
	struct buf once, twice;
	struct conf_errors errors;
	struct conf *conf = parse_good(text, &errors);

	(void)state;
	assert_int_equal(conf->rate_limits.per_address.burst, 4000000000U);
	buf_init(&once, 65536);
	buf_init(&twice, 65536);
	conf_print(conf, &once);
	conf_free(conf);
	buf_free(&errors.text);
	buf_add_byte(&once, '\0');
	conf = parse_good(once.ptr, &errors);
	assert_int_equal(conf->targets[1].uid, 0);
	assert_true(conf->targets[1].has_uid);
	assert_string_equal(conf->gateway.hosts[1], "b\"c");
	conf_print(conf, &twice);
	buf_add_byte(&twice, '\0');
	assert_string_equal(once.ptr, twice.ptr);
	conf_free(conf);
	buf_free(&errors.text);
	buf_free(&once);
	buf_free(&twice);
}

static void test_no_groups_either_way(void **state)
{
	struct conf_errors errors;
	struct conf *conf =
		parse_good(CERTIFICATE "grants = [ ]; jwt = ( );\n" TARGET, &errors);

	(void)state;
	assert_int_equal(conf->grants_len, 0);
	conf_free(conf);
	buf_free(&errors.text);
}

static void test_every_error_is_found(void **state)
{
	struct conf_errors errors;
	struct conf *conf = parse(CERTIFICATE "gateway = { workres = 2; drain = \"1x\"; };\n"
					      "access = { ttl = 5; };\n" TARGET,
		&errors);

	(void)state;
	assert_null(conf);
	assert_int_equal(errors.count, 3);
	buf_add_byte(&errors.text, '\0');
	assert_string_equal(errors.text.ptr,
		"x.conf:2: gateway.workres: there is no such setting; did you mean 'workers'?\n"
		"x.conf:2: gateway.drain: \"1x\" is not a duration: write 500ms, 30s, 15m or "
		"4h\n"
		"x.conf:3: access.ttl: it must be a duration in quotes: \"500ms\", \"30s\", "
		"\"15m\", \"4h\"\n");
	buf_free(&errors.text);
}

static void test_packed_files_come_out_as_they_went_in(void **state)
{
	struct conf_files *disk = conf_files_disk(), *packed;
	struct sv bytes, text;
	struct buf pack;
	struct err err;

	(void)state;
	assert_non_null(disk);
	buf_init(&pack, 1 << 20);
	assert_int_equal(disk->get(disk, "CMakeLists.txt", false, &bytes, &err), 0);
	conf_files_pack(disk, SV("the text"), &pack);
	packed = conf_files_packed(buf_sv(&pack), &text, &err);
	assert_non_null(packed);
	assert_true(sv_is(text, SV("the text")));
	assert_int_equal(packed->get(packed, "CMakeLists.txt", false, &text, &err), 0);
	assert_true(sv_is(text, bytes));
	assert_int_equal(packed->get(packed, "/etc/passwd", false, &text, &err), -1);
	conf_files_free(packed);
	/* Cut anywhere, it is refused whole. */
	for (size_t len = 0; len < pack.len; len += 97) {
		packed = conf_files_packed((struct sv){ pack.ptr, len }, &text, &err);
		assert_null(packed);
	}
	conf_files_free(disk);
	buf_free(&pack);
}

static char *read_text(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = calloc(1, 65536);
	size_t len;

	assert_non_null(text);
	if (!file)
		return text;
	len = fread(text, 1, 65535, file);
	text[len] = '\0';
	(void)fclose(file);
	return text;
}

/* The message is the test: NAME.conf must give exactly NAME.err. With GOLDEN=write in the
 * environment the .err files are made anew, to be read before they are committed. */
static void test_golden(void **state)
{
	const char *mode = getenv("GOLDEN"); /* NOLINT(concurrency-mt-unsafe): one thread */
	bool writing = mode && strcmp(mode, "write") == 0;
	glob_t found;

	(void)state;
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	assert_int_equal(glob("tests/golden/conf/*.conf", 0, NULL, &found), 0);
	assert_true(found.gl_pathc >= 40);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char *text = read_text(found.gl_pathv[i]), *wanted, path[256];
		struct conf_errors errors;
		struct conf *conf;

		(void)snprintf(path, sizeof(path), "%.*s.err",
			(int)strlen(found.gl_pathv[i]) - 5, found.gl_pathv[i]);
		conf = parse(text, &errors);
		assert_null(conf);
		buf_add_byte(&errors.text, '\0');
		if (writing) {
			FILE *file = fopen(path, "we");

			assert_non_null(file);
			(void)fputs(errors.text.ptr, file);
			(void)fclose(file);
		}
		wanted = read_text(path);
		print_message("  %s\n", found.gl_pathv[i]);
		assert_string_equal(errors.text.ptr, wanted);
		assert_true(errors.text.len > 1);
		free(text);
		free(wanted);
		buf_free(&errors.text);
	}
	globfree(&found);
}

static void test_the_shipped_file_parses(void **state)
{
	char *text = read_text("packaging/postern.conf"), *user = strstr(text, "uid = \"vtp\"");
	struct conf_errors errors;
	struct conf *conf;

	(void)state;
	/* A user of the example that this host may lack. */
	assert_non_null(user);
	memcpy(user, "uid =  \"0\" ",
		sizeof("uid = \"vtp\"") - 1); /* NOLINT(bugprone-not-null-terminated-result) */
	conf = parse_good(text, &errors);
	assert_int_equal(conf->targets_len, 2);
	assert_int_equal(conf->grants_len, 2);
	conf_free(conf);
	buf_free(&errors.text);
	free(text);
}

static void print(const char *text, struct buf *out)
{
	struct conf_errors errors;
	struct conf *conf = parse_good(text, &errors);

	buf_init(out, 65536);
	conf_print(conf, out);
	conf_free(conf);
	buf_free(&errors.text);
}

/* The next line of what was printed that is no part of a list of groups. */
static struct sv next_line(struct sv *rest)
{
	struct sv line = sv_cut(rest, '\n');
	bool in_list = false;

	while (in_list || memmem(line.ptr, line.len, "= (", 3)) {
		in_list = !memmem(line.ptr, line.len, ");", 2);
		line = sv_cut(rest, '\n');
	}
	return line;
}

/* What the shipped file calls a default is one: it sets nothing else but its examples. */
static void test_the_shipped_file_tells_the_defaults(void **state)
{
	static const char *const examples[] = { "certificate", "key", "client_certificate",
		"client_ca", "user" };
	char *text = read_text("packaging/postern.conf"), *user = strstr(text, "uid = \"vtp\"");
	struct buf shipped, defaults;
	struct sv left, right;
	size_t compared = 0;

	(void)state;
	assert_non_null(user);
	memcpy(user, "uid =  \"0\" ", 11); /* NOLINT(bugprone-not-null-terminated-result) */
	print(text, &shipped);
	print(CERTIFICATE TARGET, &defaults);
	left = buf_sv(&shipped);
	right = buf_sv(&defaults);
	while (left.len > 0 && right.len > 0) {
		struct sv a = next_line(&left), b = next_line(&right), rest = sv_trim(a);
		struct sv name = sv_cut(&rest, ' ');
		bool is_example = false;

		for (size_t i = 0; i < COUNT(examples); i++)
			is_example |= sv_is(name, sv_from_cstr(examples[i]));
		if (!is_example && !sv_is(a, b))
			fail_msg("packaging/postern.conf: " SV_FMT
				 ", but the default is " SV_FMT,
				SV_ARG(a), SV_ARG(b));
		compared++;
	}
	assert_int_equal(left.len, right.len);
	assert_true(compared > 50);
	buf_free(&shipped);
	buf_free(&defaults);
	free(text);
}

static bool is_told(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = strstr(text, name); at; at = strstr(at + 1, name)) {
		const char *behind = at + len;

		if (at > text && strchr(" \n{.", at[-1]) &&
			strncmp(behind + strspn(behind, " "), "= ", 2) == 0)
			return true;
	}
	return false;
}

/* Every setting that there is stands in the shipped file, or among those of a grant's match; what is
 * still to come is at least named. */
static void check_told(const char *text, const struct setting *fields)
{
	for (; fields->name; fields++) {
		char among[64];

		(void)snprintf(among, sizeof(among), ", %s", fields->name);
		if (fields->type == SETTING_NOT_BUILT
				? !strstr(text, fields->name)
				: !is_told(text, fields->name) && !strstr(text, among))
			fail_msg("packaging/postern.conf does not tell of %s", fields->name);
		if (fields->fields)
			check_told(text, fields->fields);
	}
}

static void test_the_shipped_file_tells_of_every_setting(void **state)
{
	char *text = read_text("packaging/postern.conf");

	(void)state;
	check_told(text, schema);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_printed_parses_to_the_same),
		cmocka_unit_test(test_no_groups_either_way),
		cmocka_unit_test(test_every_error_is_found),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_the_shipped_file_parses),
		cmocka_unit_test(test_the_shipped_file_tells_the_defaults),
		cmocka_unit_test(test_the_shipped_file_tells_of_every_setting),
		cmocka_unit_test(test_packed_files_come_out_as_they_went_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
