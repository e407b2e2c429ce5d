#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/schema.h"

static void print_group(
	struct buf *out, const struct setting *fields, const char *from, unsigned depth);

static void indent(struct buf *out, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++)
		buf_add_cstr(out, "  ");
}

/* libconfig's strings: quotes and backslashes escaped, controls as \xNN. */
static void print_text(struct buf *out, const char *text)
{
	buf_add_byte(out, '"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			buf_printf(out, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\x%02x", c);
		else
			buf_add_byte(out, *text);
	}
	buf_add_byte(out, '"');
}

static void print_texts(struct buf *out, conf_list texts)
{
	buf_add_byte(out, '[');
	for (size_t i = 0; texts && texts[i]; i++) {
		buf_add_cstr(out, i > 0 ? ", " : " ");
		print_text(out, texts[i]);
	}
	buf_add_cstr(out, " ]");
}

/* A decimal point always, or libconfig would take it for a whole number. */
static void print_decimal(struct buf *out, double value)
{
	char text[64];

	/* The shortest that is this number and no other. */
	for (int digits = 1; digits <= 17; digits++) {
		(void)snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	buf_add_cstr(out, text);
	if (!strpbrk(text, ".e"))
		buf_add_cstr(out, ".0");
}

static void print_amount(struct buf *out, const struct setting *field, const char *from)
{
	uint64_t amount;

	memcpy(&amount, from, sizeof(amount));
	buf_add_byte(out, '"');
	if (field->type == SETTING_DURATION)
		duration_format(amount, out);
	else
		size_format(amount, out);
	buf_add_byte(out, '"');
}

/* NOLINTBEGIN(misc-no-recursion): groups within groups, as deep as the schema is. */

static void print_groups(struct buf *out, const struct setting *field,
	const struct group_list *list, unsigned depth)
{
	buf_add_cstr(out, "(");
	for (size_t i = 0; i < list->len; i++) {
		buf_add_cstr(out, i > 0 ? ",\n" : "\n");
		indent(out, depth + 1);
		buf_add_cstr(out, "{\n");
		print_group(out, field->fields, list->items + i * field->item_size, depth + 2);
		indent(out, depth + 1);
		buf_add_byte(out, '}');
	}
	buf_add_cstr(out, " )");
}

static void print_value(
	struct buf *out, const struct setting *field, const char *from, unsigned depth)
{
	struct group_list list;
	const char *text;
	conf_list texts;
	uint32_t number;
	double decimal;
	bool truth;
	int choice;

	switch (field->type) {
	case SETTING_TEXT:
		memcpy(&text, from, sizeof(text));
		print_text(out, text ? text : "");
		break;
	case SETTING_BOOL:
		memcpy(&truth, from, sizeof(truth));
		buf_add_cstr(out, truth ? "true" : "false");
		break;
	case SETTING_DURATION:
	case SETTING_SIZE:
		print_amount(out, field, from);
		break;
	case SETTING_NUMBER:
		memcpy(&number, from, sizeof(number));
		buf_add_u64(out, number);
		if (number > INT32_MAX)
			buf_add_byte(out, 'L');
		break;
	case SETTING_DECIMAL:
		memcpy(&decimal, from, sizeof(decimal));
		print_decimal(out, decimal);
		break;
	case SETTING_CHOICE:
		memcpy(&choice, from, sizeof(choice));
		print_text(out, field->choices[choice]);
		break;
	case SETTING_TEXTS:
		memcpy(&texts, from, sizeof(texts));
		print_texts(out, texts);
		break;
	case SETTING_GROUPS:
		memcpy(&list, from, sizeof(list));
		print_groups(out, field, &list, depth);
		break;
	case SETTING_GROUP:
	case SETTING_NOT_BUILT:
		break;
	}
}

static bool has_built_field(const struct setting *fields)
{
	while (fields->name && fields->type == SETTING_NOT_BUILT)
		fields++;
	return fields->name != NULL;
}

static void print_group(
	struct buf *out, const struct setting *fields, const char *from, unsigned depth)
{
	for (const struct setting *field = fields; field->name; field++) {
		if (field->type == SETTING_NOT_BUILT ||
			(field->type == SETTING_GROUP && !has_built_field(field->fields)))
			continue;
		indent(out, depth);
		buf_printf(out, "%s = ", field->name);
		if (field->type == SETTING_GROUP) {
			buf_add_cstr(out, "{\n");
			print_group(out, field->fields, from, depth + 1);
			indent(out, depth);
			buf_add_byte(out, '}');
		} else {
			print_value(out, field, from + field->offset, depth);
		}
		buf_add_cstr(out, ";\n");
	}
}

/* NOLINTEND(misc-no-recursion) */

void conf_print(const struct conf *conf, struct buf *out)
{
	/* The conf is the first member of raw, which is the first of its owner. */
	print_group(out, schema, (const char *)conf, 0);
}
