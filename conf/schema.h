/*
 * schema.h - every setting of postern.conf, in one table: what it is called, what it may be, where
 * it goes, and what holds when it is left out.  The reader, the printer, the check for unknown names
 * and the man page all go by it.  Private to conf/.
 */
#ifndef CONF_SCHEMA_H
#define CONF_SCHEMA_H

#include "conf/conf.h"
#include "conf/source.h"

enum setting_type {
	SETTING_TEXT,     /* const char * */
	SETTING_BOOL,     /* bool */
	SETTING_DURATION, /* uint64_t, milliseconds; "15m" in the file */
	SETTING_SIZE,     /* uint64_t, bytes; "64MiB" in the file */
	SETTING_NUMBER,   /* uint32_t */
	SETTING_DECIMAL,  /* double */
	SETTING_CHOICE,   /* int, index into `choices` */
	SETTING_TEXTS,    /* conf_list, of texts or whole numbers */
	SETTING_GROUP,    /* { … } of `fields`, in place */
	SETTING_GROUPS,   /* ( { … }, … ) of `fields`: struct group_list */
	SETTING_NOT_BUILT, /* refused unless it is empty, false or zero: a feature still to come */
};

struct group_list {
	char *items; /* of `item_size` bytes each */
	size_t len;
	const int *lines; /* where each stands */
};

struct setting {
	const char *name;
	enum setting_type type;
	size_t offset;
	const char *fallback; /* as text; NULL: nothing (text "", no items, zero) */
	bool required;
	uint64_t min, max;            /* of durations, sizes, numbers */
	bool or_number;               /* a text that a whole number may stand for */
	const char *const *choices;   /* NULL after the last */
	const struct setting *fields; /* of groups; name NULL after the last */
	size_t item_size;             /* of SETTING_GROUPS */
};

/* What the file says, before it is checked against itself. The embedded conf takes all that needs
 * no building. */
struct raw_match {
	const char *method, *issuer, *subject, *scope, *san, *cn, *fingerprint;
};

struct raw_grant {
	struct raw_match match;
	conf_list targets, profiles, allow;
	uint32_t max_seconds;
};

struct raw_issuer {
	const char *issuer, *audience, *key_file, *kid, *scope_claim;
	conf_list algorithms;
	uint64_t leeway_ms, max_age_ms;
};

struct raw_target {
	const char *name, *address, *socket, *uid, *token_file;
	conf_list allow;
	bool is_default, wake;
};

struct raw {
	struct conf conf;
	conf_list listen, acl_allow, acl_deny, allow_uids;
	int min_version, client_certificate, sandbox, sync, level, format, to, initially;
	uint64_t uri_bytes, header_bytes, body_bytes;
	struct group_list issuers, grants, targets;
};

/* The whole file's settings. */
extern const struct setting schema[];

/* Memory that lives as long as the configuration. */
struct chunk {
	struct chunk *next;
	char bytes[];
};

/* Where a setting of a group stands, for errors that are found later. */
struct place {
	const struct place *next;
	const char *path;
	int line;
};

/* A configuration and all that belongs to it. `raw.conf` is what the user gets. */
struct owner {
	struct raw raw;
	struct chunk *chunks;
	bool out_of_memory; /* something is missing: not to be used */
	const struct place *places;
	struct acl *acls[1024];
	size_t acls_len;
	struct issuer *issuers[64];
	size_t issuers_len;
};

/* Zeroed; NULL without memory. */
void *owner_alloc(struct owner *owner, size_t size);
const char *owner_strdup(struct owner *owner, const char *text);

struct reader {
	struct owner *owner;
	const char *name; /* of the file, in errors */
	const struct source *source;
	struct conf_files *files;
	struct conf_errors *errors;
};

/* Note an error: "FILE:LINE: where: what", the line being one of the source. With `line` 0 the line is that of the setting `where`, if
 * the file has it. */
void complain(struct reader *reader, int line, const char *where, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Read the parsed file into owner->raw by the schema. */
int schema_read(struct reader *reader, void *config);

/* Make everything of raw that has to be made, and check it against itself. */
void conf_build(struct reader *reader);

/* "15m" and the like; the shortest exact unit. */
void duration_format(uint64_t ms, struct buf *out);
void size_format(uint64_t bytes, struct buf *out);

/* "127.0.0.1:6061", "[::1]:6061". */
int endpoint_parse(struct sv text, struct addr *addr, uint16_t *port, struct err *err);

#endif
