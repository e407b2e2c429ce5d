#include "cli/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sv.h"

#define ADMIN_DEFAULT "/run/postern/admin.sock"
#define FILE_MAX      ((size_t)64 << 10)

struct source {
	const char *key;         /* in the file of contexts */
	const char *environment; /* or NULL */
	size_t offset;           /* in struct settings */
};

static const struct source sources[] = {
	{ "url", "POSTERN_URL", offsetof(struct settings, url) },
	{ "token_file", "POSTERN_TOKEN_FILE", offsetof(struct settings, token_file) },
	{ "cert", "POSTERN_CERT", offsetof(struct settings, cert) },
	{ "key", "POSTERN_KEY", offsetof(struct settings, key) },
	{ "ca", "POSTERN_CA", offsetof(struct settings, ca) },
	{ "tls_server_name", NULL, offsetof(struct settings, server_name) },
	{ "token_command", NULL, offsetof(struct settings, token_command) },
	{ "admin", "POSTERN_ADMIN", offsetof(struct settings, admin) },
};

#define SOURCES_LEN (sizeof(sources) / sizeof(sources[0]))

static const char **field(struct settings *settings, const struct source *source)
{
	return (const char **)((char *)settings + source->offset);
}

bool settings_take(struct settings *settings, int option, const char *value)
{
	switch (option) {
	case 'C':
		settings->context = value;
		return true;
	case SETTINGS_URL:
		settings->url = value;
		return true;
	case SETTINGS_TOKEN_FILE:
		settings->token_file = value;
		return true;
	case SETTINGS_CERT:
		settings->cert = value;
		return true;
	case SETTINGS_KEY:
		settings->key = value;
		return true;
	case SETTINGS_CA:
		settings->ca = value;
		return true;
	case SETTINGS_SERVER_NAME:
		settings->server_name = value;
		return true;
	case SETTINGS_ADMIN:
		settings->admin = value;
		return true;
	default:
		return false;
	}
}

static const char *from_environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* What the file said. Settings are read once and used until the command ends. */
static char *kept[SOURCES_LEN];

/* One "key = value" of the wanted context. What a flag or the environment said stays. */
static int take_line(struct settings *settings, struct sv line, struct err *err)
{
	struct sv value = line;
	struct sv key = sv_trim(sv_cut(&value, '='));

	value = sv_trim(value);
	for (size_t i = 0; i < SOURCES_LEN; i++) {
		const char **to = field(settings, &sources[i]);

		if (!sv_is(key, sv_from_cstr(sources[i].key)))
			continue;
		if (value.len == 0)
			return err_set(err, ERR_INPUT, "'%s' has no value: write '%s = VALUE'",
				sources[i].key, sources[i].key);
		if (*to)
			return 0;
		kept[i] = strndup(value.ptr, value.len);
		*to = kept[i];
		return *to ? 0 : err_set(err, ERR_NOMEM, "out of memory");
	}
	return err_set(err, ERR_INPUT,
		"'" SV_FMT "' is not a setting: url, token_file, token_command, cert, key, ca, "
		"tls_server_name or admin",
		SV_ARG(key));
}

static int take_context(
	struct settings *settings, struct sv text, const char *path, struct err *err)
{
	bool here = false, found = false;

	for (unsigned number = 1; text.len > 0; number++) {
		struct sv line = sv_trim(sv_cut(&text, '\n'));

		if (line.len == 0 || line.ptr[0] == '#')
			continue;
		if (line.ptr[0] == '[' && line.ptr[line.len - 1] == ']') {
			struct sv name = { line.ptr + 1, line.len - 2 };

			here = sv_is(name, sv_from_cstr(settings->context));
			found = found || here;
		} else if (here && take_line(settings, line, err)) {
			return err_wrap(err, "%s line %u", path, number);
		}
	}
	if (!found)
		return err_set(
			err, ERR_INPUT, "%s has no context [%s]", path, settings->context);
	return 0;
}

static int read_context(struct settings *settings, struct err *err)
{
	const char *folder = from_environment("XDG_CONFIG_HOME");
	const char *home = from_environment("HOME");
	char path[4096];
	char *text = NULL;
	FILE *file = NULL;
	size_t len;
	int rc = -1;

	(void)snprintf(path, sizeof(path), "%s%s/postern/config",
		folder ? folder : (home ? home : ""), folder ? "" : "/.config");
	text = malloc(FILE_MAX);
	if (!text)
		return err_set(err, ERR_NOMEM, "out of memory");
	file = fopen(path, "re");
	if (!file) {
		(void)err_sys(err, "context '%s': %s", settings->context, path);
		goto out;
	}
	len = fread(text, 1, FILE_MAX, file);
	if (len == FILE_MAX) {
		(void)err_set(err, ERR_INPUT, "%s is longer than 64 KiB", path);
		goto out;
	}
	rc = take_context(settings, (struct sv){ text, len }, path, err);
out:
	if (file)
		(void)fclose(file);
	free(text);
	return rc;
}

int settings_complete(struct settings *settings, struct err *err)
{
	for (size_t i = 0; i < SOURCES_LEN; i++) {
		const char **to = field(settings, &sources[i]);

		if (!*to && sources[i].environment)
			*to = from_environment(sources[i].environment);
	}
	if (!settings->context)
		settings->context = from_environment("POSTERN_CONTEXT");
	if (settings->context && read_context(settings, err))
		return -1;
	if (!settings->admin)
		settings->admin = ADMIN_DEFAULT;
	if (settings->cert && !settings->key)
		settings->key = settings->cert;
	return 0;
}
