#include "sampler/unwind/code.h"

#include <string.h>

#ifdef __x86_64__

#define RSP 4
#define RBP 5

/* Those that a function saves for its caller, by number: rbx, r12 to r15. */
#define SAVED 0xf008U

/* One instruction that goes on to the next. */
struct instruction {
	size_t len; /* 0: it does not go on, or it is not known */
	uint8_t opcode, rex, modrm;
	bool has_modrm, is_short;
	int32_t displacement, immediate;
};

static int32_t read_i32(const uint8_t *bytes)
{
	int32_t value;

	memcpy(&value, bytes, sizeof(value));
	return value;
}

/* Of arithmetic on registers and memory, opcodes below 0x40. */
static unsigned immediate_of_arithmetic(uint8_t opcode)
{
	static const uint8_t bytes[8] = { 0, 0, 0, 0, 1, 4, 0xff, 0xff };

	return bytes[opcode & 7];
}

/* Immediate bytes of the opcodes of one byte; 0xff: not one that simply goes on. */
static unsigned immediate_of(uint8_t opcode, uint8_t reg, const struct instruction *in)
{
	bool is_wide = in->rex & 8;

	if (opcode < 0x40)
		return immediate_of_arithmetic(opcode);
	if (opcode >= 0x50 && opcode < 0x60)
		return 0;
	if (opcode >= 0xb0 && opcode < 0xb8)
		return 1;
	if (opcode >= 0xb8 && opcode < 0xc0)
		return is_wide ? 8 : 4;
	if ((opcode >= 0x84 && opcode <= 0x8b) || (opcode >= 0xd0 && opcode <= 0xd3))
		return 0;
	switch (opcode) {
	case 0x63:
	case 0x8d:
	case 0x90:
	case 0x98:
	case 0x99:
	case 0xfe:
		return 0;
	case 0x6a:
	case 0x6b:
	case 0x80:
	case 0x83:
	case 0xa8:
	case 0xc0:
	case 0xc1:
	case 0xc6:
		return 1;
	case 0x68:
	case 0x69:
	case 0x81:
	case 0xa9:
	case 0xc7:
		return 4;
	case 0xf6:
		return reg < 2 ? 1 : 0;
	case 0xf7:
		return reg < 2 ? 4 : 0;
	case 0xff:
		return reg < 2 || reg == 6 ? 0 : 0xff;
	default:
		return 0xff;
	}
}

static bool has_modrm(uint8_t opcode)
{
	if (opcode < 0x40)
		return (opcode & 7) < 4;
	return opcode == 0x63 || opcode == 0x69 || opcode == 0x6b ||
	       (opcode >= 0x80 && opcode <= 0x8d) || opcode == 0xc0 || opcode == 0xc1 ||
	       opcode == 0xc6 || opcode == 0xc7 || (opcode >= 0xd0 && opcode <= 0xd3) ||
	       opcode == 0xf6 || opcode == 0xf7 || opcode >= 0xfe;
}

/* The same for those of two bytes; no jumps, system calls or traps among them. */
static unsigned immediate_of_long(uint8_t opcode)
{
	if (opcode >= 0x10 && opcode < 0x30)
		return 0;
	if (opcode >= 0x40 && opcode < 0x80)
		return opcode >= 0x70 && opcode <= 0x73 ? 1 : opcode == 0x77 ? 0xff : 0;
	if (opcode >= 0x90 && opcode < 0xa0)
		return 0;
	if (opcode == 0xa4 || opcode == 0xac || opcode == 0xba || opcode == 0xc2 ||
		(opcode >= 0xc4 && opcode <= 0xc6))
		return 1;
	if (opcode == 0xa3 || opcode == 0xa5 || opcode == 0xab || opcode == 0xad ||
		(opcode >= 0xaf && opcode <= 0xc1 && opcode != 0xb9) ||
		(opcode >= 0xd0 && opcode < 0xff))
		return 0;
	return 0xff;
}

/* The bytes of an operand, from its ModRM byte on. */
static size_t operand(const uint8_t *at, size_t left, struct instruction *out)
{
	uint8_t mod, rm;
	size_t len = 1, wide = 0;

	if (left < 1)
		return 0;
	out->modrm = at[0];
	out->has_modrm = true;
	mod = at[0] >> 6;
	rm = at[0] & 7;
	if (mod != 3 && rm == 4) {
		if (left < 2)
			return 0;
		wide = mod == 0 && (at[1] & 7) == 5 ? 4 : 0;
		len = 2;
	} else if (mod == 0 && rm == 5) {
		wide = 4;
	}
	wide = mod == 1 ? 1 : mod == 2 ? 4 : wide;
	if (left < len + wide)
		return 0;
	if (wide)
		out->displacement = wide == 1 ? (int8_t)at[len] : read_i32(at + len);
	return len + wide;
}

static bool is_prefix(uint8_t byte)
{
	return byte == 0x66 || byte == 0xf2 || byte == 0xf3 || byte == 0x2e || byte == 0x36 ||
	       byte == 0x3e || byte == 0x26 || byte == 0x64 || byte == 0x65;
}

static struct instruction decode(const uint8_t *code, size_t len)
{
	struct instruction out = { 0 }, none = { 0 };
	unsigned immediate;
	size_t at = 0, more;
	bool is_narrow = false;

	for (; at < len && is_prefix(code[at]); at++)
		is_narrow |= code[at] == 0x66;
	if (at < len && (code[at] & 0xf0) == 0x40)
		out.rex = code[at++];
	if (at >= len)
		return none;
	out.opcode = code[at++];
	out.is_short = out.opcode != 0x0f;
	if (!out.is_short) {
		if (at >= len)
			return none;
		out.opcode = code[at++];
		immediate = immediate_of_long(out.opcode);
		out.has_modrm = true;
	} else {
		out.has_modrm = has_modrm(out.opcode);
		immediate = immediate_of(
			out.opcode, at < len ? (uint8_t)(code[at] >> 3 & 7) : 0, &out);
	}
	if (immediate == 0xff)
		return none;
	if (out.has_modrm) {
		more = operand(code + at, len - at, &out);
		if (more == 0)
			return none;
		at += more;
	}
	if (immediate == 4 && is_narrow)
		immediate = 2;
	if (len - at < immediate)
		return none;
	if (immediate == 1)
		out.immediate = (code[at] ^ 0x80) - 0x80; /* its sign extended */
	else if (immediate == 4)
		out.immediate = read_i32(code + at);
	out.len = at + immediate;
	return out;
}

/* push %rbp, and mov %rsp,%rbp in either of its two codings. */
bool code_sets_frame(const uint8_t *code, size_t len, size_t between)
{
	static const uint8_t one[] = { 0x48, 0x89, 0xe5 }, other[] = { 0x48, 0x8b, 0xec };

	return between >= 3 && len > between && code[len - between - 1] == 0x55 &&
	       (memcmp(code + len - 3, one, 3) == 0 || memcmp(code + len - 3, other, 3) == 0);
}

/* Large frames are gone through page by page, so that the guard below is met:
 * lea -N(%rsp),%r11; again: sub $4096,%rsp; orq $0,(%rsp); cmp %r11,%rsp; jne again */
static size_t page_loop(const uint8_t *code, size_t len, size_t *size)
{
	static const uint8_t head[] = { 0x4c, 0x8d, 0x9c, 0x24 };
	static const uint8_t body[] = { 0x48, 0x81, 0xec, 0, 0x10, 0, 0, 0x48, 0x83, 0x0c, 0x24,
		0, 0x4c, 0x39, 0xdc, 0x75, 0xef };

	if (len < sizeof(head) + 4 + sizeof(body) || memcmp(code, head, sizeof(head)) != 0 ||
		memcmp(code + sizeof(head) + 4, body, sizeof(body)) != 0)
		return 0;
	*size = (size_t) - (int64_t)read_i32(code + sizeof(head));
	return sizeof(head) + 4 + sizeof(body);
}

static bool writes_rsp(const struct instruction *in)
{
	unsigned reg = (in->modrm >> 3 & 7) | (in->rex & 4 ? 8 : 0);
	unsigned rm = (in->modrm & 7) | (in->rex & 1 ? 8 : 0);

	if (!in->is_short || !in->has_modrm)
		return false;
	if (in->opcode == 0x8b || in->opcode == 0x8d ||
		(in->opcode < 0x40 && (in->opcode & 7) == 3 && in->opcode < 0x38))
		return reg == RSP;
	return in->modrm >> 6 == 3 && rm == RSP &&
	       (in->opcode == 0x89 || in->opcode == 0x81 || in->opcode == 0x83 ||
		       (in->opcode < 0x38 && (in->opcode & 7) == 1));
}

/* What is added to rsp by a constant, in *by. */
static bool adds_to_rsp(const struct instruction *in, int64_t *by)
{
	if (!in->is_short || (in->opcode != 0x81 && in->opcode != 0x83) || !(in->rex & 8) ||
		(in->rex & 1))
		return false;
	if (in->modrm != 0xc4 && in->modrm != 0xec)
		return false;
	*by = in->modrm == 0xc4 ? in->immediate : -(int64_t)in->immediate;
	return true;
}

/* A push that makes room or saves a register; every other one is an argument of a call. */
static bool is_saving(const struct instruction *in, unsigned *seen, size_t size)
{
	unsigned reg = (in->opcode & 7U) | (in->rex & 1 ? 8 : 0);

	if (reg == 0 && size % 16 == 8) /* as clang makes room for one word */
		return true;
	if (!(SAVED >> reg & 1) || *seen >> reg & 1)
		return false;
	*seen |= 1U << reg;
	return true;
}

struct code_frame code_read_frame(const uint8_t *code, size_t len)
{
	struct code_frame frame = { .is_exact = true };
	bool has_room = false;
	unsigned seen = 0;
	size_t more;

	for (size_t at = 0; at < len; at += more) {
		struct instruction in;
		size_t loop = 0;
		int64_t by;

		more = page_loop(code + at, len - at, &loop);
		frame.size += loop;
		if (more)
			continue;
		in = decode(code + at, len - at);
		more = in.len;
		if (more == 0)
			break;
		if (in.is_short && in.opcode >= 0x50 && in.opcode < 0x58) {
			if (has_room || !is_saving(&in, &seen, frame.size))
				break;
			frame.size += 8;
		} else if (in.is_short &&
			   (in.opcode == 0x68 || in.opcode == 0x6a ||
				   (in.opcode == 0xff && (in.modrm >> 3 & 7) == 6))) {
			break;
		} else if (adds_to_rsp(&in, &by)) {
			if (by > 0)
				break;
			frame.size += (size_t)-by;
			has_room = true;
		} else if (writes_rsp(&in)) {
			frame.is_exact = false;
			break;
		}
	}
	return frame;
}

bool code_is_dynamic(const uint8_t *code, size_t len)
{
	for (size_t i = 0; i + 3 <= len; i++) {
		uint8_t rex = code[i], opcode = code[i + 1], modrm = code[i + 2];
		bool to_rsp = (rex == 0x48 || rex == 0x4c) && (modrm & 0xc7) == 0xc4;
		bool into_rsp = (rex == 0x48 || rex == 0x49) && (modrm & 0xf8) == 0xe0;

		if (opcode == 0x29 && to_rsp)
			return true;
		if (opcode == 0x2b && into_rsp)
			return true;
		if (opcode == 0x89 && to_rsp && !(rex == 0x48 && modrm == 0xec))
			return true;
		if (opcode == 0x8b && into_rsp && !(rex == 0x48 && modrm == 0xe5))
			return true;
	}
	return false;
}

size_t code_popped(const uint8_t *code, size_t len)
{
	struct instruction in = decode(code, len);
	size_t popped = 0;
	int64_t by;

	if (in.len && adds_to_rsp(&in, &by))
		return by > 0 ? (size_t)by : 0;
	while (in.len && in.is_short && in.opcode >= 0x58 && in.opcode < 0x60) {
		popped += 8;
		code += in.len;
		len -= in.len;
		in = decode(code, len);
	}
	return popped;
}

bool code_is_marker(const uint8_t *code, size_t len)
{
	static const uint8_t endbr64[CODE_MARKER] = { 0xf3, 0x0f, 0x1e, 0xfa };

	return len >= CODE_MARKER && memcmp(code, endbr64, CODE_MARKER) == 0;
}

enum code_call code_call_before(
	const uint8_t *code, size_t len, uintptr_t pc, uintptr_t *target)
{
	*target = 0;
	if (len >= 5 && code[len - 5] == 0xe8) {
		*target = pc + (uintptr_t)(intptr_t)read_i32(code + len - 4);
		return CODE_CALL_DIRECT;
	}
	/* call *operand: of 2 to 7 bytes, or 8 with a register from r8 on. */
	for (size_t size = 2; size <= 7 && size <= len; size++) {
		const uint8_t *at = code + len - size;
		struct instruction in = { 0 };

		if (at[0] == 0xff && (at[1] >> 3 & 7) == 2 &&
			operand(at + 1, size - 1, &in) == size - 1)
			return CODE_CALL_INDIRECT;
	}
	return CODE_NO_CALL;
}

bool code_jump_slot(const uint8_t *code, size_t len, uintptr_t pc, uintptr_t *slot)
{
	size_t at = code_is_marker(code, len) ? CODE_MARKER : 0;

	if (at < len && code[at] == 0xf2)
		at++;
	if (len < at + 6 || code[at] != 0xff || code[at + 1] != 0x25)
		return false;
	*slot = pc + at + 6 + (uintptr_t)(intptr_t)read_i32(code + at + 2);
	return true;
}

#else

bool code_sets_frame(const uint8_t *code, size_t len, size_t between)
{
	(void)code;
	(void)len;
	(void)between;
	return false;
}

struct code_frame code_read_frame(const uint8_t *code, size_t len)
{
	(void)code;
	(void)len;
	return (struct code_frame){ 0 };
}

bool code_is_dynamic(const uint8_t *code, size_t len)
{
	(void)code;
	(void)len;
	return true;
}

size_t code_popped(const uint8_t *code, size_t len)
{
	(void)code;
	(void)len;
	return 0;
}

bool code_is_marker(const uint8_t *code, size_t len)
{
	(void)code;
	(void)len;
	return false;
}

enum code_call code_call_before(
	const uint8_t *code, size_t len, uintptr_t pc, uintptr_t *target)
{
	(void)code;
	(void)len;
	(void)pc;
	*target = 0;
	return CODE_NO_CALL;
}

bool code_jump_slot(const uint8_t *code, size_t len, uintptr_t pc, uintptr_t *slot)
{
	(void)code;
	(void)len;
	(void)pc;
	(void)slot;
	return false;
}

#endif
