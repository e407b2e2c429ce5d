/*
 * dwarf.h - lines and inlined frames of addresses in an ELF file, from DWARF as elfutils reads it: in
 * the file itself, or in a separate debug file (build-id path and .gnu_debuglink, both checked by
 * elfutils against the file; alternate files of dwz).
 */
#ifndef SAMPLER_LINES_DWARF_H
#define SAMPLER_LINES_DWARF_H

#include <stdint.h>

#include "sampler/names/lines_protocol.h"

struct dwarf_file;

/* Where separate debug files are looked for, besides the file's own folder: as in /usr/lib/debug, and as
 * debuginfod's client keeps them (BUILD-ID/debuginfo). `folder` stays. Once, at the start. */
void dwarf_look_in(const char *folder);

/*
 * The file behind a descriptor, which is taken over; `path` is where it lies.  Files are kept and
 * known again.  NULL: it is no ELF file.
 */
struct dwarf_file *dwarf_open(int descriptor, const char *path);

/*
 * What is known of an address in the file's own address space; `name` is its symbol, or "".  The texts live
 * until the next call, or for good.
 */
void dwarf_find(
	struct dwarf_file *file, uint64_t address, const char *name, struct lines_record *out);

#endif
