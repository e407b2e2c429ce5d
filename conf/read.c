#include <libconfig.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/schema.h"
#include "conf/value.h"

#define PATH_MAX_LEN 256
#define ERRORS_MAX   100
#define NAME_MAX_LEN 64

static int line_of(const struct owner *owner, const char *path)
{
	for (const struct place *place = owner ? owner->places : NULL; place;
		place = place->next) {
		if (strcmp(place->path, path) == 0)
			return place->line;
	}
	return 0;
}

static void remember_line(struct owner *owner, const char *path, int line)
{
	struct place *place = owner_alloc(owner, sizeof(*place));
	const char *kept = owner_strdup(owner, path);

	if (!place || !kept)
		return;
	*place = (struct place){ owner->places, kept, line };
	owner->places = place;
}

/* A value is quoted as it is written in a file; one error stays one line. */
static void add_visible(struct buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\x%02x", c);
		else
			buf_add_byte(out, *text);
	}
}

void complain(struct reader *reader, int line, const char *where, const char *fmt, ...)
{
	struct conf_errors *errors = reader->errors;
	const char *file = reader->name;
	char text[1024];
	va_list ap;

	if (errors->count > ERRORS_MAX)
		return;
	if (errors->count++ == ERRORS_MAX) {
		buf_printf(&errors->text, "%s: more: there are more errors than these\n", file);
		return;
	}
	if (line == 0)
		line = line_of(reader->owner, where);
	if (line > 0 && !source_locate(reader->source, line, &file, &line))
		line = 0;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	buf_add_cstr(&errors->text, file);
	if (line > 0) {
		buf_add_byte(&errors->text, ':');
		buf_add_u64(&errors->text, (uint64_t)line);
	}
	buf_printf(&errors->text, ": %s: ", where);
	add_visible(&errors->text, text);
	buf_add_byte(&errors->text, '\n');
}

static bool read_group(struct reader *reader, const config_setting_t *group,
	const struct setting *fields, const char *path, char *out);

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* Levenshtein's distance. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NAME_MAX_LEN + 1];
	size_t len = strnlen(b, NAME_MAX_LEN);

	for (size_t i = 0; i <= len; i++)
		row[i] = (unsigned)i;
	for (unsigned i = 1; *a; a++, i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (size_t k = 1; k <= len; k++) {
			unsigned above = row[k];

			row[k] = min3(above + 1, row[k - 1] + 1, diagonal + (*a != b[k - 1]));
			diagonal = above;
		}
	}
	return row[len];
}

static void complain_unknown(struct reader *reader, const config_setting_t *setting,
	const struct setting *fields, const char *path)
{
	const char *name = config_setting_name(setting), *nearest = "";
	unsigned least = 4;

	for (const struct setting *field = fields; field->name; field++) {
		unsigned d = distance(name, field->name);

		if (d < least) {
			least = d;
			nearest = field->name;
		}
	}
	complain(reader, (int)config_setting_source_line(setting), path,
		nearest[0] ? "there is no such setting; did you mean '%s'?"
			   : "there is no such setting%s",
		nearest);
}

static bool read_text(struct reader *reader, const config_setting_t *setting,
	const struct setting *schema_of, struct place place, char *out)
{
	const char *text = config_setting_get_string(setting);
	int type = config_setting_type(setting);
	bool is_number = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
	char number[24];

	if (schema_of->or_number && is_number) {
		(void)snprintf(
			number, sizeof(number), "%lld", config_setting_get_int64(setting));
		text = number;
	}
	if (!text) {
		complain(reader, place.line, place.path,
			schema_of->or_number ? "it must be a number, or a text in quotes"
					     : "it must be a text in quotes");
		return false;
	}
	if (schema_of->required && text[0] == '\0') {
		complain(reader, place.line, place.path, "\"\" will not do: it is required");
		return false;
	}
	text = owner_strdup(reader->owner, text);
	memcpy(out, &text, sizeof(text));
	return text != NULL;
}

static bool read_bool(
	struct reader *reader, const config_setting_t *setting, struct place place, char *out)
{
	bool value = config_setting_get_bool(setting) != 0;

	if (config_setting_type(setting) != CONFIG_TYPE_BOOL) {
		complain(reader, place.line, place.path, "it must be true or false");
		return false;
	}
	memcpy(out, &value, sizeof(value));
	return true;
}

static void complain_range(struct reader *reader, const struct setting *schema_of,
	struct place place, const char *written)
{
	char from_mem[32], to_mem[32];
	struct buf from, to;

	buf_init_fixed(&from, from_mem, sizeof(from_mem));
	buf_init_fixed(&to, to_mem, sizeof(to_mem));
	if (schema_of->type == SETTING_DURATION) {
		duration_format(schema_of->min, &from);
		duration_format(schema_of->max, &to);
	} else if (schema_of->type == SETTING_SIZE) {
		size_format(schema_of->min, &from);
		size_format(schema_of->max, &to);
	} else {
		buf_add_u64(&from, schema_of->min);
		buf_add_u64(&to, schema_of->max);
	}
	complain(reader, place.line, place.path, "%s is not from %.*s to %.*s", written,
		(int)from.len, from.ptr, (int)to.len, to.ptr);
}

static bool read_amount(struct reader *reader, const config_setting_t *setting,
	const struct setting *schema_of, struct place place, char *out)
{
	bool duration = schema_of->type == SETTING_DURATION;
	const char *text = config_setting_get_string(setting);
	uint64_t value = 0;

	if (!text || !(duration ? duration_parse : size_parse)(sv_from_cstr(text), &value)) {
		complain(reader, place.line, place.path, "%s%s%s", text ? "\"" : "",
			text ? text : "it",
			duration ? text ? "\" is not a duration: write 500ms, 30s, 15m or 4h"
					: " must be a duration in quotes: \"500ms\", \"30s\", "
					  "\"15m\", \"4h\""
			: text   ? "\" is not a size: write 512, 16KiB, 64MiB or 1GiB"
				 : " must be a size in quotes: \"512\", \"16KiB\", \"64MiB\"");
		return false;
	}
	if (value < schema_of->min || value > schema_of->max) {
		complain_range(reader, schema_of, place, text);
		return false;
	}
	memcpy(out, &value, sizeof(value));
	return true;
}

static bool read_number(struct reader *reader, const config_setting_t *setting,
	const struct setting *schema_of, struct place place, char *out)
{
	int type = config_setting_type(setting);
	long long value = config_setting_get_int64(setting);
	uint32_t number = (uint32_t)value;
	char written[24];

	if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64) {
		complain(reader, place.line, place.path, "it must be a whole number");
		return false;
	}
	if (value < 0 || (uint64_t)value < schema_of->min || (uint64_t)value > schema_of->max) {
		(void)snprintf(written, sizeof(written), "%lld", value);
		complain_range(reader, schema_of, place, written);
		return false;
	}
	memcpy(out, &number, sizeof(number));
	return true;
}

static bool read_decimal(
	struct reader *reader, const config_setting_t *setting, struct place place, char *out)
{
	int type = config_setting_type(setting);
	double value = type == CONFIG_TYPE_FLOAT ? config_setting_get_float(setting)
						 : (double)config_setting_get_int64(setting);

	if ((type != CONFIG_TYPE_FLOAT && type != CONFIG_TYPE_INT &&
		    type != CONFIG_TYPE_INT64) ||
		!(value > 0 && value <= 1e5)) {
		complain(reader, place.line, place.path,
			"it must be a number above 0 and at most 100000, as 20.0");
		return false;
	}
	memcpy(out, &value, sizeof(value));
	return true;
}

static bool read_choice(struct reader *reader, const config_setting_t *setting,
	const struct setting *schema_of, struct place place, char *out)
{
	const char *text = config_setting_get_string(setting);
	char list_mem[256];
	struct buf list;

	buf_init_fixed(&list, list_mem, sizeof(list_mem));
	for (int i = 0; schema_of->choices[i]; i++) {
		if (text && strcmp(text, schema_of->choices[i]) == 0) {
			memcpy(out, &i, sizeof(i));
			return true;
		}
		if (schema_of->choices[i][0])
			buf_printf(&list, "%s\"%s\"", i > 0 ? ", " : "", schema_of->choices[i]);
	}
	complain(reader, place.line, place.path, "%s%s%s is none of %.*s", text ? "\"" : "",
		text ? text : "what is written", text ? "\"" : "", (int)list.len, list.ptr);
	return false;
}

static bool read_texts(struct reader *reader, const config_setting_t *setting,
	const struct setting *schema_of, struct place place, char *out)
{
	int len = config_setting_length(setting);
	const char **texts;

	if (!config_setting_is_array(setting) && !config_setting_is_list(setting)) {
		complain(reader, place.line, place.path,
			"it must be a list in brackets: [ \"…\", \"…\" ]");
		return false;
	}
	texts = owner_alloc(reader->owner, ((size_t)len + 1) * sizeof(*texts));
	if (!texts)
		return false;
	for (int i = 0; i < len; i++) {
		if (!read_text(reader, config_setting_get_elem(setting, (unsigned)i), schema_of,
			    place, (char *)&texts[i]))
			return false;
	}
	memcpy(out, &texts, sizeof(texts));
	return true;
}

/* NOLINTBEGIN(misc-no-recursion): groups within groups, as deep as the schema is. */

static bool read_groups(struct reader *reader, const config_setting_t *setting,
	const struct setting *schema_of, struct place place, char *out)
{
	int len = config_setting_length(setting);
	struct group_list list = { .len = (size_t)len };
	char path[PATH_MAX_LEN + 16];
	int *lines;

	if (!config_setting_is_list(setting) &&
		!(config_setting_is_array(setting) && len == 0)) {
		complain(reader, place.line, place.path,
			"it must be a list of groups in parentheses: ( { … }, { … } )");
		return false;
	}
	list.items = owner_alloc(reader->owner, (list.len + 1) * schema_of->item_size);
	lines = owner_alloc(reader->owner, (list.len + 1) * sizeof(*lines));
	if (!list.items || !lines)
		return false;
	for (int i = 0; i < len; i++) {
		const config_setting_t *item = config_setting_get_elem(setting, (unsigned)i);

		lines[i] = (int)config_setting_source_line(item);
		(void)snprintf(path, sizeof(path), "%s[%d]", place.path, i);
		if (!config_setting_is_group(item))
			complain(reader, lines[i], path, "it must be a group: { … }");
		else
			(void)read_group(reader, item, schema_of->fields, path,
				list.items + (size_t)i * schema_of->item_size);
	}
	list.lines = lines;
	memcpy(out, &list, sizeof(list));
	return true;
}

/* A feature that is still to come may be named, as long as it is switched off. */
static bool is_off(const config_setting_t *setting)
{
	const char *text = config_setting_get_string(setting);

	if (config_setting_is_aggregate(setting))
		return config_setting_length(setting) == 0;
	if (text)
		return text[0] == '\0' || strcmp(text, "0") == 0;
	return config_setting_type(setting) == CONFIG_TYPE_BOOL &&
	       !config_setting_get_bool(setting);
}

static bool read_setting(struct reader *reader, const config_setting_t *setting,
	const struct setting *schema_of, const char *path, char *out)
{
	struct place place = { NULL, path, (int)config_setting_source_line(setting) };

	switch (schema_of->type) {
	case SETTING_TEXT:
		return read_text(reader, setting, schema_of, place, out);
	case SETTING_BOOL:
		return read_bool(reader, setting, place, out);
	case SETTING_DURATION:
	case SETTING_SIZE:
		return read_amount(reader, setting, schema_of, place, out);
	case SETTING_NUMBER:
		return read_number(reader, setting, schema_of, place, out);
	case SETTING_DECIMAL:
		return read_decimal(reader, setting, place, out);
	case SETTING_CHOICE:
		return read_choice(reader, setting, schema_of, place, out);
	case SETTING_TEXTS:
		return read_texts(reader, setting, schema_of, place, out);
	case SETTING_GROUPS:
		return read_groups(reader, setting, schema_of, place, out);
	case SETTING_GROUP:
		complain(reader, place.line, path, "it must be a group: { … }");
		return false;
	case SETTING_NOT_BUILT:
		if (!is_off(setting))
			complain(reader, place.line, path,
				"this is not built yet; leave it out");
		return true;
	}
	return false;
}

static const char **split_words(struct owner *owner, const char *words)
{
	struct sv rest = sv_from_cstr(words);
	const char **texts = owner_alloc(owner, 8 * sizeof(*texts));

	for (size_t i = 0; texts && rest.len > 0 && i < 7; i++) {
		struct sv word = sv_cut(&rest, ' ');
		char text[64];

		if (sv_to_cstr(word, text, sizeof(text)))
			texts[i] = owner_strdup(owner, text);
	}
	return texts;
}

/* What holds when a setting is left out. The table's own texts are right by its test. */
static void set_fallback(struct reader *reader, const struct setting *schema_of, char *out)
{
	const char *text = schema_of->fallback ? schema_of->fallback : "";
	uint64_t amount = 0;
	uint32_t number;
	double decimal;
	bool truth = strcmp(text, "true") == 0;
	const char **texts;

	switch (schema_of->type) {
	case SETTING_TEXT:
		memcpy(out, &text, sizeof(text));
		break;
	case SETTING_BOOL:
		memcpy(out, &truth, sizeof(truth));
		break;
	case SETTING_DURATION:
		(void)duration_parse(sv_from_cstr(text), &amount);
		memcpy(out, &amount, sizeof(amount));
		break;
	case SETTING_SIZE:
		(void)size_parse(sv_from_cstr(text), &amount);
		memcpy(out, &amount, sizeof(amount));
		break;
	case SETTING_NUMBER:
		number = (uint32_t)strtoul(text, NULL, 10);
		memcpy(out, &number, sizeof(number));
		break;
	case SETTING_DECIMAL:
		decimal = strtod(text, NULL);
		memcpy(out, &decimal, sizeof(decimal));
		break;
	case SETTING_CHOICE:
		for (int i = 0; schema_of->choices[i]; i++) {
			if (strcmp(schema_of->choices[i], text) == 0)
				memcpy(out, &i, sizeof(i));
		}
		break;
	case SETTING_TEXTS:
		texts = split_words(reader->owner, text);
		memcpy(out, &texts, sizeof(texts));
		break;
	case SETTING_GROUP:
	case SETTING_GROUPS:
	case SETTING_NOT_BUILT:
		break;
	}
}

static bool read_field(struct reader *reader, const config_setting_t *group,
	const struct setting *field, const char *path, char *out)
{
	const config_setting_t *setting =
		group ? config_setting_get_member(group, field->name) : NULL;
	char below[PATH_MAX_LEN];

	(void)snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "." : "", field->name);
	if (setting)
		remember_line(reader->owner, below, (int)config_setting_source_line(setting));
	/* The fields of a group lie where its own struct says, not at an offset of the group. */
	if (field->type == SETTING_GROUP && (!setting || config_setting_is_group(setting)))
		return read_group(reader, setting, field->fields, below, out);
	set_fallback(reader, field, out + field->offset);
	if (setting)
		return read_setting(reader, setting, field, below, out + field->offset);
	if (field->required)
		complain(reader, group ? (int)config_setting_source_line(group) : 0, below,
			"this setting is required");
	return !field->required;
}

static bool read_group(struct reader *reader, const config_setting_t *group,
	const struct setting *fields, const char *path, char *out)
{
	bool good = true;

	for (int i = 0; group && i < config_setting_length(group); i++) {
		const config_setting_t *member = config_setting_get_elem(group, (unsigned)i);
		const struct setting *field = fields;
		char below[PATH_MAX_LEN];

		while (field->name && strcmp(field->name, config_setting_name(member)) != 0)
			field++;
		(void)snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "." : "",
			config_setting_name(member));
		if (!field->name)
			complain_unknown(reader, member, fields, below);
	}
	for (const struct setting *field = fields; field->name; field++)
		good &= read_field(reader, group, field, path, out);
	return good;
}

/* NOLINTEND(misc-no-recursion) */

int schema_read(struct reader *reader, void *config)
{
	const config_t *file = config;

	(void)read_group(
		reader, config_root_setting(file), schema, "", (char *)&reader->owner->raw);
	return reader->errors->count ? -1 : 0;
}
