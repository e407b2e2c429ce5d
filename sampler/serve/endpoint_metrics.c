#include <time.h>

#include "base/clock.h"
#include "sampler/collect/regions.h"
#include "sampler/collect/trace.h"
#include "sampler/proc/process.h"
#include "sampler/serve/endpoint.h"
#include "sampler/store/cost.h"
#include "sampler/store/depot.h"
#include "sampler/store/ring.h"
#include "sampler/write/metrics.h"

#define BODY_MAX   ((size_t)16 << 20)
#define LABELS_MAX 1024

static void write_process(struct arena *arena, struct buf *out)
{
	struct process_state state;

	process_read(arena, &state);
	metrics_one_seconds(out, "process_cpu_seconds_total", "counter",
		"User and system CPU time spent.", state.cpu_ns);
	metrics_one(out, "process_open_fds", "gauge", "Open file descriptors.", state.open_fds);
	metrics_one(out, "process_max_fds", "gauge", "Most file descriptors that may be open.",
		state.max_fds);
	metrics_one(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size.",
		state.virtual_bytes);
	metrics_one(out, "process_virtual_memory_max_bytes", "gauge",
		"Most virtual memory that may be had.", state.max_virtual_bytes);
	metrics_one(out, "process_resident_memory_bytes", "gauge", "Resident memory size.",
		state.resident_bytes);
	metrics_one(out, "process_resident_memory_peak_bytes", "gauge",
		"Largest resident memory size so far.", state.resident_peak_bytes);
	metrics_one(out, "process_resident_anonymous_bytes", "gauge",
		"Resident memory that is not backed by a file.",
		state.resident_anonymous_bytes);
	metrics_one(out, "process_resident_file_bytes", "gauge",
		"Resident memory that is backed by a file.", state.resident_file_bytes);
	metrics_one(out, "process_threads", "gauge",
		"Threads, the sampler's own one among them.", state.threads);
	metrics_one_seconds(out, "process_start_time_seconds", "gauge",
		"Start of the process since the Unix epoch.", state.start_unix_ns);
}

static void write_region(struct buf *out, const struct region_histogram *region)
{
	static const char name[] = "postern_region_duration_seconds";
	char mem[LABELS_MAX], bound_mem[32];
	uint64_t count = 0;
	struct buf labels, bound;
	size_t name_len;

	buf_init_fixed(&labels, mem, sizeof(mem));
	metrics_label(&labels, "region", region->name);
	name_len = labels.len;
	for (size_t i = 0; i < REGION_BUCKETS; i++) {
		buf_init_fixed(&bound, bound_mem, sizeof(bound_mem));
		if (i == REGION_BUCKETS - 1)
			buf_add_cstr(&bound, "+Inf");
		else
			metrics_bound(&bound, region_bounds_ns[i]);
		labels.len = name_len;
		metrics_label(&labels, "le", buf_sv(&bound));
		count += region->counts[i];
		metrics_u64(out, name, "_bucket", buf_sv(&labels), count);
	}
	labels.len = name_len;
	metrics_seconds(out, name, "_sum", buf_sv(&labels), region->sum_ns);
	metrics_u64(out, name, "_count", buf_sv(&labels), count);
}

static void write_regions(struct buf *out)
{
	struct region_histogram region;
	bool any = false;
	size_t at = 0;

	while (regions_next(&at, &region)) {
		if (!any)
			metrics_head(out, "postern_region_duration_seconds", "histogram",
				"How long the program's regions last (postern_region_begin).");
		any = true;
		write_region(out, &region);
	}
	metrics_one(out, "postern_regions_lost_total", "counter",
		"Ends of regions that were not counted: too many names.", regions_lost());
}

/* What the sampler costs, and what it could not keep. */
static void write_sampler(const struct question *question, struct buf *out)
{
	struct timespec cpu = { 0 };
	struct cost cost = cost_read();
	size_t stacks, bytes;
	uint64_t lost;
	char mem[LABELS_MAX];
	struct buf labels;

	buf_init_fixed(&labels, mem, sizeof(mem));
	metrics_label(&labels, "version", SV(POSTERN_VERSION));
	metrics_label(&labels, "name", sv_from_cstr(question->name));
	metrics_head(out, "postern_sampler_info", "gauge", "The sampler's version.");
	metrics_u64(out, "postern_sampler_info", "", buf_sv(&labels), 1);
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	metrics_one_seconds(out, "postern_sampler_cpu_seconds_total", "counter",
		"CPU time of the sampler's own thread.",
		(uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec);
	metrics_one(out, "postern_sampler_stops_total", "counter",
		"Times that one of the program's threads was held up to be sampled.",
		cost.stops);
	metrics_one_seconds(out, "postern_sampler_stop_seconds_total", "counter",
		"Time that the program's threads were held up.", cost.total_ns);
	metrics_one_seconds(out, "postern_sampler_stop_longest_seconds", "gauge",
		"Longest time that one of them was held up.", cost.longest_ns);
	metrics_one(out, "postern_sampler_records_dropped_total", "counter",
		"Records that found the ring full.", ring_dropped());
	metrics_one(out, "postern_sampler_trace_events_dropped_total", "counter",
		"Events that are in no trace: no room, or a client too slow.", trace_dropped());
	depot_stats(&stacks, &bytes, &lost);
	metrics_one(out, "postern_sampler_stacks", "gauge", "Distinct stacks kept.", stacks);
	metrics_one(
		out, "postern_sampler_stack_bytes", "gauge", "Memory used for them.", bytes);
	metrics_one(out, "postern_sampler_stacks_lost_total", "counter",
		"Stacks that found no room.", lost);
}

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	(void)capture;
	answer_text(question->arena, answer, BODY_MAX);
	if (answer->is_error)
		return ENDPOINT_ANSWERED;
	answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
	write_process(question->arena, &answer->body);
	write_regions(&answer->body);
	write_sampler(question, &answer->body);
	return ENDPOINT_ANSWERED;
}

const struct endpoint endpoint_metrics = { .name = "metrics", .ask = ask };
