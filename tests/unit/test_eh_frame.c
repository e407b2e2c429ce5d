#include "tests/unit/unit.h"

#include <string.h>

#include "sampler/unwind/eh_frame.h"

#define CODE_START 0x1000
#define CODE_LEN   0x40
#define ROWS_MAX   16

struct want {
	uint32_t pc; /* from the function's start */
	uint8_t kind;
	int16_t cfa;
	arch_slot fp;
#if ARCH_HAS_LR
	arch_slot ra;
#endif
};

/* clang-format off */
#ifdef __aarch64__
#define SP 15 /* from ARCH_ROW_FIRST on */
#define FP 13

/* What the instructions of one function's entry become, after a CIE that says CFA = sp; the ROW_NONE
 * row at the function's end is checked by itself. */
static const struct {
	const char *name;
	uint8_t code[24];
	size_t len;
	struct want want[6];
	size_t want_len;
} cases[] = {
	{ "a leaf function", { 0 }, 0, { { 0, SP, 0, 0, 0 } }, 1 },
	{ "stp x29, x30, [sp, -32]!; mov x29, sp; ldp x29, x30, [sp], 32",
		{ 0x41, 0x0e, 0x20, 0x9d, 0x04, 0x9e, 0x03, 0x41, 0x0d, 0x1d, 0x46, 0xde, 0xdd, 0x0c,
		0x1f, 0x00 }, 16,
		{ { 0, SP, 0, 0, 0 }, { 4, SP, 4, -4, -3 }, { 8, FP, 4, -4, -3 },
		{ 0x20, SP, 0, 0, 0 } }, 4 },
	{ "a signed return address", { 0x41, 0x2d, 0x41, 0x0e, 0x10, 0x9e, 0x02 }, 7,
		{ { 0, SP, 0, 0, 0 }, { 8, SP, 2, 0, -2 } }, 2 },
	{ "a frame record at the foot of 32 KiB",
		{ 0x0e, 0x80, 0x80, 0x02, 0x9d, 0x80, 0x20, 0x9e, 0xff, 0x1f }, 10,
		{ { 0, SP, 4096, -4096, -4095 } }, 1 },
	{ "a frame that is too large for a row", { 0x0e, 0x80, 0x80, 0x40, 0x9e, 0x01 }, 6,
		{ { 0, ROW_NONE, 0, 0, 0 } }, 1 },
	{ "remember and restore", { 0x0a, 0x42, 0x0e, 0x40, 0x9e, 0x08, 0x44, 0x0b }, 8,
		{ { 0, SP, 0, 0, 0 }, { 8, SP, 8, 0, -8 }, { 24, SP, 0, 0, 0 } }, 3 },
	{ "what the linkage table pushed above the loader's frame",
		{ 0x0e, 0xd0, 0x01, 0x11, 0x1e, 0x7f }, 6, { { 0, SP, 26, 0, 2 } }, 1 },
	{ "CFA in x16", { 0x0c, 0x10, 0x10 }, 3, { { 0, 0, 2, 0, 0 } }, 1 },
	{ "CFA in x15, which no row can say", { 0x0c, 0x0f, 0x10 }, 3, { { 0, ROW_NONE, 0, 0, 0 } }, 1 },
	{ "return address in x17", { 0x09, 0x1e, 0x11 }, 3, { { 0, ROW_JUMP, 17, 0, 0 } }, 1 },
	{ "return address as a value", { 0x14, 0x1e, 0x02 }, 3, { { 0, ROW_NONE, 0, 0, 0 } }, 1 },
	{ "x29 as a value", { 0x14, 0x1d, 0x02 }, 3, { { 0, SP, 0, ROW_FP_LOST, 0 } }, 1 },
	{ "no return address: the outermost frame", { 0x07, 0x1e }, 2, { { 0, ROW_END, 0, 0, 0 } }, 1 },
	{ "offset that is no whole word", { 0x0e, 0x0c }, 2, { { 0, ROW_NONE, 0, 0, 0 } }, 1 },
	{ "registers that we do not follow", { 0x93, 0x03, 0x42, 0x94, 0x04, 0x05, 0x48, 0x02 }, 8,
		{ { 0, SP, 0, 0, 0 } }, 1 },
};

/* What follows the CIE's letters: factors 4 and -8, x30, addresses of 32 bits, CFA = sp. */
static const uint8_t common[] = { 4, 0x78, 30, 1, 0x03, 0x0c, 31, 0 };

#else
#define RSP 7
#define RBP 6

/* What the instructions of one function's entry become, after a CIE that says CFA = rsp + 8 and
 * return address at CFA - 8; the ROW_NONE row at the function's end is checked by itself. */
static const struct {
	const char *name;
	uint8_t code[24];
	size_t len;
	struct want want[6];
	size_t want_len;
} cases[] = {
	{ "nothing", { 0 }, 0, { { 0, RSP, 1, 0 } }, 1 },
	{ "push rbp; mov rsp, rbp; leave",
		{ 0x41, 0x0e, 0x10, 0x86, 0x02, 0x43, 0x0d, 0x06, 0x60, 0xc6, 0x0c, 0x07, 0x08 }, 13,
		{ { 0, RSP, 1, 0 }, { 1, RSP, 2, -2 }, { 4, RBP, 2, -2 }, { 0x24, RSP, 1, 0 } }, 4 },
	{ "advance by one byte", { 0x02, 0x20, 0x0e, 0x18 }, 4,
		{ { 0, RSP, 1, 0 }, { 0x20, RSP, 3, 0 } }, 2 },
	{ "advance by two bytes", { 0x03, 0x20, 0x00, 0x0e, 0x18 }, 5,
		{ { 0, RSP, 1, 0 }, { 0x20, RSP, 3, 0 } }, 2 },
	{ "advance by four bytes", { 0x04, 0x20, 0x00, 0x00, 0x00, 0x0e, 0x18 }, 7,
		{ { 0, RSP, 1, 0 }, { 0x20, RSP, 3, 0 } }, 2 },
	{ "remember and restore", { 0x0a, 0x42, 0x0e, 0x40, 0x44, 0x0b }, 6,
		{ { 0, RSP, 1, 0 }, { 2, RSP, 8, 0 }, { 6, RSP, 1, 0 } }, 3 },
	{ "CFA in any register", { 0x0c, 0x0a, 0x10 }, 3, { { 0, 10, 2, 0 } }, 1 },
	{ "signed offsets", { 0x12, 0x07, 0x7d, 0x41, 0x13, 0x7c, 0x11, 0x06, 0x02 }, 9,
		{ { 0, RSP, 3, 0 }, { 1, RSP, 4, -2 } }, 2 },
	{ "rbp at an extended offset", { 0x05, 0x06, 0x03 }, 3, { { 0, RSP, 1, -3 } }, 1 },
	{ "rbp restored by its number", { 0x86, 0x02, 0x41, 0x06, 0x06 }, 5,
		{ { 0, RSP, 1, -2 }, { 1, RSP, 1, 0 } }, 2 },
	{ "rbp the same again", { 0x86, 0x02, 0x41, 0x08, 0x06 }, 5,
		{ { 0, RSP, 1, -2 }, { 1, RSP, 1, 0 } }, 2 },
	{ "rbp in another register", { 0x09, 0x06, 0x00 }, 3, { { 0, RSP, 1, ROW_FP_LOST } }, 1 },
	{ "the end of a function that goes to an exception's handler",
		{ 0x0c, 0x02, 0x08, 0x42, 0x0c, 0x07, 0x08, 0x41, 0x0e, 0x00, 0x09, 0x10, 0x02 }, 13,
		{ { 0, ROW_REG_EH | ROW_EH, 1, 0 }, { 2, ROW_LANDING, 1, 0 }, { 3, ROW_JUMP, 2, 0 } }, 3 },
	{ "rbp as a value", { 0x14, 0x06, 0x02 }, 3, { { 0, RSP, 1, ROW_FP_LOST } }, 1 },
	{ "rbp by an expression as realigned code has it", { 0x10, 0x06, 0x02, 0x76, 0x00 }, 5,
		{ { 0, RSP, 1, 1 } }, 1 },
	{ "CFA by reference", { 0x0f, 0x03, 0x76, 0x78, 0x06 }, 5,
		{ { 0, RBP | ROW_DEREF, -1, 0 } }, 1 },
	{ "CFA by reference and 8", { 0x0f, 0x05, 0x77, 0x10, 0x06, 0x23, 0x08 }, 7,
		{ { 0, RSP | ROW_DEREF8, 2, 0 } }, 1 },
	{ "CFA by reference and what lies between",
		{ 0x0f, 0x05, 0x77, 0x10, 0x06, 0x23, 0x38, 0x42, 0x0f, 0x05, 0x77, 0x10, 0x06, 0x23, 0x40 }, 15,
		{ { 0, RSP | ROW_DEREF56, 2, 0 }, { 2, RSP | ROW_DEREF64, 2, 0 } }, 2 },
	{ "CFA behind an array",
		{ 0x0f, 0x0a, 0x77, 0x08, 0x79, 0x00, 0x38, 0x1e, 0x22, 0x06, 0x23, 0x08 }, 12,
		{ { 0, 9 | ROW_INDEXED, 1, 0 } }, 1 },
	{ "CFA by reference and what no row has", { 0x0f, 0x05, 0x77, 0x10, 0x06, 0x23, 0x18 }, 7,
		{ { 0, ROW_NONE, 0, 0 } }, 1 },
	{ "procedure linkage table",
		{ 0x0f, 0x0b, 0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22 }, 13,
		{ { 0, ROW_PLT, 11, 0 } }, 1 },
	{ "an expression that we have no row for", { 0x0f, 0x02, 0x77, 0x08 }, 4,
		{ { 0, ROW_NONE, 0, 0 } }, 1 },
	{ "no return address: the outermost frame", { 0x07, 0x10 }, 2, { { 0, ROW_END, 0, 0 } }, 1 },
	{ "return address elsewhere", { 0x90, 0x02 }, 2, { { 0, ROW_NONE, 0, 0 } }, 1 },
	{ "offset that is no whole word", { 0x0e, 0x0c }, 2, { { 0, ROW_NONE, 0, 0 } }, 1 },
	{ "frame that is too large for a row", { 0x0e, 0x80, 0x80, 0x40 }, 4,
		{ { 0, ROW_NONE, 0, 0 } }, 1 },
	{ "registers that we do not follow", { 0x83, 0x03, 0x42, 0x8c, 0x04, 0x2e, 0x08, 0x16, 0x03,
		0x01, 0x30 }, 11, { { 0, RSP, 1, 0 } }, 1 },
};

/* What follows the CIE's letters: factors 1 and -8, column 16, addresses of 32 bits, CFA = rsp + 8,
 * return address at CFA - 8. */
static const uint8_t common[] = { 1, 0x78, 16, 1, 0x03, 0x0c, 7, 8, 0x90, 1 };

#endif

static const struct {
	const char *name;
	uint8_t code[17];
	size_t len;
} refused[] = {
	{ "unknown instruction", { 0x3f }, 1 },
#ifndef __aarch64__
	{ "instruction of another machine", { 0x2d }, 1 },
#endif
	{ "operand missing", { 0x0c, 0x07 }, 2 },
	{ "past the function's end", { 0x02, 0x41 }, 2 },
	{ "back before where we are", { 0x42, 0x01, 0, 0, 0, 0 }, 6 },
	{ "restore without remember", { 0x0b }, 1 },
	{ "remembered too often", { 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a,
		0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a }, 17 },
	{ "expression longer than the entry", { 0x0f, 0x7f, 0x77 }, 3 },
};

/* clang-format on */

static const uint8_t no_code[1];

struct bytes {
	uint8_t mem[128];
	size_t len, fde;
};

static void add(struct bytes *bytes, const void *more, size_t len)
{
	memcpy(bytes->mem + bytes->len, more, len);
	bytes->len += len;
}

static void add_u32(struct bytes *bytes, uint32_t value)
{
	add(bytes, &value, sizeof(value));
}

/* A CIE with the given augmentation, and an FDE of absolute 32-bit addresses. */
static void make(struct bytes *bytes, const char *letters, const uint8_t *code, size_t len)
{
	*bytes = (struct bytes){ 0 };
	add_u32(bytes, (uint32_t)(4 + 1 + strlen(letters) + 1 + sizeof(common)));
	add_u32(bytes, 0);
	add(bytes, "\1", 1);
	add(bytes, letters, strlen(letters) + 1);
	add(bytes, common, sizeof(common));
	bytes->fde = bytes->len;
	add_u32(bytes, (uint32_t)(4 + 4 + 4 + 1 + len));
	add_u32(bytes, (uint32_t)bytes->len);
	add_u32(bytes, CODE_START);
	add_u32(bytes, CODE_LEN);
	add(bytes, "", 1);
	add(bytes, code, len);
}

static bool compile(
	const struct bytes *bytes, struct row_list *rows, struct eh_frame_range *range)
{
	const struct eh_frame frame = { .bytes = bytes->mem,
		.len = bytes->len,
		.address = 0x8000,
		.base = CODE_START,
		.text_start = CODE_START,
		.text_limit = CODE_START + 2 * CODE_LEN };

	return eh_frame_compile_one(&frame, bytes->fde, rows, range);
}

static void check_row(const struct unwind_row *row, const struct want *want)
{
	assert_int_equal(row->pc, want->pc);
	assert_int_equal(row->kind, want->kind);
	assert_int_equal(row->cfa, want->cfa);
	if (want->kind < ROW_SPECIAL)
		assert_int_equal(row->fp, want->fp);
#if ARCH_HAS_LR
	if (want->kind < ROW_SPECIAL)
		assert_int_equal(row->ra, want->ra);
#endif
}

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct unwind_row mem[ROWS_MAX];
		struct row_list rows = { .rows = mem, .max = ROWS_MAX };
		struct eh_frame_range range = { 0, 0 };
		struct bytes bytes;

		print_message("  %s\n", cases[i].name);
		make(&bytes, "zR", cases[i].code, cases[i].len);
		assert_true(compile(&bytes, &rows, &range));
		assert_int_equal(range.start, CODE_START);
		assert_int_equal(range.limit, CODE_START + CODE_LEN);
		for (size_t j = 0; j < cases[i].want_len; j++)
			check_row(&mem[j], &cases[i].want[j]);
		if (mem[rows.len - 1].pc == CODE_LEN)
			rows.len--; /* equal rows are one: ROW_NONE may have no end of its own */
		else
			assert_int_equal(mem[rows.len - 1].kind, ROW_NONE);
		assert_int_equal(rows.len, cases[i].want_len);
	}
}

static void test_refused_entries_leave_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(refused); i++) {
		const struct unwind_row before = { .pc = 0, .kind = ROW_END };
		struct unwind_row mem[ROWS_MAX] = { before };
		struct row_list rows = { .rows = mem, .len = 1, .max = ROWS_MAX };
		struct eh_frame_range range = { 0, 0 };
		struct bytes bytes;

		print_message("  %s\n", refused[i].name);
		make(&bytes, "zR", refused[i].code, refused[i].len);
		assert_false(compile(&bytes, &rows, &range));
		assert_int_equal(rows.len, 1);
		assert_int_equal(mem[0].pc, before.pc);
		assert_int_equal(mem[0].kind, before.kind);
		assert_int_equal(mem[0].cfa, before.cfa);
		assert_int_equal(mem[0].fp, before.fp);
	}
}

static void test_signal_frame(void **state)
{
	struct unwind_row mem[ROWS_MAX];
	struct row_list rows = { .rows = mem, .max = ROWS_MAX };
	struct eh_frame_range range = { 0, 0 };
	struct bytes bytes;

	(void)state;
	make(&bytes, "zRS", no_code, 0);
	assert_true(compile(&bytes, &rows, &range));
	assert_int_equal(mem[0].kind, ROW_SIGNAL);
}

static void test_unknown_augmentation(void **state)
{
	struct unwind_row mem[ROWS_MAX];
	struct row_list rows = { .rows = mem, .max = ROWS_MAX };
	struct eh_frame_range range = { 0, 0 };
	struct bytes bytes;

	(void)state;
	make(&bytes, "zRX", no_code, 0);
	assert_false(compile(&bytes, &rows, &range));
}

/* Every prefix of a good entry is refused or right, and never read past its end. */
static void test_cut_short(void **state)
{
	struct bytes whole;

	(void)state;
	make(&whole, "zR", cases[1].code, cases[1].len);
	for (size_t len = 0; len < whole.len; len++) {
		struct unwind_row mem[ROWS_MAX];
		struct row_list rows = { .rows = mem, .max = ROWS_MAX };
		struct eh_frame_range range = { 0, 0 };
		struct bytes bytes = whole;

		bytes.len = len;
		assert_false(compile(&bytes, &rows, &range));
		assert_int_equal(rows.len, 0);
	}
}

/* A second function that overlaps the first is not believed; one that follows shares its rows. */
static void test_neighbours(void **state)
{
	struct unwind_row mem[ROWS_MAX];
	struct row_list rows = { .rows = mem, .max = ROWS_MAX };
	struct eh_frame_range range = { 0, 0 };
	struct bytes bytes;
	size_t start_at;
	uint32_t start = CODE_START + CODE_LEN;

	(void)state;
	make(&bytes, "zR", no_code, 0);
	assert_true(compile(&bytes, &rows, &range));
	assert_int_equal(rows.len, 2);
	range.start = range.limit;
	assert_false(compile(&bytes, &rows, &range));
	start_at = bytes.fde + 8;
	memcpy(bytes.mem + start_at, &start, sizeof(start));
	assert_true(compile(&bytes, &rows, &range));
	assert_int_equal(rows.len, 2);
	assert_int_equal(mem[1].pc, 2 * CODE_LEN);
	assert_int_equal(mem[1].kind, ROW_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_refused_entries_leave_nothing),
		cmocka_unit_test(test_signal_frame),
		cmocka_unit_test(test_unknown_augmentation),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_neighbours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
