#include "sampler/names/symbols.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sampler/names/elf.h"
#include "sampler/names/perf_map.h"
#include "sampler/proc/maps.h"

#define MODULES_MAX  4096
#define BASE_SHIFT   40
#define NAME_MAX_LEN 320
#define FIRST_SLOTS  1024

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
	const char *remark;
	bool has_map; /* the file was looked for */
	struct perf_map map;
	struct asked *first, **end; /* in the order in which they were asked for */
	size_t asked_len;
	struct asked **slots; /* the same by address: an open-addressing table */
	size_t slots_len;
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
	symbols->end = &symbols->first;
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

/* Code that the program made itself may have its name in a list. */
static bool look_up_made(
	struct symbols *symbols, const struct loaded *module, struct asked *asked)
{
	const struct perf_map_entry *entry;

	if (!symbols->has_map)
		perf_map_read(symbols->arena, &symbols->map);
	symbols->has_map = true;
	entry = perf_map_find(&symbols->map, asked->real);
	if (!entry)
		return false;
	asked->symbol = (struct symbol){
		.name = entry->name,
		.offset = asked->real - entry->start,
		.address = asked->real - module->real_start + module->shown.start,
		.module = (size_t)(module - symbols->modules),
	};
	return true;
}

static void look_up(struct symbols *symbols, struct asked *asked)
{
	struct loaded *module = find_module(symbols, asked->real);
	const struct elf_symbol *symbol;
	uint64_t start;

	if (!module) {
		asked->symbol = (struct symbol){ .name = "[unknown]", .module = symbols->len };
		return;
	}
	if (!module->tried)
		load(symbols, module);
	asked->in_file = asked->real - module->bias;
	symbol = find_symbol(module, asked->in_file);
	asked->has_name = symbol != NULL;
	if (module->symbols_len + module->starts_len == 0 &&
		look_up_made(symbols, module, asked))
		return;
	start = symbol ? symbol->address : find_start(module, asked->in_file);
	asked->symbol = (struct symbol){
		.name = symbol ? symbol->name : name_after(symbols, module->shown.path, start),
		.offset = asked->in_file - start,
		.address = asked->real - module->real_start + module->shown.start,
		.module = (size_t)(module - symbols->modules),
	};
	if (!asked->symbol.name)
		asked->symbol.name = "[out of memory]";
}

/* The slot of an address: its own, or the empty one where it belongs. */
static struct asked **slot_of(struct asked **slots, size_t len, uintptr_t address)
{
	size_t at = (size_t)(address * 0x9e3779b97f4a7c15U >> 20) & (len - 1);

	while (slots[at] && slots[at]->real != address)
		at = (at + 1) & (len - 1);
	return &slots[at];
}

static bool grow_slots(struct symbols *symbols)
{
	size_t len = symbols->slots_len ? symbols->slots_len * 4 : FIRST_SLOTS;
	struct asked **slots = arena_alloc(symbols->arena, len * sizeof(struct asked *));

	if (!slots)
		return false;
	for (struct asked *at = symbols->first; at; at = at->next)
		*slot_of(slots, len, at->real) = at;
	symbols->slots = slots; /* the smaller ones go with the arena */
	symbols->slots_len = len;
	return true;
}

static struct asked *ask(struct symbols *symbols, uintptr_t address)
{
	struct asked **slot, *asked;

	if (symbols->asked_len * 2 >= symbols->slots_len && !grow_slots(symbols))
		return NULL;
	slot = slot_of(symbols->slots, symbols->slots_len, address);
	asked = *slot;
	if (asked)
		return asked;
	asked = arena_alloc(symbols->arena, sizeof(*asked));
	if (!asked)
		return NULL;
	asked->real = address;
	look_up(symbols, asked);
	asked->only = (struct symbol_line){ .function = asked->symbol.name,
		.system_name = asked->symbol.name };
	asked->symbol.lines = &asked->only;
	asked->symbol.lines_len = 1;
	*slot = asked;
	*symbols->end = asked;
	symbols->end = &asked->next;
	symbols->asked_len++;
	return asked;
}

void symbols_find(struct symbols *symbols, uintptr_t address, struct symbol *out)
{
	static const struct symbol_line nothing = { .function = "[out of memory]",
		.system_name = "[out of memory]" };
	const struct asked *asked = ask(symbols, address);

	if (asked)
		*out = asked->symbol;
	else
		*out = (struct symbol){ .name = nothing.function,
			.module = symbols->len,
			.lines = &nothing,
			.lines_len = 1 };
}

void symbols_ask_stack(struct symbols *symbols, const uintptr_t *pcs, size_t len)
{
	for (size_t i = 0; i < len; i++)
		(void)ask(symbols, pcs[i] - 1);
}

/* Counting sort. What lies in no file (the vdso, code made at run time) is left out. */
struct asked **symbols_asked(struct symbols *symbols, size_t *len)
{
	size_t *places = arena_alloc(symbols->arena, (symbols->len + 1) * sizeof(*places));
	struct asked **sorted =
		arena_alloc(symbols->arena, (symbols->asked_len + 1) * sizeof(struct asked *));
	size_t at = 0;

	*len = 0;
	if (!places || !sorted)
		return NULL;
	for (const struct asked *asked = symbols->first; asked; asked = asked->next)
		places[asked->symbol.module]++;
	for (size_t i = 0; i < symbols->len; i++) {
		size_t count = symbols->modules[i].shown.path[0] == '/' ? places[i] : 0;

		places[i] = count ? at : SIZE_MAX;
		at += count;
	}
	places[symbols->len] = SIZE_MAX;
	for (struct asked *asked = symbols->first; asked; asked = asked->next) {
		if (places[asked->symbol.module] != SIZE_MAX)
			sorted[places[asked->symbol.module]++] = asked;
	}
	*len = at;
	return sorted;
}

int symbols_open_file(const struct symbols *symbols, size_t module)
{
	struct elf_source source;

	return open_source(&symbols->modules[module], &source) ? source.file : -1;
}

struct arena *symbols_arena(const struct symbols *symbols)
{
	return symbols->arena;
}

void symbols_remark(struct symbols *symbols, const char *text)
{
	symbols->remark = text;
}

const char *symbols_remarked(const struct symbols *symbols)
{
	return symbols->remark;
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
