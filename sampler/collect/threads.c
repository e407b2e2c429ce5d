#include "sampler/collect/threads.h"

#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/signal.h"
#include "sampler/store/depot.h"

#define STACK_BYTES_MAX ((size_t)64 << 10)
#define PAGE            ((size_t)4096)
#define ANSWER_MS       20
#define ALL_ANSWERS_NS  UINT64_C(500000000) /* after that, threads are shown without a stack */

/* What a system call means for who waits in it; Go's words where there is one. */
static const struct {
	long call;
	const char *state;
} states[] = {
	{ SYS_read, "IO wait" },
	{ SYS_write, "IO wait" },
	{ SYS_readv, "IO wait" },
	{ SYS_writev, "IO wait" },
	{ SYS_pread64, "IO wait" },
	{ SYS_pwrite64, "IO wait" },
	{ SYS_recvfrom, "IO wait" },
	{ SYS_recvmsg, "IO wait" },
	{ SYS_recvmmsg, "IO wait" },
	{ SYS_sendto, "IO wait" },
	{ SYS_sendmsg, "IO wait" },
	{ SYS_accept, "IO wait" },
	{ SYS_accept4, "IO wait" },
	{ SYS_connect, "IO wait" },
	{ SYS_ppoll, "IO wait" },
	{ SYS_pselect6, "IO wait" },
	{ SYS_epoll_pwait, "IO wait" },
	{ SYS_fsync, "IO wait" },
	{ SYS_fdatasync, "IO wait" },
	{ SYS_io_getevents, "IO wait" },
	{ SYS_nanosleep, "sleep" },
	{ SYS_clock_nanosleep, "sleep" },
	{ SYS_futex, "semacquire" },
#ifdef SYS_poll /* younger machines have only what came after these */
	{ SYS_poll, "IO wait" },
	{ SYS_select, "IO wait" },
	{ SYS_epoll_wait, "IO wait" },
	{ SYS_pause, "sleep" },
#endif
};

/* A futex serves every kind of lock: which one it is, the caller's name tells. */
static const struct {
	const char *part, *state;
} locks[] = {
	{ "mutex", "sync.Mutex.Lock" },
	{ "rwlock", "sync.RWMutex.Lock" },
	{ "cond_", "sync.Cond.Wait" },
};

static const char *state_in_call(
	long call, struct symbols *symbols, const uintptr_t *pcs, size_t len)
{
	const char *state = "syscall";
	struct symbol symbol;

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		if (states[i].call == call)
			state = states[i].state;
	}
	if (call != SYS_futex)
		return state;
	for (size_t i = 0; i < len && i < 4; i++) {
		symbols_find(symbols, pcs[i] - 1, &symbol);
		for (size_t k = 0; k < sizeof(locks) / sizeof(locks[0]); k++) {
			if (strstr(symbol.name, locks[k].part))
				return locks[k].state;
		}
	}
	return state;
}

/* Copy as much of a stack as is mapped: each page is one element, which comes whole or not. */
static size_t copy_stack(uintptr_t sp, char *to) /* NOLINT(readability-non-const-parameter) */
{
	struct iovec here = { to, STACK_BYTES_MAX }, there[STACK_BYTES_MAX / 4096 + 1];
	size_t len = 0, pages = 0;
	ssize_t got;

	while (len < STACK_BYTES_MAX) {
		size_t piece = pages == 0 ? PAGE - sp % PAGE : PAGE;

		if (piece > STACK_BYTES_MAX - len)
			piece = STACK_BYTES_MAX - len;
		there[pages].iov_base =
			(void *)(sp + len); /* NOLINT(performance-no-int-to-ptr) */
		there[pages++].iov_len = piece;
		len += piece;
	}
	got = process_vm_readv(getpid(), &here, 1, there, pages, 0);
	return got > 0 ? (size_t)got : 0;
}

/* The stack of a thread that sleeps, unless it moved while we read. */
static bool read_sleeping(uint32_t tid, char *copy, struct thread *out, long *call)
{
	struct unwind_regs regs = { .valid = 1U << ARCH_SP };
	struct task_place before, after;
	size_t size;
	enum unwind_end end;

	if (!task_place(tid, &before))
		return false;
	size = copy_stack(before.sp, copy);
	if (size == 0 || !task_place(tid, &after) || after.pc != before.pc ||
		after.sp != before.sp || after.call != before.call)
		return false;
	*call = before.call;
	regs.pc = before.pc;
	regs.reg[ARCH_SP] = before.sp;
	end = unwind_walk_copy(&regs, copy, size, out->pcs, UNWIND_DEPTH_MAX, &out->len);
	if (out->len > 0)
		out->pcs[0]++; /* the depot's way: like a return address */
	return end == UNWIND_COMPLETE || end == UNWIND_DEPTH;
}

static bool ask(uint32_t tid, uint64_t give_up, struct thread *out)
{
	struct depot_stack answer;
	struct err err;
	uint32_t stack;

	if (signal_open(&err) || !signal_is_ours() || clock_mono_ns() > give_up ||
		task_blocks(tid, signal_number()) || !signal_ask_stack(tid, ANSWER_MS, &stack))
		return false;
	answer = depot_get(stack);
	out->len = answer.len;
	memcpy(out->pcs, answer.pcs, answer.len * sizeof(answer.pcs[0]));
	return true;
}

static void read_thread(
	uint32_t tid, char *copy, uint64_t give_up, struct symbols *symbols, struct thread *out)
{
	char state = task_state(tid);
	long call = -1;
	size_t partial;

	out->tid = tid;
	task_name(tid, out->name);
	if (state == 'S' || state == 'D') {
		if (!read_sleeping(tid, copy, out, &call)) {
			partial = out->len;
			if (!ask(tid, give_up, out))
				out->len = partial;
		}
		out->state = call >= 0 ? state_in_call(call, symbols, out->pcs, out->len)
				       : "waiting";
		return;
	}
	(void)ask(tid, give_up, out);
	out->state = state == 'R'                   ? "running"
		     : state == 'T' || state == 't' ? "stopped"
						    : "dead";
}

int threads_read(struct arena *arena, struct symbols *symbols, struct thread **out, size_t *len)
{
	uint64_t give_up = clock_mono_ns() + ALL_ANSWERS_NS;
	char *copy = arena_alloc(arena, STACK_BYTES_MAX);
	struct err err;
	uint32_t *tids;
	size_t count;

	*len = 0;
	if (!copy || unwind_refresh(&err) || task_list(arena, &tids, &count))
		return -1;
	*out = arena_alloc(arena, count * sizeof(**out));
	if (!*out)
		return -1;
	for (size_t i = 0; i < count; i++) {
		struct thread *thread = &(*out)[*len];

		read_thread(tids[i], copy, give_up, symbols, thread);
		if (task_state(tids[i]) != '\0') /* gone meanwhile: as if it had never been */
			++*len;
	}
	return 0;
}

size_t threads_count(struct arena *arena)
{
	uint32_t *tids;
	size_t len;

	return task_list(arena, &tids, &len) ? 0 : len;
}
