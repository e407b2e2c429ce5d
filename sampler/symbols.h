/*
 * symbols.h - names for addresses, from the ELF files on disk, in the server thread only.
 *
 * Own reader of .symtab and .dynsym (and the vdso from memory); no loader call, no allocation from
 * the program's heap.  An address without a symbol is named "module+0xoffset", never left empty.
 * Addresses shown to the outside lie on made-up module bases (see contract): symbols_public().
 */
#ifndef SAMPLER_SYMBOLS_H
#define SAMPLER_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/arena.h"

struct symbols; /* one snapshot of the process's mappings, lives in an arena */

struct symbol {
	const char
		*name; /* demangled where it is C++ or Rust and we can, else as in the file */
	const char *linkage_name; /* as in the file */
	uint64_t offset;          /* of the address from the symbol's start */
	uint64_t address;         /* the address, moved to its module's made-up base */
	size_t module;            /* index of symbols_module() */
};

struct module {
	const char *path;  /* "/usr/lib/…", "[vdso]", "" for code without a file */
	char build_id[65]; /* lower-case hex, or "" */
	uint64_t start, limit, file_offset; /* of its executable mapping, on the made-up base */
};

/* Read /proc/self/maps. */
int symbols_open(struct arena *arena, struct symbols **out, struct err *err);

void symbols_find(struct symbols *symbols, uintptr_t address, struct symbol *out);
size_t symbols_modules(const struct symbols *symbols);
const struct module *symbols_module(const struct symbols *symbols, size_t index);

/* The other way round: an outside address of this process's run back to the real one; false when it
 * is on no module. */
bool symbols_real(const struct symbols *symbols, uint64_t outside, uintptr_t *real);

#endif
