/*
 * sv.h - string views.
 *
 * A view borrows bytes that somebody else owns.  It is never NUL-terminated
 * by contract, never freed, and never outlives the buffer it points into.
 */
#ifndef BASE_SV_H
#define BASE_SV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct sv {
	const char *ptr;
	size_t len;
};

#define SV(lit) ((struct sv){ "" lit, sizeof(lit) - 1 })
/* The same where a constant is asked for: in a static table. */
#define SV_INIT(lit)                    \
	{                               \
		"" lit, sizeof(lit) - 1 \
	}

#define SV_FMT    "%.*s"
#define SV_ARG(v) (int)(v).len, (v).ptr

static inline struct sv sv_from_cstr(const char *s)
{
	return (struct sv){ s, strlen(s) };
}

static inline bool sv_is(struct sv a, struct sv b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Cut `rest` at the first `sep`: return the part before, keep the part after.
 * Without a `sep`, return everything and leave `rest` empty. */
struct sv sv_cut(struct sv *rest, char sep);

/* Drop spaces and tabs at both ends. */
struct sv sv_trim(struct sv v);

bool sv_starts_with(struct sv v, struct sv prefix);

/* Equal when the letters A to Z count as a to z. */
bool sv_is_nocase(struct sv a, struct sv b);

/* Read a whole decimal number: digits only, no leading zero, at most `max`. */
bool sv_to_u64(struct sv v, uint64_t max, uint64_t *out);

/* Copy into `buf` as a C string, for the libraries that insist on one.
 * False when it does not fit or holds a NUL, which would cut it short. */
bool sv_to_cstr(struct sv v, char *buf, size_t size);

#endif
