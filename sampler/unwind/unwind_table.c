#include "sampler/unwind/unwind_table.h"

#include <elf.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "sampler/proc/maps.h"
#include "sampler/proc/memory.h"
#include "sampler/unwind/unwind.h"

#define TABLES_MAX   4096
#define SEGMENTS_MAX 64
#define ARENA_BYTES  ((size_t)1 << 31)
#define FRAME_MAX    ((uint64_t)256 << 20)
#define GARBAGE_MAX  64

static _Atomic(struct table_set *) current;
static atomic_uint readers;
static atomic_bool missed;
static atomic_uintptr_t first_stack;

/* Unpublished memory that a walk may still be reading. Server thread only. */
static struct {
	void *memory;
	size_t bytes;
} garbage[GARBAGE_MAX];

static size_t garbage_len;

const struct table_set *table_set_enter_sigsafe(void)
{
	/* Sequentially consistent with collect(): either it sees this reader, or this reader sees
	 * the newer set. */
	atomic_fetch_add(&readers, 1);
	return atomic_load(&current);
}

void table_set_leave_sigsafe(void)
{
	atomic_fetch_sub(&readers, 1);
}

void table_set_note_miss_sigsafe(void)
{
	atomic_store_explicit(&missed, true, memory_order_relaxed);
}

bool unwind_is_stale(void)
{
	return atomic_load_explicit(&missed, memory_order_relaxed);
}

uintptr_t table_set_first_stack_sigsafe(void)
{
	uintptr_t known = atomic_load_explicit(&first_stack, memory_order_relaxed);

	if (!known) {
		/* The kernel's random bytes, above the arguments and below their texts. */
		known = getauxval(AT_RANDOM) & ~(uintptr_t)7;
		atomic_store_explicit(&first_stack, known, memory_order_relaxed);
	}
	return known;
}

static const struct table *find_table_sigsafe(const struct table_set *set, uintptr_t pc)
{
	size_t from = 0, to = set->len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (set->tables[middle]->start <= pc)
			from = middle + 1;
		else
			to = middle;
	}
	return from > 0 && pc < set->tables[from - 1]->limit ? set->tables[from - 1] : NULL;
}

bool table_set_covers_sigsafe(const struct table_set *set, uintptr_t pc)
{
	return find_table_sigsafe(set, pc) != NULL;
}

const struct unwind_row *table_set_find_sigsafe(
	const struct table_set *set, uintptr_t pc, const struct table **table)
{
	uint32_t offset, first, last;

	if (!*table || pc < (*table)->start || pc >= (*table)->limit)
		*table = find_table_sigsafe(set, pc);
	if (!*table)
		return NULL;
	offset = (uint32_t)(pc - (*table)->start);
	first = (*table)->index[offset >> TABLE_PAGE_SHIFT];
	last = (*table)->index[(offset >> TABLE_PAGE_SHIFT) + 1];
	while (first < last) {
		uint32_t middle = first + (last - first + 1) / 2;

		if ((*table)->rows[middle].pc <= offset)
			first = middle;
		else
			last = middle - 1;
	}
	return &(*table)->rows[first];
}

uint64_t table_set_find_rule_sigsafe(
	const struct table_set *set, uintptr_t pc, const struct table **table)
{
	const struct unwind_row *row = table_set_find_sigsafe(set, pc, table);
	bool next_begins;

	if (!row)
		return 0;
	next_begins = row + 1 < (*table)->rows + (*table)->rows_len &&
		      row[1].pc == pc + 1 - (*table)->start;
	return (uint64_t)(uint16_t)row->cfa | (uint64_t)(uint16_t)row->fp << 16 |
	       (uint64_t)(uint16_t)row_ra(row) << 32 | (uint64_t)row->kind << 48 |
	       RULE_IS_THERE | (next_begins ? RULE_NEXT_BEGINS : 0);
}

/* Free what was unpublished, if no walk is running: later walks cannot find it any more. */
static void collect(void)
{
	if (atomic_load(&readers) != 0)
		return;
	while (garbage_len > 0) {
		garbage_len--;
		(void)munmap(garbage[garbage_len].memory, garbage[garbage_len].bytes);
	}
}

static void discard(void *memory, size_t bytes)
{
	if (garbage_len == GARBAGE_MAX)
		collect();
	if (garbage_len == GARBAGE_MAX)
		return; /* leak it: readers that never leave are worse than lost memory */
	garbage[garbage_len].memory = memory;
	garbage[garbage_len].bytes = bytes;
	garbage_len++;
}

/* The program's memory, which may be unmapped meanwhile: the kernel copies, and says so. */
static bool copy_memory(uint64_t address, void *to, size_t len)
{
	return memory_copy(address, to, len) == len;
}

/* Where a mapped object's unwind information lies. */
struct object {
	uint64_t bias;          /* address in memory - address in the file */
	uint64_t frame_header;  /* in memory */
	uint64_t segment_limit; /* end of the segment that holds it, in memory */
};

static bool read_object(uint64_t image, struct object *out)
{
	Elf64_Phdr heads[SEGMENTS_MAX];
	uint64_t header_address = 0;
	bool based = false;
	Elf64_Ehdr head;

	if (!copy_memory(image, &head, sizeof(head)) ||
		memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_phnum > SEGMENTS_MAX ||
		head.e_phentsize != sizeof(heads[0]) ||
		!copy_memory(image + head.e_phoff, heads, head.e_phnum * sizeof(heads[0])))
		return false;
	for (size_t i = 0; i < head.e_phnum; i++) {
		if (heads[i].p_type == PT_LOAD && !based) {
			out->bias = image - (heads[i].p_vaddr - heads[i].p_offset);
			based = true;
		}
		if (heads[i].p_type == PT_GNU_EH_FRAME)
			header_address = heads[i].p_vaddr;
	}
	for (size_t i = 0; based && header_address && i < head.e_phnum; i++) {
		if (heads[i].p_type == PT_LOAD && header_address >= heads[i].p_vaddr &&
			header_address - heads[i].p_vaddr < heads[i].p_memsz) {
			out->frame_header = out->bias + header_address;
			out->segment_limit = out->bias + heads[i].p_vaddr + heads[i].p_memsz;
			return true;
		}
	}
	return false;
}

/* What .eh_frame_hdr begins with; the list follows. */
struct frame_head {
	uint8_t encodings[4];
	int32_t frame;
	uint32_t count;
};

/* Copy .eh_frame and the sorted list of its entries that .eh_frame_hdr holds. */
static bool copy_frame(struct arena *arena, const struct object *object, struct eh_frame *frame,
	int32_t (**pairs)[2], uint32_t *count)
{
	static const uint8_t usual[4] = { 1, 0x1b, 0x03, 0x3b };
	struct frame_head head;
	uint8_t *bytes;

	if (!copy_memory(object->frame_header, &head, sizeof(head)) ||
		memcmp(head.encodings, usual, sizeof(usual)) != 0)
		return false;
	frame->address = object->frame_header + 4 + (uint64_t)(int64_t)head.frame;
	if (frame->address >= object->segment_limit ||
		object->segment_limit - frame->address > FRAME_MAX ||
		head.count > FRAME_MAX / sizeof(**pairs))
		return false;
	frame->len = object->segment_limit - frame->address;
	bytes = arena_alloc(arena, frame->len);
	*pairs = arena_alloc(arena, head.count * sizeof(**pairs));
	*count = head.count;
	frame->bytes = bytes;
	return bytes && *pairs && copy_memory(frame->address, bytes, frame->len) &&
	       copy_memory(object->frame_header + sizeof(head), *pairs,
		       head.count * sizeof(**pairs));
}

static bool compile_rows(struct arena *arena, const struct object *object,
	struct eh_frame *frame, struct row_list *out, uint32_t *count)
{
	int32_t(*pairs)[2];
	uint64_t done = 0;

	if (!copy_frame(arena, object, frame, &pairs, count))
		return false;
	out->max = frame->len; /* each instruction is at least a byte */
	out->rows = arena_alloc(arena, out->max * sizeof(out->rows[0]));
	if (!out->rows)
		return false;
	out->rows[out->len++] = (struct unwind_row){ .kind = ROW_NONE };
	for (uint32_t i = 0; i < *count; i++) {
		uint64_t entry = object->frame_header + (uint64_t)(int64_t)pairs[i][1];
		struct eh_frame_range range = { .start = done };

		/* Two functions never share code: what overlaps is not to be believed. */
		if (entry >= frame->address && entry - frame->address < frame->len &&
			eh_frame_compile_one(frame, entry - frame->address, out, &range))
			done = range.limit;
	}
	return true;
}

static struct table *lay_out(
	const struct mapping *mapping, const struct unwind_row *rows, size_t rows_len)
{
	size_t pages = ((mapping->limit - mapping->start) >> TABLE_PAGE_SHIFT) + 2;
	size_t bytes =
		sizeof(struct table) + rows_len * sizeof(rows[0]) + pages * sizeof(uint32_t);
	struct table *table =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct unwind_row *kept;
	uint32_t *index, row = 0;

	if (table == MAP_FAILED)
		return NULL;
	kept = (struct unwind_row *)(table + 1);
	index = (uint32_t *)(kept + rows_len);
	memcpy(kept, rows, rows_len * sizeof(rows[0]));
	for (size_t page = 0; page < pages; page++) {
		while (row + 1 < rows_len && rows[row + 1].pc <= page << TABLE_PAGE_SHIFT)
			row++;
		index[page] = row;
	}
	*table = (struct table){ .start = mapping->start,
		.limit = mapping->limit,
		.inode = mapping->inode,
		.rows = kept,
		.index = index,
		.rows_len = rows_len,
		.bytes = bytes };
	return table;
}

/* A mapping without unwind information gets no table: frame pointers are followed there. */
static struct table *compile_table(
	struct arena *arena, const struct mapping *mapping, uint64_t image)
{
	struct eh_frame frame = { .base = mapping->start,
		.text_start = mapping->start,
		.text_limit = mapping->limit };
	struct row_list rows = { 0 };
	struct object object;
	size_t used = arena->used;
	struct table *table = NULL;
	uint32_t functions;

	if (mapping->limit - mapping->start < UINT32_MAX && read_object(image, &object) &&
		compile_rows(arena, &object, &frame, &rows, &functions))
		table = lay_out(mapping, rows.rows, rows.len);
	if (table) {
		table->frame_header = object.frame_header;
		table->functions = functions;
	}
	/* The next module writes over this one's scratch; all that it reads it writes before. */
	arena->used = used;
	return table;
}

/* The start of function number `index` of the object's list. */
static bool read_start(const struct table *table, uint32_t index, uintptr_t *start)
{
	int32_t pair[2];

	if (!copy_memory(table->frame_header + sizeof(struct frame_head) + index * sizeof(pair),
		    pair, sizeof(pair)))
		return false;
	*start = table->frame_header + (uint64_t)(int64_t)pair[0];
	return true;
}

bool table_find_function(
	const struct table *table, uintptr_t pc, uintptr_t *start, uintptr_t *limit)
{
	uint32_t from = 0, to = table->functions;
	uintptr_t found;

	*start = 0;
	*limit = table->limit;
	while (from < to) {
		uint32_t middle = from + (to - from) / 2;

		if (!read_start(table, middle, &found))
			return false;
		if (found <= pc) {
			*start = found;
			from = middle + 1;
		} else {
			*limit = found;
			to = middle;
		}
	}
	return *start != 0;
}

static struct table *find_known(const struct table_set *set, const struct mapping *mapping)
{
	for (size_t i = 0; set && i < set->len; i++) {
		struct table *table = set->tables[i];

		if (table->start == mapping->start && table->limit == mapping->limit &&
			table->inode == mapping->inode)
			return table;
	}
	return NULL;
}

static bool holds(const struct table_set *set, const struct table *table)
{
	for (size_t i = 0; i < set->len; i++) {
		if (set->tables[i] == table)
			return true;
	}
	return false;
}

static void gather(
	struct arena *arena, struct sv maps, const struct table_set *old, struct table_set *set)
{
	struct mapping mapping, image = { 0 };

	while (set->len < TABLES_MAX && maps_next(&maps, &mapping)) {
		struct table *table;

		/* What lies in the gaps between an object's segments is no other object. */
		if (mapping.path.len == 0)
			continue;
		/* An object's first mapping has its ELF head. (The same file may be mapped twice.) */
		if (mapping.inode != image.inode || !sv_is(mapping.path, image.path) ||
			(mapping.file_offset == 0 && !mapping.writable))
			image = mapping;
		if (!mapping.executable || sv_is(mapping.path, SV("[vsyscall]")))
			continue;
		table = find_known(old, &mapping);
		if (!table)
			table = compile_table(arena, &mapping, image.start);
		if (table)
			set->tables[set->len++] = table;
	}
}

static void publish(struct table_set *set)
{
	struct table_set *old = atomic_exchange(&current, set);

	for (size_t i = 0; old && i < old->len; i++) {
		if (!set || !holds(set, old->tables[i]))
			discard(old->tables[i], old->tables[i]->bytes);
	}
	if (old)
		discard(old, old->bytes);
	collect();
}

int unwind_refresh(struct err *err)
{
	size_t list = sizeof(struct table_set) + TABLES_MAX * sizeof(struct table *);
	size_t bytes = list + sizeof(struct row_cache);
	struct table_set *set;
	struct arena arena;
	struct sv maps;

	atomic_store(&missed, false);
	if (arena_open(&arena, ARENA_BYTES))
		return err_set(err, ERR_NOMEM, "no address space for compiling unwind tables");
	set = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (set == MAP_FAILED || maps_read(&arena, &maps)) {
		if (set != MAP_FAILED)
			(void)munmap(set, bytes);
		arena_close(&arena);
		return err_set(err, ERR_SYSTEM, "/proc/self/maps cannot be read");
	}
	set->bytes = bytes;
	set->rows = (struct row_cache *)(set->tables + TABLES_MAX);
	memory_begin();
	gather(&arena, maps, atomic_load(&current), set);
	memory_end();
	publish(set);
	arena_close(&arena);
	return 0;
}

void unwind_forget(void)
{
	publish(NULL);
}

void unwind_after_fork(void)
{
	atomic_store(&readers, 0);
}

void unwind_stats(size_t *rows, size_t *bytes)
{
	const struct table_set *set = table_set_enter_sigsafe();

	*rows = *bytes = 0;
	for (size_t i = 0; set && i < set->len; i++) {
		*rows += set->tables[i]->rows_len;
		*bytes += set->tables[i]->bytes;
	}
	table_set_leave_sigsafe();
}
