#include "sampler/collect/waits.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "sampler/store/depot.h"
#include "sampler/store/ring.h"
#include "sampler/store/self.h"

#define PLACES  4096 /* threads that have waited in this trace; who finds none is seen late */
#define NOWHERE UINT32_MAX

struct wait_place {
	_Atomic uint32_t tid; /* 0: free */
	_Atomic uint32_t reason;
	_Atomic uint64_t began_ns; /* 0: does not wait */
	char apart[48];            /* each has a cache line of its own */
};

static struct wait_place places[PLACES] __attribute__((aligned(64)));
static atomic_uint traced_by, next_place;
static _Atomic(void (*)(unsigned)) told;

static void change(void)
{
	void (*tell)(unsigned) = atomic_load(&told);

	if (tell)
		tell(atomic_load(&traced_by) > 0);
}

void waits_trace(bool wanted)
{
	ring_want(RECORD_UNBLOCK, wanted);
	if (wanted)
		atomic_fetch_add(&traced_by, 1);
	else
		atomic_fetch_sub(&traced_by, 1);
	change();
}

void waits_tell(void (*tell)(unsigned mode))
{
	atomic_store(&told, tell);
	change();
}

static struct wait_place *claim_sigsafe(void)
{
	unsigned from = atomic_fetch_add_explicit(&next_place, 1, memory_order_relaxed);

	for (unsigned i = 0; i < PLACES; i++) {
		unsigned at = (from + i) % PLACES;
		uint32_t nobody = 0;

		if (atomic_load_explicit(&places[at].tid, memory_order_relaxed) == 0 &&
			atomic_compare_exchange_strong(
				&places[at].tid, &nobody, self_tid_sigsafe())) {
			atomic_store(&places[at].began_ns, 0);
			self.wait_place = at + 1;
			return &places[at];
		}
	}
	self.wait_place = NOWHERE;
	return NULL;
}

static struct wait_place *place_sigsafe(void)
{
	if (__builtin_expect(self.wait_place == 0, 0))
		return claim_sigsafe();
	return self.wait_place == NOWHERE ? NULL : &places[self.wait_place - 1];
}

void waits_begin_sigsafe(struct wait *wait, enum wait_reason reason)
{
	struct wait_place *place = place_sigsafe();

	wait->place = place;
	wait->reason = (uint8_t)reason;
	wait->began_ns = clock_mono_ns();
	if (!place)
		return;
	atomic_store_explicit(&place->reason, reason, memory_order_relaxed);
	atomic_store_explicit(&place->began_ns, wait->began_ns, memory_order_release);
}

bool waits_end_sigsafe(struct wait *wait)
{
	wait->ended_ns = clock_mono_ns();
	if (__builtin_expect(wait->ended_ns > wait->began_ns + WAITS_LEAST_NS, 0))
		return true;
	if (wait->place)
		atomic_store_explicit(&wait->place->began_ns, 0, memory_order_release);
	return false;
}

static void push_sigsafe(const struct wait *wait, uint32_t stack)
{
	struct record *record;

	if (!ring_is_wanted_sigsafe(RECORD_UNBLOCK))
		return;
	record = ring_claim_sigsafe();
	if (!record)
		return;
	*record = (struct record){ .kind = RECORD_UNBLOCK,
		.detail = wait->reason,
		.tid = self_tid_sigsafe(),
		.stack = stack,
		.labels = self.labels,
		.time_ns = wait->ended_ns,
		.value = wait->ended_ns - wait->began_ns };
	ring_commit_sigsafe(record);
}

/* The place is left when the record is there: who looks first there and then at the records misses none. */
void waits_record_sigsafe(
	const struct wait *wait, uintptr_t leaf, const struct unwind_regs *regs)
{
	int error = errno;

	push_sigsafe(wait, depot_walk_below_sigsafe(leaf, regs));
	if (wait->place)
		atomic_store_explicit(&wait->place->began_ns, 0, memory_order_release);
	errno = error;
}

/* Cancelled in a wait, it has left it only now. */
void waits_leave_sigsafe(void)
{
	struct wait_place *place;

	if (self.wait_place == 0 || self.wait_place == NOWHERE)
		return;
	place = &places[self.wait_place - 1];
	if (atomic_load(&place->began_ns) != 0)
		push_sigsafe(&(struct wait){ .began_ns = atomic_load(&place->began_ns),
				     .ended_ns = clock_mono_ns(),
				     .reason = (uint8_t)atomic_load(&place->reason) },
			0);
	atomic_store(&place->began_ns, 0);
	atomic_store(&place->tid, 0);
	self.wait_place = 0;
}

bool waits_next(size_t *at, struct waiting *out)
{
	for (; *at < PLACES; ++*at) {
		struct wait_place *place = &places[*at];

		out->tid = atomic_load(&place->tid);
		out->since_ns = atomic_load_explicit(&place->began_ns, memory_order_acquire);
		out->reason =
			(uint8_t)atomic_load_explicit(&place->reason, memory_order_relaxed);
		/* The reason of another wait would go with another time. */
		atomic_thread_fence(memory_order_acquire);
		if (out->tid == 0 || out->since_ns == 0 ||
			atomic_load_explicit(&place->began_ns, memory_order_relaxed) !=
				out->since_ns)
			continue;
		++*at;
		return true;
	}
	return false;
}

void waits_forget(uint32_t tid)
{
	for (size_t i = 0; i < PLACES; i++) {
		if (atomic_load_explicit(&places[i].tid, memory_order_relaxed) != tid)
			continue;
		atomic_store(&places[i].began_ns, 0);
		atomic_store(&places[i].tid, 0);
	}
}

static unsigned period_ms(void)
{
	return 0;
}

/* Nobody of the parent's is there; the forking thread takes a place again when it needs one. */
static void after_fork(void)
{
	if (atomic_exchange(&traced_by, 0) > 0)
		change();
	if (atomic_load(&next_place) == 0)
		return; /* nobody ever had one */
	for (size_t i = 0; i < PLACES; i++) {
		if (atomic_load_explicit(&places[i].tid, memory_order_relaxed) == 0)
			continue;
		atomic_store(&places[i].began_ns, 0);
		atomic_store(&places[i].tid, 0);
	}
	self.wait_place = 0;
}

const struct collector waits_collector = {
	.name = "waits",
	.period_ms = period_ms,
	.after_fork = after_fork,
};
