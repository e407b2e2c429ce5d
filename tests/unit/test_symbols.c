#include "tests/unit/unit.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sampler/names/elf.h"
#include "sampler/names/symbols.h"

#define ARENA_BYTES ((size_t)256 << 20)

static struct arena arena;

static int set_up(void **state)
{
	(void)state;
	return arena_open(&arena, ARENA_BYTES);
}

static int tear_down(void **state)
{
	(void)state;
	arena_close(&arena);
	return 0;
}

static struct symbols *open_symbols(void)
{
	struct symbols *symbols;
	struct err err;

	assert_int_equal(symbols_open(&arena, &symbols, &err), 0);
	return symbols;
}

static __attribute__((noinline)) int some_static_function(int number)
{
	return number * 7 + 1;
}

static void test_names(void **state)
{
	/* All of glibc's are in .dynsym; the first is in our own .symtab only. */
	const struct {
		const char *name;
		uintptr_t address;
	} cases[] = {
		{ "some_static_function", (uintptr_t)some_static_function },
		{ "getenv", (uintptr_t)dlsym(RTLD_DEFAULT, "getenv") },
		{ "getppid", (uintptr_t)dlsym(RTLD_DEFAULT, "getppid") },
	};
	struct symbols *symbols = open_symbols();

	(void)state;
	assert_int_equal(some_static_function(1), 8);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct symbol at_start, inside;

		print_message("  %s\n", cases[i].name);
		symbols_find(symbols, cases[i].address, &at_start);
		assert_string_equal(at_start.name, cases[i].name);
		assert_int_equal(at_start.offset, 0);
		symbols_find(symbols, cases[i].address + 3, &inside);
		assert_string_equal(inside.name, cases[i].name);
		assert_int_equal(inside.offset, 3);
		assert_int_equal(inside.address, at_start.address + 3);
	}
}

static void test_vdso(void **state)
{
	struct symbols *symbols = open_symbols();
	uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);
	bool named = false;

	(void)state;
	if (vdso == 0)
		skip();
	for (uintptr_t at = vdso; at < vdso + 8192 && !named; at += 16) {
		struct symbol symbol;

		symbols_find(symbols, at, &symbol);
		named = strcmp(symbol.name, "__vdso_clock_gettime") == 0 ||
			strcmp(symbol.name, "clock_gettime") == 0;
	}
	assert_true(named);
}

static void test_nothing_there(void **state)
{
	static const uintptr_t addresses[] = { 0, 1, 0x1000, UINTPTR_MAX };
	struct symbols *symbols = open_symbols();

	(void)state;
	for (size_t i = 0; i < COUNT(addresses); i++) {
		struct symbol symbol;

		symbols_find(symbols, addresses[i], &symbol);
		assert_string_equal(symbol.name, "[unknown]");
		assert_int_equal(symbol.module, symbols_modules(symbols));
		assert_int_equal(symbol.address, 0);
	}
}

/* Nobody outside learns where the program really lies, and addresses lead back. */
static void test_made_up_addresses(void **state)
{
	uintptr_t address = (uintptr_t)some_static_function + 1, real;
	struct symbols *symbols = open_symbols(), *again = open_symbols();
	struct symbol symbol, same;
	const struct module *module;

	(void)state;
	symbols_find(symbols, address, &symbol);
	symbols_find(again, address, &same);
	assert_int_equal(symbol.address, same.address);
	assert_int_not_equal(symbol.address, address);
	module = symbols_module(symbols, symbol.module);
	assert_true(symbol.address >= module->start && symbol.address < module->limit);
	/* Pages and places inside them stay what they are. */
	assert_int_equal(symbol.address % 4096, address % 4096);
	assert_true(symbols_real(symbols, symbol.address, &real));
	assert_int_equal(real, address);
	assert_false(symbols_real(symbols, address, &real));
	assert_int_equal(strlen(module->build_id) % 2, 0);
}

/* Code without a file, as a compiler at run time makes it. */
static void test_anonymous_code(void **state)
{
	char *page =
		mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct symbols *symbols;
	struct symbol symbol;

	(void)state;
	assert_ptr_not_equal(page, MAP_FAILED);
	symbols = open_symbols();
	symbols_find(symbols, (uintptr_t)page + 0x10, &symbol);
	assert_memory_equal(symbol.name, "[code without a file]+0x", 24);
	assert_int_equal(munmap(page, 4096), 0);
}

/* A library whose file was replaced: the names in the new one would be lies. */
static void test_replaced_file(void **state)
{
	char path[] = "/tmp/postern-symbols-XXXXXX";
	int file = mkstemp(path);
	struct symbols *symbols;
	struct symbol symbol;
	void *code;

	(void)state;
	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, 4096), 0);
	code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
	(void)close(file);
	if (code == MAP_FAILED) { /* a file system that runs nothing */
		(void)unlink(path);
		skip();
	}
	assert_int_equal(unlink(path), 0);
	symbols = open_symbols();
	symbols_find(symbols, (uintptr_t)code + 0x20, &symbol);
	assert_memory_equal(symbol.name, "postern-symbols-", 16);
	assert_non_null(strstr(symbol.name, "+0x"));
	assert_string_equal(symbols_module(symbols, symbol.module)->path, path);
	assert_int_equal(munmap(code, 4096), 0);
}

/* What the file says about itself agrees with what the loader made of it. */
static void test_own_file(void **state)
{
	struct elf_source source = { .file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC) };
	struct elf_symbol *symbols;
	uint64_t *starts, address = 0;
	struct stat status;
	struct elf elf;
	size_t len;
	bool found = false;

	(void)state;
	assert_true(source.file >= 0);
	assert_int_equal(fstat(source.file, &status), 0);
	source.size = (uint64_t)status.st_size;
	assert_true(elf_open(&source, &elf));
	elf_symbols(&elf, &arena, &symbols, &len);
	for (size_t i = 0; i < len && !found; i++) {
		found = strcmp(symbols[i].name, "some_static_function") == 0;
		address = symbols[i].address;
	}
	assert_true(found);
	elf_function_starts(&elf, &arena, &starts, &len);
	found = false;
	for (size_t i = 0; i < len; i++)
		found |= starts[i] == address;
	assert_true(found);
	(void)close(source.file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_vdso, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nothing_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_made_up_addresses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_anonymous_code, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_replaced_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_own_file, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
