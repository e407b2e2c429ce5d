#include "sampler/names/elf.h"

#include <elf.h>
#include <string.h>
#include <unistd.h>

#include "base/encode.h"

#define STRINGS_MAX ((uint64_t)256 << 20)
#define SYMBOLS_MAX ((uint64_t)4 << 20)
#define NOTE_MAX    4096

bool elf_read(const struct elf_source *source, uint64_t offset, void *to, size_t len)
{
	size_t done = 0;
	uint64_t end;

	if (__builtin_add_overflow(offset, len, &end) || end > source->size)
		return false;
	if (source->file < 0) {
		memcpy(to, source->bytes + offset, len);
		return true;
	}
	while (done < len) {
		ssize_t got = pread(
			source->file, (char *)to + done, len - done, (off_t)(offset + done));

		if (got <= 0)
			return false;
		done += (size_t)got;
	}
	return true;
}

/* GNU's build id is the note of type 3 and name "GNU" (elf.h, ld's --build-id). */
static void read_build_id(struct elf *elf, uint64_t offset, uint64_t size)
{
	unsigned char note[NOTE_MAX];
	size_t at = 0;

	if (size > sizeof(note) || !elf_read(&elf->source, offset, note, (size_t)size))
		return;
	while (at + sizeof(Elf64_Nhdr) <= size) {
		Elf64_Nhdr head;
		size_t name_at, bytes_at;

		memcpy(&head, note + at, sizeof(head));
		if (head.n_namesz > NOTE_MAX || head.n_descsz > NOTE_MAX)
			return;
		name_at = at + sizeof(head);
		bytes_at = name_at + ((head.n_namesz + 3U) & ~3U);
		at = bytes_at + ((head.n_descsz + 3U) & ~3U);
		if (bytes_at + head.n_descsz > size)
			return;
		if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 &&
			memcmp(note + name_at, "GNU", 4) == 0 && head.n_descsz <= 32) {
			hex_encode(note + bytes_at, head.n_descsz, elf->build_id);
			return;
		}
	}
}

static void read_segment(struct elf *elf, const Elf64_Phdr *head)
{
	if (head->p_type == PT_LOAD && elf->segments_len < ELF_SEGMENTS_MAX)
		elf->segments[elf->segments_len++] = (struct elf_segment){
			.offset = head->p_offset,
			.address = head->p_vaddr,
			.file_size = head->p_filesz,
			.memory_size = head->p_memsz,
			.executable = (head->p_flags & PF_X) != 0,
		};
	if (head->p_type == PT_GNU_EH_FRAME)
		elf->frame_header_address = head->p_vaddr;
	if (head->p_type == PT_NOTE && elf->build_id[0] == '\0')
		read_build_id(elf, head->p_offset, head->p_filesz);
}

bool elf_open(const struct elf_source *source, struct elf *out)
{
	Elf64_Ehdr head;

	*out = (struct elf){ .source = *source };
	if (!elf_read(source, 0, &head, sizeof(head)) ||
		memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
		head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
		head.e_phentsize != sizeof(Elf64_Phdr))
		return false;
	for (uint16_t i = 0; i < head.e_phnum; i++) {
		Elf64_Phdr segment;
		uint64_t at;

		if (__builtin_add_overflow(head.e_phoff, i * sizeof(segment), &at) ||
			!elf_read(source, at, &segment, sizeof(segment)))
			return false;
		read_segment(out, &segment);
	}
	out->sections_offset = head.e_shoff;
	out->sections_len = head.e_shnum;
	out->section_size = head.e_shentsize;
	out->names_section = head.e_shstrndx;
	return true;
}

bool elf_address_of(const struct elf *elf, uint64_t offset, uint64_t *address)
{
	for (size_t i = 0; i < elf->segments_len; i++) {
		const struct elf_segment *segment = &elf->segments[i];

		/* The kernel maps whole pages: what lies before the segment in its first page is
		 * there too. */
		uint64_t from = segment->offset & ~(uint64_t)4095;

		if (offset >= from &&
			offset - segment->offset + 4096 < segment->file_size + 8192) {
			*address = segment->address - segment->offset + offset;
			if (segment->executable)
				return true;
		}
	}
	return false;
}

static bool read_section(const struct elf *elf, uint32_t index, Elf64_Shdr *out)
{
	uint64_t at;

	return elf->section_size == sizeof(*out) && index < elf->sections_len &&
	       !__builtin_add_overflow(
		       elf->sections_offset, (uint64_t)index * sizeof(*out), &at) &&
	       elf_read(&elf->source, at, out, sizeof(*out));
}

static bool find_section(const struct elf *elf, uint32_t type, Elf64_Shdr *out)
{
	for (uint32_t i = 0; i < elf->sections_len; i++) {
		if (read_section(elf, i, out) && out->sh_type == type)
			return true;
	}
	return false;
}

static bool is_before(const struct elf_symbol *a, const struct elf_symbol *b)
{
	return a->address < b->address || (a->address == b->address && a->size < b->size);
}

static void sift_down(struct elf_symbol *heap, size_t at, size_t len)
{
	struct elf_symbol moving = heap[at];

	for (size_t child = 2 * at + 1; child < len; child = 2 * at + 1) {
		if (child + 1 < len && is_before(&heap[child], &heap[child + 1]))
			child++;
		if (!is_before(&moving, &heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = moving;
}

/* Heapsort: libc's qsort() takes memory from the program's heap. */
static void sort_symbols(struct elf_symbol *symbols, size_t len)
{
	for (size_t i = len / 2; i > 0; i--)
		sift_down(symbols, i - 1, len);
	for (size_t i = len; i > 1; i--) {
		struct elf_symbol last = symbols[i - 1];

		symbols[i - 1] = symbols[0];
		symbols[0] = last;
		sift_down(symbols, 0, i - 1);
	}
}

static bool is_function(const Elf64_Sym *symbol)
{
	unsigned type = ELF64_ST_TYPE(symbol->st_info);

	return (type == STT_FUNC || type == STT_GNU_IFUNC) && symbol->st_shndx != SHN_UNDEF &&
	       symbol->st_value != 0;
}

static char *read_strings(
	const struct elf *elf, struct arena *arena, uint32_t link, uint64_t *len)
{
	Elf64_Shdr section;
	char *strings;

	if (!read_section(elf, link, &section) || section.sh_size > STRINGS_MAX)
		return NULL;
	strings = arena_alloc(arena, (size_t)section.sh_size + 1); /* its end is a NUL */
	*len = section.sh_size;
	if (!strings ||
		!elf_read(&elf->source, section.sh_offset, strings, (size_t)section.sh_size))
		return NULL;
	return strings;
}

static bool find_named(const struct elf *elf, const char *name, Elf64_Shdr *out)
{
	Elf64_Shdr names;
	char text[16];
	size_t len = strlen(name) + 1;

	if (!read_section(elf, elf->names_section, &names))
		return false;
	for (uint32_t i = 0; i < elf->sections_len; i++) {
		uint64_t at;

		if (read_section(elf, i, out) &&
			!__builtin_add_overflow(names.sh_offset, out->sh_name, &at) &&
			elf_read(&elf->source, at, text, len) && memcmp(text, name, len) == 0)
			return true;
	}
	return false;
}

/* What the entries of the linkage tables jump to: one relocation for each, in their order. */
struct linkage {
	const Elf64_Rela *entries;
	size_t len;
	const Elf64_Sym *symbols;
	size_t symbols_len;
	const char *strings;
	uint64_t strings_len;
};

static void *read_whole(const struct elf *elf, struct arena *arena, const Elf64_Shdr *section)
{
	void *bytes = section->sh_size <= STRINGS_MAX
			      ? arena_alloc(arena, (size_t)section->sh_size)
			      : NULL;

	if (!bytes ||
		!elf_read(&elf->source, section->sh_offset, bytes, (size_t)section->sh_size))
		return NULL;
	return bytes;
}

static void read_linkage(const struct elf *elf, struct arena *arena, struct linkage *out)
{
	Elf64_Shdr section, symbols;

	*out = (struct linkage){ 0 };
	if (!find_named(elf, ".rela.plt", &section) || section.sh_type != SHT_RELA ||
		!read_section(elf, section.sh_link, &symbols))
		return;
	out->entries = read_whole(elf, arena, &section);
	out->symbols = read_whole(elf, arena, &symbols);
	out->symbols_len = (size_t)symbols.sh_size / sizeof(Elf64_Sym);
	out->strings = read_strings(elf, arena, symbols.sh_link, &out->strings_len);
	if (out->entries && out->symbols && out->strings)
		out->len = (size_t)section.sh_size / sizeof(Elf64_Rela);
}

static const char *linkage_name(
	const struct linkage *linkage, size_t index, struct arena *arena)
{
	uint64_t symbol = ELF64_R_SYM(linkage->entries[index].r_info);
	const char *name;
	char *out;
	size_t len;

	if (symbol == 0 || symbol >= linkage->symbols_len ||
		linkage->symbols[symbol].st_name >= linkage->strings_len)
		return NULL;
	name = linkage->strings + linkage->symbols[symbol].st_name;
	len = strlen(name);
	out = len > 0 ? arena_alloc(arena, len + sizeof("@plt")) : NULL;
	if (out) {
		memcpy(out, name, len);
		memcpy(out + len, "@plt", sizeof("@plt"));
	}
	return out;
}

/* The first entries of .plt, as many bytes as are left over, serve the loader. */
static void add_linkage(const struct elf *elf, struct arena *arena,
	const struct linkage *linkage, const char *table, struct elf_symbol *out, size_t *len)
{
	Elf64_Shdr section;
	uint64_t size, used;

	if (linkage->len == 0 || !find_named(elf, table, &section))
		return;
	size = section.sh_entsize >= 8 && section.sh_entsize <= 64 ? section.sh_entsize : 16;
	used = size * linkage->len;
	if (section.sh_size < used || section.sh_size - used > 64)
		return;
	for (size_t i = 0; i < linkage->len; i++) {
		const char *name = linkage_name(linkage, i, arena);

		if (name)
			out[(*len)++] = (struct elf_symbol){
				.address = section.sh_addr + section.sh_size - used + i * size,
				.size = size,
				.name = name,
			};
	}
}

void elf_symbols(
	const struct elf *elf, struct arena *arena, struct elf_symbol **out, size_t *len)
{
	Elf64_Shdr section;
	uint64_t strings_len, count;
	const char *strings;
	struct linkage linkage;
	Elf64_Sym *table;

	*len = 0;
	*out = NULL;
	if (!find_section(elf, SHT_SYMTAB, &section) &&
		!find_section(elf, SHT_DYNSYM, &section))
		return;
	count = section.sh_size / sizeof(Elf64_Sym);
	strings = read_strings(elf, arena, section.sh_link, &strings_len);
	if (!strings || count > SYMBOLS_MAX)
		return;
	read_linkage(elf, arena, &linkage);
	table = arena_alloc(arena, (size_t)count * sizeof(*table));
	*out = arena_alloc(arena, ((size_t)count + 2 * linkage.len) * sizeof(**out));
	if (!table || !*out ||
		!elf_read(
			&elf->source, section.sh_offset, table, (size_t)count * sizeof(*table)))
		return;
	for (uint64_t i = 0; i < count; i++) {
		const struct elf_symbol symbol = { table[i].st_value, table[i].st_size,
			strings + table[i].st_name };

		if (is_function(&table[i]) && table[i].st_name < strings_len && symbol.name[0])
			(*out)[(*len)++] = symbol;
	}
	add_linkage(elf, arena, &linkage, ".plt", *out, len);
	add_linkage(elf, arena, &linkage, ".plt.sec", *out, len);
	sort_symbols(*out, *len);
}

/* The table of .eh_frame_hdr (Linux Standard Base, section 10.6.2): version 1, encodings, the
 * address of .eh_frame, the count, then pairs relative to the header. */
void elf_function_starts(
	const struct elf *elf, struct arena *arena, uint64_t **out, size_t *len)
{
	static const unsigned char usual[4] = { 1, 0x1b, 0x03, 0x3b };
	uint64_t offset = 0;
	unsigned char head[12];
	uint32_t count;
	int32_t(*pairs)[2];

	*len = 0;
	*out = NULL;
	for (size_t i = 0; i < elf->segments_len; i++) {
		const struct elf_segment *segment = &elf->segments[i];

		if (elf->frame_header_address >= segment->address &&
			elf->frame_header_address - segment->address < segment->file_size)
			offset = elf->frame_header_address - segment->address + segment->offset;
	}
	if (offset == 0 || !elf_read(&elf->source, offset, head, sizeof(head)) ||
		memcmp(head, usual, sizeof(usual)) != 0)
		return;
	memcpy(&count, head + 8, sizeof(count));
	if (count > SYMBOLS_MAX)
		return;
	pairs = arena_alloc(arena, count * sizeof(*pairs));
	*out = arena_alloc(arena, count * sizeof(**out));
	if (!pairs || !*out ||
		!elf_read(&elf->source, offset + sizeof(head), pairs, count * sizeof(*pairs)))
		return;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start = elf->frame_header_address + (uint64_t)(int64_t)pairs[i][0];

		if (*len > 0 && start < (*out)[*len - 1])
			return; /* not sorted: not to be trusted any further */
		(*out)[(*len)++] = start;
	}
}
