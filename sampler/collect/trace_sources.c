#include "sampler/collect/trace_sources.h"

#include "sampler/collect/cpu.h"
#include "sampler/collect/perf.h"
#include "sampler/collect/trace_queue.h"

#define RING_BYTES ((size_t)256 << 10) /* each CPU; a turn's switches are a few KB */

static struct {
	void (*put)(const struct record *record);
	bool are_open;
	struct perf *perf;       /* NULL: not to be had */
	struct cpu_capture *cpu; /* likewise */
} sources;

static uint64_t lost;

static void take_switch(void *to, const struct perf_switch *change)
{
	(void)to;
	sources.put(&(struct record){ .kind = QUEUED_SWITCH,
		.detail = change->on          ? TRACE_RUNS
			  : change->preempted ? TRACE_OFF_READY
					      : TRACE_OFF_UNKNOWN,
		.tid = change->tid,
		.other = change->cpu,
		.time_ns = change->time_ns });
}

static void take_lost(void *to, uint64_t records)
{
	(void)to;
	lost += records;
}

static void take_sample(void *to, const struct cpu_sample *sample)
{
	(void)to;
	sources.put(&(struct record){ .kind = RECORD_CPU,
		.tid = sample->tid,
		.stack = sample->stack,
		.labels = sample->labels,
		.time_ns = sample->time_ns });
}

static void open_all(void)
{
	static const struct perf_told told = { .switched = take_switch, .lost = take_lost };
	static const struct perf_wanted switches = {
		.user_only = true, .switches = true, .ring_bytes = RING_BYTES
	};
	static const struct cpu_wanted samples = {
		.hz = CPU_HZ, .take = take_sample, .only_take = true
	};
	struct err err;

	sources.perf = perf_open(&switches, &told, NULL, &err);
	sources.cpu = cpu_start(&samples, &err);
}

static void close_all(void)
{
	/* Ending the one gives the other its turn, which must not find what is gone. */
	struct perf *perf = sources.perf;
	struct cpu_capture *cpu = sources.cpu;

	sources.perf = NULL;
	sources.cpu = NULL;
	if (perf)
		perf_close(perf);
	if (cpu) {
		(void)cpu_stop(cpu);
		cpu_release(cpu);
	}
}

void trace_sources_follow(bool wanted, void (*put)(const struct record *record))
{
	if (wanted == sources.are_open)
		return;
	sources.are_open = wanted;
	sources.put = put;
	if (wanted)
		open_all();
	else
		close_all();
}

void trace_sources_poll(uint64_t now)
{
	if (sources.perf)
		perf_poll(sources.perf, now);
}

uint64_t trace_sources_lost(void)
{
	return lost;
}

void trace_sources_after_fork(void)
{
	sources.are_open = false;
	sources.perf = NULL;
	sources.cpu = NULL;
}
