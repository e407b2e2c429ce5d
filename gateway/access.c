#include "gateway/access.h"

#include "gateway/switch.h"

/* Saturating just below "no limit". */
static uint64_t later(uint64_t when_ms, uint64_t by_ms)
{
	uint64_t sum;

	if (__builtin_add_overflow(when_ms, by_ms, &sum) || sum == SWITCH_NO_LIMIT)
		return SWITCH_NO_LIMIT - 1;
	return sum;
}

bool access_open(
	struct access_window *window, uint64_t now_ms, uint64_t ttl_ms, uint64_t max_ttl_ms)
{
	uint64_t end_ms = ttl_ms == 0 ? SWITCH_NO_LIMIT : later(now_ms, ttl_ms);
	uint64_t last_ms;

	/* An end that passed without anybody having noticed yet is the end. */
	if (window->until_ms <= now_ms)
		*window = (struct access_window){ .opened_ms = now_ms };
	last_ms = later(window->opened_ms, max_ttl_ms);
	if (ttl_ms != 0 && end_ms > last_ms)
		end_ms = last_ms;
	if (end_ms <= window->until_ms)
		return false;
	window->until_ms = end_ms;
	return true;
}

void access_cap(struct access_window *window, uint64_t max_ttl_ms)
{
	uint64_t last_ms = later(window->opened_ms, max_ttl_ms);

	if (window->until_ms != SWITCH_NO_LIMIT && window->until_ms > last_ms)
		window->until_ms = last_ms;
}

void access_close(struct access_window *window)
{
	*window = (struct access_window){ 0 };
}
