/* What the program is not to see of our signal, and how much of its own it keeps. */
#include "tests/unit/unit.h"

#include <signal.h>
#include <sys/resource.h>

#include "sampler/collect/signal.h"
#include "sampler/proc/process.h"

static void test_masks_are_left_alone_until_there_is_a_signal(void **state)
{
	sigset_t changed, none;

	(void)state;
	assert_int_equal(signal_number(), 0);
	(void)sigemptyset(&none);
	assert_ptr_equal(signal_shut_out_sigsafe(&none, &changed), &none);
	assert_null(signal_shut_out_sigsafe(NULL, &changed));
}

static void test_a_mask_that_opens_keeps_ours_blocked(void **state)
{
	sigset_t changed, mask;
	const sigset_t *result;
	struct err err;

	(void)state;
	assert_int_equal(signal_open(&err), 0);
	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGUSR1);
	result = signal_shut_out_sigsafe(&mask, &changed);
	assert_ptr_equal(result, &changed);
	for (int other = 1; other <= SIGRTMAX; other++)
		assert_int_equal(sigismember(result, other),
			other == SIGUSR1 || other == signal_number());
	assert_false(sigismember(&mask, signal_number()));
	assert_null(signal_shut_out_sigsafe(NULL, &changed));
	/* Blocked already: it is passed on as it is. */
	assert_ptr_equal(signal_shut_out_sigsafe(result, &mask), result);
}

static void test_who_takes_all_signals_does_not_take_ours(void **state)
{
	sigset_t changed, all;
	const sigset_t *result;

	(void)state;
	(void)sigfillset(&all);
	result = signal_leave_out_sigsafe(&all, &changed);
	assert_ptr_equal(result, &changed);
	assert_false(sigismember(result, signal_number()));
	assert_true(sigismember(result, SIGTERM));
	assert_true(sigismember(result, SIGRTMIN));
	/* Who names some means a signal of its own. */
	(void)sigdelset(&all, SIGRTMIN);
	assert_ptr_equal(signal_leave_out_sigsafe(&all, &changed), &all);
	assert_null(signal_leave_out_sigsafe(NULL, &changed));
}

static void test_timers_are_half_of_what_is_left(void **state)
{
	struct rlimit limit;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_SIGPENDING, &limit), 0);
	assert_true(process_spare_timers() <= limit.rlim_cur / 2);
	limit.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_SIGPENDING, &limit), 0);
	assert_int_equal(process_spare_timers(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_masks_are_left_alone_until_there_is_a_signal),
		cmocka_unit_test(test_a_mask_that_opens_keeps_ours_blocked),
		cmocka_unit_test(test_who_takes_all_signals_does_not_take_ours),
		cmocka_unit_test(test_timers_are_half_of_what_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
