/*
 * cpu_perf.c - samples from perf events: the kernel copies registers and stack into a ring, and the server
 * thread walks the copy.  The sampled thread gets no signal, and notices nothing.
 */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "sampler/collect/cpu_source.h"
#include "sampler/collect/perf.h"
#include "sampler/proc/memory.h"
#include "sampler/store/depot.h"

#define MORE_BYTES  ((size_t)256 << 10)
#define PARTS_MAX   4
#define STACK_FIRST ((uint32_t)32 << 10)
#define RING_LEAST  ((size_t)256 << 10)
#define RING_MOST   ((size_t)4 << 20)
#define RING_NS     125000000 /* of one busy CPU, that a ring shall hold */
/* What may be locked without a privilege, kernel.perf_event_mlock_kb, has room for this and a page. More would be
 * taken from what the program may lock itself. */
#define RING_UNPRIVILEGED ((size_t)512 << 10)

static struct {
	struct perf *perf;
	uint64_t period_ns;
	bool was_cut;          /* a stack, so that its walk came to nothing */
	char more[MORE_BYTES]; /* of a stack */
} source;

/* What was enough for stacks so far. */
static uint32_t stack_bytes = STACK_FIRST;

/*
 * What lies on another stack, below a signal handler's, or further up than what was copied, is read now, a few
 * milliseconds later: frames so far out seldom change.  As far as there is a copy, it must be the same still.
 */
static size_t read_on(const struct perf_sample *sample, const struct unwind_regs *rest)
{
	uintptr_t from = rest->reg[ARCH_SP], copied = from - sample->regs.reg[ARCH_SP];
	size_t got;

	got = memory_copy(from, source.more, MORE_BYTES);
	if (copied < sample->stack_bytes &&
		(got < sample->stack_bytes - copied ||
			memcmp(source.more, (const char *)sample->stack + copied,
				sample->stack_bytes - copied) != 0))
		return 0;
	return got;
}

/* Go on with what is there now. False when nothing came of it. */
static bool go_on(
	const struct perf_sample *sample, struct unwind_part *part, enum unwind_end *end)
{
	size_t got = read_on(sample, &part->rest), more;
	struct unwind_part next;

	if (got == 0)
		return false;
	*end = unwind_walk_part(&part->rest, source.more, got, &next);
	/* The depot's way, but for the first, which comes later: like return addresses. */
	if (part->len > 1 && !part->rest.pc_is_return)
		next.pcs[0]++;
	part->len--;
	more = UNWIND_DEPTH_MAX - part->len;
	if (next.len > more)
		*end = UNWIND_DEPTH;
	else
		more = next.len;
	memcpy(part->pcs + part->len, next.pcs, more * sizeof(next.pcs[0]));
	part->len += more;
	part->rest = next.rest;
	return true;
}

static uint32_t walk(const struct perf_sample *sample)
{
	struct unwind_part part;
	enum unwind_end end =
		unwind_walk_part(&sample->regs, sample->stack, sample->stack_bytes, &part);

	for (unsigned i = 0; i < PARTS_MAX && part.len > 0 && part.rest.valid; i++) {
		if (!go_on(sample, &part, &end))
			break;
	}
	if (part.rest.valid && sample->is_cut)
		source.was_cut = true;
	if (part.len == 0)
		return 0;
	part.pcs[0]++;
	return depot_put_sigsafe(part.pcs, part.len, end);
}

static void take_sample(void *to, const struct perf_sample *sample)
{
	(void)to;
	cpu_take_hit(&(struct cpu_hit){ .tid = sample->tid,
		.stack = sample->has_regs ? walk(sample) : 0,
		.time_ns = sample->time_ns,
		.ns = sample->period_ns,
		.phase = sample->cpu + 1 });
}

static void take_lost(void *to, uint64_t records)
{
	(void)to;
	cpu_take_lost(records * source.period_ns);
}

/* A power of two. */
static size_t ring_bytes(uint64_t period_ns)
{
	size_t most = geteuid() == 0 ? RING_MOST : RING_UNPRIVILEGED, bytes = RING_LEAST;
	uint64_t want = RING_NS / period_ns * stack_bytes;

	while (bytes < want && bytes < most)
		bytes *= 2;
	return bytes;
}

static unsigned limit_hz(void)
{
	return CPU_HZ_MAX;
}

static int probe(struct err *err)
{
	if (perf_is_risky())
		return err_set(err, ERR_DENIED,
			"a seccomp filter is there, and may punish the attempt");
	if (perf_probe(false, err) == 0)
		return 0;
	return cpu_is_forced() ? perf_probe(true, err) : -1;
}

static int open_perf(uint64_t period_ns, bool user_only, struct err *err)
{
	static const struct perf_told told = { .sample = take_sample, .lost = take_lost };
	const struct perf_wanted wanted = { .period_ns = period_ns,
		.stack_bytes = stack_bytes,
		.user_only = user_only,
		.ring_bytes = ring_bytes(period_ns) };

	source.period_ns = period_ns;
	source.was_cut = false;
	source.perf = perf_open(&wanted, &told, NULL, err);
	return source.perf ? 0 : -1;
}

static int start(uint64_t period_ns, struct err *err)
{
	bool user_only;

	if (probe(err))
		return -1;
	user_only = perf_probe(false, err) != 0;
	if (open_perf(period_ns, user_only, err))
		return -1;
	memory_begin();
	if (user_only)
		cpu_note("perf: without the time in the kernel, which it may not see");
	return 0;
}

static void stop(void)
{
	if (!source.perf)
		return;
	perf_close(source.perf);
	source.perf = NULL;
	memory_end();
}

static int set_period(uint64_t period_ns, struct err *err)
{
	source.period_ns = period_ns;
	if (perf_set_period(source.perf, period_ns))
		return err_sys(err, "perf events");
	return 0;
}

/* Longer copies of the stacks from now on. */
static int grow(struct err *err)
{
	stack_bytes = stack_bytes * 2 < PERF_STACK_MAX ? stack_bytes * 2 : PERF_STACK_MAX;
	stop();
	cpu_begin_phases();
	return start(source.period_ns, err);
}

static int poll_perf(uint64_t now, struct err *err)
{
	perf_poll(source.perf, now);
	if (source.was_cut && stack_bytes < PERF_STACK_MAX)
		return grow(err);
	return 0;
}

static int descriptor(void)
{
	return perf_descriptor(source.perf);
}

const struct cpu_source cpu_perf = {
	.name = "perf",
	.limit_hz = limit_hz,
	.probe = probe,
	.start = start,
	.set_period = set_period,
	.stop = stop,
	.poll = poll_perf,
	.descriptor = descriptor,
	.needs_labels = true,
};
