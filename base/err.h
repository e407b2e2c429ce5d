/*
 * err.h - why a call failed, in words an operator can act on.
 *
 * The caller owns `struct err`, normally on its stack.  A function that
 * returns -1 has filled it in; one that returns 0 has not touched it.  No
 * allocation, so reporting "out of memory" cannot itself run out of memory.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum err_kind {
	ERR_NONE = 0,
	ERR_INPUT,  /* what we were given is wrong: fix the file or request */
	ERR_DENIED, /* understood, and refused by policy */
	ERR_PEER,   /* the other side broke the protocol or went away */
	ERR_SYSTEM, /* the kernel or a library said no */
	ERR_NOMEM,
};

struct err {
	enum err_kind kind;
	char text[256];
};

/* Set kind and text; always returns -1, so `return err_set(...)` reads well. */
int err_set(struct err *err, enum err_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As err_set() with ERR_SYSTEM, appending ": " and strerror(errno). */
int err_sys(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put context in front of an error already set: "line 3: bad prefix length". */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
