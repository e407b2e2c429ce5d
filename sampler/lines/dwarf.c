#include "sampler/lines/dwarf.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwelf.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/encode.h"
#include "sampler/lines/demangle.h"

#define DEPTH_MAX    64
#define PATH_SIZE    4096
#define BUILD_ID_MAX 64

/* A piece of code, and what it belongs to: a unit's number, a function's place in .debug_info. */
struct range {
	Dwarf_Addr from, to;
	size_t owner;
};

struct ranges {
	struct range *items;
	size_t len, cap;
};

struct unit {
	Dwarf_Die head; /* has the line table */
	Dwarf_Die tree; /* has the functions: with split DWARF another one */
	Dwarf_Files *files;
	bool walked;
	struct ranges functions;
};

struct dwarf_file {
	struct dwarf_file *next;
	struct stat status;
	Dwfl *session;
	Dwfl_Module *module;
	Dwarf *dwarf; /* NULL: there is no DWARF */
	Dwarf_Addr bias;
	struct unit *units;
	size_t units_len;
	struct ranges code;
};

static const char *debug_folder;
static char debug_path[PATH_SIZE + 16];
static struct dwarf_file *known;

/* A program that has no memory left can only end; its host goes on without lines. */
static void *must(void *memory)
{
	if (!memory)
		_exit(1);
	return memory;
}

void dwarf_look_in(const char *folder)
{
	struct buf path;

	debug_folder = folder;
	buf_init_fixed(&path, debug_path, sizeof(debug_path) - 1);
	buf_add_cstr(&path, ":.debug:");
	buf_add_cstr(&path, folder);
	debug_path[path.len] = '\0';
}

static void add_range(struct ranges *ranges, Dwarf_Addr from, Dwarf_Addr to, size_t owner)
{
	if (from >= to)
		return;
	if (ranges->len == ranges->cap) {
		ranges->cap = ranges->cap ? ranges->cap * 2 : 16;
		ranges->items =
			must(reallocarray(ranges->items, ranges->cap, sizeof(struct range)));
	}
	ranges->items[ranges->len++] = (struct range){ from, to, owner };
}

static void add_ranges_of(struct ranges *ranges, Dwarf_Die *die, size_t owner)
{
	Dwarf_Addr base, from, to;
	ptrdiff_t at = 0;

	while ((at = dwarf_ranges(die, at, &base, &from, &to)) > 0)
		add_range(ranges, from, to, owner);
}

static int compare_ranges(const void *left, const void *right)
{
	const struct range *a = left, *b = right;

	if (a->from != b->from)
		return a->from < b->from ? -1 : 1;
	return a->to > b->to ? -1 : a->to < b->to;
}

static void sort_ranges(struct ranges *ranges)
{
	if (ranges->len > 0)
		qsort(ranges->items, ranges->len, sizeof(struct range), compare_ranges);
}

/* The innermost range around an address: of those that begin before it the last that reaches it. */
static const struct range *find_range(const struct ranges *ranges, Dwarf_Addr address)
{
	size_t from = 0, to = ranges->len;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (ranges->items[middle].from <= address)
			from = middle + 1;
		else
			to = middle;
	}
	for (size_t i = from; i > 0 && from - i < 64; i--) {
		if (address < ranges->items[i - 1].to)
			return &ranges->items[i - 1];
	}
	return NULL;
}

/* Which unit has which code: by the units' own ranges, for .debug_aranges is not always there. */
static void read_units(struct dwarf_file *file)
{
	Dwarf_CU *cu = NULL;
	size_t cap = 0;
	uint8_t type;
	Dwarf_Die head, tree;

	while (dwarf_get_units(file->dwarf, cu, &cu, NULL, &type, &head, &tree) == 0) {
		if (type != DW_UT_compile && type != DW_UT_skeleton)
			continue;
		if (file->units_len == cap) {
			cap = cap ? cap * 2 : 64;
			file->units = must(reallocarray(file->units, cap, sizeof(struct unit)));
		}
		file->units[file->units_len] = (struct unit){ .head = head,
			.tree = type == DW_UT_skeleton && tree.addr ? tree : head };
		add_ranges_of(&file->code, &head, file->units_len);
		file->units_len++;
	}
	sort_ranges(&file->code);
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as DEPTH_MAX */
static void walk(struct unit *unit, Dwarf_Die *parent, unsigned depth)
{
	Dwarf_Die die;

	if (depth > DEPTH_MAX || dwarf_child(parent, &die))
		return;
	do {
		switch (dwarf_tag(&die)) {
		case DW_TAG_subprogram:
			add_ranges_of(&unit->functions, &die, dwarf_dieoffset(&die));
			walk(unit, &die, depth + 1);
			break;
		case DW_TAG_namespace:
		case DW_TAG_module:
		case DW_TAG_class_type:
		case DW_TAG_structure_type:
		case DW_TAG_union_type:
		case DW_TAG_lexical_block:
			walk(unit, &die, depth + 1);
			break;
		default:
			break;
		}
	} while (dwarf_siblingof(&die, &die) == 0);
}

static void walk_unit(struct unit *unit)
{
	size_t files_len;

	unit->walked = true;
	if (dwarf_getsrcfiles(&unit->head, &unit->files, &files_len))
		unit->files = NULL;
	walk(unit, &unit->tree, 0);
	sort_ranges(&unit->functions);
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* A file in our hand is the debug file of that module only if it says so itself. */
static bool has_build_id(int descriptor, const unsigned char *id, int len)
{
	Elf *elf = elf_begin(descriptor, ELF_C_READ_MMAP, NULL);
	const void *own = NULL;
	ssize_t own_len = elf ? dwelf_elf_gnu_build_id(elf, &own) : -1;
	bool is_it = own_len == len && memcmp(own, id, (size_t)len) == 0;

	(void)elf_end(elf);
	return is_it;
}

/* As debuginfod's client keeps what it has fetched: FOLDER/BUILD-ID/debuginfo. */
static int open_fetched(Dwfl_Module *module, char **path)
{
	const unsigned char *id;
	char text[PATH_SIZE], hex[2 * BUILD_ID_MAX + 1];
	struct buf name;
	GElf_Addr address;
	int len = dwfl_module_build_id(module, &id, &address), descriptor;

	if (len <= 0 || len > BUILD_ID_MAX)
		return -1;
	hex_encode(id, (size_t)len, hex);
	buf_init_fixed(&name, text, sizeof(text) - 1);
	buf_add_cstr(&name, debug_folder);
	buf_add_byte(&name, '/');
	buf_add_cstr(&name, hex);
	buf_add_cstr(&name, "/debuginfo");
	text[name.len] = '\0';
	descriptor = name.failed ? -1 : open(text, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (descriptor >= 0 && !has_build_id(descriptor, id, len)) {
		(void)close(descriptor);
		descriptor = -1;
	}
	if (descriptor >= 0)
		*path = must(strdup(text));
	return descriptor;
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are elfutils' */
static int find_debug_file(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr base,
	const char *file, const char *link, GElf_Word sum, char **path)
{
	int descriptor =
		dwfl_standard_find_debuginfo(module, user, name, base, file, link, sum, path);

	return descriptor >= 0 ? descriptor : open_fetched(module, path);
}

/* Takes the descriptor over. The module lies at 0, so that addresses are the file's own. */
static struct dwarf_file *load(int descriptor, const char *path, const struct stat *status)
{
	static char *debug_path_at = debug_path;
	static const Dwfl_Callbacks callbacks = {
		.find_elf = dwfl_build_id_find_elf,
		.find_debuginfo = find_debug_file,
		.section_address = dwfl_offline_section_address,
		.debuginfo_path = &debug_path_at,
	};
	struct dwarf_file *file = must(calloc(1, sizeof(*file)));

	file->status = *status;
	file->session = must(dwfl_begin(&callbacks));
	file->module = dwfl_report_elf(file->session, path, path, descriptor, 0, true);
	if (!file->module) {
		(void)close(descriptor);
	} else {
		(void)dwfl_report_end(file->session, NULL, NULL);
		file->dwarf = dwfl_module_getdwarf(file->module, &file->bias);
	}
	if (file->dwarf)
		read_units(file);
	file->next = known;
	known = file;
	return file;
}

struct dwarf_file *dwarf_open(int descriptor, const char *path)
{
	struct dwarf_file *file = known;
	struct stat status;

	if (fstat(descriptor, &status) || !S_ISREG(status.st_mode)) {
		(void)close(descriptor);
		return NULL;
	}
	while (file && !is_same_file(&file->status, &status))
		file = file->next;
	if (file)
		(void)close(descriptor);
	else
		file = load(descriptor, path, &status);
	return file->module ? file : NULL;
}

/* ---- names */

/* What a name is called to readers: itself, or as its language has it. Asked often, so kept. */
struct readable {
	char *name, *shown;
};

static int compare_readable(const void *left, const void *right)
{
	const struct readable *a = left, *b = right;

	return strcmp(a->name, b->name);
}

static const char *readable_of(const char *name)
{
	static void *all;
	struct readable wanted = { 0 }, *entry;
	struct readable **found;

	if (name[0] != '_')
		return NULL;
	wanted.name = must(strdup(name));
	found = tfind(&wanted, &all, compare_readable);
	if (found) {
		free(wanted.name);
		return (*found)->shown;
	}
	entry = must(malloc(sizeof(*entry)));
	*entry = wanted;
	entry->shown = demangle(name);
	(void)must(tsearch(entry, &all, compare_readable));
	return entry->shown;
}

static const char *linkage_name(Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	const char *name =
		dwarf_formstring(dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute));

	if (!name)
		name = dwarf_formstring(
			dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attribute));
	return name;
}

static bool has_namespaces(const struct unit *unit)
{
	Dwarf_Die head = unit->head;

	switch (dwarf_srclang(&head)) {
	case DW_LANG_C_plus_plus:
	case DW_LANG_C_plus_plus_03:
	case DW_LANG_C_plus_plus_11:
	case DW_LANG_C_plus_plus_14:
	case DW_LANG_Rust:
	case 0x2b: /* C++17 and C++20, as DWARF's list of languages has them by now */
	case 0x2c:
		return true;
	default:
		return false;
	}
}

/* The declaration that an instance, inlined or not, goes back to: it stands in its namespace. */
static Dwarf_Die declaration_of(Dwarf_Die *die)
{
	static const unsigned back[] = { DW_AT_abstract_origin, DW_AT_specification };
	Dwarf_Die at = *die;

	for (size_t i = 0; i < 8; i++) {
		Dwarf_Attribute attribute;
		Dwarf_Die next;

		if (!dwarf_formref_die(dwarf_attr(&at, back[0], &attribute), &next) &&
			!dwarf_formref_die(dwarf_attr(&at, back[1], &attribute), &next))
			break;
		at = next;
	}
	return at;
}

static bool is_named_scope(Dwarf_Die *die)
{
	int tag = dwarf_tag(die);

	return tag == DW_TAG_namespace || tag == DW_TAG_module || tag == DW_TAG_class_type ||
	       tag == DW_TAG_structure_type || tag == DW_TAG_union_type ||
	       tag == DW_TAG_subprogram;
}

/* A function that no other file can see has no linkage name: then its scopes say whose it is. */
static char *qualified_name(Dwarf_Die *die, const char *name)
{
	Dwarf_Die declaration = declaration_of(die), *scopes = NULL;
	int len = dwarf_getscopes_die(&declaration, &scopes);
	char text[LINES_TEXT_MAX];
	struct buf out;

	buf_init_fixed(&out, text, sizeof(text) - 1);
	for (int i = len - 1; i > 0; i--) {
		const char *scope;

		if (!is_named_scope(&scopes[i]))
			continue;
		scope = dwarf_diename(&scopes[i]);
		buf_add_cstr(&out, scope ? scope : "(anonymous)");
		buf_add_cstr(&out, "::");
	}
	free(scopes);
	buf_add_cstr(&out, name);
	text[out.len] = '\0';
	return must(strdup(text));
}

/* The same function is asked for again and again, and the way to its scopes is long. */
struct qualified {
	const void *place;
	char *name;
};

static int compare_qualified(const void *left, const void *right)
{
	const struct qualified *a = left, *b = right;

	return a->place < b->place ? -1 : a->place > b->place;
}

static const char *qualified_of(Dwarf_Die *die, const char *name)
{
	static void *all;
	Dwarf_Die declaration = declaration_of(die);
	struct qualified wanted = { .place = declaration.addr }, *entry;
	struct qualified **found = tfind(&wanted, &all, compare_qualified);

	if (found)
		return (*found)->name;
	entry = must(malloc(sizeof(*entry)));
	*entry = wanted;
	entry->name = qualified_name(die, name);
	(void)must(tsearch(entry, &all, compare_qualified));
	return entry->name;
}

static struct sv text_of(const char *text)
{
	size_t len = strnlen(text, LINES_TEXT_MAX);

	return (struct sv){ text, len };
}

/* Both names of a function. `symbol` is that of the address, for the function that has the code. */
static void name_function(
	const struct unit *unit, Dwarf_Die *die, const char *symbol, struct lines_line *out)
{
	const char *linkage = linkage_name(die), *name = dwarf_diename(die);
	const char *shown = linkage ? readable_of(linkage) : NULL;

	if (!shown && symbol[0])
		shown = readable_of(symbol);
	if (!shown && name && !linkage && has_namespaces(unit))
		shown = qualified_of(die, name);
	/* In C the compiler knows a function by another name, perhaps, than its callers do (__libc_read, read);
	 * what it has made out of one, it marks with a dot. */
	if (!shown && symbol[0] && !strchr(symbol, '.'))
		shown = symbol;
	if (!shown)
		shown = name ? name : linkage;
	if (!shown)
		shown = symbol[0] ? symbol : "[unnamed]";
	out->function = text_of(shown);
	out->system_name = text_of(symbol[0] ? symbol : linkage ? linkage : shown);
}

/* ---- places */

static uint32_t number(Dwarf_Die *die, unsigned name, bool integrate)
{
	Dwarf_Attribute attribute;
	Dwarf_Word value;

	if (dwarf_formudata(integrate ? dwarf_attr_integrate(die, name, &attribute)
				      : dwarf_attr(die, name, &attribute),
		    &value) ||
		value > INT32_MAX)
		return 0;
	return (uint32_t)value;
}

static void place_at(struct lines_line *line, const char *file, uint32_t number_in_file)
{
	if (!file || !file[0])
		return;
	line->file = text_of(file);
	line->line = number_in_file;
}

/* Where the function begins, when that is in the same file. */
static void add_start(Dwarf_Die *die, struct lines_line *line)
{
	const char *file = line->file.len > 0 ? dwarf_decl_file(die) : NULL;

	if (file && sv_is(text_of(file), line->file))
		line->start_line = number(die, DW_AT_decl_line, true);
}

static void place_by_table(struct unit *unit, Dwarf_Addr address, struct lines_line *line)
{
	Dwarf_Line *row = dwarf_getsrc_die(&unit->head, address);
	int row_number = 0;

	if (!row)
		return;
	(void)dwarf_lineno(row, &row_number);
	place_at(line, dwarf_linesrc(row, NULL, NULL), (uint32_t)row_number);
}

/* Where an inlined function was called. */
static void place_by_call(struct unit *unit, Dwarf_Die *inlined, struct lines_line *line)
{
	Dwarf_Attribute attribute;
	Dwarf_Word file;

	if (!unit->files ||
		dwarf_formudata(dwarf_attr(inlined, DW_AT_call_file, &attribute), &file))
		return;
	place_at(line, dwarf_filesrc(unit->files, file, NULL, NULL),
		number(inlined, DW_AT_call_line, false));
}

/* The child that has the address, and is a block or an inlined function. */
static bool step_in(Dwarf_Die *die, Dwarf_Addr address)
{
	Dwarf_Die child;

	if (dwarf_child(die, &child))
		return false;
	do {
		int tag = dwarf_tag(&child);

		if ((tag == DW_TAG_lexical_block || tag == DW_TAG_inlined_subroutine) &&
			dwarf_haspc(&child, address) > 0) {
			*die = child;
			return true;
		}
	} while (dwarf_siblingof(&child, &child) == 0);
	return false;
}

/* The function, and what is inlined in it at the address, outermost first. */
static size_t find_chain(Dwarf_Die function, Dwarf_Addr address, Dwarf_Die out[DEPTH_MAX])
{
	Dwarf_Die at = function;
	size_t len = 0;

	out[len++] = function;
	for (size_t depth = 0; depth < (size_t)4 * DEPTH_MAX && len < DEPTH_MAX; depth++) {
		if (!step_in(&at, address))
			break;
		if (dwarf_tag(&at) == DW_TAG_inlined_subroutine)
			out[len++] = at;
	}
	return len;
}

static void write_chain(struct unit *unit, Dwarf_Addr address, const char *symbol,
	Dwarf_Die *chain, size_t len, struct lines_record *out)
{
	for (size_t i = len; i > 0; i--) {
		struct lines_line *line;

		/* Where there are too many, those next to the outermost are left out. */
		if (i > 1 && out->lines_len == LINES_CHAIN_MAX - 1)
			continue;
		line = &out->lines[out->lines_len++];
		*line = (struct lines_line){ 0 };
		name_function(unit, &chain[i - 1], i == 1 ? symbol : "", line);
		if (i == len)
			place_by_table(unit, address, line);
		else
			place_by_call(unit, &chain[i], line);
		add_start(&chain[i - 1], line);
	}
}

static bool find_in_units(struct dwarf_file *file, Dwarf_Addr address, const char *symbol,
	struct lines_record *out)
{
	const struct range *range = find_range(&file->code, address);
	Dwarf_Die function, chain[DEPTH_MAX];
	struct unit *unit;

	if (!range)
		return false;
	unit = &file->units[range->owner];
	if (!unit->walked)
		walk_unit(unit);
	range = find_range(&unit->functions, address);
	if (range && dwarf_offdie(dwarf_cu_getdwarf(unit->tree.cu), range->owner, &function)) {
		write_chain(unit, address, symbol, chain, find_chain(function, address, chain),
			out);
		return true;
	}
	/* Assembler has lines, but no functions. */
	if (!symbol[0])
		return false;
	place_by_table(unit, address, &out->lines[0]);
	return out->lines[0].file.len > 0;
}

void dwarf_find(
	struct dwarf_file *file, uint64_t address, const char *name, struct lines_record *out)
{
	const char *shown;

	out->lines_len = 0;
	out->lines[0] = (struct lines_line){ 0 };
	if (!name[0]) {
		GElf_Off offset;
		GElf_Sym symbol;

		/* Stripped: the debug file has the symbols. */
		name = dwfl_module_addrinfo(
			file->module, address, &offset, &symbol, NULL, NULL, NULL);
		if (!name)
			name = "";
	}
	if (file->dwarf && find_in_units(file, address - file->bias, name, out) &&
		out->lines_len > 0)
		return;
	shown = name[0] ? readable_of(name) : NULL;
	if (!shown)
		shown = name;
	if (!name[0])
		return;
	out->lines_len = 1;
	out->lines[0].function = text_of(shown);
	out->lines[0].system_name = text_of(name);
}
