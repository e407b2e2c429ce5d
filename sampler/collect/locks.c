#include "sampler/collect/locks.h"

#include "base/clock.h"
#include "sampler/collect/contention.h"
#include "sampler/store/depot.h"
#include "sampler/store/intern.h"
#include "sampler/store/self.h"

#define POLL_MS       500
#define PROFILE_SIZE  ((size_t)16 << 20)
#define REFRESH_SHARE 100   /* looking for new code may take 1 % of the server's time */
#define SURE_RATE_NS  10000 /* nearly every wait for the kernel is this long, and recorded */

/* --- what is on --- */

static atomic_uint mode;
static atomic_int mutex_fraction;
static _Atomic int64_t block_rate;
static atomic_uint traced_by;
static _Atomic(void (*)(unsigned)) told;

static void change(void)
{
	unsigned now = 0;
	void (*tell)(unsigned);

	if (atomic_load(&mutex_fraction) > 0)
		now |= LOCKS_MUTEX;
	if (atomic_load(&block_rate) > 0)
		now |= LOCKS_BLOCK;
	if (atomic_load(&traced_by) > 0)
		now |= LOCKS_TRACE;
	atomic_store(&mode, now);
	tell = atomic_load(&told);
	if (tell)
		tell(now);
}

void locks_tell(void (*tell)(unsigned mode))
{
	atomic_store(&told, tell);
	change();
}

int locks_mutex_fraction(void)
{
	return atomic_load(&mutex_fraction);
}

int64_t locks_block_rate(void)
{
	return atomic_load(&block_rate);
}

int locks_set_mutex_fraction(int fraction)
{
	int before;

	if (fraction < 0)
		return locks_mutex_fraction();
	before = atomic_exchange(&mutex_fraction, fraction);
	change();
	return before;
}

int64_t locks_set_block_rate(int64_t ns)
{
	int64_t before = atomic_exchange(&block_rate, ns > 0 ? ns : 0);

	change();
	return before;
}

void locks_trace(bool wanted)
{
	static const enum record_kind kinds[] = { RECORD_BLOCK, RECORD_UNBLOCK, RECORD_WAKE };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		ring_want(kinds[i], wanted);
	if (wanted)
		atomic_fetch_add(&traced_by, 1);
	else
		atomic_fetch_sub(&traced_by, 1);
	change();
}

static bool is_on_sigsafe(unsigned bits)
{
	return (atomic_load_explicit(&mode, memory_order_relaxed) & bits) != 0;
}

/* --- who holds it ---
 *
 * Whoever gets a lock leaves a word at a place that the lock's address leads to: where it was called from,
 * or the stack, when that is known.  Locks that share a place overwrite each other's words, so a part
 * of the address is in the word: a waiter finds its own lock's holder there, or none.
 */
#define HOLDER_BITS  14
#define WHO_IS_STACK (UINT64_C(1) << 47) /* user space ends there */
#define WHO_MASK     ((UINT64_C(1) << 48) - 1)

static _Atomic uint64_t holders[1 << HOLDER_BITS];

static uint64_t hash_of(const void *lock)
{
	return (uint64_t)(uintptr_t)lock * UINT64_C(0x9e3779b97f4a7c15);
}

static void note_holder_sigsafe(const void *lock, uint64_t who)
{
	uint64_t hash = hash_of(lock);

	atomic_store_explicit(
		&holders[hash >> (64 - HOLDER_BITS)], hash << 48 | who, memory_order_relaxed);
}

static uint64_t holder_sigsafe(const void *lock)
{
	uint64_t hash = hash_of(lock);
	uint64_t word = atomic_load_explicit(
		&holders[hash >> (64 - HOLDER_BITS)], memory_order_relaxed);

	return (word ^ hash << 48) <= WHO_MASK ? word & WHO_MASK : 0;
}

/* As a number that fits into a tally's key. */
static uint32_t stack_of_who_sigsafe(uint64_t who)
{
	uintptr_t pc = (uintptr_t)who;

	if (who & WHO_IS_STACK)
		return (uint32_t)who;
	return pc ? depot_put_sigsafe(&pc, 1, UNWIND_NO_ROW) : 0;
}

void locks_got_sigsafe(const void *lock, uintptr_t pc)
{
	note_holder_sigsafe(lock, pc);
}

/* --- what was recorded --- */

enum {
	COUNT,
	DELAY,
	COUNT_TAKEN, /* when the last difference was asked for */
	DELAY_TAKEN,
	VALUES
};

static atomic_ulong waits_seen, waits_ns;

static struct intern profiles[] = {
	[LOCKS_PROFILE_MUTEX] = INTERN_INIT(PROFILE_SIZE, VALUES),
	[LOCKS_PROFILE_BLOCK] = INTERN_INIT(PROFILE_SIZE, VALUES),
};

static void record_sigsafe(enum locks_profile profile, uint32_t stack, uint64_t other,
	int64_t count, int64_t delay)
{
	uint64_t key[] = { stack | (uint64_t)self.labels << 32, other };
	uint32_t id = intern_put_sigsafe(&profiles[profile], key, 2, 0);
	_Atomic int64_t *values;

	if (id == 0)
		return; /* counted there */
	values = intern_values(intern_get(&profiles[profile], id));
	(void)atomic_fetch_add_explicit(&values[COUNT], count, memory_order_relaxed);
	(void)atomic_fetch_add_explicit(&values[DELAY], delay, memory_order_relaxed);
}

bool locks_scale_block(
	uint64_t ns, uint64_t rate, uint64_t random, int64_t *count, int64_t *delay)
{
	if (rate == 0)
		return false;
	if (ns == 0)
		ns = 1;
	*count = LOCKS_COUNT_ONE;
	*delay = (int64_t)ns;
	if (ns >= rate)
		return true;
	*count = (int64_t)((double)rate / (double)ns * LOCKS_COUNT_ONE);
	*delay = (int64_t)rate;
	return random % rate < ns;
}

static bool mutex_sample_sigsafe(int64_t *fraction)
{
	*fraction = atomic_load_explicit(&mutex_fraction, memory_order_relaxed);
	return *fraction == 1 ||
	       (*fraction > 1 && self_random_sigsafe() % (uint64_t)*fraction == 0);
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
	record->labels = self.labels;
	ring_commit_sigsafe(record);
}

/* --- the events --- */

/* Walking before the wait costs no time that is not lost anyway; but where few waits are recorded, those
 * that are do it afterwards. */
static bool walks_first_sigsafe(bool owned)
{
	int64_t rate = atomic_load_explicit(&block_rate, memory_order_relaxed), fraction;

	return is_on_sigsafe(LOCKS_TRACE) || (rate > 0 && rate <= SURE_RATE_NS) ||
	       (owned && mutex_sample_sigsafe(&fraction));
}

void locks_wait_sigsafe(struct lock_wait *wait)
{
	bool owned = wait->reason == WAIT_MUTEX || wait->reason == WAIT_RWLOCK;

	wait->contention = NULL;
	wait->stack = 0;
	wait->holder = owned ? holder_sigsafe(wait->lock) : 0;
	if (walks_first_sigsafe(owned))
		wait->stack = depot_walk_below_sigsafe(wait->leaf, wait->regs);
	wait->began_ns = clock_mono_ns();
	if (is_on_sigsafe(LOCKS_TRACE) || (owned && is_on_sigsafe(LOCKS_MUTEX)))
		wait->contention = contention_enter_sigsafe(wait->lock, wait->began_ns,
			wait->stack ? WHO_IS_STACK | wait->stack : wait->regs->pc);
	push_sigsafe(RECORD_BLOCK, &(struct record){ .detail = (uint8_t)wait->reason,
					   .stack = wait->stack,
					   .time_ns = wait->began_ns,
					   .other = (uint64_t)(uintptr_t)wait->lock });
}

static void record_block_sigsafe(struct lock_wait *wait, uint64_t waited)
{
	int64_t count, delay;

	(void)atomic_fetch_add_explicit(&waits_seen, 1, memory_order_relaxed);
	(void)atomic_fetch_add_explicit(&waits_ns, waited, memory_order_relaxed);
	if (wait->reason == WAIT_JOIN ||
		!locks_scale_block(waited,
			(uint64_t)atomic_load_explicit(&block_rate, memory_order_relaxed),
			self_random_sigsafe(), &count, &delay))
		return;
	if (!wait->stack)
		wait->stack = depot_walk_below_sigsafe(wait->leaf, wait->regs);
	record_sigsafe(LOCKS_PROFILE_BLOCK, wait->stack, stack_of_who_sigsafe(wait->holder),
		count, delay);
}

void locks_waited_sigsafe(struct lock_wait *wait, enum lock_end end)
{
	uint64_t now = clock_mono_ns();
	uint64_t waited = now > wait->began_ns ? now - wait->began_ns : 0;

	if (wait->contention)
		contention_leave_sigsafe(wait->contention, wait->began_ns, now);
	push_sigsafe(RECORD_UNBLOCK, &(struct record){ .detail = (uint8_t)wait->reason,
					     .stack = wait->stack,
					     .time_ns = now,
					     .value = waited,
					     .other = (uint64_t)(uintptr_t)wait->lock });
	if (end != LOCK_REFUSED)
		record_block_sigsafe(wait, waited);
	if (end == LOCK_GOT && (wait->reason == WAIT_MUTEX || wait->reason == WAIT_RWLOCK))
		note_holder_sigsafe(
			wait->lock, wait->stack ? WHO_IS_STACK | wait->stack : wait->regs->pc);
}

bool locks_release_sigsafe(
	struct lock_release *release, const void *lock, enum wait_reason reason)
{
	*release = (struct lock_release){ .lock = lock, .reason = reason };
	if (!contention_is_there_sigsafe(lock))
		return false;
	if (reason == WAIT_MUTEX || reason == WAIT_RWLOCK)
		release->holder = holder_sigsafe(lock);
	release->now_ns = clock_mono_ns();
	release->delay_ns = contention_charge_sigsafe(lock, release->now_ns, &release->waiter);
	return true;
}

void locks_released_sigsafe(
	const struct lock_release *release, uintptr_t leaf, const struct unwind_regs *regs)
{
	bool owned = release->reason == WAIT_MUTEX || release->reason == WAIT_RWLOCK;
	int64_t fraction = 0;
	bool sampled = owned && mutex_sample_sigsafe(&fraction);
	uint32_t stack;

	if (!sampled && !is_on_sigsafe(LOCKS_TRACE))
		return;
	stack = depot_walk_below_sigsafe(leaf, regs);
	if (sampled)
		record_sigsafe(LOCKS_PROFILE_MUTEX, stack,
			stack_of_who_sigsafe(release->waiter) |
				(uint64_t)stack_of_who_sigsafe(release->holder) << 32,
			fraction * LOCKS_COUNT_ONE, fraction * (int64_t)release->delay_ns);
	push_sigsafe(RECORD_WAKE, &(struct record){ .detail = (uint8_t)release->reason,
					  .stack = stack,
					  .time_ns = release->now_ns,
					  .other = (uint64_t)(uintptr_t)release->lock });
}

void locks_after_fork(void)
{
	contention_after_fork();
	/* The traces that were being taken are the parent's. */
	if (atomic_exchange(&traced_by, 0) > 0)
		change();
}

/* --- the server's side --- */

int locks_take(enum locks_profile profile, bool since_last, struct tally *out)
{
	uint64_t lost = out->lost;
	size_t at = 0;
	uint32_t id;

	while ((id = intern_next(&profiles[profile], &at))) {
		struct intern_entry *entry = intern_get(&profiles[profile], id);
		_Atomic int64_t *kept = intern_values(entry);
		struct tally_key key = { .stack = (uint32_t)entry->words[0],
			.labels = (uint32_t)(entry->words[0] >> 32),
			.other = (uint32_t)entry->words[1],
			.number = entry->words[1] >> 32 };
		int64_t count = atomic_load(&kept[COUNT]), delay = atomic_load(&kept[DELAY]);
		int64_t values[TALLY_VALUES] = { count, delay };

		if (since_last) {
			values[0] -= atomic_exchange(&kept[COUNT_TAKEN], count);
			values[1] -= atomic_exchange(&kept[DELAY_TAKEN], delay);
		}
		values[0] /= LOCKS_COUNT_ONE;
		tally_add(out, &key, values, 1);
	}
	return out->lost == lost ? 0 : -1;
}

size_t locks_count(enum locks_profile profile)
{
	size_t len, bytes;
	uint64_t refused;

	intern_stats(&profiles[profile], &len, &bytes, &refused);
	return len;
}

void locks_stats(uint64_t *waits, uint64_t *wait_ns, uint64_t *lost)
{
	size_t len, bytes;
	uint64_t refused;

	*waits = atomic_load(&waits_seen);
	*wait_ns = atomic_load(&waits_ns);
	*lost = contention_lost();
	for (size_t i = 0; i < sizeof(profiles) / sizeof(profiles[0]); i++) {
		intern_stats(&profiles[i], &len, &bytes, &refused);
		*lost += refused;
	}
}

static unsigned period_ms(void)
{
	return is_on_sigsafe(LOCKS_MUTEX | LOCKS_BLOCK | LOCKS_TRACE) ? POLL_MS : 0;
}

/* Stacks are walked at any moment, so their tables must be there before anybody asks for a profile. */
static void poll_locks(uint64_t now)
{
	static uint64_t next_refresh_ns;
	struct err err;

	if (now < next_refresh_ns || (unwind_has_tables_sigsafe() && !unwind_is_stale()))
		return;
	(void)unwind_refresh(&err); /* the tables that are there stay good */
	next_refresh_ns = now + (clock_mono_ns() - now) * REFRESH_SHARE;
}

const struct collector locks_collector = {
	.name = "locks",
	.period_ms = period_ms,
	.poll = poll_locks,
	.after_fork = locks_after_fork,
};
