/*
 * demangle.h - the names that compilers make, back in the words of their language: C++ (Itanium ABI)
 * and Rust (legacy and v0).
 *
 * By libiberty, which gdb and perf use, too (LGPL; its demanglers with leave to be linked with
 * anything), in this program only: whatever a hostile name does to it, the profiled program is another.
 */
#ifndef SAMPLER_LINES_DEMANGLE_H
#define SAMPLER_LINES_DEMANGLE_H

/* A text to free(), without parameters and return type, which flame graphs have no room for; NULL
 * when the name is none of those. */
char *demangle(const char *name);

#endif
