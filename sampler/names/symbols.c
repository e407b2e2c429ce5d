#include "sampler/names/symbols.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sampler/names/elf.h"
#include "sampler/proc/maps.h"

#define MODULES_MAX  4096
#define BASE_SHIFT   40
#define NAME_MAX_LEN 320

struct loaded {
	struct module shown;
	uint64_t real_start, real_limit;
	struct mapping mapping;
	bool tried;    /* to read the file */
	uint64_t bias; /* real address - address in the file */
	struct elf_symbol *symbols;
	size_t symbols_len;
	uint64_t *starts; /* of functions, for code that no symbol covers */
	size_t starts_len;
};

struct symbols {
	struct arena *arena;
	struct loaded *modules;
	size_t len;
};

/*
 * Which number each module has, for the life of the process: by a hash of its path, device and
 * inode, so that a library that is unloaded and loaded again keeps its place.  Server thread only.
 */
static uint64_t known[MODULES_MAX];
static size_t known_len;

static uint64_t hash_of(const struct mapping *mapping)
{
	uint64_t hash = 14695981039346656037U ^ mapping->inode;

	for (size_t i = 0; i < mapping->path.len; i++)
		hash = (hash ^ (unsigned char)mapping->path.ptr[i]) * 1099511628211U;
	if (mapping->path.len == 0)
		hash ^= mapping->start; /* code without a file: each piece for itself */
	return hash ? hash : 1;
}

static uint64_t base_of(const struct mapping *mapping)
{
	uint64_t hash = hash_of(mapping);
	size_t i = 0;

	while (i < known_len && known[i] != hash)
		i++;
	if (i == known_len && known_len < MODULES_MAX)
		known[known_len++] = hash;
	return (uint64_t)(i + 1) << BASE_SHIFT;
}

static bool is_same_file(const struct mapping *a, const struct mapping *b)
{
	return a->inode == b->inode && a->inode != 0 && sv_is(a->path, b->path);
}

static int add_module(
	struct symbols *symbols, const struct mapping *mapping, const struct mapping *first)
{
	struct loaded *module = &symbols->modules[symbols->len];
	uint64_t base = base_of(mapping);

	*module = (struct loaded){
		.shown.path =
			arena_strndup(symbols->arena, mapping->path.ptr, mapping->path.len),
		/* Places within one module keep their distance. */
		.shown.start = base + mapping->start - first->start,
		.shown.limit = base + mapping->limit - first->start,
		.shown.file_offset = mapping->file_offset,
		.real_start = mapping->start,
		.real_limit = mapping->limit,
		.mapping = *mapping,
	};
	if (!module->shown.path)
		return -1;
	symbols->len++;
	return 0;
}

int symbols_open(struct arena *arena, struct symbols **out, struct err *err)
{
	struct symbols *symbols = arena_alloc(arena, sizeof(*symbols));
	struct mapping mapping, first = { 0 };
	struct sv text;

	if (!symbols || maps_read(arena, &text))
		return err_set(err, ERR_SYSTEM, "/proc/self/maps cannot be read");
	symbols->arena = arena;
	symbols->modules = arena_alloc(arena, MODULES_MAX * sizeof(*symbols->modules));
	if (!symbols->modules)
		return err_set(err, ERR_NOMEM, "out of memory for the list of modules");
	while (symbols->len < MODULES_MAX && maps_next(&text, &mapping)) {
		if (!is_same_file(&mapping, &first))
			first = mapping;
		if (mapping.executable && !sv_is(mapping.path, SV("[vsyscall]")) &&
			add_module(symbols, &mapping, &first))
			return err_set(err, ERR_NOMEM, "out of memory for the list of modules");
	}
	*out = symbols;
	return 0;
}

static bool open_source(const struct loaded *module, struct elf_source *out)
{
	struct stat status;

	*out = (struct elf_source){ .file = -1 };
	if (sv_is(module->mapping.path, SV("[vdso]"))) {
		/* The one image that is never unmapped. */
		/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
		out->bytes = (const char *)module->real_start;
		out->size = module->real_limit - module->real_start;
		return true;
	}
	if (module->shown.path[0] != '/')
		return false;
	/* A program that was replaced on disk is still there under this name. */
	out->file = open(module->mapping.deleted ? "/proc/self/exe" : module->shown.path,
		O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (out->file < 0)
		return false;
	/* Another file may stand there by now; its names would be lies. (The device differs on some
	 * overlay file systems, so the inode must do.) */
	if (fstat(out->file, &status) || !S_ISREG(status.st_mode) ||
		status.st_ino != module->mapping.inode) {
		(void)close(out->file);
		return false;
	}
	out->size = (uint64_t)status.st_size;
	return true;
}

static void load(struct symbols *symbols, struct loaded *module)
{
	struct elf_source source;
	struct elf elf;
	uint64_t address;

	module->tried = true;
	if (!open_source(module, &source))
		return;
	if (elf_open(&source, &elf) &&
		elf_address_of(&elf, module->mapping.file_offset, &address)) {
		module->bias = module->real_start - address;
		memcpy(module->shown.build_id, elf.build_id, sizeof(elf.build_id));
		elf_symbols(&elf, symbols->arena, &module->symbols, &module->symbols_len);
		elf_function_starts(&elf, symbols->arena, &module->starts, &module->starts_len);
	}
	if (source.file >= 0)
		(void)close(source.file);
}

/* The last module that starts at or before the address, if it reaches that far. */
static struct loaded *find_module(const struct symbols *symbols, uintptr_t address)
{
	size_t from = 0, to = symbols->len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (symbols->modules[middle].real_start <= address)
			from = middle + 1;
		else
			to = middle;
	}
	if (from == 0 || address >= symbols->modules[from - 1].real_limit)
		return NULL;
	return &symbols->modules[from - 1];
}

static const struct elf_symbol *find_symbol(const struct loaded *module, uint64_t address)
{
	size_t from = 0, to = module->symbols_len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (module->symbols[middle].address <= address)
			from = middle + 1;
		else
			to = middle;
	}
	/* Of several symbols at one place the largest is last; a smaller one may lie inside. */
	for (size_t i = from; i > 0 && from - i < 8; i--) {
		const struct elf_symbol *symbol = &module->symbols[i - 1];

		if (address - symbol->address < symbol->size ||
			(symbol->size == 0 && i == from && address == symbol->address))
			return symbol;
	}
	return NULL;
}

static uint64_t find_start(const struct loaded *module, uint64_t address)
{
	size_t from = 0, to = module->starts_len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (module->starts[middle] <= address)
			from = middle + 1;
		else
			to = middle;
	}
	return from > 0 ? module->starts[from - 1] : address;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static const char *name_after(struct symbols *symbols, const char *module, uint64_t offset)
{
	static const char digits[] = "0123456789abcdef";
	char text[NAME_MAX_LEN];
	struct buf name;
	bool begun = false;

	buf_init_fixed(&name, text, sizeof(text) - 24);
	buf_add_cstr(&name, module[0] ? last_part(module) : "[code without a file]");
	name.max = name.cap = sizeof(text);
	name.failed = false;
	buf_add_cstr(&name, "+0x");
	for (int shift = 60; shift >= 0; shift -= 4) {
		unsigned digit = (unsigned)(offset >> shift & 15);

		begun |= digit > 0 || shift == 0;
		if (begun)
			buf_add_byte(&name, digits[digit]);
	}
	return arena_strndup(symbols->arena, name.ptr, name.len);
}

void symbols_find(struct symbols *symbols, uintptr_t address, struct symbol *out)
{
	struct loaded *module = find_module(symbols, address);
	const struct elf_symbol *symbol;
	uint64_t in_file, start;

	if (!module) {
		*out = (struct symbol){ .name = "[unknown]", .module = symbols->len };
		return;
	}
	if (!module->tried)
		load(symbols, module);
	in_file = address - module->bias;
	symbol = find_symbol(module, in_file);
	start = symbol ? symbol->address : find_start(module, in_file);
	*out = (struct symbol){
		.name = symbol ? symbol->name : name_after(symbols, module->shown.path, start),
		.offset = in_file - start,
		.address = address - module->real_start + module->shown.start,
		.module = (size_t)(module - symbols->modules),
	};
	if (!out->name)
		out->name = "[out of memory]";
}

size_t symbols_modules(const struct symbols *symbols)
{
	return symbols->len;
}

const struct module *symbols_module(const struct symbols *symbols, size_t index)
{
	return &symbols->modules[index].shown;
}

bool symbols_real(const struct symbols *symbols, uint64_t outside, uintptr_t *real)
{
	for (size_t i = 0; i < symbols->len; i++) {
		const struct loaded *module = &symbols->modules[i];

		if (outside >= module->shown.start && outside < module->shown.limit) {
			*real = outside - module->shown.start + module->real_start;
			return true;
		}
	}
	return false;
}
