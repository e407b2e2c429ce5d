#include "sampler/collect/cpu_threads.h"

#include <string.h>

#include "sampler/store/labels.h"
#include "sampler/store/self.h"

#define ARENA_BYTES   ((size_t)64 << 20)
#define SCRATCH_BYTES ((size_t)1 << 20)
#define BUCKETS       4096U
#define THREADS_MAX   65536U
#define CHANGES       16384U
#define SCANS_MOST    16 /* then its name is read at every so many / 2 */

/* A change of a thread's labels; the one before it of the same thread. */
struct change {
	uint64_t time_ns, before;
	uint32_t labels;
};

static struct {
	struct arena arena, scratch;
	struct cpu_thread *pool; /* [0] is not used */
	uint32_t pool_len, free;
	uint32_t *buckets; /* by tid: the first entry of each list */
	struct change *changes;
	uint64_t changes_len; /* ever; kept are the last CHANGES */
} threads;

int cpu_threads_open(void)
{
	cpu_threads_close();
	if (arena_open(&threads.arena, ARENA_BYTES) ||
		arena_open(&threads.scratch, SCRATCH_BYTES))
		return -1;
	threads.pool = arena_alloc(&threads.arena, THREADS_MAX * sizeof(threads.pool[0]));
	threads.buckets = arena_alloc(&threads.arena, BUCKETS * sizeof(threads.buckets[0]));
	threads.changes = arena_alloc(&threads.arena, CHANGES * sizeof(threads.changes[0]));
	threads.pool_len = 1;
	return threads.pool && threads.buckets && threads.changes ? 0 : -1;
}

void cpu_threads_close(void)
{
	arena_close(&threads.arena);
	arena_close(&threads.scratch);
	memset(&threads, 0, sizeof(threads));
}

static uint32_t *bucket_of(uint32_t tid)
{
	return &threads.buckets[(tid * 2654435761U >> 16) & (BUCKETS - 1)];
}

static struct cpu_thread *take_entry(void)
{
	struct cpu_thread *entry;

	if (threads.free) {
		entry = &threads.pool[threads.free];
		threads.free = entry->next;
		return entry;
	}
	return threads.pool_len < THREADS_MAX ? &threads.pool[threads.pool_len++] : NULL;
}

static void read_name(struct cpu_thread *thread)
{
	char name[TASK_NAME_SIZE];

	task_name(thread->tid, name);
	if (name[0])
		thread->name = labels_text_sigsafe(sv_from_cstr(name));
}

struct cpu_thread *cpu_threads_get(uint32_t tid, bool *is_new)
{
	uint32_t *bucket;
	struct cpu_thread *entry;

	if (is_new)
		*is_new = false;
	if (!threads.pool)
		return NULL;
	bucket = bucket_of(tid);
	for (uint32_t at = *bucket; at; at = threads.pool[at].next) {
		if (threads.pool[at].tid == tid)
			return &threads.pool[at];
	}
	entry = take_entry();
	if (!entry)
		return NULL;
	*entry = (struct cpu_thread){ .tid = tid, .next = *bucket };
	read_name(entry);
	*bucket = (uint32_t)(entry - threads.pool);
	if (is_new)
		*is_new = true;
	return entry;
}

static void drop(struct cpu_thread *entry)
{
	uint32_t *at = bucket_of(entry->tid), own = (uint32_t)(entry - threads.pool);

	while (*at != own)
		at = &threads.pool[*at].next;
	*at = entry->next;
	*entry = (struct cpu_thread){ .next = threads.free };
	threads.free = own;
}

static bool is_due(struct cpu_thread *entry)
{
	if (entry->scans++ == SCANS_MOST)
		entry->scans = 1 + SCANS_MOST / 2;
	return (entry->scans & (entry->scans - 1)) == 0;
}

void cpu_threads_scan(void (*meet)(struct cpu_thread *), void (*leave)(struct cpu_thread *))
{
	uint32_t *tids;
	size_t len;

	threads.scratch.used = 0;
	if (task_list(&threads.scratch, &tids, &len))
		return;
	for (size_t i = 0; i < len; i++) {
		bool is_new;
		struct cpu_thread *entry = cpu_threads_get(tids[i], &is_new);

		if (!entry)
			continue;
		entry->seen = true;
		if (!is_new && is_due(entry))
			read_name(entry);
		if (meet)
			meet(entry);
	}
	for (uint32_t i = 1; i < threads.pool_len; i++) {
		struct cpu_thread *entry = &threads.pool[i];

		if (entry->tid && !entry->seen) {
			if (leave)
				leave(entry);
			drop(entry);
		}
		entry->seen = false;
	}
}

void cpu_threads_each(void (*call)(struct cpu_thread *))
{
	for (uint32_t i = 1; i < threads.pool_len; i++) {
		if (threads.pool[i].tid)
			call(&threads.pool[i]);
	}
}

static void look_at_labels(struct cpu_thread *thread)
{
	thread->first_labels = self_labels_of(thread->tid);
	thread->last_change = 0;
}

void cpu_threads_look_at_labels(void)
{
	cpu_threads_each(look_at_labels);
}

void cpu_threads_take(const struct record *record)
{
	struct cpu_thread *thread = cpu_threads_get(record->tid, NULL);

	if (!thread)
		return;
	threads.changes_len++;
	threads.changes[threads.changes_len % CHANGES] =
		(struct change){ record->time_ns, thread->last_change, record->labels };
	thread->last_change = threads.changes_len;
}

uint32_t cpu_threads_labels(const struct cpu_thread *thread, uint64_t time_ns)
{
	uint32_t labels = thread->first_labels;

	for (uint64_t at = thread->last_change; at && at + CHANGES > threads.changes_len;) {
		const struct change *change = &threads.changes[at % CHANGES];

		labels = change->labels; /* the best there is, should the next be gone */
		if (change->time_ns <= time_ns)
			return labels;
		at = change->before;
		if (at == 0)
			return thread->first_labels;
	}
	return labels;
}

uint32_t cpu_threads_named(const struct cpu_thread *thread, uint32_t labels)
{
	if (thread->name == 0)
		return labels;
	return labels_with_sigsafe(labels, labels_text_sigsafe(SV("thread")), thread->name);
}
