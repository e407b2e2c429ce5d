#include "conf/conf.h"

#include <libconfig.h>
#include <stdlib.h>
#include <string.h>

#include "conf/files.h"
#include "conf/schema.h"
#include "conf/source.h"

void *owner_alloc(struct owner *owner, size_t size)
{
	struct chunk *chunk = calloc(1, sizeof(*chunk) + size);

	if (!chunk) {
		owner->out_of_memory = true;
		return NULL;
	}
	chunk->next = owner->chunks;
	owner->chunks = chunk;
	return chunk->bytes;
}

const char *owner_strdup(struct owner *owner, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = owner_alloc(owner, size);

	if (copy)
		memcpy(copy, text, size);
	return copy;
}

static void owner_free(struct owner *owner)
{
	if (!owner)
		return;
	for (size_t i = 0; i < owner->acls_len; i++)
		acl_free(owner->acls[i]);
	for (size_t i = 0; i < owner->issuers_len; i++)
		issuer_free(owner->issuers[i]);
	while (owner->chunks) {
		struct chunk *next = owner->chunks->next;

		free(owner->chunks);
		owner->chunks = next;
	}
	free(owner);
}

void conf_free(struct conf *conf)
{
	owner_free((struct owner *)(void *)conf);
}

static struct conf *build(config_t *config, struct reader *reader)
{
	struct conf_errors *errors = reader->errors;
	struct owner *owner = calloc(1, sizeof(*owner));

	if (!owner) {
		complain(reader, 0, "text", "out of memory");
		return NULL;
	}
	reader->owner = owner;
	/* What could not be read would only bring more errors about what it is compared with. */
	if (schema_read(reader, config) == 0 && !owner->out_of_memory)
		conf_build(reader);
	/* A list that there was no memory for must not look like one that is empty. */
	if (owner->out_of_memory)
		complain(reader, 0, "text", "out of memory");
	if (errors->count > 0 || errors->text.failed) {
		owner_free(owner);
		return NULL;
	}
	return &owner->raw.conf;
}

static struct conf *read_source(struct source *source, struct reader *reader)
{
	struct conf *conf = NULL;
	struct err err;
	config_t config;

	if (source_end(source, &err)) {
		complain(reader, 0, "text", "%s", err.text);
		return NULL;
	}
	config_init(&config);
	if (config_read_string(&config, source->text.ptr) == CONFIG_TRUE)
		conf = build(&config, reader);
	else
		complain(reader, config_error_line(&config), "syntax", "%s",
			config_error_text(&config));
	config_destroy(&config);
	return conf;
}

struct conf *conf_parse(
	struct sv text, const char *name, struct conf_files *files, struct conf_errors *errors)
{
	struct source source;
	struct reader reader = { .name = name, .files = files, .errors = errors };
	struct conf *conf = NULL;
	struct err err;

	source_init(&source);
	reader.source = &source;
	if (source_take(&source, text, name, &err))
		complain(&reader, source.line, "@include", "%s", err.text);
	else
		conf = read_source(&source, &reader);
	source_free(&source);
	return conf;
}

/* The first file, whose path begins the error's text already, or one that a file includes. */
static void complain_unread(struct reader *reader, const struct err *err)
{
	if (reader->source->spans_len > 0) {
		complain(reader, reader->source->line, "@include", "%s", err->text);
		return;
	}
	reader->errors->count++;
	buf_printf(&reader->errors->text, "%s\n", err->text);
}

struct conf *conf_load(const char *path, struct conf_files *files, struct conf_errors *errors)
{
	struct conf_files *reading = files ? files : conf_files_unchecked();
	struct source source;
	struct reader reader = { .name = path, .files = files, .errors = errors };
	struct conf *conf = NULL;
	struct err err;

	source_init(&source);
	reader.source = &source;
	if (!reading)
		complain(&reader, 0, "text", "out of memory");
	else if (source_read(&source, path, reading, &err))
		complain_unread(&reader, &err);
	else
		conf = read_source(&source, &reader);
	source_free(&source);
	if (!files)
		conf_files_free(reading);
	return conf;
}
