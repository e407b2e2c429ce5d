#include "tests/unit/unit.h"

#include "sampler/unwind/code.h"

#ifdef __x86_64__

#define BYTES(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static const struct {
	const char *name;
	const uint8_t *code;
	size_t len, size;
	bool is_exact;
} frames[] = {
	{ "nothing", BYTES(0xc3), 0, true },
	{ "sub $0x20,%rsp", BYTES(0x48, 0x83, 0xec, 0x20, 0xc3), 0x20, true },
	{ "sub $0x1234,%rsp", BYTES(0x48, 0x81, 0xec, 0x34, 0x12, 0, 0), 0x1234, true },
	{ "add $-128,%rsp", BYTES(0x48, 0x83, 0xc4, 0x80), 128, true },
	{ "push %r12; push %rbx; sub $16,%rsp", BYTES(0x41, 0x54, 0x53, 0x48, 0x83, 0xec, 0x10),
		32, true },
	{ "push %rbx; push %rax, as clang makes room", BYTES(0x53, 0x50, 0xe8), 16, true },
	{ "mov %rdi,-8(%rbp) between", BYTES(0x53, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x83, 0xec, 8),
		16, true },
	{ "the stack protector's word between",
		BYTES(0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0, 0x48, 0x83, 0xec, 8), 8,
		true },
	{ "push %rbx twice: the second is an argument", BYTES(0x53, 0x53), 8, true },
	{ "push $1 is an argument", BYTES(0x48, 0x83, 0xec, 8, 0x6a, 1), 8, true },
	{ "a call ends it", BYTES(0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xec, 8), 0, true },
	{ "and $-32,%rsp", BYTES(0x53, 0x48, 0x83, 0xe4, 0xe0), 8, false },
	{ "sub %rax,%rsp", BYTES(0x48, 0x83, 0xec, 8, 0x48, 0x29, 0xc4), 8, false },
	{ "a large frame, page by page",
		BYTES(0x4c, 0x8d, 0x9c, 0x24, 0, 0xe0, 0xff, 0xff, 0x48, 0x81, 0xec, 0, 0x10, 0,
			0, 0x48, 0x83, 0x0c, 0x24, 0, 0x4c, 0x39, 0xdc, 0x75, 0xef, 0x48, 0x83,
			0xec, 0x10),
		0x2010, true },
	{ "cut short", BYTES(0x48, 0x81, 0xec, 0x34), 0, true },
};

static void test_frames(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(frames); i++) {
		struct code_frame frame = code_read_frame(frames[i].code, frames[i].len);

		print_message("  %s\n", frames[i].name);
		assert_int_equal(frame.size, frames[i].size);
		assert_int_equal(frame.is_exact, frames[i].is_exact);
	}
}

static void test_setting_the_frame_pointer(void **state)
{
	(void)state;
	assert_true(code_sets_frame(BYTES(0x55, 0x48, 0x89, 0xe5), 3));
	assert_true(code_sets_frame(BYTES(0x55, 0x90, 0x48, 0x8b, 0xec), 4));
	assert_false(code_sets_frame(BYTES(0x55, 0x48, 0x89, 0xe5), 4));
	assert_false(code_sets_frame(BYTES(0x54, 0x48, 0x89, 0xe5), 3));
	assert_false(code_sets_frame(BYTES(0x55, 0x48, 0x89, 0xec), 3));
}

static void test_dynamic(void **state)
{
	(void)state;
	assert_true(code_is_dynamic(BYTES(0x90, 0x48, 0x29, 0xc4)));
	assert_true(code_is_dynamic(BYTES(0x4c, 0x29, 0xc4)));
	assert_true(code_is_dynamic(BYTES(0x48, 0x89, 0xcc)));
	assert_false(code_is_dynamic(BYTES(0x48, 0x89, 0xec)));
	assert_false(code_is_dynamic(BYTES(0x48, 0x83, 0xec, 8)));
}

static void test_popped(void **state)
{
	(void)state;
	assert_int_equal(code_popped(BYTES(0x48, 0x83, 0xc4, 0x20)), 0x20);
	assert_int_equal(code_popped(BYTES(0x58, 0x5a, 0xc3)), 16);
	assert_int_equal(code_popped(BYTES(0x48, 0x83, 0xec, 0x20)), 0);
	assert_int_equal(code_popped(BYTES(0xc3)), 0);
}

static void test_calls(void **state)
{
	uintptr_t target, slot;

	(void)state;
	assert_int_equal(code_call_before(BYTES(0xe8, 0xfb, 0xff, 0xff, 0xff), 0x1005, &target),
		CODE_CALL_DIRECT);
	assert_int_equal(target, 0x1000);
	assert_int_equal(
		code_call_before(BYTES(0x90, 0xff, 0xd0), 0x1005, &target), CODE_CALL_INDIRECT);
	assert_int_equal(code_call_before(BYTES(0xff, 0x54, 0x24, 8), 0x1005, &target),
		CODE_CALL_INDIRECT);
	assert_int_equal(code_call_before(BYTES(0xff, 0x15, 0, 0, 0, 0), 0x1005, &target),
		CODE_CALL_INDIRECT);
	assert_int_equal(
		code_call_before(BYTES(0x48, 0x89, 0xe5), 0x1005, &target), CODE_NO_CALL);
	assert_true(code_jump_slot(
		BYTES(0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 2, 0, 0, 0), 0x2000, &slot));
	assert_int_equal(slot, 0x200c);
	assert_false(code_jump_slot(BYTES(0xff, 0x25, 2, 0, 0), 0x2000, &slot));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_setting_the_frame_pointer),
		cmocka_unit_test(test_dynamic),
		cmocka_unit_test(test_popped),
		cmocka_unit_test(test_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
	return 0;
}

#endif
