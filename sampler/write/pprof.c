#include "sampler/write/pprof.h"

#include <string.h>
#define ZLIB_CONST
#include <zlib.h>

#include "sampler/store/depot.h"
#include "sampler/store/labels.h"

#define STACK_MAX  ((size_t)256) /* frames of a row */
#define VARINT_MAX 10
#define TEXTS_MAX  ((size_t)2 * LABELS_SET_MAX)
#define SECTION_BYTES_MAX \
	((size_t)64 << 20) /* of samples, locations, functions, strings each */
#define FIRST_SLOTS 1024
#define LINES_BYTES 1024 /* of a location: as many lines as an address has, and their numbers */
/* In a key of location_of: without what is hidden of its inlined functions. No address has it. */
#define TRIMMED ((uint64_t)1 << 63)

/* Field numbers of profile.proto. */
enum {
	PROFILE_SAMPLE_TYPE = 1,
	PROFILE_SAMPLE = 2,
	PROFILE_MAPPING = 3,
	PROFILE_LOCATION = 4,
	PROFILE_FUNCTION = 5,
	PROFILE_STRING_TABLE = 6,
	PROFILE_TIME_NANOS = 9,
	PROFILE_DURATION_NANOS = 10,
	PROFILE_PERIOD_TYPE = 11,
	PROFILE_PERIOD = 12,
	PROFILE_COMMENT = 13,
	PROFILE_DEFAULT_SAMPLE_TYPE = 14,
	VALUE_TYPE_TYPE = 1,
	VALUE_TYPE_UNIT = 2,
	SAMPLE_LOCATION_ID = 1,
	SAMPLE_VALUE = 2,
	SAMPLE_LABEL = 3,
	LABEL_KEY = 1,
	LABEL_STR = 2,
	LABEL_NUM = 3,
	MAPPING_ID = 1,
	MAPPING_MEMORY_START = 2,
	MAPPING_MEMORY_LIMIT = 3,
	MAPPING_FILE_OFFSET = 4,
	MAPPING_FILENAME = 5,
	MAPPING_BUILD_ID = 6,
	MAPPING_HAS_FUNCTIONS = 7,
	MAPPING_HAS_FILENAMES = 8,
	MAPPING_HAS_LINE_NUMBERS = 9,
	MAPPING_HAS_INLINE_FRAMES = 10,
	LOCATION_ID = 1,
	LOCATION_MAPPING_ID = 2,
	LOCATION_ADDRESS = 3,
	LOCATION_LINE = 4,
	LINE_FUNCTION_ID = 1,
	LINE_LINE = 2,
	FUNCTION_ID = 1,
	FUNCTION_NAME = 2,
	FUNCTION_SYSTEM_NAME = 3,
	FUNCTION_FILENAME = 4,
	FUNCTION_START_LINE = 5,
};

/* An open-addressing table from a 64-bit key to a small number; 0 is an empty value. */
struct index {
	struct {
		uint64_t key;
		uint32_t value;
	} * slots;

	size_t cap, len;
};

struct pprof {
	struct arena *arena;
	struct symbols *symbols;
	const struct pprof_settings *settings;
	struct buf samples, locations, functions, strings;
	/* Scratch, of one row each. Not on the stack: the compiler clears what is there, and rows are many. */
	struct buf ids, sample;
	char (*texts)[LABELS_TEXT_MAX + 1]; /* TEXTS_MAX of them */
	struct index location_of;           /* address, or that and TRIMMED → location id */
	struct index hidden;      /* address → 2 when its function is to be hidden, else 1 */
	struct index function_of; /* hash of names, file and line → function id */
	struct index string_of;   /* hash of a text → string id */
	uint32_t locations_len, functions_len, strings_len;
	bool *module_used;
	bool *module_lacks_lines; /* not all of its locations have them */
	bool failed;
};

static void add_varint(struct buf *out, uint64_t value)
{
	char bytes[VARINT_MAX];
	size_t len = 0;

	while (value >= 0x80) {
		bytes[len++] = (char)(unsigned char)(value | 0x80);
		value >>= 7;
	}
	bytes[len++] = (char)(unsigned char)value;
	buf_add(out, bytes, len);
}

static void add_number(struct buf *out, unsigned field, uint64_t value)
{
	if (value == 0)
		return; /* proto3's default */
	add_varint(out, field << 3);
	add_varint(out, value);
}

static void add_bytes(struct buf *out, unsigned field, struct sv bytes)
{
	add_varint(out, field << 3 | 2);
	add_varint(out, bytes.len);
	buf_add_sv(out, bytes);
}

/* The slot of a key: its own, or the empty one where it belongs. */
static size_t probe(const struct index *index, uint64_t key)
{
	size_t at = (size_t)(key * 0x9e3779b97f4a7c15U >> 20) & (index->cap - 1);

	while (index->slots[at].value && index->slots[at].key != key)
		at = (at + 1) & (index->cap - 1);
	return at;
}

static bool grow(struct pprof *pprof, struct index *index)
{
	struct index larger = { .cap = index->cap ? index->cap * 4 : FIRST_SLOTS,
		.len = index->len };

	larger.slots = arena_alloc(pprof->arena, larger.cap * sizeof(larger.slots[0]));
	if (!larger.slots) {
		pprof->failed = true;
		return false;
	}
	for (size_t i = 0; i < index->cap; i++) {
		if (index->slots[i].value)
			larger.slots[probe(&larger, index->slots[i].key)] = index->slots[i];
	}
	*index = larger; /* the smaller one goes with the arena */
	return true;
}

/* The place of a key's value; 0 there means that it is new. NULL without memory. */
static uint32_t *find(struct pprof *pprof, struct index *index, uint64_t key)
{
	size_t at;

	if (index->len * 2 >= index->cap && !grow(pprof, index))
		return NULL;
	at = probe(index, key);
	if (!index->slots[at].value) {
		index->slots[at].key = key;
		index->len++;
	}
	return &index->slots[at].value;
}

static uint64_t hash_text(struct sv text)
{
	uint64_t hash = 14695981039346656037U;

	for (size_t i = 0; i < text.len; i++)
		hash = (hash ^ (unsigned char)text.ptr[i]) * 1099511628211U;
	return hash;
}

/* Id of a string. Two texts with one 64-bit hash would share an id: at a million strings that is one
 * chance in 10^7, and it costs a wrong name. */
static uint64_t string_id(struct pprof *pprof, const char *text)
{
	struct sv view = sv_from_cstr(text);
	uint32_t *id;

	if (view.len == 0)
		return 0;
	id = find(pprof, &pprof->string_of, hash_text(view));
	if (!id)
		return 0;
	if (!*id) {
		*id = pprof->strings_len++;
		add_bytes(&pprof->strings, PROFILE_STRING_TABLE, view);
	}
	return *id;
}

static uint64_t function_id(struct pprof *pprof, const struct symbol_line *line)
{
	uint64_t parts[] = { string_id(pprof, line->function),
		string_id(pprof, line->system_name),
		line->file ? string_id(pprof, line->file) : 0, line->start_line };
	struct sv key = { (const char *)parts, sizeof(parts) };
	char mem[64];
	struct buf function;
	uint32_t *id = find(pprof, &pprof->function_of, hash_text(key));

	if (!id)
		return 0;
	if (!*id) {
		*id = ++pprof->functions_len;
		buf_init_fixed(&function, mem, sizeof(mem));
		add_number(&function, FUNCTION_ID, *id);
		add_number(&function, FUNCTION_NAME, parts[0]);
		add_number(&function, FUNCTION_SYSTEM_NAME, parts[1]);
		add_number(&function, FUNCTION_FILENAME, parts[2]);
		add_number(&function, FUNCTION_START_LINE, parts[3]);
		add_bytes(&pprof->functions, PROFILE_FUNCTION, buf_sv(&function));
	}
	return *id;
}

struct place {
	uint64_t mapping, address;
};

static void add_location(struct pprof *pprof, uint32_t id, struct place place,
	const struct symbol_line *lines, size_t lines_len)
{
	char line_mem[32], mem[LINES_BYTES];
	struct buf line, location;

	buf_init_fixed(&location, mem, sizeof(mem));
	add_number(&location, LOCATION_ID, id);
	add_number(&location, LOCATION_MAPPING_ID, place.mapping);
	add_number(&location, LOCATION_ADDRESS, place.address);
	for (size_t i = 0; i < lines_len; i++) {
		buf_init_fixed(&line, line_mem, sizeof(line_mem));
		add_number(&line, LINE_FUNCTION_ID, function_id(pprof, &lines[i]));
		add_number(&line, LINE_LINE, lines[i].line);
		add_bytes(&location, LOCATION_LINE, buf_sv(&line));
	}
	add_bytes(&pprof->locations, PROFILE_LOCATION, buf_sv(&location));
}

/* How many of the innermost of these functions are to be hidden; not all. */
static size_t count_hidden(const struct pprof *pprof, const struct symbol *symbol)
{
	bool (*hides)(const char *) = pprof->settings->hides;
	size_t hidden = 0;

	while (hidden + 1 < symbol->lines_len &&
		(hides(symbol->lines[hidden].function) ||
			hides(symbol->lines[hidden].system_name)))
		hidden++;
	return hidden;
}

static void add_found(
	struct pprof *pprof, uint32_t id, const struct symbol *symbol, size_t hidden)
{
	struct place place = { 0 };

	if (symbol->module < symbols_modules(pprof->symbols)) {
		place = (struct place){ symbol->module + 1, symbol->address };
		pprof->module_used[symbol->module] = true;
		for (size_t i = 0; i < symbol->lines_len; i++)
			pprof->module_lacks_lines[symbol->module] |= !symbol->lines[i].file;
	}
	add_location(pprof, id, place, symbol->lines + hidden, symbol->lines_len - hidden);
}

static uint64_t location_id(struct pprof *pprof, uintptr_t address, uint64_t trimmed)
{
	uint32_t *id = find(pprof, &pprof->location_of, address | trimmed);
	struct symbol symbol;

	if (!id)
		return 0;
	if (!*id) {
		*id = ++pprof->locations_len;
		symbols_find(pprof->symbols, address, &symbol);
		add_found(pprof, *id, &symbol, trimmed ? count_hidden(pprof, &symbol) : 0);
	}
	return *id;
}

struct pprof *pprof_open(
	struct arena *arena, struct symbols *symbols, const struct pprof_settings *settings)
{
	struct pprof *pprof = arena_alloc(arena, sizeof(*pprof));

	if (!pprof)
		return NULL;
	pprof->arena = arena;
	pprof->symbols = symbols;
	pprof->settings = settings;
	pprof->texts = arena_alloc(arena, TEXTS_MAX * sizeof(pprof->texts[0]));
	pprof->module_used = arena_alloc(arena, symbols_modules(symbols) + 1);
	pprof->module_lacks_lines = arena_alloc(arena, symbols_modules(symbols) + 1);
	if (!pprof->texts || !pprof->module_used || !pprof->module_lacks_lines ||
		arena_buf(arena, STACK_MAX * VARINT_MAX, &pprof->ids) ||
		arena_buf(arena, UINT16_MAX, &pprof->sample) ||
		arena_buf(arena, SECTION_BYTES_MAX, &pprof->samples) ||
		arena_buf(arena, SECTION_BYTES_MAX, &pprof->locations) ||
		arena_buf(arena, SECTION_BYTES_MAX, &pprof->functions) ||
		arena_buf(arena, SECTION_BYTES_MAX, &pprof->strings))
		return NULL;
	add_bytes(&pprof->strings, PROFILE_STRING_TABLE, SV("")); /* id 0 is the empty text */
	pprof->strings_len = 1;
	return pprof;
}

static void add_label(struct pprof *pprof, struct buf *sample, const struct pprof_label *label)
{
	char mem[48];
	struct buf body;

	buf_init_fixed(&body, mem, sizeof(mem));
	add_number(&body, LABEL_KEY, string_id(pprof, label->key));
	if (label->text)
		add_number(&body, LABEL_STR, string_id(pprof, label->text));
	else
		add_number(&body, LABEL_NUM, (uint64_t)label->number);
	add_bytes(sample, SAMPLE_LABEL, buf_sv(&body));
}

static void add_sample(struct pprof *pprof, struct sv location_ids, const int64_t *values,
	const struct pprof_label *labels, size_t labels_len)
{
	char packed_mem[PPROF_VALUES_MAX * 10];
	struct buf packed, sample = pprof->sample;

	buf_init_fixed(&packed, packed_mem, sizeof(packed_mem));
	for (size_t i = 0; i < pprof->settings->values_len; i++)
		add_varint(&packed, (uint64_t)values[i]);
	add_bytes(&sample, SAMPLE_LOCATION_ID, location_ids);
	add_bytes(&sample, SAMPLE_VALUE, buf_sv(&packed));
	for (size_t i = 0; i < labels_len; i++)
		add_label(pprof, &sample, &labels[i]);
	add_bytes(&pprof->samples, PROFILE_SAMPLE, buf_sv(&sample));
	pprof->failed |= sample.failed;
}

void pprof_add(struct pprof *pprof, const struct pprof_stack *stack, const int64_t *values,
	const struct pprof_label *labels, size_t labels_len)
{
	struct buf ids = pprof->ids;

	for (size_t i = 0; i < stack->len && i < STACK_MAX; i++) {
		/* A return address may be the first byte of the next function. */
		uintptr_t address = stack->pcs[i] - (i == 0 && stack->leaf_is_exact ? 0 : 1);

		add_varint(&ids, location_id(pprof, address,
					 i == 0 && pprof->settings->hides ? TRIMMED : 0));
	}
	add_sample(pprof, buf_sv(&ids), values, labels, labels_len);
}

static bool is_hidden(struct pprof *pprof, uintptr_t address)
{
	uint32_t *known = find(pprof, &pprof->hidden, address);
	struct symbol symbol;

	if (!known)
		return false;
	if (!*known) {
		symbols_find(pprof->symbols, address, &symbol);
		*known = pprof->settings->hides(symbol.name) ? 2 : 1;
	}
	return *known == 2;
}

static struct depot_stack without_hidden(struct pprof *pprof, struct depot_stack stack)
{
	size_t hidden = 0;

	if (!pprof->settings->hides)
		return stack;
	while (hidden < stack.len && is_hidden(pprof, stack.pcs[hidden] - 1))
		hidden++;
	if (hidden < stack.len) {
		stack.pcs += hidden;
		stack.len -= hidden;
	}
	return stack;
}

static void add_named(struct pprof *pprof, const char *function, const int64_t *values,
	const struct pprof_label *labels, size_t labels_len)
{
	char mem[10];
	struct buf ids;
	uint32_t id = ++pprof->locations_len;
	struct symbol_line line = { .function = function, .system_name = function };

	buf_init_fixed(&ids, mem, sizeof(mem));
	add_location(pprof, id, (struct place){ 0 }, &line, 1);
	add_varint(&ids, id);
	add_sample(pprof, buf_sv(&ids), values, labels, labels_len);
}

void pprof_add_row(struct pprof *pprof, const struct tally_key *key, const int64_t *values,
	const struct pprof_label *extra, size_t extra_len)
{
	struct depot_stack stack = without_hidden(pprof, depot_get(key->stack));
	struct label_pair pairs[LABELS_SET_MAX];
	struct pprof_label labels[LABELS_SET_MAX + PPROF_LABELS_MAX] = { { 0 } };
	char(*texts)[LABELS_TEXT_MAX + 1] = pprof->texts;
	size_t len = labels_of(key->labels, pairs);

	for (size_t i = 0; i < len; i++) {
		(void)sv_to_cstr(labels_text_of(pairs[i].key), texts[2 * i], sizeof(texts[0]));
		(void)sv_to_cstr(
			labels_text_of(pairs[i].value), texts[2 * i + 1], sizeof(texts[0]));
		labels[i] =
			(struct pprof_label){ .key = texts[2 * i], .text = texts[2 * i + 1] };
	}
	for (size_t i = 0; i < extra_len && i < PPROF_LABELS_MAX; i++)
		labels[len++] = extra[i];
	if (stack.len > 0)
		pprof_add(pprof, &(struct pprof_stack){ stack.pcs, stack.len, false }, values,
			labels, len);
	else
		add_named(pprof, "[no stack]", values, labels, len);
}

void pprof_add_named(struct pprof *pprof, const char *function, const int64_t *values)
{
	add_named(pprof, function, values, NULL, 0);
}

static void add_value_type(
	struct pprof *pprof, struct buf *out, unsigned field, struct pprof_value_type type)
{
	char mem[32];
	struct buf body;

	buf_init_fixed(&body, mem, sizeof(mem));
	add_number(&body, VALUE_TYPE_TYPE, string_id(pprof, type.type));
	add_number(&body, VALUE_TYPE_UNIT, string_id(pprof, type.unit));
	add_bytes(out, field, buf_sv(&body));
}

static void add_mapping(struct pprof *pprof, struct buf *out, size_t index)
{
	const struct module *module = symbols_module(pprof->symbols, index);
	char mem[128];
	struct buf body;

	buf_init_fixed(&body, mem, sizeof(mem));
	add_number(&body, MAPPING_ID, index + 1);
	add_number(&body, MAPPING_MEMORY_START, module->start);
	add_number(&body, MAPPING_MEMORY_LIMIT, module->limit);
	add_number(&body, MAPPING_FILE_OFFSET, module->file_offset);
	add_number(&body, MAPPING_FILENAME, string_id(pprof, module->path));
	add_number(&body, MAPPING_BUILD_ID, string_id(pprof, module->build_id));
	add_number(&body, MAPPING_HAS_FUNCTIONS, 1);
	if (pprof->module_used[index] && !pprof->module_lacks_lines[index]) {
		add_number(&body, MAPPING_HAS_FILENAMES, 1);
		add_number(&body, MAPPING_HAS_LINE_NUMBERS, 1);
		add_number(&body, MAPPING_HAS_INLINE_FRAMES, 1);
	}
	add_bytes(out, PROFILE_MAPPING, buf_sv(&body));
}

/* All that is not samples, locations, functions or strings. */
static void add_rest(struct pprof *pprof, struct buf *out)
{
	const struct pprof_settings *settings = pprof->settings;

	for (size_t i = 0; i < settings->values_len; i++)
		add_value_type(pprof, out, PROFILE_SAMPLE_TYPE, settings->values[i]);
	/* By convention the first mapping is the program's. */
	for (size_t i = 0; i < symbols_modules(pprof->symbols); i++) {
		if (i == 0 || pprof->module_used[i])
			add_mapping(pprof, out, i);
	}
	add_number(out, PROFILE_TIME_NANOS, (uint64_t)settings->time_unix_ns);
	add_number(out, PROFILE_DURATION_NANOS, (uint64_t)settings->duration_ns);
	add_value_type(pprof, out, PROFILE_PERIOD_TYPE, settings->period_type);
	add_number(out, PROFILE_PERIOD, (uint64_t)settings->period);
	for (size_t i = 0; i < PPROF_COMMENTS_MAX && settings->comments[i]; i++)
		add_number(out, PROFILE_COMMENT, string_id(pprof, settings->comments[i]));
	if (symbols_remarked(pprof->symbols))
		add_number(out, PROFILE_COMMENT,
			string_id(pprof, symbols_remarked(pprof->symbols)));
	if (settings->default_sample_type)
		add_number(out, PROFILE_DEFAULT_SAMPLE_TYPE,
			string_id(pprof, settings->default_sample_type));
}

static voidpf zlib_alloc(voidpf arena, uInt items, uInt size)
{
	return arena_alloc(arena, (size_t)items * size);
}

static void zlib_free(voidpf arena, voidpf memory)
{
	(void)arena; /* given back whole */
	(void)memory;
}

static bool compress_part(z_stream *stream, struct sv part, int flush, struct buf *out)
{
	stream->next_in = (const Bytef *)part.ptr;
	stream->avail_in = (uInt)part.len;
	do {
		char *room = buf_reserve(out, 4096);

		if (!room)
			return false;
		stream->next_out = (Bytef *)room;
		stream->avail_out = 4096;
		if (deflate(stream, flush) == Z_STREAM_ERROR)
			return false;
		buf_commit(out, 4096 - stream->avail_out);
	} while (stream->avail_out == 0);
	return true;
}

int pprof_finish(struct pprof *pprof, struct buf *out, struct err *err)
{
	z_stream stream = { .zalloc = zlib_alloc, .zfree = zlib_free, .opaque = pprof->arena };
	struct buf rest;
	bool whole;

	if (arena_buf(pprof->arena, SECTION_BYTES_MAX, &rest))
		return err_set(err, ERR_NOMEM, "out of memory for the profile");
	add_rest(pprof, &rest);
	if (pprof->failed || rest.failed || pprof->samples.failed || pprof->locations.failed ||
		pprof->functions.failed || pprof->strings.failed)
		return err_set(err, ERR_NOMEM, "the profile is too large");
	/* 31: the largest window, and a gzip header. Level 1, as Go's. */
	if (deflateInit2(&stream, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return err_set(err, ERR_NOMEM, "out of memory for compressing the profile");
	whole = compress_part(&stream, buf_sv(&rest), Z_NO_FLUSH, out) &&
		compress_part(&stream, buf_sv(&pprof->samples), Z_NO_FLUSH, out) &&
		compress_part(&stream, buf_sv(&pprof->locations), Z_NO_FLUSH, out) &&
		compress_part(&stream, buf_sv(&pprof->functions), Z_NO_FLUSH, out) &&
		compress_part(&stream, buf_sv(&pprof->strings), Z_FINISH, out);
	(void)deflateEnd(&stream);
	return whole ? 0 : err_set(err, ERR_NOMEM, "the profile is too large");
}
