#include "sampler/collect/regions.h"

#include <errno.h>
#include <stdbool.h>

#include "base/clock.h"
#include "sampler/postern.h"
#include "sampler/store/intern.h"
#include "sampler/store/labels.h"
#include "sampler/store/log.h"
#include "sampler/store/ring.h"
#include "sampler/store/self.h"

#define MS       UINT64_C(1000000)
#define SUM      REGION_BUCKETS
#define COUNTERS (REGION_BUCKETS + 1)

/* 5, 10, 50 and 100 ms are among them: what services are usually held to. */
const uint64_t region_bounds_ns[REGION_BUCKETS - 1] = { MS / 2, MS, 2 * MS + MS / 2, 5 * MS,
	10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1000 * MS, 2500 * MS,
	5000 * MS, 10000 * MS };

/* By the id of the name. */
static struct intern histograms = INTERN_INIT(256 << 10, COUNTERS);
static _Atomic uint64_t lost;

static void push(enum record_kind kind, uint64_t time_ns, uint64_t value, uint64_t other)
{
	struct record *record;

	if (!ring_is_wanted_sigsafe(kind))
		return;
	record = ring_claim_sigsafe();
	if (!record)
		return;
	*record = (struct record){ .kind = (uint8_t)kind,
		.tid = self_tid_sigsafe(),
		.labels = self.labels,
		.time_ns = time_ns,
		.value = value,
		.other = other };
	ring_commit_sigsafe(record);
}

static void set_label(uint32_t key, uint32_t value)
{
	self.labels = labels_with_sigsafe(self.labels, key, value);
	if (!self.listed)
		self_list_sigsafe();
	push(RECORD_LABELS, clock_mono_ns(), 0, 0);
}

static struct sv text_of(const char *text)
{
	return sv_from_cstr(text ? text : "");
}

void postern_label(const char *key, const char *value)
{
	int saved = errno;

	set_label(labels_text_sigsafe(text_of(key)), labels_text_sigsafe(text_of(value)));
	errno = saved;
}

static uint32_t region_key(void)
{
	static _Atomic uint32_t kept;
	uint32_t key = atomic_load_explicit(&kept, memory_order_relaxed);

	if (key == 0) {
		key = labels_text_sigsafe(SV("region"));
		atomic_store_explicit(&kept, key, memory_order_relaxed);
	}
	return key;
}

struct postern_region postern_region_begin(const char *name)
{
	int saved = errno;
	struct postern_region region = { .begin_ns = clock_mono_ns(),
		.name = labels_text_sigsafe(text_of(name)),
		.outer = self.region,
		.tid = self_tid_sigsafe() };

	self.region = region.name;
	set_label(region_key(), region.name);
	push(RECORD_REGION_BEGIN, region.begin_ns, region.name, 0);
	errno = saved;
	return region;
}

static void count(uint32_t name, uint64_t ns)
{
	uint64_t key = name;
	uint32_t id = intern_put_sigsafe(&histograms, &key, 1, 0);
	_Atomic int64_t *values;
	size_t bucket = 0;

	if (id == 0) {
		atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
		return;
	}
	while (bucket < REGION_BUCKETS - 1 && ns > region_bounds_ns[bucket])
		bucket++;
	values = intern_values(intern_get(&histograms, id));
	atomic_fetch_add_explicit(&values[bucket], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&values[SUM], (int64_t)ns, memory_order_relaxed);
}

void postern_region_end(const struct postern_region *region)
{
	uint64_t now = clock_mono_ns();
	int saved = errno;

	if (!region || region->name == 0)
		return;
	count(region->name, now - region->begin_ns);
	if (region->tid == self_tid_sigsafe()) {
		push(RECORD_REGION_END, now, region->name, 0);
		self.region = region->outer;
		set_label(region_key(), region->outer);
	}
	errno = saved;
}

void postern_log(const char *key, const char *text)
{
	int saved = errno;

	if (ring_is_wanted_sigsafe(RECORD_LOG))
		push(RECORD_LOG, clock_mono_ns(), log_put_sigsafe(text_of(text)),
			labels_text_sigsafe(text_of(key)));
	errno = saved;
}

bool regions_next(size_t *at, struct region_histogram *out)
{
	uint32_t id = intern_next(&histograms, at);
	struct intern_entry *entry;
	_Atomic int64_t *values;

	if (id == 0)
		return false;
	entry = intern_get(&histograms, id);
	values = intern_values(entry);
	out->name = labels_text_of((uint32_t)entry->words[0]);
	for (size_t i = 0; i < REGION_BUCKETS; i++)
		out->counts[i] = (uint64_t)atomic_load(&values[i]);
	out->sum_ns = (uint64_t)atomic_load(&values[SUM]);
	return true;
}

uint64_t regions_lost(void)
{
	return atomic_load(&lost);
}
