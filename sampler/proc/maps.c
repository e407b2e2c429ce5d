#include "sampler/proc/maps.h"

#include <fcntl.h>
#include <unistd.h>

#define MAPS_BYTES_MAX ((size_t)16 << 20)

int maps_read(struct arena *arena, struct sv *text)
{
	struct buf buf;
	int file;

	if (arena_buf(arena, MAPS_BYTES_MAX, &buf))
		return -1;
	file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	while (buf.len < buf.max) {
		ssize_t got = read(file, buf.ptr + buf.len, buf.max - buf.len);

		if (got <= 0)
			break;
		buf.len += (size_t)got;
	}
	(void)close(file);
	*text = buf_sv(&buf);
	return buf.len > 0 ? 0 : -1;
}

static bool cut_hex(struct sv *rest, char end, uint64_t *out)
{
	struct sv digits = sv_cut(rest, end);

	*out = 0;
	if (digits.len == 0 || digits.len > 16)
		return false;
	for (size_t i = 0; i < digits.len; i++) {
		char c = digits.ptr[i];
		unsigned value = c >= 'a' ? (unsigned)(c - 'a') + 10 : (unsigned)(c - '0');

		if (value > 15)
			return false;
		*out = *out << 4 | value;
	}
	return true;
}

/* "7f12a000-7f12c000 r-xp 00001000 fe:01 1234    /usr/lib/libx.so" (proc(5)) */
static bool parse_line(struct sv line, struct mapping *out)
{
	static const struct sv deleted = SV_INIT(" (deleted)");
	uint64_t device_major, device_minor;
	struct sv mode;

	if (!cut_hex(&line, '-', &out->start) || !cut_hex(&line, ' ', &out->limit))
		return false;
	mode = sv_cut(&line, ' ');
	if (mode.len != 4 || !cut_hex(&line, ' ', &out->file_offset) ||
		!cut_hex(&line, ':', &device_major) || !cut_hex(&line, ' ', &device_minor) ||
		!sv_to_u64(sv_cut(&line, ' '), UINT64_MAX, &out->inode))
		return false;
	out->readable = mode.ptr[0] == 'r';
	out->writable = mode.ptr[1] == 'w';
	out->executable = mode.ptr[2] == 'x';
	out->device_major = (uint32_t)device_major;
	out->device_minor = (uint32_t)device_minor;
	while (line.len > 0 && line.ptr[0] == ' ') {
		line.ptr++;
		line.len--;
	}
	out->deleted = line.len > deleted.len &&
		       memcmp(line.ptr + line.len - deleted.len, deleted.ptr, deleted.len) == 0;
	if (out->deleted)
		line.len -= deleted.len;
	out->path = line;
	return true;
}

bool maps_next(struct sv *text, struct mapping *out)
{
	while (text->len > 0) {
		if (parse_line(sv_cut(text, '\n'), out))
			return true;
	}
	return false;
}
