#include "gateway/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"

#define LINE_MAX_BYTES 4096
#define TEXT_MAX       2048

static struct {
	const char *role;
	enum conf_log_level level;
	bool json, to_syslog;
} settings = { .role = "posternd", .level = CONF_LOG_INFO };

static const char *level_name(enum conf_log_level level)
{
	switch (level) {
	case CONF_LOG_ERROR:
		return "error";
	case CONF_LOG_WARNING:
		return "warning";
	case CONF_LOG_INFO:
		return "info";
	case CONF_LOG_DEBUG:
		return "debug";
	}
	return "error";
}

static int syslog_priority(enum conf_log_level level)
{
	switch (level) {
	case CONF_LOG_ERROR:
		return LOG_ERR;
	case CONF_LOG_WARNING:
		return LOG_WARNING;
	case CONF_LOG_INFO:
		return LOG_INFO;
	case CONF_LOG_DEBUG:
		return LOG_DEBUG;
	}
	return LOG_ERR;
}

void log_setup(const char *role, enum conf_log_level level, bool json, bool to_syslog)
{
	settings.role = role;
	settings.level = level;
	settings.json = json;
	settings.to_syslog = to_syslog;
	/* Connected now: a sandboxed process cannot do it later. */
	if (to_syslog)
		openlog("posternd", LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

/* What a client or a file sent may be in the text: nothing of it may begin a line of its own. */
static void mask_controls(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = *text == '\n' ? ';' : '?';
	}
}

static void format_line(struct buf *out, enum conf_log_level level, const char *text)
{
	char now[CLOCK_RFC3339_SIZE];

	clock_rfc3339(clock_unix_us(), now);
	if (settings.json) {
		json_object_begin(out);
		json_member_cstr(out, "ts", now);
		json_member_cstr(out, "level", level_name(level));
		json_member_cstr(out, "process", settings.role);
		json_member_u64(out, "pid", (uint64_t)getpid());
		json_member_cstr(out, "text", text);
		json_object_end(out);
	} else {
		buf_printf(out, "%s %s %s[%d]: %s", now, level_name(level), settings.role,
			(int)getpid(), text);
	}
	buf_add_byte(out, '\n');
}

static void write_line(enum conf_log_level level, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

static void write_line(enum conf_log_level level, const char *fmt, va_list args)
{
	char text[TEXT_MAX], storage[LINE_MAX_BYTES];
	int saved = errno;
	struct buf line;

	if (level > settings.level)
		return;
	(void)vsnprintf(text, sizeof(text), fmt, args);
	mask_controls(text);
	if (settings.to_syslog) {
		syslog(syslog_priority(level), "%s: %s", settings.role, text);
	} else {
		buf_init_fixed(&line, storage, sizeof(storage));
		format_line(&line, level, text);
		/* Where would one report that the log cannot be written? */
		if (write(STDERR_FILENO, line.ptr, line.len) < 0)
			errno = 0;
	}
	errno = saved;
}

#define LOG_FUNCTION(name, level)             \
	void name(const char *fmt, ...)       \
	{                                     \
		va_list args;                 \
		va_start(args, fmt);          \
		write_line(level, fmt, args); \
		va_end(args);                 \
	}

LOG_FUNCTION(log_error, CONF_LOG_ERROR)
LOG_FUNCTION(log_warning, CONF_LOG_WARNING)
LOG_FUNCTION(log_info, CONF_LOG_INFO)
LOG_FUNCTION(log_debug, CONF_LOG_DEBUG)
