#include "conf/conf.h"

#include <libconfig.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/files.h"
#include "conf/schema.h"

#define CONF_BYTES_MAX ((size_t)4 << 20)

void *owner_alloc(struct owner *owner, size_t size)
{
	struct chunk *chunk = calloc(1, sizeof(*chunk) + size);

	if (!chunk)
		return NULL;
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

static struct conf *build(config_t *config, const char *name, struct conf_files *files,
	struct conf_errors *errors)
{
	struct owner *owner = calloc(1, sizeof(*owner));
	struct reader reader = { owner, name, files, errors };

	if (!owner) {
		complain(&reader, 0, "text", "out of memory");
		return NULL;
	}
	/* What could not be read would only bring more errors about what it is compared with. */
	if (schema_read(&reader, config) == 0)
		conf_build(&reader);
	if (errors->count > 0 || errors->text.failed) {
		owner_free(owner);
		return NULL;
	}
	return &owner->raw.conf;
}

static void complain_syntax(
	const config_t *config, const char *name, struct conf_errors *errors)
{
	const char *file = config_error_file(config);
	struct reader reader = { .name = file ? file : name, .errors = errors };

	complain(&reader, config_error_line(config), "syntax", "%s", config_error_text(config));
}

struct conf *conf_parse(
	struct sv text, const char *name, struct conf_files *files, struct conf_errors *errors)
{
	struct conf *conf = NULL;
	struct reader reader = { .name = name, .errors = errors };
	char *copy = text.len <= CONF_BYTES_MAX ? malloc(text.len + 1) : NULL;
	config_t config;

	if (!copy || !sv_to_cstr(text, copy, text.len + 1)) {
		complain(&reader, 0, "text", "it is too long, or holds a NUL");
		free(copy);
		return NULL;
	}
	config_init(&config);
	/* Text from memory includes nothing: a worker could not read it anyway. */
	if (strstr(copy, "@include"))
		complain(&reader, 0, "@include", "it works in files only");
	else if (config_read_string(&config, copy) != CONFIG_TRUE)
		complain_syntax(&config, name, errors);
	else
		conf = build(&config, name, files, errors);
	config_destroy(&config);
	free(copy);
	return conf;
}

/* NOLINTBEGIN(misc-no-recursion): settings are a tree, as deep as libconfig could parse it. */

/* Every file that a setting came from must be as safe as the first. */
static int check_sources(const config_setting_t *setting, struct conf_files *files,
	const char **last, struct err *err)
{
	const char *file = config_setting_source_file(setting);
	struct sv bytes;

	if (file && (!*last || strcmp(file, *last) != 0)) {
		*last = file;
		if (files->get(files, file, false, &bytes, err))
			return -1;
	}
	for (int i = 0;
		config_setting_is_aggregate(setting) && i < config_setting_length(setting);
		i++) {
		if (check_sources(
			    config_setting_get_elem(setting, (unsigned)i), files, last, err))
			return -1;
	}
	return 0;
}

/* NOLINTEND(misc-no-recursion) */

struct conf *conf_load(const char *path, struct conf_files *files, struct conf_errors *errors)
{
	struct reader reader = { .name = path, .errors = errors };
	struct conf *conf = NULL;
	const char *last = NULL;
	struct sv bytes;
	struct err err;
	config_t config;
	char *folder;

	if (files && files->get(files, path, false, &bytes, &err)) {
		/* The text begins with the path. */
		errors->count++;
		buf_printf(&errors->text, "%s\n", err.text);
		return NULL;
	}
	config_init(&config);
	/* @include takes paths from the file's own folder. */
	folder = strdup(path);
	if (folder && strrchr(folder, '/')) {
		*strrchr(folder, '/') = '\0';
		config_set_include_dir(&config, folder[0] ? folder : "/");
	}
	free(folder);
	if (config_read_file(&config, path) != CONFIG_TRUE)
		complain_syntax(&config, path, errors);
	else if (files && check_sources(config_root_setting(&config), files, &last, &err))
		complain(&reader, 0, "@include", "%s", err.text);
	else
		conf = build(&config, path, files, errors);
	config_destroy(&config);
	return conf;
}
