/*
 * elf.h - what we need of an ELF file: its segments, build id, function symbols, and where its
 * unwind information lies.  64-bit little-endian only.  Bytes are read through a source, checked,
 * and never believed: a hostile or half-written file gives fewer names, not a crash.
 */
#ifndef SAMPLER_ELF_H
#define SAMPLER_ELF_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/memory/arena.h"

/* Where bytes come from: a file on disk, or an image in memory (the vdso; tests). */
struct elf_source {
	int file;          /* -1: from memory */
	const char *bytes; /* of `size` */
	uint64_t size;
};

#define ELF_SEGMENTS_MAX 16

struct elf_segment {
	uint64_t offset, address, file_size, memory_size;
	bool executable;
};

struct elf {
	struct elf_source source;
	size_t segments_len;
	struct elf_segment segments[ELF_SEGMENTS_MAX]; /* PT_LOAD */
	uint64_t frame_header_address;                 /* PT_GNU_EH_FRAME; 0: none */
	char build_id[65];                             /* lower-case hex, or "" */
	uint64_t sections_offset;                      /* private */
	uint16_t sections_len, section_size;           /* private */
	uint16_t names_section;                        /* private */
};

struct elf_symbol {
	uint64_t address, size;
	const char *name; /* in the arena */
};

/* Read exactly `len` bytes at `offset`. */
bool elf_read(const struct elf_source *source, uint64_t offset, void *to, size_t len);

bool elf_open(const struct elf_source *source, struct elf *out);

/* Address in the file's own address space of the byte at a file offset. False when no segment
 * holds it. */
bool elf_address_of(const struct elf *elf, uint64_t offset, uint64_t *address);

/* Function symbols, sorted by address, from .symtab, else .dynsym; and the entries of the linkage
 * tables .plt and .plt.sec, "name@plt". Without memory or symbols the list is empty. */
void elf_symbols(
	const struct elf *elf, struct arena *arena, struct elf_symbol **out, size_t *len);

/* Starts of the functions that .eh_frame_hdr lists, sorted: names for stripped code. */
void elf_function_starts(
	const struct elf *elf, struct arena *arena, uint64_t **out, size_t *len);

#endif
