/*
 * conf.h - postern.conf: one immutable, validated configuration, and back to text.
 *
 * The keeper loads the file and all that it names (keys, certificates, lists), with checks of who
 * owns them; a worker gets the effective configuration as text and the files as bytes in one sealed
 * memory file, and parses both anew.  So everything here reads files only through conf_files.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "acl/acl.h"
#include "auth/grant.h"
#include "auth/issuer.h"
#include "base/buf.h"
#include "base/sv.h"

enum conf_client_certificate {
	CONF_CLIENT_NONE,
	CONF_CLIENT_OPTIONAL,
	CONF_CLIENT_REQUIRED
};

enum conf_sandbox {
	CONF_SANDBOX_AUTO,
	CONF_SANDBOX_REQUIRED,
	CONF_SANDBOX_OFF
};

enum conf_sync {
	CONF_SYNC_ALWAYS,
	CONF_SYNC_INTERVAL,
	CONF_SYNC_NONE
};

enum conf_log_level {
	CONF_LOG_ERROR,
	CONF_LOG_WARNING,
	CONF_LOG_INFO,
	CONF_LOG_DEBUG
};

/* A list of texts, NULL after the last. */
typedef const char *const *conf_list;

struct conf_listen {
	const char *text; /* as written */
	struct addr addr;
	uint16_t port; /* 0: the kernel picks one */
};

struct conf_target {
	const char *name;
	const char *socket; /* path of a unix socket, or NULL: then addr and port */
	struct addr addr;   /* always loopback */
	uint16_t port;
	bool has_uid;
	uint32_t uid;           /* whose server must be listening there */
	const char *token_file; /* sent to the target as its bearer token, or NULL */
	struct sv token;        /* its contents, a final newline left out */
	struct acl *acl;        /* NULL: the global one alone */
	bool is_default;
	bool wake; /* it sleeps until access opens (docs/sampler.md, "Asleep") */
};

struct conf_grant {
	struct grant grant;
	struct acl *acl; /* of the grant's `allow`; NULL: any address */
};

struct conf_rate {
	double rate; /* a second */
	uint32_t burst;
};

struct conf {
	struct {
		const struct conf_listen *listen;
		size_t listen_len;
		uint32_t workers;
		conf_list hosts;
		const char *user, *runtime_dir;
		uint64_t drain_ms;
		enum conf_sandbox sandbox;
		bool web;
	} gateway;

	struct {
		const char *certificate, *key, *client_ca, *client_crl; /* paths, or "" */
		struct sv certificate_pem, key_pem, client_ca_pem, client_crl_pem;
		bool min_version_12;
		enum conf_client_certificate client_certificate;
	} tls;

	struct {
		bool initially_open, signal, require_reason;
		uint64_t ttl_ms, max_ttl_ms; /* ttl 0: no limit */
	} access;

	struct {
		const char *socket, *group;
		const uint32_t *allow_uids;
		size_t allow_uids_len;
	} admin;
	struct acl *acl;
	struct issuer *const *issuers;
	size_t issuers_len;
	const struct conf_grant *grants;
	size_t grants_len;

	struct {
		struct conf_rate per_address, per_identity;
		uint32_t auth_failures_max;
		uint64_t auth_failures_window_ms, ban_ms;
		uint32_t captures_per_target, connections, connections_per_address;
	} rate_limits;

	struct {
		size_t uri_bytes, header_bytes, body_bytes;
		uint64_t handshake_ms, header_ms, idle_ms, connect_ms, response_ms;
		uint32_t max_seconds;
		uint64_t capture_bytes;
	} limits;

	struct {
		const char *file, *key_file;
		struct sv key;
		enum conf_sync sync;
	} audit;

	struct {
		enum conf_log_level level;
		bool json, syslog;
	} log;
	const struct conf_target *targets;
	size_t targets_len;
};

/* Where the bytes of a named file come from. `get` answers 0 and a view that lives as long as the
 * conf_files, or -1 and the reason. `secret` asks that others cannot read it. */
struct conf_files {
	int (*get)(struct conf_files *files, const char *path, bool secret, struct sv *bytes,
		struct err *err);
	bool judged; /* this host's users were looked up by who packed the files: do not again */
};

/* All errors found, one a line, each "FILE:LINE: setting.path = value: what would be right". */
struct conf_errors {
	struct buf text;
	size_t count;
};

/* Parse and validate `text` (called `name` in errors). NULL, and the errors, when anything at all
 * is wrong. With `files` NULL no named file is read (for tests of texts alone). */
struct conf *conf_parse(
	struct sv text, const char *name, struct conf_files *files, struct conf_errors *errors);

/* As conf_parse(), from a file, with @include; with `files` it checks who owns it and may
 * write it. */
struct conf *conf_load(const char *path, struct conf_files *files, struct conf_errors *errors);

/* The effective configuration as text that parses to the same again. It never holds secrets: they
 * are in files. */
void conf_print(const struct conf *conf, struct buf *out);

/* NULL is fine. */
void conf_free(struct conf *conf);

#endif
