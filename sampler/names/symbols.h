/*
 * symbols.h - names for addresses, from the ELF files on disk, in the server thread only.
 *
 * Own reader of .symtab and .dynsym (and the vdso from memory); no loader call, no allocation from
 * the program's heap.  Entries of linkage tables are "name@plt"; code that was made at run time has
 * its name from the runtime's list (perf_map.h).  Code without a symbol is named after its function's
 * start as .eh_frame_hdr has it, else after itself: "module+0xoffset"; a name is never empty.
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

/* A function that an address is in: itself, or by being inlined. */
struct symbol_line {
	const char *function;    /* for readers: demangled, without parameters */
	const char *system_name; /* as the symbol table, or the compiler, has it */
	const char *file;        /* of the source; NULL: not known */
	uint32_t line;           /* 0: not known */
	uint32_t start_line;     /* of the function, in the same file; 0: not known */
};

struct symbol {
	const char *name; /* as the symbol table has it */
	uint64_t offset;  /* of the address from the symbol's start */
	uint64_t address; /* the address on its module's made-up base */
	size_t module;    /* index for symbols_module(); == symbols_modules() when on none */
	/* Innermost first, the last is the function that has the code. At least one; just `name`
	 * without a file until lines.h has asked for more. */
	const struct symbol_line *lines;
	size_t lines_len;
};

struct module {
	const char *path;  /* "/usr/lib/…", "[vdso]", "" for code without a file */
	char build_id[65]; /* lower-case hex, or "" */
	uint64_t start, limit, file_offset; /* of its executable mapping, on the made-up base */
};

/* Read /proc/self/maps. Symbol tables are read when an address first asks for them. */
int symbols_open(struct arena *arena, struct symbols **out, struct err *err);

void symbols_find(struct symbols *symbols, uintptr_t address, struct symbol *out);

/* Look a whole stack of return addresses up, so that symbols_asked() has it. */
void symbols_ask_stack(struct symbols *symbols, const uintptr_t *pcs, size_t len);

/* An address that symbols_find() was asked for; what it found is kept. */
struct asked {
	struct asked *next; /* private */
	uintptr_t real;
	uint64_t in_file; /* the address in the file's own address space */
	bool has_name;    /* in the symbol table; else its name is made up */
	struct symbol symbol;
	struct symbol_line only;
};

/* All of them that lie in files, by module; `*len` of them, in the arena. NULL without memory. */
struct asked **symbols_asked(struct symbols *symbols, size_t *len);

/* The file of a module, opened for reading; -1 when it is not, or no longer, there. */
int symbols_open_file(const struct symbols *symbols, size_t module);

struct arena *symbols_arena(const struct symbols *symbols);

/* What is to be said of these names in a profile, a constant text or one in the arena; NULL: nothing. */
void symbols_remark(struct symbols *symbols, const char *text);
const char *symbols_remarked(const struct symbols *symbols);

/* Executable mappings, in the order of their addresses; the program's own first. */
size_t symbols_modules(const struct symbols *symbols);
const struct module *symbols_module(const struct symbols *symbols, size_t index);

/* The other way round: an outside address of this process back to the real one; false when it is on
 * no module. */
bool symbols_real(const struct symbols *symbols, uint64_t outside, uintptr_t *real);

#endif
