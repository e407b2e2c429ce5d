#include "sampler/collect/perf.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/perf_ring.h"
#include "sampler/proc/cpus.h"
#include "sampler/proc/task.h"

#define ARENA_BYTES ((size_t)64 << 20)
#define PAGE        ((size_t)4096)
#define RING_MIN    ((size_t)32 << 10)
#define ROUNDS_MAX  32    /* of looking for threads that nobody watches yet */
#define EVENTS_MAX  65536 /* far more than a process may have descriptors */
#define KNOWN_SLOTS 131072U
#define NOBODY      UINT32_MAX

struct ring {
	uint32_t cpu;
	int event; /* holds the ring; counts nothing, and is this thread's own */
	struct perf_event_mmap_page *page;
};

/*
 * A thread may get two events on a CPU: its own, and one inherited from a thread that got its events just
 * before it made this one.  Of each thread, one owner's records count.
 */
struct known {
	uint32_t tid;
	uint32_t owner; /* whose events count, by number; NOBODY: those that come first */
};

struct perf {
	struct arena arena;
	struct perf_wanted wanted;
	struct perf_told told;
	void *to;
	uint32_t pid;
	uint64_t period_before_ns,
		changed_ns; /* the period until then; what samples say is the first */
	struct ring *rings;
	size_t rings_len, ring_bytes;
	int waits; /* epoll */
	int *events;
	uint64_t *ids; /* of the events: rising */
	size_t events_len;
	struct known *known; /* open addressing; tid 0: empty */
	size_t known_len;
	bool may_double;
	uint8_t *scratch;
	struct perf *next;
};

static struct perf *all;

bool perf_is_risky(void)
{
	return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_DISABLED;
}

/* The program may confine itself at any moment, and from then on this could be its end: so each time is asked
 * just before. */
static int open_event(struct perf_event_attr *attr, uint32_t tid, uint32_t cpu)
{
	if (perf_is_risky()) {
		errno = EPERM;
		return -1;
	}
	return (int)syscall(
		SYS_perf_event_open, attr, (pid_t)tid, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
}

static void describe(const struct perf *perf, struct perf_event_attr *attr)
{
	memset(attr, 0, sizeof(*attr));
	attr->size = sizeof(*attr);
	attr->type = PERF_TYPE_SOFTWARE;
	attr->config = PERF_COUNT_SW_DUMMY;
	attr->sample_type = PERF_RING_FIELDS;
	attr->sample_id_all = 1;
	attr->exclude_kernel = perf->wanted.user_only;
	attr->exclude_hv = 1;
	attr->use_clockid = 1;
	attr->clockid = CLOCK_MONOTONIC;
	attr->watermark = 1;
	/* A thread that writes into a full ring does not wait: leave it the other half. */
	attr->wakeup_watermark = (uint32_t)(perf->ring_bytes / 2);
}

static void describe_watch(const struct perf *perf, struct perf_event_attr *attr)
{
	describe(perf, attr);
	attr->inherit = 1;
	attr->inherit_thread = 1;
	attr->task = 1;
	attr->context_switch = perf->wanted.switches;
	if (perf->wanted.period_ns == 0)
		return;
	attr->config = PERF_COUNT_SW_CPU_CLOCK;
	attr->sample_period = perf->wanted.period_ns;
	attr->sample_type = PERF_RING_SAMPLE;
	attr->sample_regs_user = ARCH_PERF_MASK;
	attr->sample_stack_user = perf->wanted.stack_bytes;
}

int perf_probe(bool user_only, struct err *err)
{
	const struct perf perf = { .wanted = {
					   .period_ns = 1000000000, .user_only = user_only } };
	struct perf_event_attr attr;
	int event;

	describe_watch(&perf, &attr);
	event = open_event(&attr, 0, (uint32_t)-1);
	if (event < 0)
		return err_sys(err, "perf events");
	(void)close(event);
	return 0;
}

static void close_rings(struct perf *perf)
{
	for (size_t i = 0; i < perf->rings_len; i++) {
		if (perf->rings[i].page)
			(void)munmap(perf->rings[i].page, PAGE + perf->ring_bytes);
		(void)close(perf->rings[i].event);
	}
	perf->rings_len = 0;
}

static int open_ring(struct perf *perf, uint32_t cpu, struct err *err)
{
	struct ring *ring = &perf->rings[perf->rings_len];
	struct perf_event_attr attr;
	struct epoll_event readable = { .events = EPOLLIN };
	void *page;

	describe(perf, &attr);
	*ring = (struct ring){ .cpu = cpu, .event = open_event(&attr, 0, cpu) };
	if (ring->event < 0)
		return err_sys(err, "perf events");
	perf->rings_len++;
	page = mmap(NULL, PAGE + perf->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		ring->event, 0);
	if (page == MAP_FAILED)
		return err_sys(err,
			"perf events: memory for their rings (kernel.perf_event_mlock_kb, "
			"RLIMIT_MEMLOCK)");
	ring->page = page;
	if (perf->waits >= 0)
		(void)epoll_ctl(perf->waits, EPOLL_CTL_ADD, ring->event, &readable);
	return 0;
}

/* In the size that is wanted, or as large as may be. */
static int open_rings(struct perf *perf, struct err *err)
{
	uint32_t cpus[CPUS_MAX];
	size_t len = cpus_online(cpus, CPUS_MAX);

	perf->waits = epoll_create1(EPOLL_CLOEXEC);
	perf->rings = arena_alloc(&perf->arena, len * sizeof(perf->rings[0]));
	if (!perf->rings || len == 0)
		return err_set(err, ERR_NOMEM, "perf events: no memory");
	for (perf->ring_bytes = perf->wanted.ring_bytes; perf->ring_bytes >= RING_MIN;
		perf->ring_bytes /= 2) {
		size_t i = 0;

		while (i < len && open_ring(perf, cpus[i], err) == 0)
			i++;
		if (i == len)
			return 0;
		if (perf->rings_len <= i) /* it was not for the memory */
			return -1;
		close_rings(perf);
	}
	return -1;
}

static struct known *find_known(struct perf *perf, uint32_t tid)
{
	size_t at = tid * 2654435761U & (KNOWN_SLOTS - 1);

	while (perf->known[at].tid != 0 && perf->known[at].tid != tid)
		at = (at + 1) & (KNOWN_SLOTS - 1);
	return &perf->known[at];
}

/* The thread's entry, made if need be; NULL when there is no room. */
static struct known *get_known(struct perf *perf, uint32_t tid)
{
	struct known *known = find_known(perf, tid);

	if (known->tid == tid)
		return known;
	if (perf->known_len >= KNOWN_SLOTS / 2)
		return NULL;
	perf->known_len++;
	*known = (struct known){ tid, NOBODY };
	return known;
}

/* The number of the opened thread that an event belongs to. */
static uint32_t owner_of(const struct perf *perf, uint64_t event)
{
	size_t from = 0, to = perf->events_len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (perf->ids[middle] < event)
			from = middle + 1;
		else
			to = middle;
	}
	return (uint32_t)(from / perf->rings_len);
}

static bool is_double(struct perf *perf, uint32_t tid, uint64_t event)
{
	struct known *known;
	uint32_t owner;

	if (!perf->may_double)
		return false;
	known = get_known(perf, tid);
	owner = owner_of(perf, event);
	if (known && known->owner == NOBODY)
		known->owner = owner;
	return known && known->owner != owner;
}

/* Where the kernel has come to. What it has written before is seen after this. */
static uint64_t head_of(const struct ring *ring)
{
	return __atomic_load_n(&ring->page->data_head, __ATOMIC_ACQUIRE);
}

static const void *data_of(const struct ring *ring)
{
	return (const char *)ring->page + PAGE;
}

/* Which threads have begun meanwhile, and so inherited their events: without taking anything. */
static void note_begun(struct perf *perf)
{
	for (size_t i = 0; i < perf->rings_len; i++) {
		const struct ring *ring = &perf->rings[i];
		uint64_t head = head_of(ring), tail = ring->page->data_tail;
		struct perf_ring_record record;

		while (perf_ring_next(
			data_of(ring), perf->ring_bytes, head, &tail, perf->scratch, &record)) {
			if (record.kind == PERF_RING_THREAD && record.pid == perf->pid &&
				record.thread.begins)
				(void)get_known(perf, record.thread.tid);
		}
	}
}

/* One event on each CPU. 0 also when the thread is gone. */
static int watch(struct perf *perf, uint32_t tid, struct err *err)
{
	struct perf_event_attr attr;
	size_t first = perf->events_len;
	struct known *known = get_known(perf, tid);

	if (!known || first + perf->rings_len > EVENTS_MAX)
		return err_set(err, ERR_NOMEM, "perf events: too many threads");
	known->owner = (uint32_t)(first / perf->rings_len);
	describe_watch(perf, &attr);
	for (size_t i = 0; i < perf->rings_len; i++) {
		int event = open_event(&attr, tid, perf->rings[i].cpu);

		if (event >= 0) {
			perf->events[perf->events_len] = event;
			if (ioctl(event, PERF_EVENT_IOC_ID, &perf->ids[perf->events_len++]) ==
					0 &&
				ioctl(event, PERF_EVENT_IOC_SET_OUTPUT, perf->rings[i].event) ==
					0)
				continue;
		}
		if (errno != ESRCH)
			return errno == EMFILE
				       ? err_set(err, ERR_SYSTEM,
						 "perf events: the threads are too many for "
						 "RLIMIT_NOFILE, which leaves %zu events",
						 perf->events_len)
				       : err_sys(err, "perf events");
		while (perf->events_len > first)
			(void)close(perf->events[--perf->events_len]);
		break;
	}
	return 0;
}

/* Watch every thread that is there: threads that begin inherit from who makes them, so it is over as soon as
 * a look finds nobody new. */
static int watch_all(struct perf *perf, struct err *err)
{
	struct arena *arena = &perf->arena;
	size_t before = arena->used;

	for (unsigned round = 0; round < ROUNDS_MAX; round++) {
		bool any = false;
		uint32_t *tids;
		size_t len;

		arena->used = before;
		if (task_list(arena, &tids, &len))
			return err_set(
				err, ERR_SYSTEM, "perf events: the threads cannot be listed");
		note_begun(perf);
		for (size_t i = 0; i < len; i++) {
			if (find_known(perf, tids[i])->tid)
				continue;
			any = true;
			perf->may_double |= round > 0;
			if (watch(perf, tids[i], err))
				return -1;
		}
		if (!any)
			break;
	}
	return 0;
}

static void close_events(struct perf *perf)
{
	while (perf->events_len > 0)
		(void)close(perf->events[--perf->events_len]);
}

static void forget(struct perf *perf)
{
	struct perf **at = &all;
	struct arena arena = perf->arena;

	while (*at && *at != perf)
		at = &(*at)->next;
	if (*at)
		*at = perf->next;
	close_rings(perf);
	if (perf->waits >= 0)
		(void)close(perf->waits);
	arena_close(&arena);
}

static struct perf *make(struct err *err)
{
	struct arena arena;
	struct perf *perf;

	(void)err_set(err, ERR_NOMEM, "perf events: no memory");
	if (arena_open(&arena, ARENA_BYTES))
		return NULL;
	perf = arena_alloc(&arena, sizeof(*perf));
	if (!perf) {
		arena_close(&arena);
		return NULL;
	}
	perf->waits = -1;
	perf->events = arena_alloc(&arena, EVENTS_MAX * sizeof(perf->events[0]));
	perf->ids = arena_alloc(&arena, EVENTS_MAX * sizeof(perf->ids[0]));
	perf->known = arena_alloc(&arena, KNOWN_SLOTS * sizeof(perf->known[0]));
	perf->scratch = arena_alloc(&arena, PERF_RING_RECORD_MAX);
	perf->arena = arena;
	if (perf->events && perf->ids && perf->known && perf->scratch)
		return perf;
	arena_close(&arena);
	return NULL;
}

struct perf *perf_open(const struct perf_wanted *wanted, const struct perf_told *told, void *to,
	struct err *err)
{
	struct perf *perf = make(err);

	if (!perf)
		return NULL;
	perf->wanted = *wanted;
	perf->told = *told;
	perf->to = to;
	perf->pid = (uint32_t)getpid();
	perf->next = all;
	all = perf;
	if (open_rings(perf, err) == 0 && watch_all(perf, err) == 0)
		return perf;
	close_events(perf);
	forget(perf);
	return NULL;
}

static void tell(struct perf *perf, struct perf_ring_record *record)
{
	const struct perf_told *told = &perf->told;

	switch (record->kind) {
	case PERF_RING_TAKEN:
		record->sample.period_ns = record->time_ns < perf->changed_ns
						   ? perf->period_before_ns
						   : perf->wanted.period_ns;
		if (told->sample && !is_double(perf, record->sample.tid, record->event))
			told->sample(perf->to, &record->sample);
		break;
	case PERF_RING_SWITCH:
		if (told->switched && !is_double(perf, record->change.tid, record->event))
			told->switched(perf->to, &record->change);
		break;
	case PERF_RING_THREAD:
		if (told->thread && record->pid == perf->pid)
			told->thread(perf->to, &record->thread);
		break;
	case PERF_RING_LOST:
		if (told->lost)
			told->lost(perf->to, record->lost);
		break;
	case PERF_RING_OTHER:
		break;
	}
}

void perf_poll(struct perf *perf, uint64_t until_ns)
{
	for (size_t i = 0; i < perf->rings_len; i++) {
		struct ring *ring = &perf->rings[i];
		uint64_t head = head_of(ring), tail = ring->page->data_tail;
		struct perf_ring_record record;

		while (perf_ring_next(data_of(ring), perf->ring_bytes, head, &tail,
			       perf->scratch, &record) &&
			record.time_ns <= until_ns) {
			tell(perf, &record);
			/* What has been read makes room at once. */
			__atomic_store_n(&ring->page->data_tail, tail, __ATOMIC_RELEASE);
		}
	}
}

int perf_descriptor(const struct perf *perf)
{
	return perf->waits;
}

int perf_set_period(struct perf *perf, uint64_t period_ns)
{
	int rc = 0;

	perf->period_before_ns = perf->wanted.period_ns;
	perf->changed_ns = clock_mono_ns();
	for (size_t i = 0; i < perf->events_len; i++) {
		if (ioctl(perf->events[i], PERF_EVENT_IOC_PERIOD, &period_ns))
			rc = -1;
	}
	perf->wanted.period_ns = period_ns;
	return rc;
}

void perf_close(struct perf *perf)
{
	close_events(perf);
	perf_poll(perf, UINT64_MAX);
	forget(perf);
}

void perf_after_fork(void)
{
	while (all) {
		struct arena arena = all->arena;

		all = all->next;
		arena_close(&arena);
	}
}
