#include "sampler/store/log.h"

#include <stdatomic.h>

#define LINES ((size_t)1024) /* a power of two */

/* `number` is the line's own while its text is whole, 0 while it is being written. */
static struct line {
	_Atomic uint64_t number;
	_Atomic uint32_t len;
	_Atomic uint8_t text[LOG_TEXT_MAX];
} lines[LINES];

static _Atomic uint64_t last;

uint64_t log_put_sigsafe(struct sv text)
{
	uint64_t number = atomic_fetch_add(&last, 1) + 1;
	struct line *line = &lines[number & (LINES - 1)];
	size_t len = text.len < LOG_TEXT_MAX ? text.len : LOG_TEXT_MAX;

	atomic_store(&line->number, 0);
	atomic_thread_fence(memory_order_release);
	atomic_store_explicit(&line->len, (uint32_t)len, memory_order_relaxed);
	for (size_t i = 0; i < len; i++)
		atomic_store_explicit(
			&line->text[i], (uint8_t)text.ptr[i], memory_order_relaxed);
	atomic_store_explicit(&line->number, number, memory_order_release);
	return number;
}

bool log_get(uint64_t number, char out[static LOG_TEXT_MAX], size_t *len)
{
	struct line *line = &lines[number & (LINES - 1)];

	*len = 0;
	if (number == 0 || atomic_load_explicit(&line->number, memory_order_acquire) != number)
		return false;
	*len = atomic_load_explicit(&line->len, memory_order_relaxed);
	for (size_t i = 0; i < *len; i++)
		out[i] = (char)atomic_load_explicit(&line->text[i], memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&line->number, memory_order_relaxed) == number;
}
