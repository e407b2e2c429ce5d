#include "sampler/unwind/eh_frame.h"

#include "sampler/unwind/cursor.h"

#define REMEMBER_MAX 16
#define ROW_PC_MAX   UINT32_MAX

/* How one register of the caller is found. */
enum rule_kind {
	RULE_SAME = 0,
	RULE_UNDEFINED,
	RULE_AT_CFA, /* at CFA + offset */
	RULE_AT_FP,  /* at fp + offset */
	RULE_IN_REG, /* in register number offset */
	RULE_OTHER,  /* in a way that we have no row for */
};

struct rule {
	enum rule_kind kind;
	int64_t offset;
};

enum cfa_kind {
	CFA_PLAIN = 0, /* reg + offset */
	CFA_DEREF,     /* *(reg + offset) + addend */
	CFA_INDEXED,   /* *(sp + offset + reg * 8) + addend */
	CFA_PLT,       /* addend: from where in 16 bytes on one more word lies on the stack */
	CFA_OTHER,
};

struct state {
	enum cfa_kind kind;
	uint64_t reg;
	int64_t offset, addend;
	struct rule fp, ra;
};

struct cie {
	uint64_t code_factor;
	int64_t data_factor;
	uint8_t pointer_encoding;
	bool is_signal, has_augmentation;
	struct cursor instructions;
};

/* The state of running one entry's instructions. */
struct program {
	const struct cie *cie;
	struct state now, initial, remembered[REMEMBER_MAX];
	size_t remembered_len;
	uint64_t pc, limit, base;
	struct row_list *out; /* NULL in the CIE's part: what that sets up holds everywhere */
};

/* Pointer encodings (LSB section 10.5.1): the forms and applications that occur on Linux. */
static uint64_t read_pointer(
	struct cursor *cursor, uint8_t encoding, const struct eh_frame *frame)
{
	uint64_t here = frame->address + (uint64_t)(cursor->at - frame->bytes), value;

	switch (encoding & 0x0f) {
	case 0x00: /* absptr */
	case 0x04: /* udata8 */
	case 0x0c: /* sdata8 */
		value = cursor_u64(cursor);
		break;
	case 0x02:
		value = cursor_u16(cursor);
		break;
	case 0x03:
		value = cursor_u32(cursor);
		break;
	case 0x0a:
		value = (uint64_t)(int64_t)(int16_t)cursor_u16(cursor);
		break;
	case 0x0b:
		value = (uint64_t)(int64_t)(int32_t)cursor_u32(cursor);
		break;
	default:
		cursor->broken = true;
		return 0;
	}
	switch (encoding & 0x70) {
	case 0x00:
		return value;
	case 0x10: /* relative to itself */
		return value + here;
	default:
		cursor->broken = true;
		return 0;
	}
}

/* Length field and contents of the record at `offset`. */
static struct cursor open_record(const struct eh_frame *frame, size_t offset)
{
	struct cursor cursor = { frame->bytes, frame->bytes + frame->len, false };
	uint64_t len;

	(void)cursor_sub(&cursor, offset);
	len = cursor_u32(&cursor);
	if (len == UINT32_MAX)
		len = cursor_u64(&cursor);
	if (len == 0)
		cursor.broken = true; /* the end mark */
	if (cursor.broken)
		return cursor;
	return cursor_sub(&cursor, len);
}

static bool read_augmentation(struct cursor *cursor, const struct eh_frame *frame,
	const char *letters, struct cie *out)
{
	struct cursor data = cursor_sub(cursor, cursor_uleb(cursor));

	out->has_augmentation = true;
	for (; *letters; letters++) {
		switch (*letters) {
		case 'L':
			(void)cursor_u8(&data);
			break;
		case 'R':
			out->pointer_encoding = cursor_u8(&data);
			break;
		case 'P': {
			uint8_t encoding = cursor_u8(&data);

			(void)read_pointer(&data, encoding & 0x0f, frame);
			break;
		}
		case 'S':
			out->is_signal = true;
			break;
		case 'B': /* aarch64's pointer authentication; nothing to read */
			break;
		default:
			return false;
		}
	}
	return !data.broken;
}

static bool read_cie(const struct eh_frame *frame, size_t offset, struct cie *out)
{
	struct cursor cursor = open_record(frame, offset);
	char letters[8] = "";
	size_t len = 0;
	uint8_t version;

	*out = (struct cie){ 0 };
	if (cursor_u32(&cursor) != 0)
		return false; /* an FDE */
	version = cursor_u8(&cursor);
	while (len < sizeof(letters) - 1 && (letters[len] = (char)cursor_u8(&cursor)) != '\0')
		len++;
	if (cursor.broken || letters[len] != '\0' || (version != 1 && version != 3))
		return false;
	out->code_factor = cursor_uleb(&cursor);
	out->data_factor = cursor_sleb(&cursor);
	if ((version == 1 ? cursor_u8(&cursor) : cursor_uleb(&cursor)) != ARCH_RA)
		return false;
	if (letters[0] == 'z' && !read_augmentation(&cursor, frame, letters + 1, out))
		return false;
	if (letters[0] != 'z' && letters[0] != '\0')
		return false;
	out->instructions = cursor;
	return !cursor.broken;
}

/* An operand times the CIE's factor; hostile ones wrap around. */
static int64_t scaled(uint64_t operand, int64_t factor)
{
	return (int64_t)(operand * (uint64_t)factor);
}

/* DW_OP_breg0 and so on: a register and an offset. */
static bool read_register(struct cursor *expression, uint64_t *reg, int64_t *offset)
{
	uint8_t op = cursor_u8(expression);

	*reg = op - 0x70U;
	*offset = cursor_sleb(expression);
	return op >= 0x70 && op < 0x70 + ARCH_REGS;
}

/* What the procedure linkage table has: one word more from the push in each of its entries on. */
static bool read_plt(struct cursor expression, struct state *state)
{
	/* rsp + 8 + ((rip & 15) >= N) << 3; N is a literal, one byte */
	static const uint8_t head[] = { 0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a };
	static const uint8_t tail[] = { 0x2a, 0x33, 0x24, 0x22 };
	const uint8_t *at = expression.at;

	if (expression.end - at != sizeof(head) + 1 + sizeof(tail) ||
		memcmp(at, head, sizeof(head)) != 0 ||
		memcmp(at + sizeof(head) + 1, tail, sizeof(tail)) != 0)
		return false;
	state->kind = CFA_PLT;
	state->addend = at[sizeof(head)] - 0x30; /* DW_OP_lit0 */
	return true;
}

/* The few expressions that compilers and assemblers write for the CFA. */
static void read_cfa_expression(struct cursor expression, struct state *state)
{
	static const uint8_t times_8_plus[] = { 0x38, 0x1e, 0x22 };
	enum cfa_kind kind = CFA_DEREF;
	int64_t none = 0;

	state->kind = CFA_OTHER;
	if (read_plt(expression, state) ||
		!read_register(&expression, &state->reg, &state->offset))
		return;
	/* libcrypto's bignum assembly keeps the stack pointer behind an array on the stack. */
	if (state->reg == ARCH_SP && expression.end - expression.at > 5 &&
		memcmp(expression.at + 2, times_8_plus, sizeof(times_8_plus)) == 0) {
		if (!read_register(&expression, &state->reg, &none) || none != 0)
			return;
		(void)cursor_sub(&expression, sizeof(times_8_plus));
		kind = CFA_INDEXED;
	}
	if (cursor_u8(&expression) != 0x06) /* DW_OP_deref */
		return;
	state->addend = 0;
	if (expression.at < expression.end) {
		if (cursor_u8(&expression) != 0x23) /* DW_OP_plus_uconst */
			return;
		state->addend = (int64_t)cursor_uleb(&expression);
	}
	if (!expression.broken && expression.at == expression.end)
		state->kind = kind;
}

/* DW_CFA_expression for fp: code that realigns its stack keeps it at fp + offset. */
static struct rule rule_of_expression(struct cursor expression)
{
	struct rule rule = { RULE_OTHER, 0 };

	if (cursor_u8(&expression) == 0x70 + ARCH_FP) {
		rule.offset = cursor_sleb(&expression);
		if (!expression.broken && expression.at == expression.end)
			rule.kind = RULE_AT_FP;
	}
	return rule;
}

static void set_rule(struct program *program, uint64_t reg, struct rule rule)
{
	if (reg == ARCH_FP)
		program->now.fp = rule;
	else if (reg == ARCH_RA)
		program->now.ra = rule;
}

static void restore_rule(struct program *program, uint64_t reg)
{
	set_rule(program, reg, reg == ARCH_FP ? program->initial.fp : program->initial.ra);
}

static bool in_words(int64_t offset, int64_t min, int64_t max)
{
	return offset % 8 == 0 && offset / 8 >= min && offset / 8 <= max;
}

static arch_slot row_fp(const struct rule *fp)
{
	if (fp->kind == RULE_SAME)
		return 0;
	if (fp->kind == RULE_AT_CFA && in_words(fp->offset, ARCH_SLOT_MIN, -1))
		return (arch_slot)(fp->offset / 8);
	if (fp->kind == RULE_AT_FP && in_words(fp->offset, 0, ROW_FP_LOST - 2))
		return (arch_slot)(fp->offset / 8 + 1);
	return ROW_FP_LOST;
}

/* Where the return address is, if a row can say so. */
static bool set_ra(struct unwind_row *row, const struct rule *ra)
{
#if ARCH_HAS_LR
	if (ra->kind == RULE_SAME)
		return true;
	row->ra = (arch_slot)(ra->offset / 8 + (ra->offset >= 0));
	return ra->kind == RULE_AT_CFA &&
	       in_words(ra->offset, ARCH_SLOT_MIN, ARCH_SLOT_MAX - 1);
#else
	(void)row;
	return ra->kind == RULE_AT_CFA && ra->offset == -8;
#endif
}

/* The row form of a CFA that a row can hold, or ROW_NONE. */
static uint8_t row_kind(const struct state *now)
{
	static const struct {
		int64_t addend;
		enum cfa_kind kind;
		uint8_t form;
	} forms[] = { { 0, CFA_DEREF, ROW_DEREF }, { 8, CFA_DEREF, ROW_DEREF8 },
		{ 56, CFA_DEREF, ROW_DEREF56 }, { 64, CFA_DEREF, ROW_DEREF64 },
		{ 8, CFA_INDEXED, ROW_INDEXED } };

	uint64_t reg = now->reg - ARCH_ROW_FIRST;

	if (reg > ROW_REG || !in_words(now->offset, INT16_MIN, INT16_MAX))
		return ROW_NONE;
	if (now->kind == CFA_PLAIN)
		return (uint8_t)(reg | ROW_PLAIN);
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (now->kind == forms[i].kind && now->addend == forms[i].addend)
			return (uint8_t)(reg | forms[i].form);
	}
	return ROW_NONE;
}

static struct unwind_row row_of(const struct program *program)
{
	const struct state *now = &program->now;
	struct unwind_row row = { .kind = ROW_NONE };

	if (program->cie->is_signal) {
		row.kind = ROW_SIGNAL;
	} else if (now->ra.kind == RULE_UNDEFINED) {
		row.kind = ROW_END;
	} else if (now->kind == CFA_PLT) {
		row.kind = ROW_PLT;
		row.cfa = (int16_t)now->addend;
	} else if (now->ra.kind == RULE_IN_REG) {
		/* Only where the stack pointer is the caller's already. */
		if (now->kind != CFA_PLAIN || now->reg != ARCH_SP || now->offset != 0 ||
			now->ra.offset >= ARCH_REGS)
			return row;
		row.kind = ROW_JUMP;
		row.cfa = (int16_t)now->ra.offset;
	} else {
		uint8_t kind = row_kind(now);

		if (kind == ROW_NONE || !set_ra(&row, &now->ra))
			return (struct unwind_row){ .kind = ROW_NONE };
		row.kind = kind;
		row.cfa = (int16_t)(now->offset / 8);
		row.fp = row_fp(&now->fp);
	}
	return row;
}

static bool is_same(const struct unwind_row *a, const struct unwind_row *b)
{
	return a->kind == b->kind && a->cfa == b->cfa && a->fp == b->fp &&
	       row_ra(a) == row_ra(b);
}

static void append(struct row_list *list, struct unwind_row row)
{
	if (list->len > 0 && list->rows[list->len - 1].pc == row.pc)
		list->len--; /* no instruction lies between the two */
	if (list->len > 0 && is_same(&list->rows[list->len - 1], &row))
		return;
	if (list->len == list->max) {
		list->full = true;
		return;
	}
	list->rows[list->len++] = row;
}

static void emit(struct program *program)
{
	struct unwind_row row = row_of(program);

	row.pc = (uint32_t)(program->pc - program->base);
	append(program->out, row);
}

static bool move_to(struct program *program, uint64_t pc)
{
	if (!program->out)
		return true;
	if (pc < program->pc || pc > program->limit)
		return false;
	if (pc > program->pc)
		emit(program);
	program->pc = pc;
	return true;
}

static bool advance(struct program *program, uint64_t delta)
{
	return move_to(program, program->pc + delta * program->cie->code_factor);
}

/* The instructions whose operand is in the low six bits of the opcode. */
static bool run_packed(struct program *program, struct cursor *cursor, uint8_t op)
{
	uint8_t operand = op & 0x3f;

	switch (op & 0xc0) {
	case 0x40:
		return advance(program, operand);
	case 0x80:
		set_rule(program, operand,
			(struct rule){ RULE_AT_CFA,
				scaled(cursor_uleb(cursor), program->cie->data_factor) });
		return true;
	default:
		restore_rule(program, operand);
		return true;
	}
}

/* The instructions that change the CFA. */
static bool run_cfa(struct program *program, struct cursor *cursor, uint8_t op)
{
	struct state *now = &program->now;

	switch (op) {
	case 0x0c: /* def_cfa */
		now->reg = cursor_uleb(cursor);
		now->offset = (int64_t)cursor_uleb(cursor);
		break;
	case 0x0d: /* def_cfa_register */
		now->reg = cursor_uleb(cursor);
		break;
	case 0x0e: /* def_cfa_offset */
		now->offset = (int64_t)cursor_uleb(cursor);
		break;
	case 0x12: /* def_cfa_sf */
		now->reg = cursor_uleb(cursor);
		now->offset = scaled((uint64_t)cursor_sleb(cursor), program->cie->data_factor);
		break;
	case 0x13: /* def_cfa_offset_sf */
		now->offset = scaled((uint64_t)cursor_sleb(cursor), program->cie->data_factor);
		break;
	case 0x0f: /* def_cfa_expression */
		read_cfa_expression(cursor_sub(cursor, cursor_uleb(cursor)), now);
		return true;
	default:
		return false;
	}
	now->kind = CFA_PLAIN;
	return true;
}

/* The instructions that change where a register is. */
static bool run_rule(struct program *program, struct cursor *cursor, uint8_t op)
{
	uint64_t reg = cursor_uleb(cursor);
	int64_t factor = program->cie->data_factor;

	switch (op) {
	case 0x05: /* offset_extended */
		set_rule(program, reg,
			(struct rule){ RULE_AT_CFA, scaled(cursor_uleb(cursor), factor) });
		return true;
	case 0x06: /* restore_extended */
		restore_rule(program, reg);
		return true;
	case 0x07: /* undefined */
		set_rule(program, reg, (struct rule){ RULE_UNDEFINED, 0 });
		return true;
	case 0x08: /* same_value */
		set_rule(program, reg, (struct rule){ RULE_SAME, 0 });
		return true;
	case 0x10: /* expression */
		set_rule(program, reg,
			rule_of_expression(cursor_sub(cursor, cursor_uleb(cursor))));
		return true;
	case 0x11: /* offset_extended_sf */
		set_rule(program, reg,
			(struct rule){
				RULE_AT_CFA, scaled((uint64_t)cursor_sleb(cursor), factor) });
		return true;
	case 0x09: /* register */
		set_rule(program, reg,
			(struct rule){ RULE_IN_REG, (int64_t)(cursor_uleb(cursor) & 0xff) });
		return true;
	case 0x14: /* val_offset */
	case 0x15: /* val_offset_sf */
		(void)cursor_uleb(cursor);
		break;
	case 0x16: /* val_expression */
		(void)cursor_sub(cursor, cursor_uleb(cursor));
		break;
	default:
		return false;
	}
	set_rule(program, reg, (struct rule){ RULE_OTHER, 0 });
	return true;
}

static bool run_other(struct program *program, struct cursor *cursor, uint8_t op,
	const struct eh_frame *frame)
{
	switch (op) {
	case 0x00: /* nop */
		return true;
	case 0x01: /* set_loc */
		return move_to(
			program, read_pointer(cursor, program->cie->pointer_encoding, frame));
	case 0x02: /* advance_loc1 */
		return advance(program, cursor_u8(cursor));
	case 0x03: /* advance_loc2 */
		return advance(program, cursor_u16(cursor));
	case 0x04: /* advance_loc4 */
		return advance(program, cursor_u32(cursor));
	case 0x0a: /* remember_state */
		if (program->remembered_len == REMEMBER_MAX)
			return false;
		program->remembered[program->remembered_len++] = program->now;
		return true;
	case 0x0b: /* restore_state */
		if (program->remembered_len == 0)
			return false;
		program->now = program->remembered[--program->remembered_len];
		return true;
	case 0x2d: /* AARCH64_negate_ra_state: the walk strips what signs an address */
		return ARCH_HAS_LR;
	case 0x2e: /* GNU_args_size */
		(void)cursor_uleb(cursor);
		return true;
	default:
		return false;
	}
}

static bool run(struct program *program, struct cursor cursor, const struct eh_frame *frame)
{
	while (cursor.at < cursor.end && !cursor.broken) {
		uint8_t op = cursor_u8(&cursor);
		bool known;

		if (op & 0xc0)
			known = run_packed(program, &cursor, op);
		else if ((op >= 0x0c && op <= 0x0f) || op == 0x12 || op == 0x13)
			known = run_cfa(program, &cursor, op);
		else if (op < 0x05 || op == 0x0a || op == 0x0b || op > 0x16)
			known = run_other(program, &cursor, op, frame);
		else
			known = run_rule(program, &cursor, op);
		if (!known)
			return false;
	}
	return !cursor.broken;
}

/* See ROW_EH. */
static void mark_eh(struct unwind_row *rows, size_t len)
{
	bool found = false;

	for (size_t i = 0; i < len; i++) {
		if (rows[i].kind != ROW_JUMP)
			continue;
		found = true;
		if (i > 0 && rows[i - 1].kind == ARCH_SP - ARCH_ROW_FIRST &&
			rows[i - 1].cfa == 1 && rows[i].pc - rows[i - 1].pc == 1)
			rows[i - 1].kind = ROW_LANDING;
	}
	for (size_t i = 0; found && i < len; i++) {
		if (rows[i].kind < ROW_SPECIAL)
			rows[i].kind |= ROW_EH;
	}
}

static bool compile(const struct eh_frame *frame, const struct cie *cie,
	struct cursor instructions, const struct eh_frame_range *range, struct row_list *out)
{
	struct program program = {
		.cie = cie,
		.now = { .reg = ARCH_SP,
			.offset = ARCH_CALL,
			.ra = { ARCH_HAS_LR ? RULE_SAME : RULE_AT_CFA, -ARCH_CALL } },
		.base = frame->base,
		.pc = range->start,
		.limit = range->limit,
	};
	size_t len = out->len;
	struct unwind_row last = len ? out->rows[len - 1] : (struct unwind_row){ 0 };

	if (!run(&program, cie->instructions, frame))
		return false;
	program.initial = program.now;
	program.out = out;
	if (!run(&program, instructions, frame)) {
		out->len = len;
		if (len)
			out->rows[len - 1] = last;
		return false;
	}
	if (program.pc < range->limit)
		emit(&program);
	if (out->len > len)
		mark_eh(out->rows + len, out->len - len);
	append(out, (struct unwind_row){
			    .pc = (uint32_t)(range->limit - frame->base), .kind = ROW_NONE });
	return true;
}

bool eh_frame_compile_one(const struct eh_frame *frame, size_t offset, struct row_list *out,
	struct eh_frame_range *range)
{
	struct cursor cursor = open_record(frame, offset);
	size_t pointer_at = (size_t)(cursor.at - frame->bytes);
	uint32_t back = cursor_u32(&cursor);
	uint64_t start, limit;
	struct cie cie;

	if (cursor.broken || back == 0 || back > pointer_at ||
		!read_cie(frame, pointer_at - back, &cie))
		return false;
	start = read_pointer(&cursor, cie.pointer_encoding, frame);
	limit = start + read_pointer(&cursor, cie.pointer_encoding & 0x0f, frame);
	if (cie.has_augmentation)
		(void)cursor_sub(&cursor, cursor_uleb(&cursor));
	if (cursor.broken || start < range->start || start < frame->text_start ||
		limit > frame->text_limit || limit <= start || limit - frame->base > ROW_PC_MAX)
		return false;
	*range = (struct eh_frame_range){ start, limit };
	return compile(frame, &cie, cursor, range, out);
}
