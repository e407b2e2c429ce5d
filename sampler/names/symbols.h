/*
 * symbols.h - names for addresses, from the ELF files on disk, in the server thread only.
 *
 * Own reader of .symtab and .dynsym (and the vdso from memory); no loader call, no allocation from
 * the program's heap.  Code without a symbol is named after its function's start as .eh_frame_hdr
 * has it, else after itself: "module+0xoffset"; a name is never empty.
 *
 * Addresses that go outside lie on made-up module bases, so that no reader learns the program's
 * real layout: module number N (in the order in which this process first met them) lies at
 * N << 40.  They stay the same for the life of the process.
 */
#ifndef SAMPLER_SYMBOLS_H
#define SAMPLER_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sampler/memory/arena.h"

struct symbols; /* one snapshot of the process's mappings; lives in its arena */

struct symbol {
	const char *name;
	uint64_t offset;  /* of the address from the symbol's start */
	uint64_t address; /* the address on its module's made-up base */
	size_t module;    /* index for symbols_module(); == symbols_modules() when on none */
};

struct module {
	const char *path;  /* "/usr/lib/…", "[vdso]", "" for code without a file */
	char build_id[65]; /* lower-case hex, or "" */
	uint64_t start, limit, file_offset; /* of its executable mapping, on the made-up base */
};

/* Read /proc/self/maps. Symbol tables are read when an address first asks for them. */
int symbols_open(struct arena *arena, struct symbols **out, struct err *err);

void symbols_find(struct symbols *symbols, uintptr_t address, struct symbol *out);

/* Executable mappings, in the order of their addresses; the program's own first. */
size_t symbols_modules(const struct symbols *symbols);
const struct module *symbols_module(const struct symbols *symbols, size_t index);

/* The other way round: an outside address of this process back to the real one; false when it is on
 * no module. */
bool symbols_real(const struct symbols *symbols, uint64_t outside, uintptr_t *real);

#endif
