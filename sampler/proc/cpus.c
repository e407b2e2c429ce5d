#include "sampler/proc/cpus.h"

#include <fcntl.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

size_t cpus_parse(struct sv text, uint32_t *out, size_t max)
{
	size_t len = 0;

	text = sv_trim(sv_cut(&text, '\n'));
	while (text.len > 0) {
		struct sv part = sv_cut(&text, ','), first = sv_cut(&part, '-');
		uint64_t from, to;

		if (!sv_to_u64(first, UINT32_MAX, &from))
			break;
		if (part.len == 0)
			to = from;
		else if (!sv_to_u64(part, UINT32_MAX, &to))
			break;
		for (; from <= to && len < max; from++)
			out[len++] = (uint32_t)from;
	}
	return len;
}

static size_t allowed(uint32_t *out, size_t max)
{
	cpu_set_t set;
	size_t len = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 0;
	for (uint32_t i = 0; i < CPU_SETSIZE && len < max; i++) {
		if (CPU_ISSET(i, &set))
			out[len++] = i;
	}
	return len;
}

size_t cpus_online(uint32_t *out, size_t max)
{
	int file = open("/sys/devices/system/cpu/online", O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t got = file < 0 ? 0 : read(file, text, sizeof(text));
	size_t len = got > 0 ? cpus_parse((struct sv){ text, (size_t)got }, out, max) : 0;

	if (file >= 0)
		(void)close(file);
	return len > 0 ? len : allowed(out, max);
}

unsigned cpus_tick_hz(void)
{
	struct timespec tick = { 0 };

	/* The coarse clocks move with each tick. */
	if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) || tick.tv_sec > 0 || tick.tv_nsec <= 0)
		return 100;
	return (unsigned)((1000000000 + tick.tv_nsec / 2) / tick.tv_nsec);
}
