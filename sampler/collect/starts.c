#include "sampler/collect/starts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/waits.h"
#include "sampler/proc/task.h"
#include "sampler/store/intern.h"
#include "sampler/store/later.h"
#include "sampler/store/ring.h"
#include "sampler/store/self.h"

#define PLACES      256 /* threads that were made and have not run yet */
#define TABLE_BYTES ((size_t)4 << 20)
#define TIDS        ((uint32_t)1 << 22) /* the kernel's PID_MAX_LIMIT */

struct start_place {
	_Atomic uint32_t
		owner; /* process id; 0: free. A forked child has none of its parent's. */
	uint32_t creator, stack;
	uint64_t time_ns;
	struct start_call call;
};

static struct start_place places[PLACES];
static atomic_uint next_place, watched;
static _Atomic(void (*)(unsigned)) told;

/* By creator's stack. */
static struct intern made = INTERN_INIT(TABLE_BYTES, 1);
static _Atomic uint64_t made_total, without_stack;

/* Threads that were counted; those of that id which came before, too. */
static _Atomic uint64_t known[TIDS / 64];

void starts_watch(bool on)
{
	void (*tell)(unsigned) = atomic_load(&told);

	atomic_store(&watched, on);
	if (tell)
		tell(on);
}

void starts_tell(void (*tell)(unsigned mode))
{
	atomic_store(&told, tell);
	tell(atomic_load(&watched));
}

/* False: it was known before. */
static bool note_known_sigsafe(uint32_t tid)
{
	uint64_t bit = UINT64_C(1) << (tid & 63);

	return tid < TIDS && !(atomic_fetch_or(&known[tid / 64], bit) & bit);
}

static struct start_place *claim_sigsafe(void)
{
	unsigned from = atomic_fetch_add_explicit(&next_place, 1, memory_order_relaxed);

	for (unsigned i = 0; i < PLACES; i++) {
		struct start_place *place = &places[(from + i) % PLACES];
		uint32_t nobody = 0;

		if (atomic_load_explicit(&place->owner, memory_order_relaxed) == 0 &&
			atomic_compare_exchange_strong(
				&place->owner, &nobody, (uint32_t)getpid()))
			return place;
	}
	return NULL;
}

void starts_making_sigsafe(
	struct start *start, const struct start_call *call, const struct unwind_regs *regs)
{
	struct start_place *place = claim_sigsafe();

	start->place = place;
	start->stack = later_walk_sigsafe(regs);
	if (!place)
		return;
	place->creator = self_tid_sigsafe();
	place->stack = start->stack;
	place->call = *call;
	place->time_ns = clock_mono_ns();
}

void starts_made_sigsafe(const struct start *start, bool is_made)
{
	uint64_t key = start->stack;
	uint32_t id;

	if (!is_made) {
		if (start->place)
			atomic_store(&start->place->owner, 0);
		return;
	}
	/* One without a place looks like one that came without us, and is counted as such. */
	if (!start->place)
		return;
	id = key ? intern_put_sigsafe(&made, &key, 1, 0) : 0;
	(void)atomic_fetch_add_explicit(&made_total, 1, memory_order_relaxed);
	if (id)
		(void)atomic_fetch_add_explicit(
			intern_values(intern_get(&made, id)), 1, memory_order_relaxed);
	else
		(void)atomic_fetch_add_explicit(&without_stack, 1, memory_order_relaxed);
}

static void push_sigsafe(enum record_kind kind, const struct record *what)
{
	struct record *record;

	if (!ring_is_wanted_sigsafe(kind))
		return;
	record = ring_claim_sigsafe();
	if (!record)
		return;
	*record = *what;
	record->kind = (uint8_t)kind;
	record->tid = self_tid_sigsafe();
	ring_commit_sigsafe(record);
}

struct start_call starts_begin_sigsafe(struct start_place *place)
{
	struct start_call call = place->call;
	uint32_t creator = place->creator, stack = place->stack;
	uint64_t time_ns = place->time_ns;

	(void)note_known_sigsafe(self_tid_sigsafe());
	atomic_store(&place->owner, 0);
	if (ring_is_wanted_sigsafe(RECORD_THREAD_START))
		push_sigsafe(RECORD_THREAD_START, &(struct record){ .stack = stack,
							  .time_ns = time_ns,
							  .value = creator,
							  .other = clock_mono_ns() });
	return call;
}

void starts_end_sigsafe(void)
{
	if (self.inside)
		return;
	waits_leave_sigsafe();
	if (ring_is_wanted_sigsafe(RECORD_THREAD_END))
		push_sigsafe(RECORD_THREAD_END,
			&(struct record){ .time_ns = clock_mono_ns(),
				.other = (uint64_t)(uintptr_t)pthread_self() });
}

/* --- the server's side --- */

/* A thread that has just been made is not known yet as long as its place is taken: it is left for the next
 * look. */
static bool any_under_way(void)
{
	for (size_t i = 0; i < PLACES; i++) {
		if (atomic_load(&places[i].owner) != 0)
			return true;
	}
	return false;
}

static void look_for_unknown(struct arena *arena)
{
	uint32_t *tids;
	size_t len;

	if (task_list(arena, &tids, &len) || any_under_way())
		return;
	for (size_t i = 0; i < len; i++) {
		if (!note_known_sigsafe(tids[i]))
			continue;
		(void)atomic_fetch_add(&made_total, 1);
		(void)atomic_fetch_add(&without_stack, 1);
	}
}

int starts_take(struct tally *out)
{
	int64_t values[TALLY_VALUES] = { 0 };
	uint64_t lost = out->lost;
	size_t at = 0;
	uint32_t id;

	look_for_unknown(out->arena);
	while ((id = intern_next(&made, &at))) {
		struct intern_entry *entry = intern_get(&made, id);
		struct tally_key key = { .stack = later_stack((uint32_t)entry->words[0]) };

		values[0] = atomic_load(intern_values(entry));
		tally_add(out, &key, values, 1);
	}
	values[0] = (int64_t)atomic_load(&without_stack);
	if (values[0] > 0)
		tally_add(out, &(struct tally_key){ 0 }, values, 1);
	return out->lost == lost ? 0 : -1;
}

size_t starts_count(struct arena *arena)
{
	look_for_unknown(arena);
	return atomic_load(&made_total);
}

static unsigned period_ms(void)
{
	return 0;
}

/* What another thread of the parent's was making is not to come.  (The program may have made threads of this
 * process already, in handlers of its own: those places are in use.) */
static void after_fork(void)
{
	for (size_t i = 0; i < PLACES; i++) {
		uint32_t owner = atomic_load(&places[i].owner);

		if (owner != (uint32_t)getpid())
			atomic_store(&places[i].owner, 0);
	}
	(void)note_known_sigsafe(self_tid_sigsafe());
}

const struct collector starts_collector = {
	.name = "starts",
	.period_ms = period_ms,
	.after_fork = after_fork,
};
