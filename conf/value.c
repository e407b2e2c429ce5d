/*
 * value.c - durations, sizes and network addresses as they are written in the file.
 */
#include "conf/value.h"
#include "conf/schema.h"

static const struct {
	struct sv suffix;
	uint64_t factor;
} durations[] = {
	{ SV_INIT("ms"), 1 },
	{ SV_INIT("s"), 1000 },
	{ SV_INIT("m"), 60000 },
	{ SV_INIT("h"), 3600000 },
}, sizes[] = {
	{ SV_INIT("KiB"), UINT64_C(1) << 10 },
	{ SV_INIT("MiB"), UINT64_C(1) << 20 },
	{ SV_INIT("GiB"), UINT64_C(1) << 30 },
};

/* Split "15m" into 15 and "m". */
static bool split(struct sv text, uint64_t *number, struct sv *suffix)
{
	size_t digits = 0;

	while (digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9')
		digits++;
	*suffix = (struct sv){ text.ptr + digits, text.len - digits };
	return sv_to_u64((struct sv){ text.ptr, digits }, UINT64_MAX, number);
}

bool duration_parse(struct sv text, uint64_t *ms)
{
	struct sv suffix;

	if (!split(text, ms, &suffix))
		return false;
	for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
		if (sv_is(suffix, durations[i].suffix))
			return !__builtin_mul_overflow(*ms, durations[i].factor, ms);
	}
	return false;
}

bool size_parse(struct sv text, uint64_t *bytes)
{
	struct sv suffix;

	if (!split(text, bytes, &suffix))
		return false;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (sv_is(suffix, sizes[i].suffix))
			return !__builtin_mul_overflow(*bytes, sizes[i].factor, bytes);
	}
	return suffix.len == 0;
}

void duration_format(uint64_t ms, struct buf *out)
{
	size_t i = sizeof(durations) / sizeof(durations[0]) - 1;

	while (i > 0 && (ms == 0 ? i != 1 : ms % durations[i].factor != 0))
		i--;
	buf_add_u64(out, ms / durations[i].factor);
	buf_add_sv(out, durations[i].suffix);
}

void size_format(uint64_t bytes, struct buf *out)
{
	for (size_t i = sizeof(sizes) / sizeof(sizes[0]); i > 0; i--) {
		if (bytes > 0 && bytes % sizes[i - 1].factor == 0) {
			buf_add_u64(out, bytes / sizes[i - 1].factor);
			buf_add_sv(out, sizes[i - 1].suffix);
			return;
		}
	}
	buf_add_u64(out, bytes);
}

int endpoint_parse(struct sv text, struct addr *addr, uint16_t *port, struct err *err)
{
	const char *colon = text.len ? memrchr(text.ptr, ':', text.len) : NULL;
	size_t host_len = colon ? (size_t)(colon - text.ptr) : 0;
	struct sv host = { text.ptr, host_len };
	bool bracketed = host.len > 1 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
	uint64_t number;

	if (!colon ||
		!sv_to_u64((struct sv){ colon + 1, text.len - host_len - 1 }, 65535, &number))
		return err_set(err, ERR_INPUT,
			"it must be an address and a port: 127.0.0.1:6061 or [::1]:6061");
	if (bracketed)
		host = (struct sv){ host.ptr + 1, host.len - 2 };
	if (addr_parse(host, addr, err))
		return -1;
	if (bracketed == addr_is_v4(addr))
		return err_set(err, ERR_INPUT,
			"an IPv6 address stands in brackets, an IPv4 address does not");
	*port = (uint16_t)number;
	return 0;
}
