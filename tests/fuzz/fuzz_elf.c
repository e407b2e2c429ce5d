/* ELF files from anywhere: names lie inside the file's own string table, symbols and function starts
 * come sorted, and nothing is read outside of the bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/names/elf.h"

#define ARENA_BYTES ((size_t)8 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int fine)
{
	if (!fine)
		abort();
}

static void check_symbols(const struct elf *elf, struct arena *arena)
{
	struct elf_symbol *symbols;
	uint64_t *starts;
	size_t len;

	elf_symbols(elf, arena, &symbols, &len);
	for (size_t i = 0; i < len; i++) {
		check(strlen(symbols[i].name) > 0);
		check(i == 0 || symbols[i - 1].address <= symbols[i].address);
	}
	elf_function_starts(elf, arena, &starts, &len);
	for (size_t i = 1; i < len; i++)
		check(starts[i - 1] <= starts[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct elf_source source = { -1, (const char *)data, size };
	struct arena arena;
	struct elf elf;
	uint64_t address;

	if (!elf_open(&source, &elf))
		return 0;
	check(strlen(elf.build_id) < sizeof(elf.build_id));
	check(elf.segments_len <= ELF_SEGMENTS_MAX);
	for (uint64_t offset = 0; offset < size; offset += 64)
		(void)elf_address_of(&elf, offset, &address);
	(void)elf_address_of(&elf, UINT64_MAX, &address);
	if (arena_open(&arena, ARENA_BYTES))
		return 0;
	check_symbols(&elf, &arena);
	arena_close(&arena);
	return 0;
}
