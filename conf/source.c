#include "conf/source.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES_MAX ((size_t)4 << 20)

/* What libconfig is in the middle of when a line ends: there, @include is not a word. */
enum state {
	IN_NOTHING,
	IN_TEXT,
	IN_COMMENT
};

void source_init(struct source *source)
{
	*source = (struct source){ .line = 1, .state = IN_NOTHING };
	buf_init(&source->text, TEXT_BYTES_MAX);
}

void source_free(struct source *source)
{
	for (size_t i = 0; i < source->files_len; i++)
		free(source->files[i]);
	buf_free(&source->text);
}

bool source_locate(const struct source *source, int line, const char **file, int *line_of_file)
{
	size_t i = source->spans_len;

	while (i > 0 && source->spans[i - 1].first > line)
		i--;
	if (i == 0)
		return false;
	*file = source->spans[i - 1].file;
	*line_of_file = source->spans[i - 1].line + line - source->spans[i - 1].first;
	return true;
}

/* There is room: each file begins one span, and another where it goes on in its includer. */
static void begin_span(struct source *source, const char *file, int line)
{
	source->spans[source->spans_len++] = (struct source_span){ file, source->line, line };
}

static int state_after(int state, struct sv line)
{
	for (size_t i = 0; i < line.len; i++) {
		char c = line.ptr[i], next = i + 1 < line.len ? line.ptr[i + 1] : '\0';

		if (state == IN_TEXT) {
			if (c == '"')
				state = IN_NOTHING;
			else if (c == '\\')
				i++;
		} else if (state == IN_COMMENT) {
			if (c == '*' && next == '/') {
				state = IN_NOTHING;
				i++;
			}
		} else if (c == '#' || (c == '/' && next == '/')) {
			return IN_NOTHING;
		} else if (c == '/' && next == '*') {
			state = IN_COMMENT;
			i++;
		} else if (c == '"') {
			state = IN_TEXT;
		}
	}
	return state;
}

/* Without blanks around it, and without a carriage return at its end. */
static struct sv without_blanks(struct sv text)
{
	if (text.len > 0 && text.ptr[text.len - 1] == '\r')
		text.len--;
	return sv_trim(text);
}

/* @include "path", and perhaps a comment. */
static bool included_path(struct sv line, struct sv *path)
{
	const size_t word = sizeof("@include") - 1;
	struct sv rest = without_blanks((struct sv){ line.ptr + word, line.len - word });

	if (rest.len == 0 || rest.ptr[0] != '"')
		return false;
	rest = (struct sv){ rest.ptr + 1, rest.len - 1 };
	if (!memchr(rest.ptr, '"', rest.len))
		return false;
	*path = sv_cut(&rest, '"');
	rest = without_blanks(rest);
	return path->len > 0 &&
	       (rest.len == 0 || rest.ptr[0] == '#' || sv_starts_with(rest, SV("//")));
}

/* NOLINTBEGIN(misc-no-recursion): files within files, SOURCE_FILES_MAX in all. */

static int include(struct source *source, struct sv line, const char *from,
	struct conf_files *files, struct err *err)
{
	const char *slash = strrchr(from, '/');
	char path[PATH_MAX];
	struct sv name;
	int len;

	if (!files)
		return err_set(err, ERR_INPUT, "it works in files only");
	if (!included_path(line, &name))
		return err_set(err, ERR_INPUT,
			"a path in quotes must follow, and nothing else: @include "
			"\"jwt.conf\"");
	len = snprintf(path, sizeof(path), "%.*s" SV_FMT,
		name.ptr[0] != '/' && slash ? (int)(slash + 1 - from) : 0, from, SV_ARG(name));
	if (len < 0 || (size_t)len >= sizeof(path))
		return err_set(err, ERR_INPUT, "the path is too long");
	return source_read(source, path, files, err);
}

static int read_text(struct source *source, struct sv text, const char *name,
	struct conf_files *files, struct err *err)
{
	char *kept;

	if (source->files_len == SOURCE_FILES_MAX)
		return err_set(err, ERR_INPUT, "more than %d files, or one includes itself",
			SOURCE_FILES_MAX);
	kept = strdup(name);
	if (!kept)
		return err_set(err, ERR_NOMEM, "out of memory");
	source->files[source->files_len++] = kept;
	begin_span(source, kept, 1);
	for (int at = 1; text.len > 0; at++) {
		struct sv line = sv_cut(&text, '\n');

		if (source->state == IN_NOTHING &&
			sv_starts_with(without_blanks(line), SV("@include"))) {
			if (include(source, without_blanks(line), kept, files, err))
				return -1;
			begin_span(source, kept, at + 1);
			continue;
		}
		source->state = state_after(source->state, line);
		buf_add_sv(&source->text, line);
		buf_add_byte(&source->text, '\n');
		source->line++;
	}
	return 0;
}

int source_end(struct source *source, struct err *err)
{
	if (memchr(source->text.ptr ? source->text.ptr : "", '\0', source->text.len))
		return err_set(err, ERR_INPUT, "it holds a NUL byte");
	buf_add_byte(&source->text, '\0');
	if (source->text.failed)
		return err_set(err, ERR_INPUT,
			"it is longer than %zu MiB, or there is no memory",
			TEXT_BYTES_MAX >> 20);
	return 0;
}

int source_read(
	struct source *source, const char *path, struct conf_files *files, struct err *err)
{
	struct sv text;

	return files->get(files, path, false, &text, err)
		       ? -1
		       : read_text(source, text, path, files, err);
}

/* NOLINTEND(misc-no-recursion) */

int source_take(struct source *source, struct sv text, const char *name, struct err *err)
{
	return read_text(source, text, name, NULL, err);
}
