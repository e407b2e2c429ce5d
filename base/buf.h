/*
 * buf.h - a byte buffer that cannot grow past a stated maximum.
 *
 * The first append that does not fit (or for which there is no memory) marks
 * the buffer as failed; every later append then does nothing.  So a writer
 * appends freely and looks at `failed` once, at the end.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sv.h"

struct buf {
	char *ptr;   /* bytes written so far; not NUL-terminated */
	size_t len;  /* how many */
	size_t cap;  /* private: bytes that `ptr` has room for */
	size_t max;  /* len never exceeds this */
	bool fixed;  /* private: `ptr` is the caller's storage */
	bool failed; /* an append did not fit; ptr and len hold what did */
};

/* A buffer on the heap, nothing allocated yet. To be freed with buf_free(). */
void buf_init(struct buf *buf, size_t max);

/* A buffer in storage that the caller keeps; never allocates. buf_free() leaves it alone. */
void buf_init_fixed(struct buf *buf, void *mem, size_t size);

void buf_free(struct buf *buf);

/* Forget the contents, keep the memory, clear `failed`. */
void buf_clear(struct buf *buf);

void buf_add(struct buf *buf, const void *bytes, size_t len);
void buf_add_sv(struct buf *buf, struct sv v);
void buf_add_cstr(struct buf *buf, const char *s);
void buf_add_byte(struct buf *buf, char byte);
void buf_add_u64(struct buf *buf, uint64_t n);
void buf_printf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Drop the first `len` bytes, moving the rest to the front. */
void buf_drop(struct buf *buf, size_t len);

/* Make room for `len` more bytes and return where they go; NULL (and failed) when they do not
 * fit. Follow with buf_commit() of what was written there. */
char *buf_reserve(struct buf *buf, size_t len);
void buf_commit(struct buf *buf, size_t len);

static inline struct sv buf_sv(const struct buf *buf)
{
	return (struct sv){ buf->ptr, buf->len };
}

#endif
