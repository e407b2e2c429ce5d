#include "tests/unit/unit.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "sampler/names/elf.h"
#include "sampler/names/lines_protocol.h"
#include "sampler/names/perf_map.h"

#define ARENA_BYTES ((size_t)64 << 20)

static char bytes[LINES_PACKET_MAX];

static const struct lines_record record = {
	.index = 3,
	.lines_len = 2,
	.lines = { { SV_INIT("inner"), SV_INIT("_Z5innerv"), SV_INIT("/src/a.cc"), 12, 10 },
		{ SV_INIT("outer"), SV_INIT("outer.part.0"), SV_INIT(""), 0, 0 } },
};

static struct sv an_answer(void)
{
	struct buf packet;

	buf_init_fixed(&packet, bytes, sizeof(bytes));
	lines_answer_begin(&packet, 9);
	assert_true(lines_answer_add(&packet, &record));
	lines_answer_end(&packet, true);
	return buf_sv(&packet);
}

static void test_answer(void **state)
{
	struct sv packet = an_answer();
	struct lines_answer answer;
	struct lines_record got;

	(void)state;
	assert_true(lines_answer_read(packet, &answer));
	assert_int_equal(answer.id, 9);
	assert_int_equal(answer.count, 1);
	assert_true(answer.last);
	assert_true(lines_answer_next(&answer, &got));
	assert_int_equal(answer.rest.len, 0);
	assert_int_equal(got.index, 3);
	assert_int_equal(got.lines_len, 2);
	assert_true(sv_is(got.lines[0].function, SV("inner")));
	assert_true(sv_is(got.lines[0].system_name, SV("_Z5innerv")));
	assert_true(sv_is(got.lines[0].file, SV("/src/a.cc")));
	assert_int_equal(got.lines[0].line, 12);
	assert_int_equal(got.lines[0].start_line, 10);
	assert_true(sv_is(got.lines[1].system_name, SV("outer.part.0")));
	assert_false(lines_answer_next(&answer, &got));
}

/* Whatever is cut off or changed in the head or in the lengths is noticed. */
static void test_broken_answers(void **state)
{
	struct sv packet = an_answer();
	char copy[LINES_PACKET_MAX];
	struct lines_answer answer;
	struct lines_record got;

	(void)state;
	for (size_t len = 0; len < packet.len; len++) {
		memcpy(copy, packet.ptr, len);
		if (lines_answer_read((struct sv){ copy, len }, &answer))
			assert_false(lines_answer_next(&answer, &got));
	}
	memcpy(copy, packet.ptr, packet.len);
	copy[0] ^= 1; /* magic */
	assert_false(lines_answer_read((struct sv){ copy, packet.len }, &answer));
	copy[0] ^= 1;
	copy[12] = 2; /* last */
	assert_false(lines_answer_read((struct sv){ copy, packet.len }, &answer));
	copy[12] = 1;
	copy[20] = LINES_CHAIN_MAX + 1;
	assert_true(lines_answer_read((struct sv){ copy, packet.len }, &answer));
	assert_false(lines_answer_next(&answer, &got));
	copy[20] = 2;
	copy[35] = '\n'; /* in a name */
	assert_true(lines_answer_read((struct sv){ copy, packet.len }, &answer));
	assert_false(lines_answer_next(&answer, &got));
}

static void test_no_empty_names(void **state)
{
	const struct lines_record nameless = { .lines_len = 1,
		.lines = { { SV_INIT(""), SV_INIT("x"), SV_INIT(""), 0, 0 } } };
	const struct lines_record placeless = { .lines_len = 1,
		.lines = { { SV_INIT("x"), SV_INIT("x"), SV_INIT(""), 5, 0 } } };
	const struct lines_record *const bad[] = { &nameless, &placeless };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct lines_answer answer;
		struct lines_record got;
		struct buf packet;

		buf_init_fixed(&packet, bytes, sizeof(bytes));
		lines_answer_begin(&packet, 9);
		assert_true(lines_answer_add(&packet, bad[i]));
		assert_true(lines_answer_read(buf_sv(&packet), &answer));
		assert_false(lines_answer_next(&answer, &got));
	}
}

static void test_question(void **state)
{
	const struct lines_address address = { 0x1234, SV_INIT("name") };
	struct lines_question question;
	struct lines_address got;
	struct buf packet;
	uint32_t count = 0;

	(void)state;
	buf_init_fixed(&packet, bytes, sizeof(bytes));
	lines_question_begin(&packet, 5, SV("/usr/bin/x"));
	while (lines_question_add(&packet, &address))
		count++;
	assert_in_range(count, LINES_PACKET_MAX / 14 - 2, LINES_PACKET_MAX / 14);
	assert_true(lines_question_read(buf_sv(&packet), &question));
	assert_int_equal(question.count, count);
	assert_true(sv_is(question.path, SV("/usr/bin/x")));
	for (uint32_t i = 0; i < count; i++) {
		assert_true(lines_question_next(&question, &got));
		assert_int_equal(got.address, 0x1234);
		assert_true(sv_is(got.name, SV("name")));
	}
	assert_false(lines_question_next(&question, &got));
}

static void test_perf_map(void **state)
{
	static const char text[] = "1000 10 first\n"
				   "2000 20 LazyCompile:~f /app.js:3\n"
				   "3000 zz no number\n"
				   "3000\n"
				   "3000 0 no size\n"
				   "ffffffffffffffff 10 too far\n"
				   "4000 8 \n"
				   "2000 10 the same again\n"
				   "500 8 a\tb";
	struct perf_map map;
	struct arena arena;

	(void)state;
	assert_int_equal(arena_open(&arena, ARENA_BYTES), 0);
	perf_map_parse(SV("" /* nothing */), &arena, &map);
	assert_null(perf_map_find(&map, 1));
	perf_map_parse(sv_from_cstr(text), &arena, &map);
	assert_int_equal(map.len, 4);
	assert_string_equal(perf_map_find(&map, 0x1000)->name, "first");
	assert_string_equal(perf_map_find(&map, 0x100f)->name, "first");
	assert_null(perf_map_find(&map, 0x1010));
	assert_null(perf_map_find(&map, 0xfff));
	assert_string_equal(perf_map_find(&map, 0x2000)->name, "the same again");
	assert_string_equal(perf_map_find(&map, 0x201f)->name, "LazyCompile:~f /app.js:3");
	assert_string_equal(perf_map_find(&map, 0x500)->name, "a?b");
	arena_close(&arena);
}

#ifdef __x86_64__
/* Where an entry jumps to: "jmp *disp(%rip)", after an endbr64 or not. */
static uintptr_t target_of(const unsigned char *stub, size_t size)
{
	for (size_t i = 0; i + 6 <= size; i++) {
		int32_t distance;
		uintptr_t target;

		if (stub[i] != 0xff || stub[i + 1] != 0x25)
			continue;
		memcpy(&distance, stub + i + 2, sizeof(distance));
		memcpy(&target, stub + i + 6 + distance, sizeof(target));
		return target;
	}
	return 0;
}

static void test_linkage_tables(void **state)
{
	struct elf_source source = { .file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC) };
	pid_t parent = getppid(); /* so that it is bound */
	struct elf_symbol *symbols;
	struct arena arena;
	Dl_info self;
	struct elf elf;
	size_t len, found = 0;

	(void)state;
	assert_true(parent >= 0);
	assert_int_not_equal(dladdr((void *)(uintptr_t)target_of, &self), 0);
	source.size = (uint64_t)lseek(source.file, 0, SEEK_END);
	assert_int_equal(arena_open(&arena, ARENA_BYTES), 0);
	assert_true(elf_open(&source, &elf));
	elf_symbols(&elf, &arena, &symbols, &len);
	for (size_t i = 0; i < len; i++) {
		const unsigned char *stub =
			(const unsigned char *)self.dli_fbase + symbols[i].address;
		uintptr_t target;

		if (strcmp(symbols[i].name, "getppid@plt") != 0)
			continue;
		target = target_of(stub, symbols[i].size);
		/* Without an indirect jump it is the older of two tables. */
		if (target == 0)
			continue;
		assert_int_equal(target, (uintptr_t)dlsym(RTLD_DEFAULT, "getppid"));
		found++;
	}
	assert_int_equal(found, 1);
	assert_int_equal(close(source.file), 0);
	arena_close(&arena);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_broken_answers),
		cmocka_unit_test(test_no_empty_names),
		cmocka_unit_test(test_question),
		cmocka_unit_test(test_perf_map),
#ifdef __x86_64__
		cmocka_unit_test(test_linkage_tables),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
