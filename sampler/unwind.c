#include "sampler/unwind.h"

#include <string.h>

#include "sampler/arch/x86_64.h"
#include "sampler/unwind_table.h"

#define PAGE      ((uintptr_t)4096)
#define FRAME_MAX ((uintptr_t)16 << 20) /* a larger step is taken for a broken one */

/*
 * The part of a stack that may be read: [low, high).  On the thread's own stack `high` moves up page
 * by page as the kernel says that the next one is there; a copy of another's has what it has.
 */
struct window {
	uintptr_t low, high;
	const char *bytes; /* NULL: the memory itself; else a copy, bytes[0] was at low */
};

struct walk {
	struct unwind_regs regs;
	struct window stack;
	const struct table_set *set;
	bool pc_is_exact; /* else it is a return address, and its call is what counts */
};

void unwind_regs_from_ucontext_sigsafe(const ucontext_t *context, struct unwind_regs *out)
{
	for (size_t i = 0; i < ARCH_REGS; i++)
		out->reg[i] = (uintptr_t)context->uc_mcontext.gregs[arch_context_index[i]];
	out->pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
	out->valid = (1U << ARCH_REGS) - 1;
}

static bool extend_sigsafe(struct window *stack, uintptr_t limit)
{
	if (stack->bytes)
		return false;
	while (stack->high < limit) {
		if (!arch_is_readable_sigsafe(stack->high))
			return false;
		stack->high += PAGE;
	}
	return true;
}

static bool load_sigsafe(struct window *stack, uintptr_t address, uintptr_t *out)
{
	if (address < stack->low || address > UINTPTR_MAX - 2 * PAGE || address % 8 != 0)
		return false;
	if (address + 8 > stack->high && !extend_sigsafe(stack, address + 8))
		return false;
	if (stack->bytes)
		memcpy(out, stack->bytes + (address - stack->low), sizeof(*out));
	else
		*out = *(const uintptr_t *)address; /* NOLINT(performance-no-int-to-ptr) */
	return true;
}

static bool has(const struct walk *walk, unsigned reg)
{
	return walk->regs.valid >> reg & 1;
}

/* Go on in the caller, whose frame ends at `cfa`. */
static enum unwind_end leave_frame_sigsafe(struct walk *walk, uintptr_t cfa)
{
	uintptr_t sp = walk->regs.reg[ARCH_SP], pc;

	if (cfa <= sp || cfa - sp > FRAME_MAX || !load_sigsafe(&walk->stack, cfa - 8, &pc))
		return UNWIND_BAD_STACK;
	walk->regs.pc = pc;
	walk->regs.reg[ARCH_SP] = cfa;
	/* Of the others only the frame pointer is tracked; the rest may have been changed. */
	walk->regs.valid &= 1U << ARCH_SP | 1U << ARCH_FP;
	walk->pc_is_exact = false;
	return UNWIND_COMPLETE;
}

static enum unwind_end step_signal_sigsafe(struct walk *walk)
{
	uintptr_t gregs = walk->regs.reg[ARCH_SP] + ARCH_SIGNAL_GREGS;
	struct unwind_regs before;

	for (unsigned i = 0; i < ARCH_REGS; i++) {
		if (!load_sigsafe(
			    &walk->stack, gregs + arch_context_index[i] * 8U, &before.reg[i]))
			return UNWIND_BAD_STACK;
	}
	if (!load_sigsafe(&walk->stack, gregs + REG_RIP * 8U, &before.pc))
		return UNWIND_BAD_STACK;
	/* The handler may have run on a stack of its own: then go on on the other one. */
	if (before.reg[ARCH_SP] <= walk->regs.reg[ARCH_SP] ||
		before.reg[ARCH_SP] - walk->regs.reg[ARCH_SP] > FRAME_MAX) {
		if (walk->stack.bytes)
			return UNWIND_BAD_STACK;
		walk->stack.low = before.reg[ARCH_SP];
		walk->stack.high = before.reg[ARCH_SP] & ~(PAGE - 1);
	}
	before.valid = (1U << ARCH_REGS) - 1;
	walk->regs = before;
	walk->pc_is_exact = true;
	return UNWIND_COMPLETE;
}

/* Code without a row, as a just-in-time compiler makes it: hope for a frame pointer. */
static enum unwind_end step_frame_pointer_sigsafe(struct walk *walk)
{
	uintptr_t fp = walk->regs.reg[ARCH_FP], sp = walk->regs.reg[ARCH_SP], caller_fp;

	if (!has(walk, ARCH_FP) || fp < sp || fp - sp > FRAME_MAX || fp % 8 != 0 ||
		!load_sigsafe(&walk->stack, fp, &caller_fp))
		return UNWIND_NO_ROW;
	if (leave_frame_sigsafe(walk, fp + 16) != UNWIND_COMPLETE)
		return UNWIND_NO_ROW;
	walk->regs.reg[ARCH_FP] = caller_fp;
	return UNWIND_COMPLETE;
}

static bool find_cfa_sigsafe(struct walk *walk, const struct unwind_row *row, uintptr_t *cfa)
{
	unsigned reg = row->kind & ROW_REG;

	if (row->kind == ROW_PLT) {
		*cfa = walk->regs.reg[ARCH_SP] + 8 +
		       ((walk->regs.pc & 15) >= (uintptr_t)row->cfa ? 8 : 0);
		return true;
	}
	if (!has(walk, reg))
		return false;
	*cfa = walk->regs.reg[reg] + (uintptr_t)((intptr_t)row->cfa * 8);
	if (!(row->kind & ROW_DEREF))
		return true;
	/* The word may lie just below the stack pointer, in the red zone. */
	if (*cfa < walk->stack.low && !walk->stack.bytes && walk->stack.low - *cfa <= 128 &&
		arch_is_readable_sigsafe(*cfa))
		walk->stack.low = *cfa;
	if (!load_sigsafe(&walk->stack, *cfa, cfa))
		return false;
	*cfa += row->kind & ROW_PLUS_8 ? 8 : 0;
	return true;
}

static enum unwind_end step_row_sigsafe(struct walk *walk, const struct unwind_row *row)
{
	uintptr_t fp = walk->regs.reg[ARCH_FP], cfa;
	bool fp_known = has(walk, ARCH_FP);
	enum unwind_end end;

	if (!find_cfa_sigsafe(walk, row, &cfa))
		return UNWIND_NO_ROW;
	end = leave_frame_sigsafe(walk, cfa);
	if (end != UNWIND_COMPLETE)
		return end;
	if (row->rbp < 0)
		fp_known = load_sigsafe(
			&walk->stack, cfa + (uintptr_t)((intptr_t)row->rbp * 8), &fp);
	else if (row->rbp == ROW_RBP_LOST)
		fp_known = false;
	else if (row->rbp > 0)
		fp_known = fp_known &&
			   load_sigsafe(&walk->stack, fp + (uintptr_t)(row->rbp - 1) * 8, &fp);
	walk->regs.reg[ARCH_FP] = fp;
	walk->regs.valid = 1U << ARCH_SP | (fp_known ? 1U << ARCH_FP : 0);
	return UNWIND_COMPLETE;
}

/* One frame up. `*outermost` says that there is none. */
static enum unwind_end step_sigsafe(struct walk *walk, bool *outermost)
{
	const struct unwind_row *row =
		walk->set ? table_set_find_sigsafe(
				    walk->set, walk->regs.pc - (walk->pc_is_exact ? 0 : 1))
			  : NULL;

	if (!row) {
		table_set_note_miss_sigsafe();
		/* A call through a null pointer: the caller's address is on top of the stack. */
		if (walk->pc_is_exact && walk->regs.pc < PAGE)
			return leave_frame_sigsafe(walk, walk->regs.reg[ARCH_SP] + 8);
		return step_frame_pointer_sigsafe(walk);
	}
	switch (row->kind) {
	case ROW_END:
		*outermost = true;
		return UNWIND_COMPLETE;
	case ROW_SIGNAL:
		return step_signal_sigsafe(walk);
	case ROW_NONE:
		return step_frame_pointer_sigsafe(walk);
	default:
		return step_row_sigsafe(walk, row);
	}
}

static enum unwind_end walk_frames_sigsafe(
	struct walk *walk, uintptr_t *pcs, size_t max, size_t *len)
{
	enum unwind_end end = UNWIND_COMPLETE;
	bool outermost = false;

	*len = 0;
	walk->pc_is_exact = true;
	walk->set = table_set_enter_sigsafe();
	for (;;) {
		if (*len == max) {
			end = UNWIND_DEPTH;
			break;
		}
		/* A frame that a signal interrupted is exact too; one past it reads as the others. */
		pcs[*len] = walk->regs.pc + (walk->pc_is_exact && *len > 0 ? 1 : 0);
		++*len;
		end = step_sigsafe(walk, &outermost);
		if (end != UNWIND_COMPLETE || outermost || walk->regs.pc == 0)
			break;
	}
	table_set_leave_sigsafe();
	return end;
}

enum unwind_end unwind_walk_sigsafe(
	const struct unwind_regs *regs, uintptr_t *pcs, size_t max, size_t *len)
{
	uintptr_t sp = regs->reg[ARCH_SP];
	struct walk walk = { .regs = *regs, .stack = { .low = sp, .high = sp & ~(PAGE - 1) } };

	return walk_frames_sigsafe(&walk, pcs, max, len);
}

enum unwind_end unwind_walk_copy(const struct unwind_regs *regs, const void *bytes, size_t size,
	uintptr_t *pcs, size_t max, size_t *len)
{
	uintptr_t sp = regs->reg[ARCH_SP];
	struct walk walk = { .regs = *regs, .stack = { sp, sp + size, bytes } };

	return walk_frames_sigsafe(&walk, pcs, max, len);
}
