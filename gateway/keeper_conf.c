/*
 * Loading a configuration, and exchanging it for another while all is running.
 */
#include <stdlib.h>
#include <unistd.h>

#include "gateway/keeper.h"
#include "gateway/log.h"
#include "gateway/memfile.h"
#include "gateway/wakers.h"

#define CONF_TEXT_MAX ((size_t)4 << 20)
#define PACKED_MAX    ((size_t)64 << 20)

static int pack(const struct conf *conf, struct conf_files *files, struct err *err)
{
	struct buf text, packed;
	int fd = -1;

	buf_init(&text, CONF_TEXT_MAX);
	buf_init(&packed, PACKED_MAX);
	conf_print(conf, &text);
	conf_files_pack(files, buf_sv(&text), &packed);
	if (text.failed || packed.failed)
		(void)err_set(err, ERR_NOMEM, "the configuration and its files are too large");
	else
		fd = memfile_create("postern-conf", buf_sv(&packed), err);
	buf_free(&text);
	buf_free(&packed);
	return fd;
}

int keeper_load(const char *path, struct conf **conf, struct conf_files **files, int *conf_fd,
	struct conf_errors *errors)
{
	struct err err;

	*conf = NULL;
	*conf_fd = -1;
	*files = conf_files_disk();
	if (*files)
		*conf = conf_load(path, *files, errors);
	if (*conf) {
		*conf_fd = pack(*conf, *files, &err);
		if (*conf_fd >= 0)
			return 0;
		buf_printf(&errors->text, "%s: %s\n", path, err.text);
		errors->count++;
	}
	conf_free(*conf);
	conf_files_free(*files);
	*conf = NULL;
	*files = NULL;
	return -1;
}

static bool is_same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/* Sockets and users that were taken at the start cannot be exchanged under way. */
static void warn_restart(const struct conf *old, const struct conf *new)
{
	if (!is_same_text(old->admin.socket, new->admin.socket) ||
		!is_same_text(old->admin.group, new->admin.group))
		log_warning("admin.socket and admin.group change at a restart only");
	if (!sv_is(old->audit.key, new->audit.key))
		log_warning("the key of audit.key_file changes at a restart only, with a new "
			    "audit.file");
	if (!is_same_text(old->gateway.runtime_dir, new->gateway.runtime_dir))
		log_warning("gateway.runtime_dir changes at a restart only");
}

static void report(struct keeper *keeper, const struct actor *actor, enum audit_event event,
	struct sv detail)
{
	struct audit_record record = { .event = event, .detail = detail };

	audit_record(keeper, actor, &record, NULL, NULL);
}

/* The new sockets, when access is open. -1: nothing changed. */
static int exchange_listeners(struct keeper *keeper, const struct conf *conf, struct err *err)
{
	struct listeners fresh;

	/* Bound, but not open: an opening waits for its record. */
	if (keeper->listeners.len == 0)
		return 0;
	if (listeners_bind(&fresh, conf, &keeper->listeners, err))
		return -1;
	if (keeper->is_open && listeners_listen(&fresh, err)) {
		/* What was taken over goes on; the rest is closed with the old set's remains. */
		listeners_close(&keeper->listeners);
		keeper->listeners = fresh;
		return -1;
	}
	listeners_close(&keeper->listeners);
	keeper->listeners = fresh;
	return 0;
}

static void adopt(
	struct keeper *keeper, struct conf *conf, struct conf_files *files, int conf_fd)
{
	warn_restart(keeper->conf, conf);
	wakers_new_conf(keeper, conf);
	conf_free(keeper->conf);
	conf_files_free(keeper->files);
	(void)close(keeper->conf_fd);
	keeper->conf = conf;
	keeper->files = files;
	keeper->conf_fd = conf_fd;
	log_setup("keeper", conf->log.level, conf->log.json, conf->log.syslog);
	audit_new_conf(keeper);
	/* From here on the old workers serve no request that they have not begun. */
	switch_set_generation(keeper->state, ++keeper->generation);
	workers_drain(keeper, WORKERS_NO_CUT, conf_fd);
	if (!keeper->is_open)
		return;
	access_cap(&keeper->window, conf->access.max_ttl_ms);
	switch_open(keeper->state, keeper->window.until_ms);
	keeper_set_expiry(keeper);
	workers_start(keeper);
}

int keeper_reload(struct keeper *keeper, const struct actor *actor, struct conf_errors *errors)
{
	struct conf_files *files = NULL;
	struct conf *conf = NULL;
	int conf_fd = -1;
	struct err err;

	if (keeper_load(keeper->conf_path, &conf, &files, &conf_fd, errors) == 0 &&
		exchange_listeners(keeper, conf, &err)) {
		buf_printf(&errors->text, "%s: %s\n", keeper->conf_path, err.text);
		errors->count++;
		conf_free(conf);
		conf_files_free(files);
		(void)close(conf_fd);
		conf = NULL;
	}
	if (!conf) {
		log_error("reload failed, nothing changed: " SV_FMT,
			SV_ARG(buf_sv(&errors->text)));
		report(keeper, actor, AUDIT_RELOAD_FAILED, buf_sv(&errors->text));
		keeper_settle(keeper);
		return -1;
	}
	adopt(keeper, conf, files, conf_fd);
	if (audit_reopen(keeper, &err))
		log_error("%s", err.text);
	log_info("reloaded: generation %llu", (unsigned long long)keeper->generation);
	report(keeper, actor, AUDIT_RELOADED, SV(""));
	keeper_settle(keeper);
	return 0;
}
