#include "sampler/collect/perf_ring.h"

#include <string.h>

#include "sampler/unwind/cursor.h"

#define ID_BYTES ((size_t)32) /* pid, tid; time; cpu and a reserved word; identifier */

_Static_assert(sizeof(arch_perf_regs) <= 64, "registers have a bit each in the mask");

static void read_regs(struct cursor *record, struct perf_sample *out)
{
	uint64_t abi = cursor_u64(record);

	out->has_regs = abi == PERF_SAMPLE_REGS_ABI_64;
	out->regs = (struct unwind_regs){ .valid = UINT32_MAX >> (32 - ARCH_REGS) };
	for (size_t i = 0; abi != PERF_SAMPLE_REGS_ABI_NONE && i < sizeof(arch_perf_regs);
		i++) {
		uintptr_t value = cursor_u64(record);

		if (arch_perf_regs[i] == ARCH_PERF_PC)
			out->regs.pc = value;
		else
			out->regs.reg[arch_perf_regs[i]] = value;
	}
}

static void read_stack(struct cursor *record, struct perf_sample *out)
{
	uint64_t asked = cursor_u64(record), got;
	struct cursor bytes = cursor_sub(record, asked);

	got = asked ? cursor_u64(record) : 0;
	if (got > asked)
		record->broken = true;
	out->stack = bytes.at;
	out->stack_bytes = record->broken ? 0 : (size_t)got;
	out->is_cut = got > 0 && got == asked;
}

/* The fields come in the order of their bits in sample_type, but for the identifier. */
static bool read_sample(struct cursor record, uint16_t misc, struct perf_ring_record *out)
{
	struct perf_sample *sample = &out->sample;
	unsigned mode = misc & PERF_RECORD_MISC_CPUMODE_MASK;

	out->event = cursor_u64(&record);
	(void)cursor_u64(&record); /* instruction pointer: of the kernel, if there */
	out->pid = cursor_u32(&record);
	sample->tid = cursor_u32(&record);
	out->time_ns = sample->time_ns = cursor_u64(&record);
	sample->cpu = cursor_u32(&record);
	(void)cursor_u32(&record);
	sample->period_ns = cursor_u64(&record);
	sample->in_kernel = mode != PERF_RECORD_MISC_USER;
	read_regs(&record, sample);
	read_stack(&record, sample);
	out->kind = PERF_RING_TAKEN;
	return !record.broken;
}

struct id {
	uint32_t pid, tid, cpu;
	uint64_t time, event;
};

static bool read_id(struct cursor *record, struct id *out)
{
	struct cursor id = *record;

	if ((size_t)(id.end - id.at) < ID_BYTES)
		return false;
	record->end -= ID_BYTES;
	id.at = record->end;
	out->pid = cursor_u32(&id);
	out->tid = cursor_u32(&id);
	out->time = cursor_u64(&id);
	out->cpu = cursor_u32(&id);
	(void)cursor_u32(&id);
	out->event = cursor_u64(&id);
	return true;
}

static void read_thread(struct cursor *record, bool begins, struct perf_ring_record *out)
{
	out->kind = PERF_RING_THREAD;
	out->pid = cursor_u32(record);
	(void)cursor_u32(record); /* its parent's pid */
	out->thread.tid = cursor_u32(record);
	out->thread.parent = cursor_u32(record);
	out->thread.time_ns = cursor_u64(record);
	out->thread.begins = begins;
}

static bool read_other(
	struct cursor record, uint32_t type, uint16_t misc, struct perf_ring_record *out)
{
	struct id id = { 0 };

	if (!read_id(&record, &id))
		return false;
	out->pid = id.pid;
	out->event = id.event;
	out->time_ns = id.time;
	switch (type) {
	case PERF_RECORD_SWITCH:
		out->kind = PERF_RING_SWITCH;
		out->change = (struct perf_switch){ .tid = id.tid,
			.cpu = id.cpu,
			.time_ns = id.time,
			.on = !(misc & PERF_RECORD_MISC_SWITCH_OUT),
			.preempted = misc & PERF_RECORD_MISC_SWITCH_OUT &&
				     misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT };
		break;
	case PERF_RECORD_FORK:
	case PERF_RECORD_EXIT:
		read_thread(&record, type == PERF_RECORD_FORK, out);
		break;
	case PERF_RECORD_LOST:
		(void)cursor_u64(&record); /* the event */
		out->lost = cursor_u64(&record);
		out->kind = PERF_RING_LOST;
		break;
	default:
		break;
	}
	return !record.broken;
}

/* The bytes at a position, put together when they lie across the end. */
static const void *bytes_at(
	const uint8_t *data, size_t size, uint64_t at, size_t len, uint8_t *scratch)
{
	size_t from = (size_t)(at & (size - 1)), first = size - from;

	if (first >= len)
		return data + from;
	memcpy(scratch, data + from, first);
	memcpy(scratch + first, data, len - first);
	return scratch;
}

bool perf_ring_next(const void *data, size_t size, uint64_t head, uint64_t *tail, void *scratch,
	struct perf_ring_record *out)
{
	struct perf_event_header header;
	struct cursor record;
	uint64_t left = head - *tail;
	bool whole;

	memset(out, 0, sizeof(*out));
	if (left == 0)
		return false;
	if (left > size || left < sizeof(header)) {
		*tail = head;
		return true;
	}
	memcpy(&header, bytes_at(data, size, *tail, sizeof(header), scratch), sizeof(header));
	if (header.size < sizeof(header) || header.size > left) {
		*tail = head; /* where the next one begins nobody knows */
		return true;
	}
	record.at = bytes_at(data, size, *tail, header.size, scratch);
	record.end = record.at + header.size;
	record.at += sizeof(header);
	record.broken = false;
	*tail += header.size;
	whole = header.type == PERF_RECORD_SAMPLE
			? read_sample(record, header.misc, out)
			: read_other(record, header.type, header.misc, out);
	if (!whole)
		*out = (struct perf_ring_record){ .kind = PERF_RING_OTHER };
	return true;
}
