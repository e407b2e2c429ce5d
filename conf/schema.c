#include "conf/schema.h"

#include <stddef.h>

#define AT(field)     .offset = offsetof(struct raw, field)
#define CONF(field)   .offset = offsetof(struct raw, conf.field)
#define GRANT(field)  .offset = offsetof(struct raw_grant, field)
#define MATCH(field)  .offset = offsetof(struct raw_grant, match.field)
#define ISSUER(field) .offset = offsetof(struct raw_issuer, field)
#define TARGET(field) .offset = offsetof(struct raw_target, field)

#define DAY_MS  UINT64_C(86400000)
#define HOUR_MS UINT64_C(3600000)
#define GIB     (UINT64_C(1) << 30)

static const char *const sandboxes[] = { "auto", "required", "off", NULL };
static const char *const versions[] = { "1.3", "1.2", NULL };
static const char *const client_certificates[] = { "none", "optional", "required", "", NULL };
static const char *const states[] = { "closed", "open", NULL };
static const char *const syncs[] = { "always", "interval", "none", NULL };
static const char *const levels[] = { "error", "warning", "info", "debug", NULL };
static const char *const formats[] = { "text", "json", NULL };
static const char *const sinks[] = { "stderr", "syslog", NULL };

/* clang-format off */
static const struct setting gateway[] = {
	{ "listen", SETTING_TEXTS, AT(listen), "127.0.0.1:6061 [::1]:6061" },
	{ "workers", SETTING_NUMBER, CONF(gateway.workers), "1", .min = 1, .max = 64 },
	{ "hosts", SETTING_TEXTS, CONF(gateway.hosts) },
	{ "user", SETTING_TEXT, CONF(gateway.user) },
	{ "runtime_dir", SETTING_TEXT, CONF(gateway.runtime_dir), "/run/postern" },
	{ "drain", SETTING_DURATION, CONF(gateway.drain_ms), "30s", .max = HOUR_MS },
	{ "sandbox", SETTING_CHOICE, AT(sandbox), "auto", .choices = sandboxes },
	{ "web", SETTING_BOOL, CONF(gateway.web), "true" },
	{ .name = "proxy_protocol", .type = SETTING_NOT_BUILT },
	{ .name = NULL },
};

static const struct setting tls[] = {
	{ "certificate", SETTING_TEXT, CONF(tls.certificate), .required = true },
	{ "key", SETTING_TEXT, CONF(tls.key), .required = true },
	{ "min_version", SETTING_CHOICE, AT(min_version), "1.3", .choices = versions },
	{ "client_certificate", SETTING_CHOICE, AT(client_certificate), "", .choices = client_certificates },
	{ "client_ca", SETTING_TEXT, CONF(tls.client_ca) },
	{ "client_crl", SETTING_TEXT, CONF(tls.client_crl) },
	{ .name = NULL },
};

static const struct setting access[] = {
	{ "initially", SETTING_CHOICE, AT(initially), "closed", .choices = states },
	{ "ttl", SETTING_DURATION, CONF(access.ttl_ms), "15m", .max = 30 * DAY_MS },
	{ "max_ttl", SETTING_DURATION, CONF(access.max_ttl_ms), "4h", .min = 1000, .max = 30 * DAY_MS },
	{ "signal", SETTING_BOOL, CONF(access.signal), "true" },
	{ "require_reason", SETTING_BOOL, CONF(access.require_reason), "true" },
	{ .name = NULL },
};

static const struct setting admin[] = {
	{ "socket", SETTING_TEXT, CONF(admin.socket), "/run/postern/admin.sock" },
	{ "group", SETTING_TEXT, CONF(admin.group) },
	{ "allow_uids", SETTING_TEXTS, AT(allow_uids), .or_number = true },
	{ .name = "listen", .type = SETTING_NOT_BUILT },
	{ .name = NULL },
};

static const struct setting metrics[] = {
	{ .name = "listen", .type = SETTING_NOT_BUILT },
	{ .name = NULL },
};

static const struct setting acl[] = {
	{ "allow", SETTING_TEXTS, AT(acl_allow), "127.0.0.0/8 ::1/128" },
	{ "deny", SETTING_TEXTS, AT(acl_deny) },
	{ .name = NULL },
};

static const struct setting jwt[] = {
	{ "issuer", SETTING_TEXT, ISSUER(issuer), .required = true },
	{ "audience", SETTING_TEXT, ISSUER(audience), .required = true },
	{ "algorithms", SETTING_TEXTS, ISSUER(algorithms), .required = true },
	{ "key_file", SETTING_TEXT, ISSUER(key_file), .required = true },
	{ .name = "jwks_file", .type = SETTING_NOT_BUILT },
	{ "kid", SETTING_TEXT, ISSUER(kid) },
	{ "leeway", SETTING_DURATION, ISSUER(leeway_ms), "30s", .max = 60000 },
	{ "max_age", SETTING_DURATION, ISSUER(max_age_ms), "1h", .min = 1000, .max = 365 * DAY_MS },
	{ "scope_claim", SETTING_TEXT, ISSUER(scope_claim), "scope" },
	{ .name = NULL },
};

static const struct setting match[] = {
	{ "method", SETTING_TEXT, MATCH(method) },
	{ "issuer", SETTING_TEXT, MATCH(issuer) },
	{ "subject", SETTING_TEXT, MATCH(subject) },
	{ "scope", SETTING_TEXT, MATCH(scope) },
	{ "san", SETTING_TEXT, MATCH(san) },
	{ "cn", SETTING_TEXT, MATCH(cn) },
	{ "fingerprint", SETTING_TEXT, MATCH(fingerprint) },
	{ .name = NULL },
};

static const struct setting grants[] = {
	{ .name = "match", .type = SETTING_GROUP, .fields = match },
	{ "targets", SETTING_TEXTS, GRANT(targets), .required = true },
	{ "profiles", SETTING_TEXTS, GRANT(profiles), .required = true },
	{ "max_seconds", SETTING_NUMBER, GRANT(max_seconds), "0", .max = 86400 },
	{ "allow", SETTING_TEXTS, GRANT(allow) },
	{ .name = NULL },
};

static const struct setting per_address[] = {
	{ "rate", SETTING_DECIMAL, CONF(rate_limits.per_address.rate), "20.0" },
	{ "burst", SETTING_NUMBER, CONF(rate_limits.per_address.burst), "40", .min = 1, .max = UINT32_MAX },
	{ .name = NULL },
};

static const struct setting per_identity[] = {
	{ "rate", SETTING_DECIMAL, CONF(rate_limits.per_identity.rate), "10.0" },
	{ "burst", SETTING_NUMBER, CONF(rate_limits.per_identity.burst), "20", .min = 1, .max = UINT32_MAX },
	{ .name = NULL },
};

static const struct setting auth_failures[] = {
	{ "max", SETTING_NUMBER, CONF(rate_limits.auth_failures_max), "10", .min = 1, .max = 1000000 },
	{ "window", SETTING_DURATION, CONF(rate_limits.auth_failures_window_ms), "1m", .min = 1000, .max = DAY_MS },
	{ "ban", SETTING_DURATION, CONF(rate_limits.ban_ms), "10m", .min = 1000, .max = 30 * DAY_MS },
	{ .name = NULL },
};

static const struct setting rate_limits[] = {
	{ .name = "per_address", .type = SETTING_GROUP, .fields = per_address },
	{ .name = "per_identity", .type = SETTING_GROUP, .fields = per_identity },
	{ .name = "auth_failures", .type = SETTING_GROUP, .fields = auth_failures },
	{ "captures_per_target", SETTING_NUMBER, CONF(rate_limits.captures_per_target), "2", .min = 1, .max = 64 },
	{ "connections", SETTING_NUMBER, CONF(rate_limits.connections), "1024", .min = 1, .max = 100000 },
	{ "connections_per_address", SETTING_NUMBER, CONF(rate_limits.connections_per_address), "32", .min = 1, .max = 100000 },
	{ .name = NULL },
};

static const struct setting limits[] = {
	{ "uri_bytes", SETTING_SIZE, AT(uri_bytes), "4KiB", .min = 256, .max = 65536 },
	{ "header_bytes", SETTING_SIZE, AT(header_bytes), "16KiB", .min = 1024, .max = 65536 },
	{ "body_bytes", SETTING_SIZE, AT(body_bytes), "64KiB", .min = 1024, .max = 1 << 20 },
	{ "handshake", SETTING_DURATION, CONF(limits.handshake_ms), "10s", .min = 100, .max = HOUR_MS },
	{ "header", SETTING_DURATION, CONF(limits.header_ms), "10s", .min = 100, .max = HOUR_MS },
	{ "idle", SETTING_DURATION, CONF(limits.idle_ms), "60s", .min = 100, .max = DAY_MS },
	{ "connect", SETTING_DURATION, CONF(limits.connect_ms), "2s", .min = 10, .max = HOUR_MS },
	{ "response", SETTING_DURATION, CONF(limits.response_ms), "15s", .min = 100, .max = HOUR_MS },
	{ "max_seconds", SETTING_NUMBER, CONF(limits.max_seconds), "300", .min = 1, .max = 86400 },
	{ "capture_bytes", SETTING_SIZE, CONF(limits.capture_bytes), "512MiB", .min = 1 << 20, .max = 64 * GIB },
	{ .name = NULL },
};

static const struct setting audit[] = {
	{ "file", SETTING_TEXT, CONF(audit.file), "/var/log/postern/audit.jsonl" },
	{ "sync", SETTING_CHOICE, AT(sync), "always", .choices = syncs },
	{ "key_file", SETTING_TEXT, CONF(audit.key_file) },
	{ .name = "rotate_bytes", .type = SETTING_NOT_BUILT },
	{ .name = "syslog", .type = SETTING_NOT_BUILT },
	{ .name = NULL },
};

static const struct setting logging[] = {
	{ "level", SETTING_CHOICE, AT(level), "info", .choices = levels },
	{ "format", SETTING_CHOICE, AT(format), "text", .choices = formats },
	{ "to", SETTING_CHOICE, AT(to), "stderr", .choices = sinks },
	{ .name = NULL },
};

static const struct setting targets[] = {
	{ "name", SETTING_TEXT, TARGET(name), .required = true },
	{ "address", SETTING_TEXT, TARGET(address) },
	{ "socket", SETTING_TEXT, TARGET(socket) },
	{ "uid", SETTING_TEXT, TARGET(uid), .or_number = true },
	{ "token_file", SETTING_TEXT, TARGET(token_file) },
	{ "allow", SETTING_TEXTS, TARGET(allow) },
	{ "wake", SETTING_BOOL, TARGET(wake), "false" },
	{ "default", SETTING_BOOL, TARGET(is_default), "false" },
	{ .name = NULL },
};

static const struct setting discover[] = {
	{ .name = "directory", .type = SETTING_NOT_BUILT },
	{ .name = "uids", .type = SETTING_NOT_BUILT },
	{ .name = NULL },
};

const struct setting schema[] = {
	{ .name = "gateway", .type = SETTING_GROUP, .fields = gateway },
	{ .name = "tls", .type = SETTING_GROUP, .fields = tls },
	{ .name = "access", .type = SETTING_GROUP, .fields = access },
	{ .name = "admin", .type = SETTING_GROUP, .fields = admin },
	{ .name = "metrics", .type = SETTING_GROUP, .fields = metrics },
	{ .name = "acl", .type = SETTING_GROUP, .fields = acl },
	{ "jwt", SETTING_GROUPS, AT(issuers), .fields = jwt, .item_size = sizeof(struct raw_issuer) },
	{ .name = "revoked_file", .type = SETTING_NOT_BUILT },
	{ "grants", SETTING_GROUPS, AT(grants), .fields = grants, .item_size = sizeof(struct raw_grant) },
	{ .name = "rate_limits", .type = SETTING_GROUP, .fields = rate_limits },
	{ .name = "limits", .type = SETTING_GROUP, .fields = limits },
	{ .name = "audit", .type = SETTING_GROUP, .fields = audit },
	{ .name = "log", .type = SETTING_GROUP, .fields = logging },
	{ "targets", SETTING_GROUPS, AT(targets), .fields = targets, .item_size = sizeof(struct raw_target) },
	{ .name = "discover", .type = SETTING_GROUP, .fields = discover },
	{ .name = "snapshots", .type = SETTING_NOT_BUILT },
	{ .name = "push", .type = SETTING_NOT_BUILT },
	{ .name = NULL },
};
/* clang-format on */
