/*
 * test_cpu.c - the pure parts of the CPU profile: the kernel's records, thinning, labels by time.
 */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "sampler/collect/cpu_source.h"
#include "sampler/collect/perf_ring.h"
#include "sampler/proc/cpus.h"
#include "sampler/store/self.h"

#define RING ((size_t)1024)

static uint8_t ring[RING], scratch[PERF_RING_RECORD_MAX];
static uint64_t head;

static void put(const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		ring[head++ & (RING - 1)] = ((const uint8_t *)bytes)[i];
}

static void put_header(uint32_t type, uint16_t misc, size_t body)
{
	struct perf_event_header header;

	memset(&header, 0, sizeof(header));
	header.type = type;
	header.misc = misc;
	header.size = (uint16_t)(sizeof(header) + body);
	put(&header, sizeof(header));
}

static void put_u64(uint64_t value)
{
	put(&value, sizeof(value));
}

static void put_two(uint32_t first, uint32_t second)
{
	put(&first, sizeof(first));
	put(&second, sizeof(second));
}

static void put_id(uint32_t tid, uint64_t time)
{
	put_two(1, tid);
	put_u64(time);
	put_two(3, 0);
	put_u64(77);
}

#define REGS        (sizeof(arch_perf_regs))
#define STACK       ((size_t)64)
#define SAMPLE_BODY (8 + 8 + 8 + 8 + 8 + 8 + 8 + REGS * 8 + 8 + STACK + 8)

static void put_sample(uint64_t got)
{
	put_header(PERF_RECORD_SAMPLE, PERF_RECORD_MISC_KERNEL, SAMPLE_BODY);
	put_u64(77);
	put_u64(0xffffffff80000000);
	put_two(1, 42);
	put_u64(1000);
	put_two(3, 0);
	put_u64(250000);
	put_u64(PERF_SAMPLE_REGS_ABI_64);
	for (size_t i = 0; i < REGS; i++)
		put_u64(0x1000U + arch_perf_regs[i]);
	put_u64(STACK);
	for (size_t i = 0; i < STACK / 8; i++)
		put_u64(i);
	put_u64(got);
}

static void begin(uint64_t at)
{
	memset(ring, 0xee, sizeof(ring));
	head = at;
}

static void test_sample_at_every_place(void **state)
{
	struct perf_ring_record record;

	(void)state;
	for (uint64_t at = 0; at < 2 * RING; at += 8) {
		uint64_t tail = at;

		begin(at);
		put_sample(STACK - 8);
		assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
		assert_int_equal(record.kind, PERF_RING_TAKEN);
		assert_int_equal(record.event, 77);
		assert_int_equal(record.pid, 1);
		assert_int_equal(record.time_ns, 1000);
		assert_int_equal(record.sample.tid, 42);
		assert_int_equal(record.sample.cpu, 3);
		assert_int_equal(record.sample.period_ns, 250000);
		assert_true(record.sample.in_kernel && record.sample.has_regs);
		assert_false(record.sample.is_cut);
		for (unsigned i = 0; i < ARCH_REGS; i++)
			assert_int_equal(record.sample.regs.reg[i], 0x1000 + i);
		assert_int_equal(record.sample.regs.pc, 0x1000 + ARCH_PERF_PC);
		assert_int_equal(record.sample.stack_bytes, STACK - 8);
		for (size_t i = 0; i < STACK / 8 - 1; i++) {
			uint64_t word;

			memcpy(&word, (const char *)record.sample.stack + i * 8, 8);
			assert_int_equal(word, i);
		}
		assert_int_equal(tail, head);
		assert_false(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	}
}

static void test_samples_that_lie(void **state)
{
	struct perf_ring_record record;
	uint64_t tail;

	(void)state;
	begin(0);
	put_sample(STACK);
	tail = 0;
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_true(record.kind == PERF_RING_TAKEN && record.sample.is_cut);
	begin(0);
	put_sample(STACK + 1); /* more than was asked for */
	tail = 0;
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_int_equal(record.kind, PERF_RING_OTHER);
	/* Cut off anywhere. */
	for (size_t len = 8; len < 8 + SAMPLE_BODY; len += 4) {
		struct perf_event_header header = { PERF_RECORD_SAMPLE, 0, (uint16_t)len };

		begin(0);
		put_sample(STACK);
		memcpy(ring, &header, sizeof(header));
		tail = 0;
		assert_true(perf_ring_next(ring, RING, len, &tail, scratch, &record));
		assert_int_equal(record.kind, PERF_RING_OTHER);
		assert_int_equal(tail, len);
	}
	/* No length, one that is longer than all there is, and a ring that has been written over. */
	for (size_t size = 0; size < 8; size++) {
		begin(0);
		put_header(PERF_RECORD_SAMPLE, 0, 0);
		ring[6] = (uint8_t)size;
		tail = 0;
		assert_true(perf_ring_next(ring, RING, 100, &tail, scratch, &record));
		assert_true(record.kind == PERF_RING_OTHER && tail == 100);
	}
	begin(0);
	put_header(PERF_RECORD_SAMPLE, 0, 100);
	tail = 0;
	assert_true(perf_ring_next(ring, RING, 50, &tail, scratch, &record));
	assert_true(record.kind == PERF_RING_OTHER && tail == 50);
	tail = 0;
	assert_true(perf_ring_next(ring, RING, RING + 8, &tail, scratch, &record));
	assert_true(record.kind == PERF_RING_OTHER && tail == RING + 8);
}

static void test_other_records(void **state)
{
	struct perf_ring_record record;
	uint64_t tail = RING - 16;

	(void)state;
	begin(tail);
	put_header(PERF_RECORD_SWITCH,
		PERF_RECORD_MISC_SWITCH_OUT | PERF_RECORD_MISC_SWITCH_OUT_PREEMPT, 32);
	put_id(5, 500);
	put_header(PERF_RECORD_SWITCH, 0, 32);
	put_id(6, 600);
	put_header(PERF_RECORD_FORK, 0, 56);
	put_two(1, 1);
	put_two(8, 7);
	put_u64(700);
	put_id(7, 701);
	put_header(PERF_RECORD_LOST, 0, 48);
	put_u64(77);
	put_u64(12);
	put_id(7, 800);
	put_header(99, 0, 8);
	put_u64(0);
	put_header(PERF_RECORD_SWITCH, 0, 16); /* too short for its end */
	put_two(1, 1);
	put_u64(1);
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_int_equal(record.kind, PERF_RING_SWITCH);
	assert_true(!record.change.on && record.change.preempted);
	assert_int_equal(record.change.tid, 5);
	assert_int_equal(record.change.cpu, 3);
	assert_int_equal(record.change.time_ns, 500);
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_true(record.kind == PERF_RING_SWITCH && record.change.on &&
		    !record.change.preempted && record.change.tid == 6);
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_true(record.kind == PERF_RING_THREAD && record.thread.begins &&
		    record.thread.tid == 8 && record.thread.parent == 7 &&
		    record.thread.time_ns == 700);
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_true(record.kind == PERF_RING_LOST && record.lost == 12);
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_int_equal(record.kind, PERF_RING_OTHER);
	assert_true(perf_ring_next(ring, RING, head, &tail, scratch, &record));
	assert_int_equal(record.kind, PERF_RING_OTHER);
	assert_false(perf_ring_next(ring, RING, head, &tail, scratch, &record));
}

/* Whatever the stream's rate, a capture's sum is that of the stream, to less than a period. */
static void test_thinning(void **state)
{
	static const uint64_t periods[] = { 250000, 1000000, 1234567, 4000000, 10000000,
		1000000000 };

	(void)state;
	for (size_t i = 0; i < sizeof(periods) / sizeof(periods[0]); i++) {
		for (size_t k = 0; k < sizeof(periods) / sizeof(periods[0]); k++) {
			uint64_t ns = 0, count = 0;
			uint32_t left = 0;

			for (unsigned n = 0; n < 1000; n++) {
				ns += periods[i];
				count += cpu_thin(periods[i], periods[k], &left);
				assert_true(left < periods[k]);
				assert_int_equal(count * periods[k] + left, ns);
			}
		}
	}
}

/* A thread that runs for less than a period is seen as often as it should be, on average. */
static void test_short_threads(void **state)
{
	uint64_t count = 0;

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		uint32_t left = (uint32_t)(self_random_sigsafe() % 10000000);

		count += cpu_thin(1000000, 10000000, &left);
	}
	/* Binomial: 10000 +- 95. */
	assert_in_range(count, 9500, 10500);
}

static void push_labels(uint32_t tid, uint64_t time, uint32_t labels)
{
	cpu_threads_take(&(struct record){
		.kind = RECORD_LABELS, .tid = tid, .time_ns = time, .labels = labels });
}

static void test_labels_by_time(void **state)
{
	struct cpu_thread *thread;
	bool is_new;

	(void)state;
	assert_int_equal(cpu_threads_open(), 0);
	thread = cpu_threads_get(1000001, &is_new);
	assert_true(thread && is_new);
	assert_int_equal(cpu_threads_labels(thread, 5), 0);
	push_labels(1000001, 10, 3);
	push_labels(1000002, 11, 9);
	push_labels(1000001, 20, 4);
	push_labels(1000001, 30, 0);
	assert_ptr_equal(cpu_threads_get(1000001, &is_new), thread);
	assert_false(is_new);
	assert_int_equal(cpu_threads_labels(thread, 9), 0);
	assert_int_equal(cpu_threads_labels(thread, 10), 3);
	assert_int_equal(cpu_threads_labels(thread, 19), 3);
	assert_int_equal(cpu_threads_labels(thread, 20), 4);
	assert_int_equal(cpu_threads_labels(thread, 1000), 0);
	assert_int_equal(cpu_threads_labels(cpu_threads_get(1000002, NULL), 1000), 9);
	/* What is long ago is forgotten: the oldest that is known stands for it. */
	for (uint32_t i = 0; i < 50000; i++)
		push_labels(1000002, 100 + i, 100 + i);
	assert_true(cpu_threads_labels(cpu_threads_get(1000002, NULL), 100) >= 100);
	assert_int_equal(cpu_threads_labels(cpu_threads_get(1000002, NULL), 50098), 50098);
	assert_int_equal(cpu_threads_labels(thread, 1000), 0);
	cpu_threads_close();
	assert_null(cpu_threads_get(1, NULL));
}

static unsigned met, left_alone;

static void meet(struct cpu_thread *thread)
{
	met += thread->tid != 0;
}

static void leave(struct cpu_thread *thread)
{
	left_alone += thread->tid >= 1000000;
}

static void test_threads_that_are_gone(void **state)
{
	(void)state;
	assert_int_equal(cpu_threads_open(), 0);
	/* Enough for lists of several. */
	for (uint32_t i = 0; i < 10000; i++)
		assert_non_null(cpu_threads_get(10000000 + i, NULL));
	cpu_threads_scan(meet, leave);
	assert_int_equal(left_alone, 10000);
	for (uint32_t i = 0; i < 10000; i++) {
		bool is_new;

		assert_non_null(cpu_threads_get(10000000 + i, &is_new));
		assert_true(is_new);
	}
	cpu_threads_close();
}

static void *set_labels(void *done)
{
	self.labels = 77;
	self_list_sigsafe();
	atomic_store((atomic_uint *)done, self_tid_sigsafe());
	while (atomic_load((atomic_uint *)done))
		sched_yield();
	return NULL;
}

static void test_labels_of_another_thread(void **state)
{
	atomic_uint done = 0;
	pthread_t thread;
	uint32_t tid;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, set_labels, &done), 0);
	while ((tid = atomic_load(&done)) == 0)
		sched_yield();
	assert_int_equal(self_labels_of(tid), 77);
	assert_int_equal(self_labels_of(tid + 1), 0);
	atomic_store(&done, 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	self_after_fork();
	assert_int_equal(self_labels_of(tid), 0);
}

static void test_lists_of_processors(void **state)
{
	uint32_t cpus[8];

	(void)state;
	assert_int_equal(cpus_parse(SV("0-3,8\n"), cpus, 8), 5);
	assert_int_equal(cpus[3], 3);
	assert_int_equal(cpus[4], 8);
	assert_int_equal(cpus_parse(SV("0"), cpus, 8), 1);
	assert_int_equal(cpus_parse(SV("\n"), cpus, 8), 0);
	assert_int_equal(cpus_parse(SV("0-4294967295"), cpus, 8), 8);
	assert_int_equal(cpus_parse(SV("1,x,2"), cpus, 8), 1);
	assert_int_equal(cpus_parse(SV("5-3,1-"), cpus, 8), 1);
	assert_true(cpus_online(cpus, 8) > 0);
	assert_in_range(cpus_tick_hz(), 100, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sample_at_every_place),
		cmocka_unit_test(test_samples_that_lie),
		cmocka_unit_test(test_other_records),
		cmocka_unit_test(test_thinning),
		cmocka_unit_test(test_short_threads),
		cmocka_unit_test(test_labels_by_time),
		cmocka_unit_test(test_threads_that_are_gone),
		cmocka_unit_test(test_labels_of_another_thread),
		cmocka_unit_test(test_lists_of_processors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
