/*
 * build.c - from what the file says to what the daemon uses, and what must fit together.
 */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/schema.h"

#define WHERE_MAX 128

static size_t list_len(conf_list list)
{
	size_t len = 0;

	while (list && list[len])
		len++;
	return len;
}

/* The bytes of a named file; an error names the setting. An empty one never passes for none. */
static struct sv load_file(
	struct reader *reader, int line, const char *where, const char *path, bool secret)
{
	struct sv bytes = { "", 0 };
	struct err err;

	if (!path[0] || !reader->files)
		return bytes;
	if (reader->files->get(reader->files, path, secret, &bytes, &err))
		complain(reader, line, where, "%s", err.text);
	else if (bytes.len == 0 || (bytes.len == 1 && bytes.ptr[0] == '\n'))
		complain(reader, line, where, "%s: it is empty", path);
	return bytes;
}

static struct sv without_newline(struct sv text)
{
	if (text.len > 0 && text.ptr[text.len - 1] == '\n')
		text.len--;
	return text;
}

static struct acl *new_acl(struct reader *reader)
{
	struct owner *owner = reader->owner;
	size_t max = sizeof(owner->acls) / sizeof(owner->acls[0]);
	struct acl *acl = owner->acls_len < max ? acl_new() : NULL;

	if (acl)
		owner->acls[owner->acls_len++] = acl;
	else
		complain(reader, 0, "acl", "out of memory for address lists");
	return acl;
}

static void add_nets(struct reader *reader, struct acl *acl, enum acl_verdict side,
	conf_list nets, int line, const char *where)
{
	struct err err;

	for (size_t i = 0; acl && nets && nets[i]; i++) {
		if (acl_add(acl, side, sv_from_cstr(nets[i]), &err))
			complain(reader, line, where, "%s", err.text);
	}
}

static void build_acl(struct reader *reader)
{
	struct raw *raw = &reader->owner->raw;

	raw->conf.acl = new_acl(reader);
	add_nets(reader, raw->conf.acl, ACL_ALLOW, raw->acl_allow, 0, "acl.allow");
	add_nets(reader, raw->conf.acl, ACL_DENY, raw->acl_deny, 0, "acl.deny");
}

/* NULL when the list is empty: no more than the global one. */
static struct acl *build_own_acl(
	struct reader *reader, conf_list allow, int line, const char *where)
{
	struct acl *acl;

	if (list_len(allow) == 0)
		return NULL;
	acl = new_acl(reader);
	add_nets(reader, acl, ACL_ALLOW, allow, line, where);
	return acl;
}

static void build_listen(struct reader *reader)
{
	struct raw *raw = &reader->owner->raw;
	size_t len = list_len(raw->listen);
	struct conf_listen *listen = owner_alloc(reader->owner, (len + 1) * sizeof(*listen));
	struct err err;

	for (size_t i = 0; listen && i < len; i++) {
		listen[i].text = raw->listen[i];
		if (endpoint_parse(sv_from_cstr(raw->listen[i]), &listen[i].addr,
			    &listen[i].port, &err))
			complain(reader, 0, "gateway.listen", "\"%s\": %s", raw->listen[i],
				err.text);
		else if (!addr_is_loopback(&listen[i].addr) &&
			 acl_is_loopback_only(raw->conf.acl))
			complain(reader, 0, "gateway.listen",
				"\"%s\" is not loopback, but acl.allow lets in nothing else: "
				"add "
				"the networks that may come in to acl.allow",
				raw->listen[i]);
	}
	if (len == 0)
		complain(reader, 0, "gateway.listen", "it must name at least one address");
	raw->conf.gateway.listen = listen;
	raw->conf.gateway.listen_len = len;
}

static void build_tls(struct reader *reader)
{
	struct raw *raw = &reader->owner->raw;
	struct conf *conf = &raw->conf;

	conf->tls.min_version_12 = raw->min_version == 1;
	/* The last choice is what stands for "left out". */
	conf->tls.client_certificate =
		raw->client_certificate < 3
			? (enum conf_client_certificate)raw->client_certificate
		: conf->tls.client_ca[0] ? CONF_CLIENT_OPTIONAL
					 : CONF_CLIENT_NONE;
	if (conf->tls.client_certificate != CONF_CLIENT_NONE && !conf->tls.client_ca[0])
		complain(reader, 0, "tls.client_certificate",
			"without tls.client_ca no certificate can be checked: set it, or write "
			"\"none\"");
	if (conf->tls.client_crl[0] && !conf->tls.client_ca[0])
		complain(reader, 0, "tls.client_crl",
			"without tls.client_ca there are no certificates to revoke");
	conf->tls.certificate_pem =
		load_file(reader, 0, "tls.certificate", conf->tls.certificate, false);
	conf->tls.key_pem = load_file(reader, 0, "tls.key", conf->tls.key, true);
	conf->tls.client_ca_pem =
		load_file(reader, 0, "tls.client_ca", conf->tls.client_ca, false);
	conf->tls.client_crl_pem =
		load_file(reader, 0, "tls.client_crl", conf->tls.client_crl, false);
}

static void complain_ttl(struct reader *reader)
{
	const struct conf *conf = &reader->owner->raw.conf;
	char ttl_mem[32], max_mem[32];
	struct buf ttl, max;

	buf_init_fixed(&ttl, ttl_mem, sizeof(ttl_mem));
	buf_init_fixed(&max, max_mem, sizeof(max_mem));
	duration_format(conf->access.ttl_ms, &ttl);
	duration_format(conf->access.max_ttl_ms, &max);
	complain(reader, 0, "access.ttl",
		"\"" SV_FMT "\" is longer than access.max_ttl, \"" SV_FMT "\"",
		SV_ARG(buf_sv(&ttl)), SV_ARG(buf_sv(&max)));
}

static void build_access(struct reader *reader)
{
	struct conf *conf = &reader->owner->raw.conf;

	conf->access.initially_open = reader->owner->raw.initially == 1;
	if (conf->access.ttl_ms == 0 && !conf->access.initially_open)
		complain(reader, 0, "access.ttl",
			"\"0s\" (no limit) goes only with initially = \"open\"");
	if (conf->access.ttl_ms > conf->access.max_ttl_ms)
		complain_ttl(reader);
}

static const char *number_text(struct owner *owner, uint32_t number)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%u", number);
	return owner_strdup(owner, text);
}

/* A number, or a user's name. */
static bool find_uid(const char *text, uint32_t *uid)
{
	struct passwd entry, *found = NULL;
	char names[4096];
	uint64_t number;

	if (sv_to_u64(sv_from_cstr(text), UINT32_MAX - 1, &number)) {
		*uid = (uint32_t)number;
		return true;
	}
	if (getpwnam_r(text, &entry, names, sizeof(names), &found) || !found)
		return false;
	*uid = found->pw_uid;
	return true;
}

static void build_admin(struct reader *reader)
{
	struct raw *raw = &reader->owner->raw;
	size_t len = list_len(raw->allow_uids);
	uint32_t *uids = owner_alloc(reader->owner, (len + 1) * sizeof(*uids));
	const char **numbers = owner_alloc(reader->owner, (len + 1) * sizeof(*numbers));

	for (size_t i = 0; uids && numbers && i < len; i++) {
		if (!find_uid(raw->allow_uids[i], &uids[i]))
			complain(reader, 0, "admin.allow_uids",
				"\"%s\" is neither a number nor a user of this host",
				raw->allow_uids[i]);
		numbers[i] = number_text(reader->owner, uids[i]);
	}
	/* What is printed is what holds: who reads it need not know this host's users. */
	raw->allow_uids = numbers;
	raw->conf.admin.allow_uids = uids;
	raw->conf.admin.allow_uids_len = len;
}

static void build_issuer(struct reader *reader, struct raw_issuer *raw, int line, size_t at)
{
	struct owner *owner = reader->owner;
	struct issuer_settings settings = {
		.issuer = raw->issuer,
		.audience = raw->audience,
		.kid = raw->kid,
		.leeway_s = raw->leeway_ms / 1000,
		.max_age_s = raw->max_age_ms / 1000,
		.scope_claim = raw->scope_claim,
	};
	bool secret = raw->algorithms && raw->algorithms[0] &&
		      strncmp(raw->algorithms[0], "HS", 2) == 0;
	char where[WHERE_MAX];
	struct err err;

	(void)snprintf(where, sizeof(where), "jwt[%zu]", at);
	if (list_len(raw->algorithms) == 0 ||
		list_len(raw->algorithms) >= ISSUER_ALGORITHMS_MAX) {
		complain(reader, line, where, "algorithms must name from 1 to %d algorithms",
			ISSUER_ALGORITHMS_MAX - 1);
		return;
	}
	if (raw->leeway_ms % 1000 || raw->max_age_ms % 1000)
		complain(reader, line, where,
			"leeway and max_age are whole seconds: a token's times are");
	for (size_t i = 0; raw->algorithms[i]; i++)
		settings.algorithms[i] = raw->algorithms[i];
	if (!reader->files)
		return;
	settings.key = load_file(reader, line, where, raw->key_file, secret);
	if (secret)
		settings.key = without_newline(settings.key);
	if (settings.key.len == 0)
		return; /* said already */
	if (issuer_new(&settings, &owner->issuers[owner->issuers_len], &err))
		complain(reader, line, where, "%s", err.text);
	else
		owner->issuers_len++;
}

static void build_issuers(struct reader *reader)
{
	struct owner *owner = reader->owner;
	struct group_list *list = &owner->raw.issuers;
	const size_t max = sizeof(owner->issuers) / sizeof(owner->issuers[0]);
	struct raw_issuer *issuers = (struct raw_issuer *)(void *)list->items;
	char where[WHERE_MAX];

	if (list->len > max)
		complain(reader, 0, "jwt", "there are %zu issuers; at most %zu can be",
			list->len, max);
	for (size_t i = 0; i < list->len && i < max; i++) {
		if (!issuers[i].issuer || !issuers[i].audience || !issuers[i].key_file ||
			!issuers[i].algorithms)
			continue; /* incomplete, and said so */
		for (size_t k = 0; k < i; k++) {
			if (issuers[k].issuer &&
				strcmp(issuers[i].issuer, issuers[k].issuer) == 0) {
				(void)snprintf(where, sizeof(where), "jwt[%zu].issuer", i);
				complain(reader, list->lines[i], where,
					"\"%s\" stands above already: one issuer, one key",
					issuers[i].issuer);
			}
		}
		build_issuer(reader, &issuers[i], list->lines[i], i);
	}
	owner->raw.conf.issuers = owner->issuers;
	owner->raw.conf.issuers_len = owner->issuers_len;
}

static const char *or_null(const char *text)
{
	return text && text[0] ? text : NULL;
}

static void build_grant_lists(struct reader *reader, const struct raw_grant *raw,
	struct grant *grant, int line, const char *where)
{
	size_t targets = list_len(raw->targets);

	if (targets == 0 || targets >= GRANT_LIST_MAX)
		complain(reader, line, where,
			"targets must name from 1 to %d targets, or \"*\"", GRANT_LIST_MAX - 1);
	for (size_t i = 0; i < targets && i < GRANT_LIST_MAX - 1; i++)
		grant->targets[i] = raw->targets[i];
	for (size_t i = 0; raw->profiles && raw->profiles[i]; i++) {
		uint32_t bits = profile_bits(sv_from_cstr(raw->profiles[i]));

		if (bits == 0)
			complain(reader, line, where,
				"\"%s\" is no profile: index heap allocs profile goroutine "
				"threadcreate block mutex wall offcpu trace symbol cmdline "
				"metrics "
				"admin goroutine_full heap_gc, or \"*\"",
				raw->profiles[i]);
		grant->profiles |= bits;
	}
	if (list_len(raw->profiles) == 0)
		complain(reader, line, where, "profiles must name at least one");
}

static bool is_for_tokens(const struct grant *grant)
{
	return grant->subject || grant->scope || grant->issuer ||
	       (grant->method && strcmp(grant->method, "mtls") != 0);
}

static void build_grant(struct reader *reader, const struct raw_grant *raw,
	struct conf_grant *out, int line, size_t at)
{
	struct conf *conf = &reader->owner->raw.conf;
	struct grant *grant = &out->grant;
	char where[WHERE_MAX];
	struct err err;

	(void)snprintf(where, sizeof(where), "grants[%zu]", at);
	*grant = (struct grant){
		.method = or_null(raw->match.method),
		.issuer = or_null(raw->match.issuer),
		.subject = or_null(raw->match.subject),
		.scope = or_null(raw->match.scope),
		.san = or_null(raw->match.san),
		.cn = or_null(raw->match.cn),
		.fingerprint = or_null(raw->match.fingerprint),
		.max_seconds = raw->max_seconds ? raw->max_seconds : conf->limits.max_seconds,
	};
	build_grant_lists(reader, raw, grant, line, where);
	if (grant_check(grant, &err))
		complain(reader, line, where, "%s", err.text);
	if (reader->owner->raw.issuers.len > 1 && is_for_tokens(grant) && !grant->issuer)
		complain(reader, line, where,
			"with several issuers a grant for tokens names its own: match.issuer");
	if (raw->max_seconds > conf->limits.max_seconds)
		complain(reader, line, where, "max_seconds is over limits.max_seconds (%u)",
			conf->limits.max_seconds);
	out->acl = build_own_acl(reader, raw->allow, line, where);
}

static void build_grants(struct reader *reader)
{
	struct raw *raw = &reader->owner->raw;
	struct raw_grant *grants = (struct raw_grant *)(void *)raw->grants.items;
	struct conf_grant *built =
		owner_alloc(reader->owner, (raw->grants.len + 1) * sizeof(*built));

	for (size_t i = 0; built && i < raw->grants.len; i++)
		build_grant(reader, &grants[i], &built[i], raw->grants.lines[i], i);
	raw->conf.grants = built;
	raw->conf.grants_len = raw->grants.len;
}

static bool is_target_name(const char *name)
{
	size_t len = strspn(
		name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	return len > 0 && len <= 64 && name[len] == '\0' && name[0] != '.';
}

static bool is_visible(struct sv token)
{
	for (size_t i = 0; i < token.len; i++) {
		if (token.ptr[i] <= 0x20 || token.ptr[i] >= 0x7f)
			return false;
	}
	return true;
}

static void build_target_place(struct reader *reader, const struct raw_target *raw,
	struct conf_target *target, int line, const char *where)
{
	bool has_address = raw->address && raw->address[0];
	bool has_socket = raw->socket && raw->socket[0];
	struct err err;

	target->socket = has_socket ? raw->socket : NULL;
	if (has_address == has_socket)
		complain(reader, line, where,
			"it must have either an address (127.0.0.1:6060) or a socket (a path)");
	else if (has_socket && (raw->socket[0] != '/' || strlen(raw->socket) > 107))
		complain(reader, line, where,
			"socket must be an absolute path of at most 107 characters");
	else if (has_address &&
		 endpoint_parse(sv_from_cstr(raw->address), &target->addr, &target->port, &err))
		complain(reader, line, where, "address \"%s\": %s", raw->address, err.text);
	else if (has_address && !addr_is_loopback(&target->addr))
		complain(reader, line, where,
			"address \"%s\" is not loopback: a gate forwards to its own host only",
			raw->address);
	else if (has_address && target->port == 0)
		complain(reader, line, where, "address \"%s\" has no port", raw->address);
}

static void build_target(struct reader *reader, struct raw_target *raw,
	struct conf_target *target, int line, size_t at)
{
	char where[WHERE_MAX];

	(void)snprintf(where, sizeof(where), "targets[%zu]", at);
	target->name = raw->name ? raw->name : "";
	target->is_default = raw->is_default;
	target->wake = raw->wake;
	if (raw->name && !is_target_name(raw->name))
		complain(reader, line, where,
			"\"%s\" cannot stand in a path: a name has letters, digits, '.', '_' "
			"and "
			"'-'",
			raw->name);
	build_target_place(reader, raw, target, line, where);
	target->has_uid = raw->uid && raw->uid[0];
	if (target->has_uid && !find_uid(raw->uid, &target->uid))
		complain(reader, line, where,
			"uid \"%s\" is neither a number nor a user of this host", raw->uid);
	else if (target->has_uid)
		raw->uid = number_text(reader->owner, target->uid);
	target->token_file = or_null(raw->token_file);
	if (target->token_file && !target->has_uid && !target->socket)
		complain(reader, line, where,
			"token_file needs uid or socket: else the token may go to somebody "
			"else's server");
	if (target->token_file)
		target->token = without_newline(
			load_file(reader, line, where, target->token_file, true));
	/* It becomes a header field of every request. */
	if (!is_visible(target->token))
		complain(reader, line, where,
			"token_file: a token is one line of visible characters without blanks");
	target->acl = build_own_acl(reader, raw->allow, line, where);
}

static void build_targets(struct reader *reader)
{
	struct raw *raw = &reader->owner->raw;
	struct raw_target *targets = (struct raw_target *)(void *)raw->targets.items;
	size_t len = raw->targets.len, defaults = 0;
	struct conf_target *built = owner_alloc(reader->owner, (len + 1) * sizeof(*built));

	for (size_t i = 0; built && i < len; i++) {
		build_target(reader, &targets[i], &built[i], raw->targets.lines[i], i);
		defaults += built[i].is_default;
		for (size_t k = 0; k < i; k++) {
			if (strcmp(built[i].name, built[k].name) == 0 && built[i].name[0])
				complain(reader, raw->targets.lines[i], "targets",
					"there are two of the name \"%s\"", built[i].name);
		}
	}
	if (len == 0)
		complain(reader, 0, "targets",
			"there must be at least one: ( { name = \"vtp\"; address = "
			"\"127.0.0.1:6060\"; default = true; } )");
	if (defaults > 1)
		complain(reader, 0, "targets", "only one can be the default");
	/* A single target needs not be told that it is the default. */
	if (built && len == 1)
		built[0].is_default = true;
	raw->conf.targets = built;
	raw->conf.targets_len = len;
}

static void build_user(struct reader *reader)
{
	const char *user = reader->owner->raw.conf.gateway.user;
	uint32_t uid;

	/* A worker reads a new configuration where it cannot open /etc/passwd any more. */
	if (!user[0] || !reader->files || reader->files->judged)
		return;
	if (!find_uid(user, &uid))
		complain(reader, 0, "gateway.user", "\"%s\" is no user of this host", user);
	else if (uid == 0)
		complain(reader, 0, "gateway.user",
			"it must not be root: workers and scribe run as this user");
}

void conf_build(struct reader *reader)
{
	struct raw *raw = &reader->owner->raw;
	struct conf *conf = &raw->conf;

	conf->gateway.sandbox = (enum conf_sandbox)raw->sandbox;
	conf->audit.sync = (enum conf_sync)raw->sync;
	conf->log.level = (enum conf_log_level)raw->level;
	conf->log.json = raw->format == 1;
	conf->log.syslog = raw->to == 1;
	conf->limits.uri_bytes = raw->uri_bytes;
	conf->limits.header_bytes = raw->header_bytes;
	conf->limits.body_bytes = raw->body_bytes;
	build_acl(reader);
	if (conf->acl)
		build_listen(reader);
	build_user(reader);
	build_tls(reader);
	build_access(reader);
	build_admin(reader);
	build_issuers(reader);
	build_grants(reader);
	build_targets(reader);
	if (conf->admin.socket[0] != '/' || strlen(conf->admin.socket) > 107)
		complain(reader, 0, "admin.socket",
			"\"%s\" is not an absolute path of at most 107 characters",
			conf->admin.socket);
	if (!conf->audit.file[0])
		complain(reader, 0, "audit.file",
			"\"\" will not do: nothing is served without a record");
	conf->audit.key = without_newline(
		load_file(reader, 0, "audit.key_file", conf->audit.key_file, true));
	if (conf->audit.key.len > 0 && conf->audit.key.len < 32)
		complain(reader, 0, "audit.key_file",
			"the key has %zu bytes; it must have at least 32", conf->audit.key.len);
}
