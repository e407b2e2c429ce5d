#include "sampler/write/metrics.h"

#define NS UINT64_C(1000000000)

void metrics_head(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_add_cstr(out, "# HELP ");
	buf_add_cstr(out, name);
	buf_add_byte(out, ' ');
	buf_add_cstr(out, help);
	buf_add_cstr(out, "\n# TYPE ");
	buf_add_cstr(out, name);
	buf_add_byte(out, ' ');
	buf_add_cstr(out, type);
	buf_add_byte(out, '\n');
}

static void begin_line(struct buf *out, const char *name, const char *suffix, struct sv labels)
{
	buf_add_cstr(out, name);
	buf_add_cstr(out, suffix);
	if (labels.len > 0) {
		buf_add_byte(out, '{');
		buf_add_sv(out, labels);
		buf_add_byte(out, '}');
	}
	buf_add_byte(out, ' ');
}

void metrics_u64(
	struct buf *out, const char *name, const char *suffix, struct sv labels, uint64_t value)
{
	begin_line(out, name, suffix, labels);
	buf_add_u64(out, value);
	buf_add_byte(out, '\n');
}

void metrics_seconds(
	struct buf *out, const char *name, const char *suffix, struct sv labels, uint64_t ns)
{
	begin_line(out, name, suffix, labels);
	buf_add_u64(out, ns / NS);
	buf_add_byte(out, '.');
	for (uint64_t place = NS / 10; place > 0; place /= 10)
		buf_add_byte(out, (char)('0' + ns / place % 10));
	buf_add_byte(out, '\n');
}

void metrics_bound(struct buf *out, uint64_t ns)
{
	uint64_t place = NS;

	buf_add_u64(out, ns / NS);
	if (ns % NS > 0)
		buf_add_byte(out, '.');
	while (ns % place > 0) {
		ns %= place;
		place /= 10;
		buf_add_byte(out, (char)('0' + ns / place));
	}
}

void metrics_label(struct buf *labels, const char *key, struct sv value)
{
	if (labels->len > 0)
		buf_add_byte(labels, ',');
	buf_add_cstr(labels, key);
	buf_add_cstr(labels, "=\"");
	for (size_t i = 0; i < value.len; i++) {
		char c = value.ptr[i];

		if (c == '\n') {
			buf_add_cstr(labels, "\\n");
			continue;
		}
		if (c == '"' || c == '\\')
			buf_add_byte(labels, '\\');
		buf_add_byte(labels, c);
	}
	buf_add_byte(labels, '"');
}

void metrics_one(
	struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
	metrics_head(out, name, type, help);
	metrics_u64(out, name, "", SV(""), value);
}

void metrics_one_seconds(
	struct buf *out, const char *name, const char *type, const char *help, uint64_t ns)
{
	metrics_head(out, name, type, help);
	metrics_seconds(out, name, "", SV(""), ns);
}
