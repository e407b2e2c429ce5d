/*
 * test_locks.c - who is charged for which wait, and what the lock profiles say.  No lock is taken here: the
 * hooks' part is played by the tests.
 */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <sys/wait.h>

#include "sampler/collect/contention.h"
#include "sampler/collect/locks.h"
#include "sampler/store/depot.h"
#include "sampler/store/labels.h"
#include "sampler/store/self.h"

#define THREADS 4
#define ROUNDS  20000

/* Locks are addresses here, nothing more. */
static char lock_space[100000];
#define LOCK(n) ((const void *)&lock_space[(n)*8])

static void a_release_is_charged_what_waiters_lost(void **state)
{
	const uint64_t day = UINT64_C(86400) * 1000000000;
	uint64_t who;

	(void)state;
	/* Sums wrap after 2^48 ns, which is three days and a quarter. */
	for (uint64_t base = 1000; base < 10 * day; base += day) {
		struct contention *one, *other;

		assert_false(contention_is_there_sigsafe(LOCK(1)));
		one = contention_enter_sigsafe(LOCK(1), base + 100, 7);
		assert_true(contention_is_there_sigsafe(LOCK(1)));
		assert_int_equal(contention_waiting, 1);
		other = contention_enter_sigsafe(LOCK(1), base + 300, 8);
		/* 500 and 300 until now; then 100 each; then what one more second costs the other. */
		assert_int_equal(contention_charge_sigsafe(LOCK(1), base + 600, &who), 800);
		assert_int_equal(who, 8);
		assert_int_equal(contention_charge_sigsafe(LOCK(1), base + 700, &who), 200);
		contention_leave_sigsafe(one, base + 100, base + 750);
		assert_int_equal(contention_charge_sigsafe(LOCK(1), base + 1000000700, &who),
			1000000000);
		contention_leave_sigsafe(other, base + 300, base + 1000000800);
		assert_false(contention_is_there_sigsafe(LOCK(1)));
		assert_int_equal(
			contention_charge_sigsafe(LOCK(1), base + 1000009000, &who), 0);
		assert_int_equal(contention_waiting, 0);
	}
}

static void time_that_nobody_caused_is_not_charged_later(void **state)
{
	struct contention *one;
	uint64_t who;

	(void)state;
	/* Let go before anybody saw it wait. */
	one = contention_enter_sigsafe(LOCK(2), 1000, 1);
	contention_leave_sigsafe(one, 1000, 5000);
	/* Woken long after it was let go. */
	one = contention_enter_sigsafe(LOCK(2), 6000, 1);
	assert_int_equal(contention_charge_sigsafe(LOCK(2), 7000, &who), 1000);
	contention_leave_sigsafe(one, 6000, 9000);
	one = contention_enter_sigsafe(LOCK(2), 10000, 1);
	assert_int_equal(contention_charge_sigsafe(LOCK(2), 10001, &who), 1);
	contention_leave_sigsafe(one, 10000, 10001);
}

/* Waiters come and go at random, across the moment where sums wrap; beside a plain account of the same. */
static void charges_add_up(void **state)
{
	enum {
		WAITERS = 20
	};

	struct {
		struct contention *entry;
		uint64_t began, charged_until;
	} waiters[WAITERS] = { { 0 } };

	uint64_t now = (UINT64_C(1) << 48) - 50000000, who, charges = 0;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		uint64_t random = self_random_sigsafe(), due = 0;
		unsigned at = (unsigned)(random % WAITERS);

		now += random >> 50;
		if (waiters[at].entry && random & 256) {
			contention_leave_sigsafe(waiters[at].entry, waiters[at].began, now);
			waiters[at].entry = NULL;
		} else if (!waiters[at].entry) {
			waiters[at].entry = contention_enter_sigsafe(LOCK(3), now, 1);
			waiters[at].began = waiters[at].charged_until = now;
			assert_non_null(waiters[at].entry);
		} else {
			for (unsigned i = 0; i < WAITERS; i++) {
				due += waiters[i].entry ? now - waiters[i].charged_until : 0;
				waiters[i].charged_until = now;
			}
			assert_int_equal(contention_charge_sigsafe(LOCK(3), now, &who), due);
			charges++;
		}
	}
	assert_true(charges > 1000);
	for (unsigned i = 0; i < WAITERS; i++) {
		if (waiters[i].entry)
			contention_leave_sigsafe(waiters[i].entry, waiters[i].began, now);
	}
	assert_int_equal(contention_waiting, 0);
}

/* More locks than there are places: those that are waited for keep theirs. */
static void places_are_used_again(void **state)
{
	enum {
		LOCKS = 9000
	};
	static struct contention *entries[LOCKS];
	uint64_t before = contention_lost(), kept = 0, who;

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < LOCKS; i++)
			entries[i] = contention_enter_sigsafe(LOCK(1000 + i), 1000, i);
		kept = 0;
		for (unsigned i = 0; i < LOCKS; i++) {
			uint64_t charge = contention_charge_sigsafe(LOCK(1000 + i), 3000, &who);

			kept += entries[i] != NULL;
			assert_int_equal(charge, entries[i] ? 2000 : 0);
			assert_int_equal(who, entries[i] ? i : 0);
			if (entries[i])
				contention_leave_sigsafe(entries[i], 1000, 3000);
		}
		assert_true(kept > 3500);
	}
	assert_int_equal(contention_lost() - before, 2 * (LOCKS - kept));
	assert_int_equal(contention_waiting, 0);
}

static atomic_ulong all_charged, all_waited;

static void *come_and_go(void *unused)
{
	uint64_t who;

	(void)unused;
	for (uint64_t now = 1000; now < 1000 + ROUNDS; now++) {
		/* All of few buckets, with more locks than places. */
		const void *lock = LOCK(self_random_sigsafe() % 12000);
		struct contention *entry = contention_enter_sigsafe(lock, now, 1);

		atomic_fetch_add(&all_charged, contention_charge_sigsafe(lock, now + 5, &who));
		if (entry) {
			contention_leave_sigsafe(entry, now, now + 5);
			atomic_fetch_add(&all_waited, 5);
		}
	}
	return NULL;
}

static void threads_at_once(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(contention_waiting, 0);
	assert_true(all_charged > 0);
	for (unsigned i = 0; i < 12000; i++)
		assert_false(contention_is_there_sigsafe(LOCK(i)));
}

/* What short waits count for is right on average: exactly the time that they took. */
static void block_samples_are_scaled_as_gos(void **state)
{
	const uint64_t rate = 10000, each = 2500, rounds = 400000;
	int64_t count, delay, counts = 0, delays = 0;

	(void)state;
	assert_false(locks_scale_block(5, 0, 1, &count, &delay));
	assert_true(locks_scale_block(5, 1, UINT64_MAX, &count, &delay));
	assert_int_equal(count, LOCKS_COUNT_ONE);
	assert_int_equal(delay, 5);
	assert_true(locks_scale_block(rate, rate, UINT64_MAX, &count, &delay));
	assert_int_equal(delay, rate);
	self.random = 12345;
	for (uint64_t i = 0; i < rounds; i++) {
		if (!locks_scale_block(each, rate, self_random_sigsafe(), &count, &delay))
			continue;
		counts += count;
		delays += delay;
	}
	/* 100,000 expected samples of 1, 274 their deviation; 4 contentions and 10 us each. */
	assert_in_range(counts / LOCKS_COUNT_ONE, 396700, 403300);
	assert_in_range(delays, 991700000, 1008300000);
}

static void rates_are_set_as_gos(void **state)
{
	(void)state;
	assert_int_equal(locks_set_mutex_fraction(5), 0);
	assert_int_equal(locks_set_mutex_fraction(-1), 5);
	assert_int_equal(locks_mutex_fraction(), 5);
	assert_int_equal(locks_set_mutex_fraction(0), 5);
	assert_int_equal(locks_set_block_rate(1000), 0);
	assert_int_equal(locks_set_block_rate(-3), 1000);
	assert_int_equal(locks_block_rate(), 0);
}

static unsigned told_mode;

static void tell(unsigned mode)
{
	told_mode = mode;
}

static void hooks_are_told(void **state)
{
	(void)state;
	locks_tell(tell);
	assert_int_equal(told_mode, 0);
	(void)locks_set_mutex_fraction(1);
	assert_int_equal(told_mode, LOCKS_MUTEX);
	(void)locks_set_block_rate(1);
	assert_int_equal(told_mode, LOCKS_MUTEX | LOCKS_BLOCK);
	locks_trace(true);
	locks_trace(true);
	locks_trace(false);
	assert_int_equal(told_mode, LOCKS_MUTEX | LOCKS_BLOCK | LOCKS_TRACE);
	assert_true(ring_is_wanted_sigsafe(RECORD_WAKE));
	locks_trace(false);
	assert_false(ring_is_wanted_sigsafe(RECORD_WAKE));
	(void)locks_set_mutex_fraction(0);
	(void)locks_set_block_rate(0);
	assert_int_equal(told_mode, 0);
}

/* One thread waits for a lock that another got, called from `holder`, and releases then. */
static void play(const void *lock, enum wait_reason reason, uintptr_t holder)
{
	struct unwind_regs regs;
	struct lock_wait wait = { .lock = lock, .reason = reason, .leaf = 71, .regs = &regs };
	struct lock_release release;

	UNWIND_REGS_OF_CALLER(&regs);
	locks_got_sigsafe(lock, holder);
	locks_wait_sigsafe(&wait);
	if (locks_release_sigsafe(&release, lock, reason))
		locks_released_sigsafe(&release, 72, &regs);
	locks_waited_sigsafe(&wait, LOCK_GOT);
}

struct seen {
	unsigned rows;
	struct tally_row row;
};

static struct seen look(enum locks_profile profile, bool since_last)
{
	struct seen seen = { 0 };
	const struct tally_row *row;
	struct arena arena;
	struct tally tally;
	size_t at = 0;

	assert_int_equal(arena_open(&arena, 4 << 20), 0);
	assert_int_equal(tally_open(&tally, &arena), 0);
	assert_int_equal(locks_take(profile, since_last, &tally), 0);
	while ((row = tally_next(&tally, &at))) {
		if (row->values[0] == 0)
			continue;
		seen.rows++;
		seen.row = *row;
	}
	arena_close(&arena);
	return seen;
}

static void both_sides_are_in_the_profiles(void **state)
{
	uint64_t waits, ns, lost;
	struct seen seen;

	(void)state;
	(void)look(LOCKS_PROFILE_BLOCK, true);
	(void)look(LOCKS_PROFILE_MUTEX, true);
	(void)locks_set_mutex_fraction(1);
	(void)locks_set_block_rate(1);
	self.labels = labels_with_sigsafe(
		0, labels_text_sigsafe(SV("k")), labels_text_sigsafe(SV("v")));
	play(LOCK(5), WAIT_MUTEX, 4711);
	seen = look(LOCKS_PROFILE_BLOCK, true);
	assert_int_equal(seen.rows, 1);
	assert_int_equal(seen.row.values[0], 1);
	assert_true(seen.row.values[1] > 0);
	assert_int_equal(seen.row.key.labels, self.labels);
	assert_int_equal(depot_get(seen.row.key.stack).pcs[0], 71);
	assert_int_equal(depot_get(seen.row.key.other).pcs[0], 4711);
	seen = look(LOCKS_PROFILE_MUTEX, true);
	assert_int_equal(seen.rows, 1);
	assert_int_equal(seen.row.values[0], 1);
	assert_int_equal(depot_get(seen.row.key.stack).pcs[0], 72);
	assert_int_equal(depot_get(seen.row.key.other).pcs[0], 71);
	assert_int_equal(depot_get((uint32_t)seen.row.key.number).pcs[0], 4711);
	/* What was asked for once is not new. */
	assert_int_equal(look(LOCKS_PROFILE_BLOCK, true).rows, 0);
	assert_int_equal(look(LOCKS_PROFILE_MUTEX, true).rows, 0);
	assert_true(look(LOCKS_PROFILE_MUTEX, false).rows > 0);
	/* Conditions have waiters, and nobody who holds them. */
	play(LOCK(6), WAIT_COND, 4712);
	seen = look(LOCKS_PROFILE_BLOCK, true);
	assert_int_equal(seen.rows, 1);
	assert_int_equal(seen.row.key.other, 0);
	assert_int_equal(look(LOCKS_PROFILE_MUTEX, true).rows, 0);
	play(LOCK(6), WAIT_JOIN, 4712);
	assert_int_equal(look(LOCKS_PROFILE_BLOCK, true).rows, 0);
	locks_stats(&waits, &ns, &lost);
	assert_int_equal(waits, 3);
	assert_true(ns > 0);
	(void)locks_set_mutex_fraction(0);
	(void)locks_set_block_rate(0);
	self.labels = 0;
}

static void errors_are_no_waits(void **state)
{
	struct unwind_regs regs;
	struct lock_wait wait = {
		.lock = LOCK(7), .reason = WAIT_MUTEX, .leaf = 71, .regs = &regs
	};

	(void)state;
	(void)locks_set_block_rate(1);
	UNWIND_REGS_OF_CALLER(&regs);
	locks_wait_sigsafe(&wait);
	locks_waited_sigsafe(&wait, LOCK_REFUSED);
	assert_int_equal(look(LOCKS_PROFILE_BLOCK, true).rows, 0);
	(void)locks_set_block_rate(0);
}

static void traces_get_records(void **state)
{
	static const struct {
		uint8_t kind;
		uint64_t leaf;
	} want[] = { { RECORD_BLOCK, 71 }, { RECORD_WAKE, 72 }, { RECORD_UNBLOCK, 71 } };
	struct record record;
	uint64_t last = 0;

	(void)state;
	assert_int_equal(ring_open(), 0);
	locks_trace(true);
	play(LOCK(8), WAIT_COND, 0);
	locks_trace(false);
	play(LOCK(8), WAIT_COND, 0);
	for (size_t i = 0; i < 3; i++) {
		assert_true(ring_take(&record));
		assert_int_equal(record.kind, want[i].kind);
		assert_int_equal(record.detail, WAIT_COND);
		assert_int_equal(record.tid, gettid());
		assert_ptr_equal(record.other, LOCK(8));
		assert_int_equal(depot_get(record.stack).pcs[0], want[i].leaf);
		assert_true(record.time_ns >= last);
		last = record.time_ns;
	}
	assert_false(ring_take(&record));
}

static void a_forked_child_has_no_waiters(void **state)
{
	struct contention *entry = contention_enter_sigsafe(LOCK(9), 1000, 1);
	int status;
	pid_t child;

	(void)state;
	locks_trace(true);
	child = fork();
	if (child == 0) {
		locks_after_fork();
		_exit(contention_waiting != 0 || contention_is_there_sigsafe(LOCK(9)) ||
			told_mode != 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	locks_trace(false);
	contention_leave_sigsafe(entry, 1000, 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_release_is_charged_what_waiters_lost),
		cmocka_unit_test(time_that_nobody_caused_is_not_charged_later),
		cmocka_unit_test(charges_add_up),
		cmocka_unit_test(places_are_used_again),
		cmocka_unit_test(threads_at_once),
		cmocka_unit_test(block_samples_are_scaled_as_gos),
		cmocka_unit_test(rates_are_set_as_gos),
		cmocka_unit_test(hooks_are_told),
		cmocka_unit_test(both_sides_are_in_the_profiles),
		cmocka_unit_test(errors_are_no_waits),
		cmocka_unit_test(traces_get_records),
		cmocka_unit_test(a_forked_child_has_no_waiters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
