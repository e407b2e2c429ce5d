#include "sampler/collect/threads.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/signal.h"
#include "sampler/proc/memory.h"
#include "sampler/store/self.h"

#define STACK_BYTES_MAX ((size_t)256 << 10)
#define PAGE            ((size_t)4096)
#define FUTEX_FRAMES    4 /* how far above the system call the lock's function may be */
#define TRIES           3 /* at a thread that moves while it is looked at */
#define ANSWER_MS       20
#define ALL_ANSWERS_NS  UINT64_C(500000000) /* after that, threads are shown without a stack */

/* What a system call means for who waits in it; Go's words where there is one. */
static const struct {
	long call;
	enum thread_state state;
} calls[] = {
	{ SYS_read, THREAD_IO },
	{ SYS_write, THREAD_IO },
	{ SYS_readv, THREAD_IO },
	{ SYS_writev, THREAD_IO },
	{ SYS_pread64, THREAD_IO },
	{ SYS_pwrite64, THREAD_IO },
	{ SYS_recvfrom, THREAD_IO },
	{ SYS_recvmsg, THREAD_IO },
	{ SYS_recvmmsg, THREAD_IO },
	{ SYS_sendto, THREAD_IO },
	{ SYS_sendmsg, THREAD_IO },
	{ SYS_accept, THREAD_IO },
	{ SYS_accept4, THREAD_IO },
	{ SYS_connect, THREAD_IO },
	{ SYS_ppoll, THREAD_IO },
	{ SYS_pselect6, THREAD_IO },
	{ SYS_epoll_pwait, THREAD_IO },
	{ SYS_fsync, THREAD_IO },
	{ SYS_fdatasync, THREAD_IO },
	{ SYS_io_getevents, THREAD_IO },
	{ SYS_nanosleep, THREAD_SLEEP },
	{ SYS_clock_nanosleep, THREAD_SLEEP },
	{ SYS_futex, THREAD_FUTEX },
#ifdef SYS_poll /* younger machines have only what came after these */
	{ SYS_poll, THREAD_IO },
	{ SYS_select, THREAD_IO },
	{ SYS_epoll_wait, THREAD_IO },
	{ SYS_pause, THREAD_SLEEP },
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

static enum thread_state state_in_call(long call)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (calls[i].call == call)
			return calls[i].state;
	}
	return call < 0 ? THREAD_WAITING : THREAD_SYSCALL;
}

const char *thread_state_name(
	enum thread_state state, struct symbols *symbols, struct depot_stack stack)
{
	static const char *const names[] = { "running", "waiting", "syscall", "IO wait",
		"sleep", "semacquire", "stopped", "dead", "runnable" };
	struct symbol symbol;

	if (state != THREAD_FUTEX)
		return names[state];
	for (size_t i = 0; i < stack.len && i < FUTEX_FRAMES; i++) {
		symbols_find(symbols, stack.pcs[i] - 1, &symbol);
		for (size_t k = 0; k < sizeof(locks) / sizeof(locks[0]); k++) {
			if (strstr(symbol.name, locks[k].part))
				return locks[k].state;
		}
	}
	return names[state];
}

/* What reading takes. */
struct reading {
	int folder;
	char *copy; /* of a stack */
};

static int open_reading(struct reading *reading, struct arena *arena)
{
	struct err err;

	*reading = (struct reading){ .folder = task_folder(),
		.copy = arena_alloc(arena, STACK_BYTES_MAX) };
	if (!reading->copy || reading->folder < 0 || unwind_refresh(&err)) {
		if (reading->folder >= 0)
			(void)close(reading->folder);
		return -1;
	}
	memory_begin();
	return 0;
}

static void close_reading(struct reading *reading)
{
	memory_end();
	(void)close(reading->folder);
}

/* Copy no more of the stack than the walk turns out to need. */
static uint32_t walk_sleeping(struct reading *reading, const struct task_look *look)
{
	struct unwind_regs regs = { .pc = look->pc, .valid = 1U << ARCH_SP };
	size_t want = 2 * PAGE - look->sp % PAGE, got = 0, len = 0;
	uintptr_t pcs[UNWIND_DEPTH_MAX];
	enum unwind_end end = UNWIND_BAD_STACK;

	regs.reg[ARCH_SP] = look->sp;
	for (; got < STACK_BYTES_MAX;
		want = want * 8 < STACK_BYTES_MAX ? want * 8 : STACK_BYTES_MAX) {
		got += memory_copy(look->sp + got, reading->copy + got, want - got);
		end = unwind_walk_copy(&regs, reading->copy, got, pcs, UNWIND_DEPTH_MAX, &len);
		if (end == UNWIND_COMPLETE || end == UNWIND_DEPTH || got < want)
			break;
	}
	if (len == 0)
		return 0;
	pcs[0]++; /* the depot's way: like a return address */
	return depot_put_sigsafe(pcs, len, end);
}

/* Walk what sleeps. False when the thread is gone. */
static bool look_at(struct reading *reading, struct thread *out)
{
	struct task_look look;

	for (unsigned i = 0; i < TRIES; i++) {
		bool holds;

		out->stack = 0;
		if (!task_look(reading->folder, out->tid, &look))
			return false;
		if (look.sleeps)
			out->stack = walk_sleeping(reading, &look);
		holds = task_look_holds(reading->folder, out->tid, &look);
		task_look_end(&look);
		out->state = look.sleeps ? state_in_call(look.call) : THREAD_RUNNING;
		if (holds)
			return true;
	}
	/* It sleeps shortly and often. */
	out->stack = 0;
	out->state = THREAD_RUNNING;
	return true;
}

/* A thread that runs is asked, by a signal that finds it only while it runs. */
static void ask(struct reading *reading, uint64_t give_up, struct thread *out)
{
	struct err err;

	for (unsigned i = 0; out->state == THREAD_RUNNING && out->stack == 0 && i < TRIES;
		i++) {
		if (signal_open(&err) || !signal_is_ours() || clock_mono_ns() > give_up ||
			task_blocks(out->tid, signal_number()) ||
			signal_ask_stack(out->tid, ANSWER_MS, &out->stack))
			return;
		/* It may have gone to sleep meanwhile, or away. */
		if (!look_at(reading, out))
			out->state = THREAD_DEAD;
	}
}

static void tell_rest(struct thread *thread)
{
	char state = thread->state == THREAD_WAITING || thread->stack == 0
			     ? task_state(thread->tid)
			     : '\0';

	if (state == 'T' || state == 't')
		thread->state = THREAD_STOPPED;
	else if (state == 'Z' || state == 'X')
		thread->state = THREAD_DEAD;
	else if (state == 'S' && thread->state == THREAD_RUNNING)
		thread->state = THREAD_WAITING;
	task_name(thread->tid, thread->name);
}

static int read_all(struct arena *arena, bool asks, struct thread **out, size_t *len)
{
	uint64_t give_up = clock_mono_ns() + ALL_ANSWERS_NS;
	struct reading reading;
	uint32_t *tids;
	size_t count;

	*len = 0;
	if (task_list(arena, &tids, &count))
		return -1;
	*out = arena_alloc(arena, (count + 1) * sizeof(**out));
	if (!*out || open_reading(&reading, arena))
		return -1;
	for (size_t i = 0; i < count; i++) {
		struct thread *thread = &(*out)[*len];

		thread->tid = tids[i];
		if (look_at(&reading, thread)) /* else as if it had never been */
			++*len;
	}
	for (size_t i = 0; i < *len; i++) {
		if (asks)
			ask(&reading, give_up, &(*out)[i]);
		tell_rest(&(*out)[i]);
	}
	close_reading(&reading);
	return 0;
}

int threads_read(struct arena *arena, struct thread **out, size_t *len)
{
	return read_all(arena, true, out, len);
}

int threads_look(struct arena *arena, struct thread **out, size_t *len)
{
	return read_all(arena, false, out, len);
}

void threads_read_idle(struct thread *threads, size_t len)
{
	int folder = task_folder();
	uint64_t now = task_last_run_ms(folder, self_tid_sigsafe());

	for (size_t i = 0; i < len; i++) {
		uint64_t then = threads[i].state == THREAD_RUNNING
					? 0
					: task_last_run_ms(folder, threads[i].tid);

		threads[i].idle_ns = then && now > then ? (now - then) * 1000000 : 0;
	}
	if (folder >= 0)
		(void)close(folder);
}

struct reading *threads_open(struct arena *arena)
{
	struct reading *reading = arena_alloc(arena, sizeof(*reading));

	return reading && open_reading(reading, arena) == 0 ? reading : NULL;
}

void threads_close(struct reading *reading)
{
	close_reading(reading);
}

static void take_counts(struct thread_look *look, const struct task_look *seen)
{
	look->counted = seen->counted;
	look->cpu_ns = seen->cpu_ns;
	look->waited_ns = seen->waited_ns;
	look->switches = seen->switches;
}

bool threads_count_again(const struct reading *reading, uint32_t tid, struct thread_look *look)
{
	struct task_look seen;

	if (!task_look_counts(reading->folder, tid, &seen))
		return false;
	take_counts(look, &seen);
	return true;
}

bool threads_look_again(struct reading *reading, uint32_t tid, struct thread_look *look)
{
	struct task_look seen;
	bool holds = false;

	if (look->sleeps && look->stack) {
		if (!task_look_counts(reading->folder, tid, &seen))
			return false;
		if (seen.switches == look->switches)
			return true;
	}
	if (!task_look(reading->folder, tid, &seen))
		return false;
	take_counts(look, &seen);
	look->sleeps = seen.sleeps;
	look->state = seen.sleeps ? state_in_call(seen.call) : THREAD_RUNNING;
	look->stack = seen.sleeps ? walk_sleeping(reading, &seen) : 0;
	holds = task_look_holds(reading->folder, tid, &seen);
	task_look_end(&seen);
	if (look->sleeps && !holds) { /* it ran on meanwhile: this is no look at a sleeper */
		look->sleeps = false;
		look->stack = 0;
		look->state = THREAD_RUNNING;
	}
	return true;
}

size_t threads_count(struct arena *arena)
{
	uint32_t *tids;
	size_t len;

	return task_list(arena, &tids, &len) ? 0 : len;
}
