#include "profile/profile.h"

#include <stdlib.h>

#define ZLIB_CONST
#include <zlib.h>

#include "base/buf.h"
#include "profile.pb-c.h"

/* What the tables of a profile point into, and the memory that they may take together. */
struct profile_parts {
	ProtobufCAllocator allocator;
	size_t memory_left;
	Wire__Profile *wire;
	struct profile_line *lines;
	uint32_t *stacks;
};

/* ---- memory */

static void *take_memory(void *parts, size_t size)
{
	struct profile_parts *p = parts;

	if (size > p->memory_left)
		return NULL;
	p->memory_left -= size;
	return malloc(size);
}

static void free_memory(void *parts, void *mem)
{
	(void)parts;
	free(mem);
}

/* An array of zeros, one byte at least, so that NULL always means that there was no memory. */
static void *new_array(struct profile_parts *parts, size_t len, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(len, size, &bytes) || bytes >= parts->memory_left)
		return NULL;
	parts->memory_left -= bytes + 1;
	return calloc(1, bytes + 1);
}

/* ---- ids to indices */

struct id_entry {
	uint64_t id;
	uint32_t index;
};

struct id_table {
	const char *what;
	struct id_entry *entries;
	size_t len;
};

static int compare_ids(const void *a, const void *b)
{
	const struct id_entry *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* Sort what was filled in; ids must be there and differ. */
static int finish_ids(struct id_table *table, struct err *err)
{
	qsort(table->entries, table->len, sizeof(*table->entries), compare_ids);
	for (size_t i = 0; i < table->len; i++) {
		if (table->entries[i].id == 0)
			return err_set(err, ERR_INPUT,
				"not a valid profile: a %s without an id", table->what);
		if (i > 0 && table->entries[i].id == table->entries[i - 1].id)
			return err_set(err, ERR_INPUT,
				"not a valid profile: two %ss with id %llu", table->what,
				(unsigned long long)table->entries[i].id);
	}
	return 0;
}

static int find_id(const struct id_table *table, uint64_t id, uint32_t *index, struct err *err)
{
	const struct id_entry key = { .id = id }, *found;

	/* As good as every writer numbers from 1 on. */
	if (id > 0 && id <= table->len && table->entries[id - 1].id == id) {
		*index = table->entries[id - 1].index;
		return 0;
	}
	found = bsearch(&key, table->entries, table->len, sizeof(key), compare_ids);
	if (!found)
		return err_set(err, ERR_INPUT, "not a valid profile: no %s has id %llu",
			table->what, (unsigned long long)id);
	*index = found->index;
	return 0;
}

/* ---- from wire to tables */

struct reader {
	struct profile *profile;
	struct profile_parts *parts;
	const Wire__Profile *wire;
	struct id_table mappings, functions, locations;
	struct err *err;
};

static int fail_memory(const struct reader *r)
{
	return err_set(r->err, ERR_NOMEM, "the profile needs too much memory");
}

static int read_text(const struct reader *r, int64_t index, struct sv *out)
{
	if (index < 0 || (uint64_t)index >= r->wire->n_string_table)
		return err_set(r->err, ERR_INPUT,
			"not a valid profile: text number %lld of %zu", (long long)index,
			r->wire->n_string_table);
	*out = (struct sv){ (const char *)r->wire->string_table[index].data,
		r->wire->string_table[index].len };
	return 0;
}

static int read_type(
	const struct reader *r, const Wire__ValueType *from, struct profile_type *to)
{
	return read_text(r, from->type, &to->type) || read_text(r, from->unit, &to->unit) ? -1
											  : 0;
}

static int read_types(struct reader *r)
{
	struct profile *p = r->profile;
	struct sv wanted = SV("");

	p->types = new_array(r->parts, r->wire->n_sample_type, sizeof(*p->types));
	if (!p->types)
		return fail_memory(r);
	p->types_len = r->wire->n_sample_type;
	if (p->types_len == 0)
		return err_set(r->err, ERR_INPUT, "not a valid profile: it has no sample type");
	for (size_t i = 0; i < p->types_len; i++)
		if (read_type(r, r->wire->sample_type[i], &p->types[i]))
			return -1;
	if (r->wire->period_type && read_type(r, r->wire->period_type, &p->period_type))
		return -1;
	p->default_type = p->types_len - 1;
	if (read_text(r, r->wire->default_sample_type, &wanted))
		return -1;
	for (size_t i = 0; wanted.len > 0 && i < p->types_len; i++)
		if (sv_is(p->types[i].type, wanted)) {
			p->default_type = i;
			break;
		}
	return 0;
}

static int read_comments(struct reader *r)
{
	struct profile *p = r->profile;

	p->comments = new_array(r->parts, r->wire->n_comment, sizeof(*p->comments));
	if (!p->comments)
		return fail_memory(r);
	p->comments_len = r->wire->n_comment;
	for (size_t i = 0; i < p->comments_len; i++)
		if (read_text(r, r->wire->comment[i], &p->comments[i]))
			return -1;
	return 0;
}

static int read_mappings(struct reader *r)
{
	struct profile *p = r->profile;

	p->mappings_len = r->wire->n_mapping;
	p->mappings = new_array(r->parts, p->mappings_len, sizeof(*p->mappings));
	r->mappings.entries = new_array(r->parts, p->mappings_len, sizeof(struct id_entry));
	if (!p->mappings || !r->mappings.entries)
		return fail_memory(r);
	for (size_t i = 0; i < p->mappings_len; i++) {
		const Wire__Mapping *from = r->wire->mapping[i];
		struct profile_mapping *to = &p->mappings[i];

		to->start = from->memory_start;
		to->limit = from->memory_limit;
		to->offset = from->file_offset;
		to->has_functions = from->has_functions;
		if (read_text(r, from->filename, &to->file) ||
			read_text(r, from->build_id, &to->build_id))
			return -1;
		r->mappings.entries[i] = (struct id_entry){ from->id, (uint32_t)i };
	}
	r->mappings.len = p->mappings_len;
	return finish_ids(&r->mappings, r->err);
}

static int read_functions(struct reader *r)
{
	struct profile *p = r->profile;

	p->functions_len = r->wire->n_function;
	p->functions = new_array(r->parts, p->functions_len, sizeof(*p->functions));
	r->functions.entries = new_array(r->parts, p->functions_len, sizeof(struct id_entry));
	if (!p->functions || !r->functions.entries)
		return fail_memory(r);
	for (size_t i = 0; i < p->functions_len; i++) {
		const Wire__Function *from = r->wire->function[i];
		struct profile_function *to = &p->functions[i];

		to->start_line = from->start_line;
		if (read_text(r, from->name, &to->name) ||
			read_text(r, from->system_name, &to->system_name) ||
			read_text(r, from->filename, &to->file))
			return -1;
		r->functions.entries[i] = (struct id_entry){ from->id, (uint32_t)i };
	}
	r->functions.len = p->functions_len;
	return finish_ids(&r->functions, r->err);
}

static int read_location(struct reader *r, const Wire__Location *from,
	struct profile_location *to, struct profile_line *lines)
{
	to->address = from->address;
	to->mapping = PROFILE_NONE;
	to->lines = lines;
	to->lines_len = from->n_line;
	if (from->mapping_id && find_id(&r->mappings, from->mapping_id, &to->mapping, r->err))
		return -1;
	for (size_t i = 0; i < from->n_line; i++) {
		lines[i].line = from->line[i]->line;
		lines[i].function = PROFILE_NONE;
		if (from->line[i]->function_id &&
			find_id(&r->functions, from->line[i]->function_id, &lines[i].function,
				r->err))
			return -1;
	}
	return 0;
}

static int read_locations(struct reader *r)
{
	struct profile *p = r->profile;
	size_t lines = 0;

	p->locations_len = r->wire->n_location;
	for (size_t i = 0; i < p->locations_len; i++)
		lines += r->wire->location[i]->n_line;
	p->locations = new_array(r->parts, p->locations_len, sizeof(*p->locations));
	r->parts->lines = new_array(r->parts, lines, sizeof(*r->parts->lines));
	r->locations.entries = new_array(r->parts, p->locations_len, sizeof(struct id_entry));
	if (!p->locations || !r->parts->lines || !r->locations.entries)
		return fail_memory(r);
	lines = 0;
	for (size_t i = 0; i < p->locations_len; i++) {
		const Wire__Location *from = r->wire->location[i];

		if (read_location(r, from, &p->locations[i], r->parts->lines + lines))
			return -1;
		lines += from->n_line;
		r->locations.entries[i] = (struct id_entry){ from->id, (uint32_t)i };
	}
	r->locations.len = p->locations_len;
	return finish_ids(&r->locations, r->err);
}

static int read_samples(struct reader *r)
{
	struct profile *p = r->profile;
	uint32_t *stack;
	size_t depth = 0;

	p->samples_len = r->wire->n_sample;
	for (size_t i = 0; i < p->samples_len; i++)
		depth += r->wire->sample[i]->n_location_id;
	p->samples = new_array(r->parts, p->samples_len, sizeof(*p->samples));
	r->parts->stacks = new_array(r->parts, depth, sizeof(uint32_t));
	if (!p->samples || !r->parts->stacks)
		return fail_memory(r);
	stack = r->parts->stacks;
	for (size_t i = 0; i < p->samples_len; i++) {
		const Wire__Sample *from = r->wire->sample[i];

		if (from->n_value != p->types_len)
			return err_set(r->err, ERR_INPUT,
				"not a valid profile: sample %zu has %zu values, there are %zu "
				"types",
				i + 1, from->n_value, p->types_len);
		p->samples[i] =
			(struct profile_sample){ stack, from->n_location_id, from->value };
		for (size_t j = 0; j < from->n_location_id; j++)
			if (find_id(&r->locations, from->location_id[j], stack++, r->err))
				return -1;
	}
	return 0;
}

static int read_tables(struct reader *r)
{
	const Wire__Profile *wire = r->wire;

	/* Indices are of 32 bits here; a file within PROFILE_BYTES_MAX cannot hold more. */
	if (wire->n_string_table == 0 || wire->string_table[0].len > 0)
		return err_set(r->err, ERR_INPUT,
			"not a valid profile: its first text is not the empty one");
	r->profile->period = wire->period;
	r->profile->time_ns = wire->time_nanos;
	r->profile->duration_ns = wire->duration_nanos;
	if (read_types(r) || read_comments(r) || read_mappings(r) || read_functions(r) ||
		read_locations(r) || read_samples(r))
		return -1;
	return 0;
}

/* ---- from bytes to wire */

static int fail_gzip(struct err *err)
{
	return err_set(
		err, ERR_INPUT, "not a profile: its gzip stream is damaged or cut short");
}

/* gzip, of one or several members, as they come from files that were put together. */
static int unpack(z_stream *stream, struct buf *out, struct err *err)
{
	int result = Z_OK;

	while (result != Z_STREAM_END || stream->avail_in > 0) {
		const unsigned step = 64 << 10;
		char *to = buf_reserve(out, step);

		if (!to)
			return err_set(err, ERR_INPUT,
				"the profile unpacks to more than %zu MiB",
				PROFILE_BYTES_MAX >> 20);
		if (result == Z_STREAM_END && inflateReset(stream) != Z_OK)
			return fail_gzip(err);
		stream->next_out = (Bytef *)to;
		stream->avail_out = step;
		result = inflate(stream, Z_NO_FLUSH);
		if (result != Z_OK && result != Z_STREAM_END)
			return fail_gzip(err);
		buf_commit(out, step - stream->avail_out);
	}
	return 0;
}

static int gunzip(struct sv bytes, struct buf *out, struct err *err)
{
	z_stream stream = { 0 };
	int rc;

	if (bytes.len > UINT32_MAX)
		return err_set(err, ERR_INPUT, "the file is too large for a profile");
	stream.next_in = (const Bytef *)bytes.ptr;
	stream.avail_in = (uInt)bytes.len;
	if (inflateInit2(&stream, 15 + 16) != Z_OK)
		return err_set(err, ERR_NOMEM, "out of memory");
	rc = unpack(&stream, out, err);
	(void)inflateEnd(&stream);
	return rc;
}

static int read_wire(struct profile_parts *parts, struct sv bytes, struct err *err)
{
	static const char magic[] = { 0x1f, (char)0x8b };
	struct buf plain;
	int rc = -1;

	buf_init(&plain, PROFILE_BYTES_MAX);
	if (sv_starts_with(bytes, (struct sv){ magic, sizeof(magic) })) {
		if (gunzip(bytes, &plain, err))
			goto out;
		bytes = buf_sv(&plain);
	}
	if (bytes.len == 0 || bytes.len > PROFILE_BYTES_MAX) {
		(void)err_set(err, ERR_INPUT, "not a profile: %s",
			bytes.len ? "it is too large" : "it is empty");
		goto out;
	}
	parts->wire =
		wire__profile__unpack(&parts->allocator, bytes.len, (const uint8_t *)bytes.ptr);
	if (!parts->wire) {
		(void)err_set(err, ERR_INPUT,
			"not a profile: neither gzip nor pprof's protocol buffer");
		goto out;
	}
	rc = 0;
out:
	buf_free(&plain);
	return rc;
}

int profile_parse(struct sv bytes, struct profile **out, struct err *err)
{
	struct profile *profile = calloc(1, sizeof(*profile));
	struct profile_parts *parts = calloc(1, sizeof(*parts));
	struct reader r = { .mappings.what = "mapping",
		.functions.what = "function",
		.locations.what = "location" };
	int rc = -1;

	if (!profile || !parts) {
		free(profile);
		free(parts);
		return err_set(err, ERR_NOMEM, "out of memory");
	}
	parts->allocator = (ProtobufCAllocator){ take_memory, free_memory, parts };
	parts->memory_left = PROFILE_MEMORY_MAX;
	profile->parts = parts;
	if (read_wire(parts, bytes, err))
		goto out;
	r.profile = profile;
	r.parts = parts;
	r.wire = parts->wire;
	r.err = err;
	rc = read_tables(&r);
out:
	free(r.mappings.entries);
	free(r.functions.entries);
	free(r.locations.entries);
	if (rc == 0)
		*out = profile;
	else
		profile_free(profile);
	return rc;
}

void profile_free(struct profile *profile)
{
	if (!profile)
		return;
	if (profile->parts->wire)
		wire__profile__free_unpacked(profile->parts->wire, &profile->parts->allocator);
	free(profile->parts->lines);
	free(profile->parts->stacks);
	free(profile->parts);
	free(profile->types);
	free(profile->samples);
	free(profile->mappings);
	free(profile->locations);
	free(profile->functions);
	free(profile->comments);
	free(profile);
}

int profile_find_type(
	const struct profile *profile, struct sv name, size_t *out, struct err *err)
{
	const struct sv inuse = SV("inuse_");
	struct sv bare = name;
	uint64_t number;
	struct buf names;
	char mem[160];

	if (name.len == 0) {
		*out = profile->default_type;
		return 0;
	}
	if (sv_to_u64(name, profile->types_len - 1, &number)) {
		*out = (size_t)number;
		return 0;
	}
	/* Old heap profiles call it "space", and are asked for "inuse_space" all the same. */
	if (sv_starts_with(name, inuse))
		bare = (struct sv){ name.ptr + inuse.len, name.len - inuse.len };
	buf_init_fixed(&names, mem, sizeof(mem));
	for (size_t i = 0; i < profile->types_len; i++) {
		struct sv type = profile->types[i].type;

		if (sv_is(type, name) || sv_is(type, bare)) {
			*out = i;
			return 0;
		}
		buf_printf(&names, "%s" SV_FMT, i ? ", " : "", SV_ARG(type));
	}
	return err_set(err, ERR_INPUT,
		"'" SV_FMT "' is not a sample type of this profile: " SV_FMT, SV_ARG(name),
		SV_ARG(buf_sv(&names)));
}
