/*
 * sleeper.c - walking the copied stack of a thread whose frame pointer is not known.
 *
 * The kernel tells of a sleeping thread where it stands and its stack pointer, and no more.  In code without
 * frame pointers that is enough; a function that has one (and its callees, which do not touch the
 * register) has its caller at a place which only that register knows.  Its own code tells by how much
 * the stack pointer went down after the frame pointer was set.  Where the code cannot tell (alloca), the
 * stack itself is looked through for a caller's frame pointer beside a return address, from which the walk
 * comes to the thread's start.  Old frames may lie there, too, in memory that nobody has written to
 * yet: of those that fit, only one may fit best.
 */
#include <string.h>

#include "sampler/proc/memory.h"
#include "sampler/unwind/code.h"
#include "sampler/unwind/unwind_table.h"
#include "sampler/unwind/walk.h"

#define ROWS_BACK    4096
#define FUNCTION_MAX ((size_t)16 << 10) /* a longer one is taken for a dynamic one */
#define FITTING_MAX \
	UNWIND_DEPTH_MAX /* candidates that lead to the thread's start; more are no good */
#define STACK_ALIGNED 16

/* What is known of the function that has the frame. */
struct function {
	uintptr_t start, end; /* 0: not known */
	uintptr_t frame_set;  /* where its frame pointer has been set; 0: not known */
	struct code_frame frame;
	bool is_dynamic;
	size_t popped;
};

/* How well a return address fits: does the call before it go to that function? */
enum fit {
	FITS_NOT = 0,
	FITS_OTHER,    /* a call to something else, which may have jumped there */
	FITS_INDIRECT, /* a call by way of a pointer */
	FITS_WELL,     /* a call to it */
};

struct candidate {
	uintptr_t fp;
	enum fit fit;
	bool is_recursive;       /* the function is there again further up */
	unsigned contradictions; /* calls on the way that went elsewhere */
	struct walked walked;
};

struct search {
	const struct stack_copy *copy;
	struct unwind_regs regs; /* in the frame that is stuck */
	struct function function;
	struct candidate best, next;
	unsigned fitting; /* candidates that lead to the thread's start */
	bool is_counted;  /* the best one's contradictions are known */
	bool is_ambiguous;
};

static bool load(const struct stack_copy *copy, uintptr_t address, uintptr_t *out)
{
	if (address < copy->address || address - copy->address > copy->size ||
		copy->size - (address - copy->address) < sizeof(*out))
		return false;
	memcpy(out, (const char *)copy->bytes + (address - copy->address), sizeof(*out));
	return true;
}

/* Where in its code the function sets its frame pointer: where the table's rows begin to count from it. */
static uintptr_t find_frame_set(
	const struct table *table, const struct unwind_row *row, uintptr_t start)
{
	for (; row - table->rows >= 2 && table->start + row->pc > start; row--) {
		uint8_t code[32];
		size_t between = row[0].pc - row[-1].pc;
		uintptr_t at = table->start + row[0].pc;

		if (row[0].kind != (ROW_PLAIN | (ARCH_FP - ARCH_ROW_FIRST)) ||
			row[0].cfa != 2 ||
			row[-1].kind != (ROW_PLAIN | (ARCH_SP - ARCH_ROW_FIRST)) ||
			row[-1].cfa != 2 || between + 1 > sizeof(code))
			continue;
		if (memory_copy(at - between - 1, code, between + 1) == between + 1 &&
			code_sets_frame(code, between + 1, between))
			return at;
	}
	return 0;
}

static void read_function(struct search *search, const struct table *table,
	const struct unwind_row *row, uint8_t code[static FUNCTION_MAX])
{
	struct function *function = &search->function;
	uintptr_t pc = search->regs.pc;
	size_t len, got;

	*function = (struct function){ .is_dynamic = true };
	got = memory_copy(pc, code, 32);
	if (search->regs.pc_is_return)
		function->popped = code_popped(code, got);
	if (!table_find_function(table, pc - (search->regs.pc_is_return ? 1 : 0),
		    &function->start, &function->end))
		return;
	function->frame_set = find_frame_set(table, row, function->start);
	if (function->frame_set == 0)
		return;
	len = function->end - function->frame_set;
	got = memory_copy(function->frame_set, code, len < FUNCTION_MAX ? len : FUNCTION_MAX);
	function->is_dynamic = got < len || code_is_dynamic(code, got);
	len = pc - function->frame_set;
	function->frame = code_read_frame(code, len < got ? len : got);
}

/* What a call's target stands for: the procedure linkage table goes on by way of a word. */
static uintptr_t behind(uintptr_t target)
{
	uint8_t jump[CODE_JUMP_MAX];
	size_t got = memory_copy(target, jump, sizeof(jump));
	uintptr_t slot, word;

	if (code_jump_slot(jump, got, target, &slot) &&
		memory_copy(slot, &word, sizeof(word)) == sizeof(word))
		return word;
	return target;
}

/* Does the call that returns to `pc` go to the function that begins at `start` (0: not known)? */
static enum fit fit_of(uintptr_t pc, uintptr_t start)
{
	uint8_t code[CODE_CALL_MAX];
	enum code_call call;
	uintptr_t target;

	if (pc < sizeof(code) ||
		memory_copy(pc - sizeof(code), code, sizeof(code)) != sizeof(code))
		return FITS_NOT;
	call = code_call_before(code, sizeof(code), pc, &target);
	if (call != CODE_CALL_DIRECT)
		return call == CODE_CALL_INDIRECT ? FITS_INDIRECT : FITS_NOT;
	if (start == 0 || (target != start && behind(target) != start))
		return FITS_OTHER;
	return FITS_WELL;
}

static bool find_start(uintptr_t pc, uintptr_t *start)
{
	const struct table_set *set = table_set_enter_sigsafe();
	const struct table *table = NULL;
	uintptr_t limit;

	/* What is found stays: only this thread publishes other tables. */
	if (set)
		(void)table_set_find_sigsafe(set, pc, &table);
	table_set_leave_sigsafe();
	return table && table_find_function(table, pc, start, &limit);
}

/* Old frames lead to live ones sooner or later, at a call that went elsewhere. How often does this happen? */
static unsigned count_contradictions(const struct candidate *candidate)
{
	const struct walked *walked = &candidate->walked;
	unsigned count = candidate->fit == FITS_OTHER;
	uintptr_t start;

	for (size_t i = 1; i + 1 < walked->len; i++) {
		if (!find_start(walked->pcs[i] - 1, &start))
			continue;
		switch (fit_of(walked->pcs[i + 1], start)) {
		case FITS_NOT:
		case FITS_OTHER:
			count++;
			break;
		case FITS_INDIRECT:
		case FITS_WELL:
			break;
		}
	}
	return count;
}

/* Is the function among the callers, too? */
static bool is_recursive(const struct function *function, const struct walked *walked)
{
	for (size_t i = 1; i < walked->len; i++) {
		if (walked->pcs[i] > function->start && walked->pcs[i] <= function->end)
			return true;
	}
	return false;
}

static bool is_code(uintptr_t pc)
{
	const struct table_set *set = table_set_enter_sigsafe();
	bool is_covered = set && table_set_covers_sigsafe(set, pc);

	table_set_leave_sigsafe();
	return is_covered;
}

/* Suppose that the frame pointer is `fp`: does the walk come to the thread's start? */
static bool try_candidate(const struct search *search, uintptr_t fp, struct candidate *out)
{
	struct unwind_regs regs = search->regs;
	uintptr_t pc;

	if (fp % STACK_ALIGNED != 0 || fp < regs.reg[ARCH_SP] ||
		!load(search->copy, fp + sizeof(pc), &pc) || !is_code(pc - 1))
		return false;
	out->fit = fit_of(pc, search->function.start);
	if (out->fit == FITS_NOT)
		return false;
	out->fp = fp;
	regs.reg[ARCH_FP] = fp;
	regs.valid |= 1U << ARCH_FP;
	walk_copy(&regs, search->copy, false, &out->walked);
	out->is_recursive = is_recursive(&search->function, &out->walked);
	return out->walked.outermost || out->walked.end == UNWIND_DEPTH;
}

/* What the function's own code says, where it can say it. */
static bool try_code(struct search *search)
{
	const struct function *function = &search->function;
	uintptr_t fp = search->regs.reg[ARCH_SP] + function->frame.size;
	bool fits;

	if (function->is_dynamic || !function->frame.is_exact)
		return false;
	fits = try_candidate(search, fp, &search->best);
	if (function->popped == 0 || (fits && search->best.fit == FITS_WELL))
		return fits;
	/* The stack pointer is lower during a call for which arguments were pushed. */
	if (!try_candidate(search, fp + function->popped, &search->next))
		return fits;
	if (!fits || search->next.fit > search->best.fit)
		search->best = search->next;
	return true;
}

/* Is the second one of the callers of the first? */
static bool leads_to(const struct walked *first, const struct walked *second)
{
	size_t callers = second->len - 1;

	return callers < first->len &&
	       memcmp(first->pcs + (first->len - callers), second->pcs + 1,
		       callers * sizeof(first->pcs[0])) == 0;
}

/* Of two that do not lead to each other, one is made of old frames. */
static void compare(struct search *search)
{
	struct candidate *best = &search->best, *next = &search->next;

	if (!search->is_counted)
		best->contradictions = count_contradictions(best);
	search->is_counted = true;
	next->contradictions = count_contradictions(next);
	if (next->contradictions < best->contradictions ||
		(next->contradictions == best->contradictions && next->fit == FITS_WELL &&
			best->fit != FITS_WELL)) {
		search->is_ambiguous = false;
		*best = *next;
	} else if (next->contradictions == best->contradictions &&
		   (next->fit == FITS_WELL || best->fit != FITS_WELL)) {
		search->is_ambiguous = true;
	}
}

/* Candidates come from the innermost on. */
static void consider(struct search *search)
{
	if (search->fitting++ == 0)
		search->best = search->next;
	else if (!leads_to(&search->best.walked, &search->next.walked))
		compare(search);
	else /* A caller's frame; or is it the first of a function that is there twice? */
		search->is_ambiguous |=
			search->next.fit == FITS_WELL && search->best.fit != FITS_WELL;
}

static bool try_stack(struct search *search)
{
	uintptr_t limit = search->copy->address + search->copy->size;
	uintptr_t fp = search->regs.reg[ARCH_SP] + search->function.frame.size;

	fp = (fp + STACK_ALIGNED - 1) & ~(uintptr_t)(STACK_ALIGNED - 1);
	for (; fp < limit && search->fitting < FITTING_MAX; fp += STACK_ALIGNED) {
		if (try_candidate(search, fp, &search->next))
			consider(search);
	}
	return search->fitting > 0 && search->fitting < FITTING_MAX && !search->is_ambiguous &&
	       !search->best.is_recursive;
}

/* The frame where the walk is stuck, gone on from; false when nothing fits, or several things do. */
static bool find_caller(
	const struct stack_copy *copy, const struct walked *stuck, struct search *search)
{
	uint8_t code[FUNCTION_MAX];
	const struct table *table = NULL;
	const struct table_set *set = table_set_enter_sigsafe();
	const struct unwind_row *row =
		set ? table_set_find_sigsafe(
			      set, stuck->regs.pc - (stuck->regs.pc_is_return ? 1 : 0), &table)
		    : NULL;

	/* What was found stays: only this thread publishes other tables. */
	table_set_leave_sigsafe();
	*search = (struct search){ .copy = copy, .regs = stuck->regs };
	if (!row)
		return false;
	memory_begin();
	read_function(search, table, row, code);
	if (!try_code(search) && !try_stack(search)) {
		memory_end();
		return false;
	}
	memory_end();
	return true;
}

enum unwind_end unwind_walk_part(
	const struct unwind_regs *regs, const void *bytes, size_t size, struct unwind_part *out)
{
	bool stops = !(regs->valid >> ARCH_FP & 1);
	struct stack_copy copy = { bytes, size, regs->reg[ARCH_SP] };
	struct walked walked, *callers = &walked;
	struct search search;
	size_t from = 0, more;

	walk_copy(regs, &copy, stops, &walked);
	out->len = 0;
	if (stops && walked.end == UNWIND_NO_ROW) {
		if (find_caller(&copy, &walked, &search)) {
			callers = &search.best.walked;
			out->len = walked.len;
			from = 1;
		} else {
			/* Where it stopped need not be where it went wrong. */
			walk_copy(regs, &copy, false, &search.best.walked);
			if (search.best.walked.outermost)
				callers = &search.best.walked;
		}
	}
	memcpy(out->pcs, walked.pcs, out->len * sizeof(out->pcs[0]));
	more = callers->len - from;
	if (more > UNWIND_DEPTH_MAX - out->len)
		more = UNWIND_DEPTH_MAX - out->len;
	memcpy(out->pcs + out->len, callers->pcs + from, more * sizeof(out->pcs[0]));
	out->len += more;
	out->rest = callers->regs;
	if (!callers->ran_out)
		out->rest.valid = 0;
	return more < callers->len - from ? UNWIND_DEPTH : callers->end;
}

enum unwind_end unwind_walk_copy(const struct unwind_regs *regs, const void *bytes, size_t size,
	uintptr_t *pcs, size_t max, size_t *len)
{
	struct unwind_part part;
	enum unwind_end end = unwind_walk_part(regs, bytes, size, &part);

	*len = part.len < max ? part.len : max;
	memcpy(pcs, part.pcs, *len * sizeof(pcs[0]));
	return *len < part.len ? UNWIND_DEPTH : end;
}
