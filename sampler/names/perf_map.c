#include "sampler/names/perf_map.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

#define FILE_BYTES_MAX ((size_t)32 << 20)
#define NAME_MAX_LEN   256
#define LOOK_BACK      8 /* pieces that begin later, but end before the address */

static bool cut_hex(struct sv *rest, uint64_t *out)
{
	struct sv digits = sv_cut(rest, ' ');

	*out = 0;
	for (size_t i = 0; i < digits.len; i++) {
		char c = (char)(digits.ptr[i] | 0x20);
		unsigned value = c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
						      : (unsigned char)digits.ptr[i] - 48U;

		if (value > 15 || digits.len > 16 || (c < 'a' && value > 9))
			return false;
		*out = *out << 4 | value;
	}
	return digits.len > 0;
}

static bool parse_line(struct sv line, struct arena *arena, struct perf_map_entry *out)
{
	uint64_t end;
	char *name;

	if (!cut_hex(&line, &out->start) || !cut_hex(&line, &out->size) || out->size == 0 ||
		__builtin_add_overflow(out->start, out->size, &end))
		return false;
	line = sv_trim(line);
	if (line.len == 0)
		return false;
	if (line.len > NAME_MAX_LEN)
		line.len = NAME_MAX_LEN;
	name = arena_strndup(arena, line.ptr, line.len);
	for (size_t i = 0; name && i < line.len; i++) {
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			name[i] = '?';
	}
	out->name = name;
	return name != NULL;
}

static bool is_before(const struct perf_map_entry *a, const struct perf_map_entry *b)
{
	/* What stands later in the file was written later, and its name lies behind. */
	return a->start < b->start || (a->start == b->start && a->name < b->name);
}

static void sift_down(struct perf_map_entry *heap, size_t at, size_t len)
{
	struct perf_map_entry moving = heap[at];

	for (size_t child = 2 * at + 1; child < len; child = 2 * at + 1) {
		if (child + 1 < len && is_before(&heap[child], &heap[child + 1]))
			child++;
		if (!is_before(&moving, &heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = moving;
}

/* Heap sort: qsort() may take memory from the program's heap. */
static void sort(struct perf_map_entry *entries, size_t len)
{
	for (size_t i = len / 2; i > 0; i--)
		sift_down(entries, i - 1, len);
	for (size_t i = len; i > 1; i--) {
		struct perf_map_entry last = entries[i - 1];

		entries[i - 1] = entries[0];
		entries[0] = last;
		sift_down(entries, 0, i - 1);
	}
}

void perf_map_parse(struct sv text, struct arena *arena, struct perf_map *out)
{
	size_t lines = 1;

	for (size_t i = 0; i < text.len; i++)
		lines += text.ptr[i] == '\n';
	*out = (struct perf_map){ arena_alloc(arena, lines * sizeof(*out->entries)), 0 };
	while (out->entries && text.len > 0) {
		if (parse_line(sv_cut(&text, '\n'), arena, &out->entries[out->len]))
			out->len++;
	}
	if (out->len > 0)
		sort(out->entries, out->len);
}

static bool is_ours(int file, size_t *size)
{
	struct stat status;

	if (fstat(file, &status) || !S_ISREG(status.st_mode) ||
		(status.st_uid != 0 && status.st_uid != geteuid()))
		return false;
	*size = status.st_size < (off_t)FILE_BYTES_MAX ? (size_t)status.st_size
						       : FILE_BYTES_MAX;
	return true;
}

void perf_map_read(struct arena *arena, struct perf_map *out)
{
	char path[64];
	struct buf text;
	size_t size = 0;
	ssize_t got;
	int file;

	*out = (struct perf_map){ 0 };
	buf_init_fixed(&text, path, sizeof(path));
	buf_add_cstr(&text, "/tmp/perf-");
	buf_add_u64(&text, (uint64_t)getpid());
	buf_add(&text, ".map", 5);
	file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (file < 0)
		return;
	if (is_ours(file, &size) && size > 0 && arena_buf(arena, size, &text) == 0) {
		while (text.len < size &&
			(got = read(file, text.ptr + text.len, size - text.len)) > 0)
			text.len += (size_t)got;
		perf_map_parse(buf_sv(&text), arena, out);
	}
	(void)close(file);
}

const struct perf_map_entry *perf_map_find(const struct perf_map *map, uint64_t address)
{
	size_t from = 0, to = map->len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (map->entries[middle].start <= address)
			from = middle + 1;
		else
			to = middle;
	}
	for (size_t i = from; i > 0 && from - i < LOOK_BACK; i--) {
		if (address - map->entries[i - 1].start < map->entries[i - 1].size)
			return &map->entries[i - 1];
	}
	return NULL;
}
