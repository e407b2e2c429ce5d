#include "sampler/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/units.h"

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static const char *get(const char *name)
{
	const char *value = getenv(name); /* NOLINT(concurrency-mt-unsafe): before any thread */

	return value && value[0] ? value : NULL;
}

static void copy(
	struct settings *out, const char *name, const char *from, char *to, size_t size)
{
	if (!sv_to_cstr(sv_from_cstr(from), to, size))
		(void)err_set(
			&out->err, ERR_INPUT, "%s is longer than %zu bytes", name, size - 1);
}

static void read_cpu_source(struct settings *out)
{
	const char *value = get("POSTERN_CPU_SOURCE");

	if (!value || strcmp(value, "auto") == 0)
		out->cpu_source = CPU_SOURCE_AUTO;
	else if (strcmp(value, "perf") == 0)
		out->cpu_source = CPU_SOURCE_PERF;
	else if (strcmp(value, "timer") == 0)
		out->cpu_source = CPU_SOURCE_TIMER;
	else if (strcmp(value, "itimer") == 0)
		out->cpu_source = CPU_SOURCE_ITIMER;
	else
		(void)err_set(&out->err, ERR_INPUT,
			"POSTERN_CPU_SOURCE is '%s': it must be auto, perf, timer or itimer",
			value);
}

static void read_children(struct settings *out)
{
	const char *value = get("POSTERN_CHILDREN");

	if (!value || strcmp(value, "fork") == 0)
		out->children = CHILDREN_FORK;
	else if (strcmp(value, "follow") == 0)
		out->children = CHILDREN_FOLLOW;
	else if (strcmp(value, "off") == 0)
		out->children = CHILDREN_OFF;
	else
		(void)err_set(&out->err, ERR_INPUT,
			"POSTERN_CHILDREN is '%s': it must be fork, follow or off", value);
}

static void read_uids(struct settings *out)
{
	const char *value = get("POSTERN_ALLOW_UIDS");
	struct sv rest = sv_from_cstr(value ? value : "");

	while (rest.len > 0) {
		struct sv word = sv_trim(sv_cut(&rest, ','));
		uint64_t uid;

		if (!sv_to_u64(word, UINT32_MAX - 1, &uid) ||
			out->allow_uids_len == SETTINGS_UIDS_MAX) {
			(void)err_set(&out->err, ERR_INPUT,
				"POSTERN_ALLOW_UIDS is '%s': it must be at most %d numbers "
				"with "
				"commas between",
				value, SETTINGS_UIDS_MAX);
			return;
		}
		out->allow_uids[out->allow_uids_len++] = (uint32_t)uid;
	}
}

static void read_heap_rate(struct settings *out)
{
	const char *value = get("POSTERN_HEAP_RATE");

	out->heap_rate = SETTINGS_HEAP_RATE;
	if (value && !sv_to_u64(sv_from_cstr(value), SETTINGS_RATE_MAX, &out->heap_rate))
		(void)err_set(&out->err, ERR_INPUT,
			"POSTERN_HEAP_RATE is '%s': it must be a number of bytes, or 0 for off",
			value);
}

/* The value of a variable in an environment that libc may not know yet; "" when it is not set. */
static struct sv look_up(struct sv name)
{
	for (char **at = environ; *at; at++) {
		struct sv line = sv_from_cstr(*at);

		if (sv_starts_with(line, name) && line.len > name.len &&
			line.ptr[name.len] == '=')
			return (struct sv){ line.ptr + name.len + 1, line.len - name.len - 1 };
	}
	return SV("");
}

bool settings_heap_rate_sigsafe(uint64_t *rate)
{
	struct sv asleep, value;

	if (!environ)
		return false;
	asleep = look_up(SV("POSTERN_ASLEEP"));
	value = look_up(SV("POSTERN_HEAP_RATE"));
	*rate = SETTINGS_HEAP_RATE;
	if (getauxval(AT_SECURE) || sv_is(look_up(SV("POSTERN_LISTEN")), SV("off")) ||
		(asleep.len > 0 && !sv_is(asleep, SV("0"))) ||
		(value.len > 0 && !sv_to_u64(value, SETTINGS_RATE_MAX, rate)))
		*rate = 0;
	return true;
}

static int64_t read_number(struct settings *out, const char *name, uint64_t max)
{
	const char *value = get(name);
	uint64_t number = 0;

	if (value && !sv_to_u64(sv_from_cstr(value), max, &number))
		(void)err_set(&out->err, ERR_INPUT,
			"%s is '%s': it must be a whole number, 0 for off, at most %llu", name,
			value, (unsigned long long)max);
	return (int64_t)number;
}

static void read_asleep(struct settings *out)
{
	const char *value = get("POSTERN_ASLEEP");

	out->asleep = value && strcmp(value, "1") == 0;
	if (value && !out->asleep && strcmp(value, "0") != 0)
		(void)err_set(&out->err, ERR_INPUT, "POSTERN_ASLEEP is '%s': it must be 1 or 0",
			value);
}

#define FLIGHT_LEAST    (UINT64_C(64) << 10)
#define FLIGHT_MOST     (UINT64_C(1) << 30)
#define FLIGHT_LEAST_NS UINT64_C(1000000000)
#define FLIGHT_MOST_NS  UINT64_C(3600000000000)

static void read_flight(struct settings *out)
{
	const char *value = get("POSTERN_FLIGHT_RECORDER");
	struct sv text = sv_from_cstr(value ? value : "0");

	if (sv_is(text, SV("0")))
		return;
	if (units_bytes(text, &out->flight_bytes) && out->flight_bytes >= FLIGHT_LEAST &&
		out->flight_bytes <= FLIGHT_MOST)
		return;
	out->flight_bytes = SETTINGS_FLIGHT;
	if (!units_duration(text, &out->flight_ns) || out->flight_ns < FLIGHT_LEAST_NS ||
		out->flight_ns > FLIGHT_MOST_NS)
		(void)err_set(&out->err, ERR_INPUT,
			"POSTERN_FLIGHT_RECORDER is '%s': it must be a size from 64KiB to "
			"1GiB, "
			"or a duration from 1s to 1h, or 0 for off",
			value);
}

static void read_token(struct settings *out)
{
	const char *path = get("POSTERN_REQUIRE_TOKEN_FILE");
	ssize_t len;
	int file;

	if (!path)
		return;
	out->requires_token = true;
	file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	len = file < 0 ? -1 : read(file, out->token, sizeof(out->token) - 1);
	if (file >= 0)
		(void)close(file);
	while (len > 0 && (out->token[len - 1] == '\n' || out->token[len - 1] == '\r'))
		len--;
	if (len <= 0)
		(void)err_set(&out->err, ERR_INPUT,
			"POSTERN_REQUIRE_TOKEN_FILE is '%s': it cannot be read, or is empty",
			path);
	else
		out->token[len] = '\0';
}

static void read_runtime_dir(struct settings *out)
{
	const char *value = get("POSTERN_RUNTIME_DIR"), *user = get("XDG_RUNTIME_DIR");
	struct buf path;

	buf_init_fixed(&path, out->runtime_dir, sizeof(out->runtime_dir) - 1);
	if (value) {
		buf_add_cstr(&path, value);
	} else if (access("/run/postern/targets", W_OK | X_OK) == 0 || !user) {
		buf_add_cstr(&path, "/run/postern/targets");
	} else {
		buf_add_cstr(&path, user);
		buf_add_cstr(&path, "/postern");
	}
	if (path.failed)
		(void)err_set(&out->err, ERR_INPUT, "POSTERN_RUNTIME_DIR is too long");
	out->runtime_dir[path.len] = '\0';
}

static bool is_program(const char *path)
{
	struct stat status;

	return path[0] == '/' && stat(path, &status) == 0 && S_ISREG(status.st_mode) &&
	       access(path, X_OK) == 0;
}

/* Beside the library as it was built, or as both were installed, here or elsewhere. */
static void find_lines(struct settings *out, const char *library)
{
	static const char *const places[] = { "/postern-lines", "/../bin/postern-lines",
		"/" POSTERN_LIBEXEC_FROM_LIB "/postern/postern-lines" };
	const char *slash = strrchr(library, '/');

	for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
		struct buf path;

		buf_init_fixed(&path, out->lines, sizeof(out->lines) - 1);
		if (library[0] != '/' && getcwd(out->lines, sizeof(out->lines) - 1)) {
			path.len = strlen(out->lines);
			buf_add_byte(&path, '/');
		}
		buf_add(&path, library, (size_t)(slash - library));
		buf_add_cstr(&path, places[i]);
		out->lines[path.len] = '\0';
		if (!path.failed && is_program(out->lines))
			return;
	}
	copy(out, "the path of postern-lines", POSTERN_LIBEXEC "/postern/postern-lines",
		out->lines, sizeof(out->lines));
	if (!is_program(out->lines))
		out->lines[0] = '\0';
}

static void read_lines(struct settings *out, const char *library)
{
	const char *value = get("POSTERN_LINES"), *folder = get("POSTERN_DEBUG_DIR");

	out->lines_off = value && strcmp(value, "off") == 0;
	if (!value)
		find_lines(out, library);
	else if (!out->lines_off && !is_program(value))
		(void)err_set(&out->err, ERR_INPUT,
			"POSTERN_LINES is '%s': it must be off, or the whole path of "
			"postern-lines",
			value);
	else
		copy(out, "POSTERN_LINES", value, out->lines, sizeof(out->lines));
	if (folder && folder[0] != '/')
		(void)err_set(&out->err, ERR_INPUT,
			"POSTERN_DEBUG_DIR is '%s': it must be the whole path of a folder",
			folder);
	copy(out, "POSTERN_DEBUG_DIR", folder ? folder : "/usr/lib/debug", out->debug_dir,
		sizeof(out->debug_dir));
}

void settings_read(struct settings *out, const char *library)
{
	const char *listen = get("POSTERN_LISTEN"), *name = get("POSTERN_NAME");

	memset(out, 0, sizeof(*out));
	out->off = listen && strcmp(listen, "off") == 0;
	copy(out, "POSTERN_LISTEN", listen ? listen : "127.0.0.1:6060", out->listen,
		sizeof(out->listen));
	copy(out, "POSTERN_NAME", name ? name : last_part(program_invocation_name), out->name,
		sizeof(out->name));
	read_children(out);
	read_asleep(out);
	read_cpu_source(out);
	out->mutex_fraction = (int)read_number(out, "POSTERN_MUTEX_FRACTION", INT_MAX);
	out->block_rate_ns = read_number(out, "POSTERN_BLOCK_RATE", INT64_MAX);
	read_uids(out);
	read_heap_rate(out);
	read_flight(out);
	read_token(out);
	read_runtime_dir(out);
	read_lines(out, library);
}

/* Remove our library's entry from a list like LD_PRELOAD's, in place. */
static void remove_entry(char *list, const char *library)
{
	size_t len = strlen(library);
	char *at = list;

	while ((at = strstr(at, library))) {
		bool begins = at == list || at[-1] == ':' || at[-1] == ' ';
		char *after = at + len;

		if (!begins || (*after != '\0' && *after != ':' && *after != ' ')) {
			at = after;
			continue;
		}
		if (*after != '\0')
			after++;
		memmove(at, after, strlen(after) + 1);
	}
	len = strlen(list);
	while (len > 0 && (list[len - 1] == ':' || list[len - 1] == ' '))
		list[--len] = '\0';
}

void settings_hide(const char *library)
{
	static const char preload[] = "LD_PRELOAD=", ours[] = "POSTERN_";
	char **to = environ;

	if (!environ)
		return;
	for (char **from = environ; *from; from++) {
		if (strncmp(*from, ours, sizeof(ours) - 1) == 0)
			continue;
		if (strncmp(*from, preload, sizeof(preload) - 1) == 0) {
			remove_entry(*from + sizeof(preload) - 1, library);
			if ((*from)[sizeof(preload) - 1] == '\0')
				continue;
		}
		*to++ = *from;
	}
	*to = NULL;
}
