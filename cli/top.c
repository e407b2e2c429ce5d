/*
 * top.c - `postern top`: which functions a profile's samples were in, as `go tool pprof -top` says.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/json.h"
#include "cli/cli.h"
#include "profile/top.h"
#include "profile/units.h"

struct top_options {
	const char *file;
	const char *type;
	unsigned long limit;
	bool json;
};

static int read_file(const char *path, struct buf *out, struct err *err)
{
	const size_t step = (size_t)64 << 10;
	bool is_stdin = strcmp(path, "-") == 0;
	FILE *file = is_stdin ? stdin : fopen(path, "re");
	int rc = -1;

	if (!file)
		return err_sys(err, "%s", path);
	for (;;) {
		char *to = buf_reserve(out, step);
		size_t got;

		if (!to) {
			(void)err_set(err, ERR_INPUT, "%s: larger than %zu MiB", path,
				PROFILE_BYTES_MAX >> 20);
			goto out;
		}
		got = fread(to, 1, step, file);
		buf_commit(out, got);
		if (got < step)
			break;
	}
	rc = ferror(file) ? err_sys(err, "%s", path) : 0;
out:
	if (!is_stdin)
		(void)fclose(file);
	return rc;
}

/* What a profile says of itself goes to a terminal: no control character may. */
static void print_text(struct sv text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char byte = (unsigned char)text.ptr[i];

		(void)putchar(byte < 0x20 || byte == 0x7f ? '?' : byte);
	}
}

static void print_line(const char *label, struct sv text)
{
	(void)fputs(label, stdout);
	print_text(text);
	(void)putchar('\n');
}

static void print_duration(const struct profile *profile, const struct top *top)
{
	char duration[UNITS_TEXT_SIZE], total[UNITS_TEXT_SIZE], percent[UNITS_TEXT_SIZE];

	units_format(profile->duration_ns, SV("nanoseconds"), SV("auto"), duration);
	units_format(top->total, top->unit, top->unit_shown, total);
	printf("Duration: %s, Total samples = %s ", duration, total);
	if (top->total != 0 && sv_is(top->unit, SV("nanoseconds"))) {
		units_percent(top->total, profile->duration_ns, percent);
		printf("(%s)", percent);
	}
	(void)putchar('\n');
}

static void print_head(const struct profile *profile, struct sv type, const struct top *top)
{
	if (profile->mappings_len > 0) {
		struct sv file = profile->mappings[0].file, part = file;

		while (file.len > 0)
			part = sv_cut(&file, '/');
		if (part.len > 0)
			print_line("File: ", part);
		if (profile->mappings[0].build_id.len > 0)
			print_line("Build ID: ", profile->mappings[0].build_id);
	}
	for (size_t i = 0; i < profile->comments_len; i++)
		if (!sv_starts_with(profile->comments[i], SV("#")))
			print_line("", profile->comments[i]);
	print_line("Type: ", type);
	if (profile->time_ns) {
		time_t seconds = (time_t)(profile->time_ns / 1000000000);
		struct tm local;
		char text[64];

		if (localtime_r(&seconds, &local) &&
			strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %Z", &local) > 0)
			printf("Time: %s\n", text);
	}
	if (profile->duration_ns)
		print_duration(profile, top);
}

static void print_summary(const struct top *top)
{
	char shown[UNITS_TEXT_SIZE], percent[UNITS_TEXT_SIZE], total[UNITS_TEXT_SIZE];

	units_format(top->shown, top->unit, top->unit_shown, shown);
	units_format(top->total, top->unit, top->unit_shown, total);
	units_percent(top->shown, top->total, percent);
	printf("Showing nodes accounting for %s, %s of %s total\n", shown,
		percent + strspn(percent, " "), total);
	if (top->dropped > 0 && top->total != 0) {
		char cutoff[UNITS_TEXT_SIZE];

		units_format(top->cutoff, top->unit, top->unit_shown, cutoff);
		printf("Dropped %zu node%s (cum <= %s)\n", top->dropped,
			top->dropped == 1 ? "" : "s", cutoff);
	}
	if (top->rows_len < top->kept)
		printf("Showing top %zu nodes out of %zu\n", top->rows_len, top->kept);
}

static void print_rows(const struct top *top)
{
	static const char *const notes[] = {
		[TOP_NOT_INLINED] = "",
		[TOP_INLINED] = " (inline)",
		[TOP_PARTLY_INLINED] = " (partial-inline)",
	};
	int64_t sum = 0;

	printf("%10s %5s%% %5s%% %10s %5s%%\n", "flat", "flat", "sum", "cum", "cum");
	for (size_t i = 0; i < top->rows_len; i++) {
		const struct top_row *row = &top->rows[i];
		char flat[UNITS_TEXT_SIZE], cum[UNITS_TEXT_SIZE];
		char flat_percent[UNITS_TEXT_SIZE], sum_percent[UNITS_TEXT_SIZE];
		char cum_percent[UNITS_TEXT_SIZE];

		if (__builtin_add_overflow(sum, row->flat, &sum))
			sum = INT64_MAX;
		units_format(row->flat, top->unit, top->unit_shown, flat);
		units_format(row->cum, top->unit, top->unit_shown, cum);
		units_percent(row->flat, top->total, flat_percent);
		units_percent(sum, top->total, sum_percent);
		units_percent(row->cum, top->total, cum_percent);
		printf("%10s %s %s %10s %s  ", flat, flat_percent, sum_percent, cum,
			cum_percent);
		if (row->is_mapping && row->name.len == 0)
			(void)fputs("<unknown>", stdout);
		else if (row->is_mapping)
			(void)putchar('[');
		print_text(row->name);
		if (row->is_mapping && row->name.len > 0)
			(void)putchar(']');
		printf("%s\n", notes[row->inlined]);
	}
}

static void json_signed(struct buf *out, const char *name, int64_t value)
{
	json_key(out, name);
	if (value < 0)
		buf_add_byte(out, '-');
	/* The magnitude of the least number has no place in int64_t. */
	json_u64(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

static int print_json(const struct profile *profile, struct sv type, const struct top *top)
{
	struct buf out;
	int rc = CLI_DONE;

	buf_init(&out, PROFILE_BYTES_MAX);
	json_object_begin(&out);
	json_member_string(&out, "type", type);
	json_member_string(&out, "unit", top->unit);
	json_signed(&out, "duration_ns", profile->duration_ns);
	json_signed(&out, "total", top->total);
	json_key(&out, "functions");
	json_array_begin(&out);
	for (size_t i = 0; i < top->rows_len; i++) {
		json_object_begin(&out);
		json_member_string(
			&out, top->rows[i].is_mapping ? "mapping" : "name", top->rows[i].name);
		json_signed(&out, "flat", top->rows[i].flat);
		json_signed(&out, "cum", top->rows[i].cum);
		json_object_end(&out);
	}
	json_array_end(&out);
	json_object_end(&out);
	buf_add_byte(&out, '\n');
	if (out.failed)
		rc = cli_fail("out of memory");
	else
		(void)fwrite(out.ptr, 1, out.len, stdout);
	buf_free(&out);
	return rc;
}

static int show(const struct top_options *options, const struct profile *profile)
{
	struct sv name = options->type ? sv_from_cstr(options->type) : SV("");
	struct top *top = NULL;
	struct err err;
	struct sv type;
	size_t index;
	int rc = CLI_DONE;

	if (profile_find_type(profile, name, &index, &err) ||
		top_new(profile, index, options->limit, &top, &err))
		return cli_fail("%s: %s", options->file, err.text);
	type = profile->types[index].type;
	if (options->json) {
		rc = print_json(profile, type, top);
	} else {
		print_head(profile, type, top);
		print_summary(top);
		print_rows(top);
	}
	top_free(top);
	return rc;
}

static int read_options(int argc, char **argv, struct top_options *options)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "sample_index", required_argument, NULL, 's' },
		{ "sample-index", required_argument, NULL, 's' },
		{ "nodecount", required_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long_only(argc, argv, "", longs, NULL)) != -1) {
		if (option == 'j')
			options->json = true;
		else if (option == 's')
			options->type = optarg;
		else if (option != 'n')
			return cli_usage(&top_command, NULL);
		else if (!cli_number(optarg, 0, 1000000, &options->limit))
			return cli_usage(&top_command,
				"-nodecount '%s': a number from 0 (all) to 1000000", optarg);
	}
	if (optind + 1 != argc)
		return cli_usage(&top_command, "name one file, or - for standard input");
	return CLI_DONE;
}

static int top_main(int argc, char **argv)
{
	struct top_options options = { 0 };
	struct profile *profile = NULL;
	struct buf bytes;
	struct err err;
	int rc = read_options(argc, argv, &options);

	if (rc)
		return rc;
	options.file = argv[optind];
	buf_init(&bytes, PROFILE_BYTES_MAX);
	if (read_file(options.file, &bytes, &err))
		rc = cli_fail_err(&err);
	else if (profile_parse(buf_sv(&bytes), &profile, &err))
		rc = cli_fail("%s: %s", options.file, err.text);
	else
		rc = show(&options, profile);
	profile_free(profile);
	buf_free(&bytes);
	return rc;
}

const struct cli_command top_command = {
	.name = "top",
	.arguments = "[-sample_index=TYPE] [-nodecount=N] [--json] FILE",
	.summary = "Show which functions a profile's samples were in",
	.help = "  -sample_index=TYPE  type of sample, by name or number (inuse_space, cpu, "
		"0);\n"
		"                      default: the one that the profile names, else its last\n"
		"  -nodecount=N        show N functions; default: all that matter\n"
		"  --json              the same as JSON, in the type's own unit\n"
		"FILE is a profile of any pprof server, gzipped or not; - is standard input.\n"
		"flat: in the function itself; cum: in it or in what it called.",
	.example = "postern top cpu.pb.gz",
	.run = top_main,
};
