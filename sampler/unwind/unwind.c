#include "sampler/unwind/unwind.h"

#include "sampler/unwind/unwind_table.h"
#include "sampler/unwind/walk.h"

#define PAGE          ((uintptr_t)4096)
#define FRAME_MAX     ((uintptr_t)16 << 20) /* a larger step is taken for a broken one */
#define PROBES_MAX    64
#define GAP_MAX       (16 * PAGE) /* what a large frame may skip */
#define SIGNALS_MAX   8  /* signal frames may lead to any stack, but not around for ever */
#define SAVED_WORDS   64 /* below a frame, where its callee saved registers */
#define SAVED_PUSHES  8  /* its return address, and those registers that it must keep */
#define SAVED_REACH   ((uintptr_t)16 << 10)
#define ALL_REGISTERS (UINT32_MAX >> (32 - ARCH_REGS))

/*
 * How a walk reads the stack without ever faulting, and without a handler for SIGSEGV.
 *
 * A page is read only when it is known to be there.  Known for good is the thread's own stack from
 * `low` up to `high`, which two things make safe to remember: its upper end is an address that lives
 * as long as the stack itself (the thread's control block, or the random bytes that the kernel put
 * above the first thread's first frame), and every page between was once seen to be there.  A stack
 * is not unmapped under its own thread.  So an ordinary thread asks the kernel once for each page
 * that its stack grows by, and then never again.  Everything else (coroutines, alternate signal
 * stacks, a stack pointer gone wild) is asked for page by page in every walk, PROBES_MAX at most.
 *
 * Initial-exec, because the dynamic model may allocate when a handler is the first to touch it.
 */
static _Thread_local struct {
	uintptr_t low, high;
} own_stack __attribute__((tls_model("initial-exec")));

/* The part of a stack that may be read: [low, high). Multiples of 8. */
struct window {
	uintptr_t low, high;
	uintptr_t shift; /* from an address to where its bytes are: not 0 for a copy */
	uintptr_t top;   /* the upper end of the calling thread's own stack; 0 for a copy */
	unsigned probes;
	bool ran_out; /* of a copy: something would have been above it, or on another stack */
};

struct walk {
	struct unwind_regs regs;
	struct window stack;
	const struct table_set *set;
	const struct table *table; /* of the last look-up */
	unsigned signals;
	bool pc_is_exact; /* else it is a return address, and its call is what counts */
	bool outermost;   /* the last frame is known to be the first that there was */
	bool stops;       /* where the frame pointer would be needed and is not known */
	bool is_plain;    /* does not go back to where it was in doubt */
};

void unwind_regs_from_ucontext_sigsafe(const ucontext_t *context, struct unwind_regs *out)
{
	for (unsigned i = 0; i < ARCH_REGS; i++)
		out->reg[i] = arch_context_reg(context, i);
	out->pc = arch_context_pc(context);
	out->valid = ALL_REGISTERS;
	out->pc_is_return = false;
}

void unwind_regs_of_frame_sigsafe(
	struct unwind_regs *out, uintptr_t pc, uintptr_t cfa, const uintptr_t *frame)
{
	out->pc = pc;
	out->reg[ARCH_SP] = cfa;
	out->reg[ARCH_FP] = frame[0];
	out->valid = 1U << ARCH_SP | 1U << ARCH_FP;
	out->pc_is_return = true;
}

/* Extend the known bytes without a hole up to `to`. */
static bool extend_sigsafe(struct window *stack, uintptr_t to)
{
	if (stack->low == stack->high || to - stack->high > GAP_MAX)
		return false;
	while (stack->high < to) {
		if (++stack->probes > PROBES_MAX || !arch_is_readable_sigsafe(stack->high))
			return false;
		stack->high += PAGE;
	}
	return true;
}

static bool is_own_sigsafe(const struct window *stack, uintptr_t address)
{
	return own_stack.high == stack->top && address >= own_stack.low && address < stack->top;
}

/* Make the aligned word at `address` known, if it is there. */
static __attribute__((noinline)) bool learn_sigsafe(struct window *stack, uintptr_t address)
{
	uintptr_t page = address & ~(PAGE - 1);

	if (stack->shift) {
		stack->ran_out = true;
		return false;
	}
	if (is_own_sigsafe(stack, address)) {
		/* Having come up from below to what is known: now that is known too. */
		if (stack->low < own_stack.low && stack->high <= own_stack.low &&
			extend_sigsafe(stack, own_stack.low))
			own_stack.low = stack->low;
		stack->low = own_stack.low;
		stack->high = own_stack.high;
		return true;
	}
	if (page >= stack->high && extend_sigsafe(stack, page + PAGE))
		return true;
	if (++stack->probes > PROBES_MAX || !arch_is_readable_sigsafe(page))
		return false;
	stack->low = page;
	stack->high = page + PAGE;
	return true;
}

/* After a walk that came near the upper end of the thread's own stack: remember that all of it is
 * there. */
static void remember_sigsafe(struct window *stack)
{
	uintptr_t limit = (stack->top & ~(PAGE - 1)) + PAGE;

	if (own_stack.high == stack->top || stack->low >= stack->top || stack->high > limit ||
		!extend_sigsafe(stack, limit))
		return;
	own_stack.high = 0; /* a handler on top of this one must not see half of it */
	atomic_signal_fence(memory_order_seq_cst);
	own_stack.low = stack->low;
	atomic_signal_fence(memory_order_seq_cst);
	own_stack.high = stack->top;
}

/* A word of the program's memory; whatever stands there, the sanitizers' fences included. */
__attribute__((no_sanitize("address", "thread"))) static inline bool load_sigsafe(
	struct window *stack, uintptr_t address, uintptr_t *out)
{
	typedef uintptr_t word __attribute__((aligned(1), may_alias));

	if (address % sizeof(*out) != 0)
		return false;
	if ((address < stack->low || address >= stack->high) && !learn_sigsafe(stack, address))
		return false;
	*out = *(const word *)(address + stack->shift); /* NOLINT(performance-no-int-to-ptr) */
	return true;
}

static bool has(const struct walk *walk, unsigned reg)
{
	return walk->regs.valid >> reg & 1;
}

static void enter_caller_sigsafe(struct walk *walk, uintptr_t cfa, uintptr_t pc)
{
	walk->regs.pc = arch_strip_sigsafe(pc);
	walk->regs.reg[ARCH_SP] = cfa;
	/* Of the callee's registers only the frame pointer is tracked. Compiled code never needs the
	 * scratch registers after a call; assembly does, and knows that its callee left them alone. */
	walk->regs.valid &= 1U << ARCH_SP | 1U << ARCH_FP | ARCH_SCRATCH;
	walk->pc_is_exact = false;
}

/* Go on in the caller, whose frame ends at `cfa` and whose address is `ra` words from there. */
static inline enum unwind_end leave_frame_sigsafe(struct walk *walk, uintptr_t cfa, int ra)
{
	uintptr_t sp = walk->regs.reg[ARCH_SP], pc;

	if (cfa <= sp || cfa - sp > FRAME_MAX ||
		!load_sigsafe(&walk->stack, cfa + (uintptr_t)((intptr_t)ra * 8), &pc))
		return UNWIND_BAD_STACK;
	enter_caller_sigsafe(walk, cfa, pc);
	return UNWIND_COMPLETE;
}

/* The same where the caller's address is in the link register still: at the innermost frame, and where
 * a signal came in. */
static enum unwind_end leave_leaf_sigsafe(struct walk *walk, uintptr_t cfa)
{
#if ARCH_HAS_LR
	uintptr_t sp = walk->regs.reg[ARCH_SP];

	if (!has(walk, ARCH_RA))
		return UNWIND_NO_ROW;
	if (cfa < sp || cfa - sp > FRAME_MAX)
		return UNWIND_BAD_STACK;
	enter_caller_sigsafe(walk, cfa, walk->regs.reg[ARCH_RA]);
	return UNWIND_COMPLETE;
#else
	(void)walk;
	(void)cfa;
	return UNWIND_NO_ROW;
#endif
}

static enum unwind_end step_signal_sigsafe(struct walk *walk)
{
	uintptr_t frame = walk->regs.reg[ARCH_SP];

	if (++walk->signals > SIGNALS_MAX)
		return UNWIND_BAD_STACK;
	for (unsigned i = 0; i < ARCH_REGS; i++) {
		if (!load_sigsafe(&walk->stack, frame + ARCH_SIGNAL_REG(i), &walk->regs.reg[i]))
			return UNWIND_BAD_STACK;
	}
	if (!load_sigsafe(&walk->stack, frame + ARCH_SIGNAL_PC, &walk->regs.pc))
		return UNWIND_BAD_STACK;
	walk->regs.valid = ALL_REGISTERS;
	walk->pc_is_exact = true;
	return UNWIND_COMPLETE;
}

/* Code without a row, as a just-in-time compiler makes it: hope for a frame pointer. */
static enum unwind_end step_frame_pointer_sigsafe(struct walk *walk)
{
	uintptr_t fp = walk->regs.reg[ARCH_FP], sp = walk->regs.reg[ARCH_SP], caller_fp;

	if (!has(walk, ARCH_FP) || fp < sp || fp - sp > FRAME_MAX ||
		!load_sigsafe(&walk->stack, fp, &caller_fp))
		return UNWIND_NO_ROW;
	if (leave_frame_sigsafe(walk, fp + 16, -1) != UNWIND_COMPLETE)
		return UNWIND_NO_ROW;
	walk->regs.reg[ARCH_FP] = caller_fp;
	return UNWIND_COMPLETE;
}

/* Where a call has led that nothing has happened since. */
static enum unwind_end leave_call_sigsafe(struct walk *walk)
{
	uintptr_t cfa = walk->regs.reg[ARCH_SP] + ARCH_CALL;

	return ARCH_HAS_LR ? leave_leaf_sigsafe(walk, cfa) : leave_frame_sigsafe(walk, cfa, -1);
}

/* Code of which no table knows anything; a module's, but without an entry, if there is a row. */
static enum unwind_end step_unknown_sigsafe(struct walk *walk, bool in_module)
{
	uintptr_t pc = walk->regs.pc;
	bool is_there = arch_is_readable_sigsafe(pc);

	/* A call to nowhere. */
	if (walk->pc_is_exact && !is_there)
		return leave_call_sigsafe(walk);
	if (!walk->pc_is_exact && is_there &&
		arch_is_readable_sigsafe(pc + sizeof(arch_trampoline) - 8) &&
		arch_is_trampoline_sigsafe(pc))
		return step_signal_sigsafe(walk);
	/* With a link register, linkage tables and other glue touch neither it nor the stack, and have
	 * no entry. */
	if (ARCH_HAS_LR && walk->pc_is_exact && in_module &&
		leave_leaf_sigsafe(walk, walk->regs.reg[ARCH_SP]) == UNWIND_COMPLETE)
		return UNWIND_COMPLETE;
	return step_frame_pointer_sigsafe(walk);
}

/* On the way to the handler of an exception: its first instruction comes next, no call did. */
static enum unwind_end step_landing_sigsafe(struct walk *walk, const struct unwind_row *row)
{
	unsigned reg = (unsigned)row->cfa;
	enum unwind_end end = UNWIND_COMPLETE;

	if (row->kind == ROW_LANDING)
		end = leave_frame_sigsafe(walk, walk->regs.reg[ARCH_SP] + 8, -1);
	else if (has(walk, reg))
		walk->regs.pc = walk->regs.reg[reg];
	else
		end = UNWIND_NO_ROW;
	walk->regs.valid &= 1U << ARCH_SP | 1U << ARCH_FP;
	walk->pc_is_exact = true;
	return end;
}

/*
 * The dynamic loader's way to bind a function at its first call keeps the stack pointer in rbx, which
 * no row tracks.  Its callee has saved it just below this frame, if it is not in the register still:
 * take what points a little above and leads to code.  So may any frame pointer, which the callee
 * saved too; but all of those point further up.
 */
static bool find_saved_sigsafe(struct walk *walk, const struct unwind_row *row, unsigned reg)
{
	uintptr_t sp = walk->regs.reg[ARCH_SP], word = walk->regs.reg[reg], pc, best = 0;

	for (uintptr_t back = 0; back <= SAVED_WORDS && (best == 0 || back <= SAVED_PUSHES);
		back++) {
		if (back > 0 && !load_sigsafe(&walk->stack, sp - back * sizeof(word), &word))
			break;
		if (word - sp < SAVED_REACH && (best == 0 || word < best) &&
			load_sigsafe(&walk->stack,
				word + (uintptr_t)((intptr_t)(row->cfa + row_ra(row)) * 8),
				&pc) &&
			table_set_covers_sigsafe(walk->set, pc))
			best = word;
	}
	walk->regs.reg[reg] = best;
	return best != 0;
}

/*
 * SHA-512 for AVX2 keeps its caller's stack pointer below its own, where a copy has nothing; and again and again
 * above, wherever it has stood before.
 */
static bool find_kept_sigsafe(struct walk *walk, uintptr_t addend, uintptr_t *cfa)
{
	uintptr_t sp = walk->regs.reg[ARCH_SP], word, pc;

	for (uintptr_t at = sp; at - sp < SAVED_REACH && load_sigsafe(&walk->stack, at, &word);
		at += sizeof(word)) {
		*cfa = word + addend;
		if (*cfa - sp<SAVED_REACH && * cfa> at &&
			load_sigsafe(&walk->stack, *cfa - sizeof(pc), &pc) &&
			table_set_covers_sigsafe(walk->set, pc))
			return true;
	}
	return false;
}

static bool find_cfa_sigsafe(struct walk *walk, const struct unwind_row *row, uintptr_t *cfa)
{
	/* By form: what is added to the word that was found. */
	static const uint8_t addends[] = { 0, 0, 8, 56, 64, 8 };
	unsigned reg = ARCH_ROW_FIRST + (row->kind & ROW_REG), form = row->kind & ROW_FORM;

	if (!has(walk, reg) && (reg == ARCH_FP || !find_saved_sigsafe(walk, row, reg)))
		return false;
	*cfa = walk->regs.reg[reg];
	if (form == ROW_INDEXED)
		*cfa = walk->regs.reg[ARCH_SP] + *cfa * 8;
	*cfa += (uintptr_t)((intptr_t)row->cfa * 8);
	if (form == ROW_PLAIN)
		return true;
	if (walk->stack.shift && *cfa < walk->regs.reg[ARCH_SP])
		return find_kept_sigsafe(walk, addends[form >> 4], cfa);
	if (!load_sigsafe(&walk->stack, *cfa, cfa))
		return false;
	*cfa += addends[form >> 4];
	return true;
}

static inline enum unwind_end step_row_sigsafe(struct walk *walk, const struct unwind_row *row)
{
	uintptr_t fp = walk->regs.reg[ARCH_FP], sp = walk->regs.reg[ARCH_SP], cfa;
	bool fp_known = has(walk, ARCH_FP);
	enum unwind_end end;
	int ra = row_ra(row);

	if (!find_cfa_sigsafe(walk, row, &cfa))
		return UNWIND_NO_ROW;
	if (ra == 0)
		end = leave_leaf_sigsafe(walk, cfa);
	else if (ra < 0)
		end = leave_frame_sigsafe(walk, cfa, ra);
	else
		end = leave_frame_sigsafe(walk, cfa + (uintptr_t)ra * 8, -1);
	walk->pc_is_exact = row->kind == (ROW_REG_EH | ROW_EH);
	if (end != UNWIND_COMPLETE || row->fp == 0)
		return end;
	/* A copy has nothing below the stack pointer: what was saved there has been popped. */
	if (row->fp < 0 &&
		!(walk->stack.shift && cfa + (uintptr_t)((intptr_t)row->fp * 8) < sp))
		fp_known = load_sigsafe(
			&walk->stack, cfa + (uintptr_t)((intptr_t)row->fp * 8), &fp);
	else if (row->fp < 0)
		fp_known = has(walk, ARCH_FP);
	else if (row->fp == ROW_FP_LOST)
		fp_known = false;
	else
		fp_known = fp_known &&
			   load_sigsafe(&walk->stack, fp + (uintptr_t)(row->fp - 1) * 8, &fp);
	walk->regs.reg[ARCH_FP] = fp;
	walk->regs.valid &= ~(1U << ARCH_FP);
	walk->regs.valid |= fp_known ? 1U << ARCH_FP : 0;
	return UNWIND_COMPLETE;
}

/* One frame up, unless this is the outermost. */
static enum unwind_end step_sigsafe(struct walk *walk, const struct unwind_row *row)
{
	if (!row) {
		table_set_note_miss_sigsafe();
		return step_unknown_sigsafe(walk, false);
	}
	switch (row->kind) {
	case ROW_END:
		walk->outermost = true;
		return UNWIND_COMPLETE;
	case ROW_SIGNAL:
		return step_signal_sigsafe(walk);
	case ROW_NONE:
		return step_unknown_sigsafe(walk, true);
	case ROW_PLT:
		return leave_frame_sigsafe(walk,
			walk->regs.reg[ARCH_SP] +
				((walk->regs.pc & 15) >= (uintptr_t)row->cfa ? 16 : 8),
			-1);
	case ROW_LANDING:
	case ROW_JUMP:
		return step_landing_sigsafe(walk, row);
	default:
		return step_row_sigsafe(walk, row);
	}
}

/*
 * While an exception is on its way to its handler, the unwinding library overwrites return addresses
 * on the stack, and two frames are not what they seem.  Both are walked as usual first, and
 * differently when that has led nowhere.
 *
 * BY_ROW: a return address at which another row begins may be a handler's address, for which it is
 * the row after that holds.  (That no call stands before it would not tell: calls that never return
 * may.)
 * BY_SCAN: the caller of a function marked ROW_EH.  The library has copied the return address of the
 * frame that it goes to into its own; the frames between are dead.  The original is further up.
 */
enum {
	BY_ROW,
	BY_SCAN,
	DOUBTS
};

#define SCAN_WORDS 1024

struct doubt {
	struct walk walk; /* as it was at the last such frame */
	size_t len;       /* 0: there was none */
};

static void note_doubt_sigsafe(struct doubt *doubt, const struct walk *walk, size_t len)
{
	doubt->walk = *walk;
	doubt->len = len;
}

static bool scan_sigsafe(struct walk *walk)
{
	uintptr_t at = walk->regs.reg[ARCH_SP], word;

	for (unsigned i = 0; i < SCAN_WORDS; i++, at += sizeof(word)) {
		if (!load_sigsafe(&walk->stack, at, &word))
			return false;
		if (word == walk->regs.pc) {
			walk->regs.reg[ARCH_SP] = at + sizeof(word);
			return true;
		}
	}
	return false;
}

/* The walk has come to nothing: go back to where it may have gone wrong. */
static bool take_back_sigsafe(struct doubt *doubts, struct walk *walk, size_t *len)
{
	for (unsigned i = 0; i < DOUBTS; i++) {
		struct doubt *doubt = &doubts[i];
		unsigned probes = walk->stack.probes;
		bool ran_out = walk->stack.ran_out;

		if (doubt->len == 0)
			continue;
		*walk = doubt->walk;
		*len = doubt->len;
		doubt->len = 0;
		walk->stack.probes = probes;
		walk->stack.ran_out = ran_out;
		if (i == BY_ROW)
			walk->pc_is_exact = true;
		else if (!scan_sigsafe(walk))
			continue;
		return true;
	}
	return false;
}

static const struct unwind_row *find_row_sigsafe(struct walk *walk, struct rule *rule)
{
	uintptr_t pc = walk->regs.pc - (walk->pc_is_exact ? 0 : 1);

	return walk->set && table_set_rule_sigsafe(walk->set, pc, &walk->table, rule)
		       ? &rule->row
		       : NULL;
}

static bool is_stuck(const struct walk *walk, const struct unwind_row *row)
{
	return walk->stops && row && row->kind < ROW_SPECIAL &&
	       ARCH_ROW_FIRST + (row->kind & ROW_REG) == ARCH_FP && !has(walk, ARCH_FP);
}

static enum unwind_end walk_frames_sigsafe(
	struct walk *walk, uintptr_t *pcs, size_t max, size_t *len)
{
	enum unwind_end end = UNWIND_COMPLETE;
	struct doubt doubts[DOUBTS]
		__attribute__((uninitialized)); /* not cleared: it would show */

	*len = doubts[BY_ROW].len = doubts[BY_SCAN].len = 0;
	walk->pc_is_exact = !walk->regs.pc_is_return;
	walk->set = table_set_enter_sigsafe();
	do {
		const struct unwind_row *row;
		struct rule rule;

		if (*len == max) {
			end = UNWIND_DEPTH;
			break;
		}
		row = find_row_sigsafe(walk, &rule);
		if (row && !walk->pc_is_exact && rule.next_begins)
			note_doubt_sigsafe(&doubts[BY_ROW], walk, *len);
		/* A frame that a signal interrupted is exact too; one past it reads as the others. */
		pcs[*len] = walk->regs.pc + (walk->pc_is_exact && *len > 0 ? 1 : 0);
		++*len;
		end = step_sigsafe(walk, row);
		if (end == UNWIND_COMPLETE && row && row->kind < ROW_SPECIAL &&
			row->kind & ROW_EH)
			note_doubt_sigsafe(&doubts[BY_SCAN], walk, *len);
		if (end != UNWIND_COMPLETE && (walk->is_plain || is_stuck(walk, row) ||
						      !take_back_sigsafe(doubts, walk, len)))
			break;
	} while (!walk->outermost && walk->regs.pc != 0);
	table_set_leave_sigsafe();
	return end;
}

/* Where the calling thread's own stack ends, if it stands on that. */
static uintptr_t own_top_sigsafe(const struct unwind_regs *regs)
{
	uintptr_t top = arch_thread_pointer_sigsafe();

	/* The first thread's control block lies elsewhere, below its stack. */
	return top < regs->reg[ARCH_SP] ? table_set_first_stack_sigsafe() : top;
}

enum unwind_end unwind_walk_sigsafe(
	const struct unwind_regs *regs, uintptr_t *pcs, size_t max, size_t *len)
{
	struct walk walk = { .regs = *regs, .stack = { .top = own_top_sigsafe(regs) } };
	enum unwind_end end;

	end = walk_frames_sigsafe(&walk, pcs, max, len);
	remember_sigsafe(&walk.stack);
	return end;
}

__attribute__((no_sanitize("address", "thread"))) size_t unwind_copy_stack_sigsafe(
	const struct unwind_regs *regs, void *to, size_t max)
{
	typedef uintptr_t word __attribute__((may_alias));
	uintptr_t address = regs->reg[ARCH_SP] & ~(uintptr_t)(sizeof(word) - 1);
	size_t words = max / sizeof(word), at = 0;
	word *out = to;

	while (at < words && arch_is_readable_sigsafe(address + at * sizeof(word))) {
		/* To the end of the page. */
		do {
			/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
			out[at] = ((const volatile word *)address)[at];
			at++;
		} while (at < words && (address + at * sizeof(word)) % PAGE != 0);
	}
	return at * sizeof(word);
}

size_t unwind_stack_bytes_sigsafe(const struct unwind_regs *regs)
{
	uintptr_t top = own_top_sigsafe(regs), sp = regs->reg[ARCH_SP];

	return top > sp && top - sp < FRAME_MAX ? top - sp : SIZE_MAX;
}

bool unwind_has_tables_sigsafe(void)
{
	bool has = table_set_enter_sigsafe() != NULL;

	table_set_leave_sigsafe();
	return has;
}

static void walk_once(const struct unwind_regs *regs, const struct stack_copy *copy,
	struct walk *walk, struct walked *out)
{
	uintptr_t address = copy->address;
	uintptr_t low = (address + 7) & ~(uintptr_t)7;
	uintptr_t high = (address + copy->size) & ~(uintptr_t)7;

	walk->regs = *regs;
	walk->stack = (struct window){ .low = low,
		.high = high > low ? high : low,
		.shift = (uintptr_t)copy->bytes - address };
	out->end = walk_frames_sigsafe(walk, out->pcs, UNWIND_DEPTH_MAX, &out->len);
	out->outermost = walk->outermost;
	out->regs = walk->regs;
	out->regs.pc_is_return = !walk->pc_is_exact;
}

void walk_copy(const struct unwind_regs *regs, const struct stack_copy *copy, bool stops,
	struct walked *out)
{
	struct walk walk = { .stops = stops }, plain = { .stops = stops, .is_plain = true };

	walk_once(regs, copy, &walk, out);
	out->ran_out = false;
	if (walk.outermost || !walk.stack.ran_out)
		return;
	/* Where a doubtful frame led to nothing, more bytes may have been all that was missing. */
	walk_once(regs, copy, &plain, out);
	out->ran_out = out->end == UNWIND_BAD_STACK && plain.stack.ran_out;
}
