/*
 * No memory, at every place where conf, acl and auth ask for it: a configuration is either whole or
 * refused. A deny list that went missing would let somebody in.
 *
 * The linker hands this program's own calls over (see CMakeLists.txt); libconfig's, which does not
 * look at what malloc() gives it, and OpenSSL's stay as they are.
 */
#include "unit.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/files.h"

/* The names are the linker's: of what there was, and of what stands in for it.
 * NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier) */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t count, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);
char *__wrap_strdup(const char *text);

static struct {
	bool on, for_good; /* the one at `fail_at`, or all from it on */
	unsigned long calls, fail_at;
} memory;

static bool is_refused(void)
{
	if (!memory.on)
		return false;
	memory.calls++;
	if (memory.calls != memory.fail_at &&
		!(memory.for_good && memory.calls > memory.fail_at))
		return false;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return is_refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return is_refused() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return is_refused() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
	return is_refused() ? NULL : __real_reallocarray(old, count, size);
}

char *__wrap_strdup(const char *text)
{
	return is_refused() ? NULL : __real_strdup(text);
}

/* NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier) */

static const char main_text[] =
	"@include \"jwt.conf\"\n"
	"gateway = { listen = [ \"0.0.0.0:0\", \"[::1]:0\" ]; hosts = [ \"gate.test\" ]; };\n"
	"tls = { certificate = \"DIR/pem\"; key = \"DIR/pem\"; client_ca = \"DIR/pem\"; };\n"
	"admin = { socket = \"/run/x.sock\"; allow_uids = [ 0, 7 ]; };\n"
	"acl = { allow = [ \"10.0.0.0/8\", \"2001:db8::/32\", \"127.0.0.1\" ]; "
	"deny = [ \"10.0.0.1\", \"10.2.0.0/16\" ]; };\n"
	"grants = ( { match = { issuer = \"a\"; scope = \"s\"; }; targets = [ \"*\" ]; "
	"profiles = [ \"*\", \"symbol\" ]; allow = [ \"10.1.0.0/16\" ]; },\n"
	"  { match = { san = \"URI:x/*\"; }; targets = [ \"t\" ]; profiles = [ \"heap\" ]; } "
	");\n"
	"audit = { file = \"/x\"; key_file = \"DIR/secret\"; };\n"
	"targets = ( { name = \"t\"; address = \"127.0.0.1:1\"; uid = 0; "
	"token_file = \"DIR/secret\"; allow = [ \"10.0.0.0/24\" ]; default = true; },\n"
	"  { name = \"u\"; socket = \"/run/u.sock\"; } );\n";

static const char jwt_text[] =
	"jwt = ( { issuer = \"a\"; audience = \"p\"; algorithms = [ \"ES256\", \"ES256\" ]; "
	"key_file = \"DIR/jwt.pem\"; },\n"
	"  { issuer = \"b\"; audience = \"p\"; algorithms = [ \"HS256\" ]; "
	"key_file = \"DIR/secret\"; } );\n";

static char dir[] = "/tmp/postern-conf-memory-XXXXXX";

static FILE *create(const char *name)
{
	char path[128];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "we");
	assert_non_null(file);
	return file;
}

static void write_file(const char *name, const char *text)
{
	FILE *file = create(name);

	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void write_conf(const char *name, const char *text)
{
	FILE *file = create(name);
	const char *rest = text, *mark;

	while ((mark = strstr(rest, "DIR"))) {
		assert_true(
			fwrite(rest, 1, (size_t)(mark - rest), file) == (size_t)(mark - rest));
		assert_true(fputs(dir, file) >= 0);
		rest = mark + 3;
	}
	assert_true(fputs(rest, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static int make_files(void **state)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	FILE *file;

	(void)state;
	(void)umask(077);
	assert_non_null(mkdtemp(dir));
	assert_non_null(key);
	file = create("jwt.pem");
	assert_int_equal(PEM_write_PUBKEY(file, key), 1);
	assert_int_equal(fclose(file), 0);
	EVP_PKEY_free(key);
	write_file("pem", "not looked at here\n");
	write_file("secret", "0123456789abcdef0123456789abcdef\n");
	write_conf("jwt.conf", jwt_text);
	write_conf("main.conf", main_text);
	return 0;
}

static int remove_files(void **state)
{
	static const char *const names[] = { "jwt.pem", "pem", "secret", "jwt.conf",
		"main.conf" };
	char path[128];

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)unlink(path);
	}
	return rmdir(dir);
}

static bool allows(const struct conf *conf, const char *text)
{
	struct addr addr;
	struct err err;

	assert_int_equal(addr_parse(sv_from_cstr(text), &addr, &err), 0);
	return acl_check(conf->acl, &addr) == ACL_ALLOW;
}

/* What is handed out is the whole, not what there was memory for. */
static void check_whole(const struct conf *conf)
{
	assert_true(allows(conf, "10.0.0.2"));
	assert_false(allows(conf, "10.0.0.1"));
	assert_false(allows(conf, "10.2.3.4"));
	assert_int_equal(conf->issuers_len, 2);
	assert_int_equal(conf->grants_len, 2);
	assert_non_null(conf->grants[0].acl);
	assert_string_equal(conf->grants[0].grant.scope, "s");
	assert_int_equal(conf->targets_len, 2);
	assert_non_null(conf->targets[0].acl);
	assert_true(conf->targets[0].has_uid);
	assert_int_equal(conf->targets[0].token.len, 32);
	assert_int_equal(conf->audit.key.len, 32);
	assert_int_equal(conf->admin.allow_uids_len, 2);
	assert_int_equal(conf->admin.allow_uids[1], 7);
	assert_string_equal(conf->gateway.hosts[0], "gate.test");
}

/* Load with the n-th request for memory refused. True when there were fewer. */
static bool load_without(unsigned long n, bool for_good)
{
	struct conf_errors errors = { .count = 0 };
	struct conf_files *files;
	struct conf *conf;
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/main.conf", dir);
	buf_init(&errors.text, 65536);
	memory.calls = 0;
	memory.fail_at = n;
	memory.for_good = for_good;
	memory.on = true;
	files = conf_files_disk();
	conf = files ? conf_load(path, files, &errors) : NULL;
	memory.on = false;
	if (memory.calls < n && !conf)
		print_message(SV_FMT, SV_ARG(buf_sv(&errors.text)));
	if (conf)
		check_whole(conf);
	else if (files)
		assert_true(errors.count > 0);
	conf_free(conf);
	conf_files_free(files);
	buf_free(&errors.text);
	return memory.calls < n && conf;
}

static void test_one_refused(void **state)
{
	unsigned long n = 1;

	(void)state;
	while (!load_without(n, false)) {
		assert_true(n < 100000);
		n++;
	}
	assert_true(n > 100); /* or the linker did not hand the calls over */
}

static void test_all_refused_from_then_on(void **state)
{
	unsigned long n = 1;

	(void)state;
	while (!load_without(n, true))
		assert_true(n++ < 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_refused),
		cmocka_unit_test(test_all_refused_from_then_on),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
