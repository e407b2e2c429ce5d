/*
 * audit.c - `postern audit verify`: is the log as it was written? `postern audit show`: who did what.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/chain.h"
#include "base/encode.h"
#include "cli/cli.h"

#define KEY_MAX      4096
#define LAST_MAX     100000
#define DEFAULT_FILE "/var/log/postern/audit.jsonl" /* as in postern.conf */

struct audit_options {
	const char *head_text, *key_file, *event, *request_id;
	unsigned long last; /* show only so many; 0: all */
	bool json;
	struct audit_head head; /* that the log must contain; seq 0: none was given */
	char **files;
	int files_len;
};

/* What goes through a log's lines: verify() or show() of one line. */
struct walk {
	const struct audit_options *options;
	struct audit_chain chain;
	char first_ts[40], last_ts[40];
	bool has_head; /* the wanted head was met */
	char **kept;   /* the last lines that were asked for, a ring */
	unsigned long kept_len;
};

enum line_result {
	LINE_BAD = 0, /* `err` says why */
	LINE_READ,
	LINE_END,
};

/* The next line, without its newline. A last one without newline is bad: a crash tore it. */
static enum line_result read_line(FILE *file, char *line, struct sv *out, struct err *err)
{
	size_t len = 0;
	int c;

	while ((c = getc(file)) != EOF && c != '\n') {
		if (len == AUDIT_LINE_MAX) {
			(void)err_set(err, ERR_INPUT, "longer than %zu bytes: not a record",
				AUDIT_LINE_MAX);
			return LINE_BAD;
		}
		line[len++] = (char)c;
	}
	if (ferror(file)) {
		(void)err_sys(err, "reading");
		return LINE_BAD;
	}
	if (c == EOF && len == 0)
		return LINE_END;
	if (c == EOF) {
		(void)err_set(err, ERR_INPUT,
			"the line is not whole: torn by a crash, or still being written");
		return LINE_BAD;
	}
	*out = (struct sv){ line, len };
	return LINE_READ;
}

/* Run `take` over every line of every file; the first complaint ends it, with its place. */
static int walk_files(
	struct walk *walk, int (*take)(struct walk *, struct sv, struct err *), struct err *err)
{
	char *line = malloc(AUDIT_LINE_MAX);
	FILE *file = NULL;
	int rc = -1;

	if (!line)
		return err_set(err, ERR_NOMEM, "out of memory");
	for (int i = 0; i < walk->options->files_len; i++) {
		const char *path = walk->options->files[i];
		enum line_result result;
		struct sv text;

		file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
		if (!file) {
			(void)err_sys(err, "%s", path);
			goto out;
		}
		for (unsigned long number = 1;; number++) {
			result = read_line(file, line, &text, err);
			if (result == LINE_END)
				break;
			if (result == LINE_BAD || take(walk, text, err)) {
				(void)err_wrap(err, "%s line %lu", path, number);
				goto out;
			}
		}
		if (file != stdin)
			(void)fclose(file);
		file = NULL;
	}
	rc = 0;
out:
	if (file && file != stdin)
		(void)fclose(file);
	free(line);
	return rc;
}

/* ---- verify */

static void note_time(struct walk *walk, struct sv line)
{
	static const char name[] = "\"ts\":\"";
	const char *at = memmem(line.ptr, line.len, name, sizeof(name) - 1);
	struct sv rest, ts;

	if (!at)
		return;
	at += sizeof(name) - 1;
	rest = (struct sv){ at, line.len - (size_t)(at - line.ptr) };
	ts = sv_cut(&rest, '"');
	if (!walk->first_ts[0])
		(void)sv_to_cstr(ts, walk->first_ts, sizeof(walk->first_ts));
	(void)sv_to_cstr(ts, walk->last_ts, sizeof(walk->last_ts));
}

static int verify_line(struct walk *walk, struct sv line, struct err *err)
{
	const struct audit_head *wanted = &walk->options->head;

	if (audit_chain_verify(&walk->chain, line, err))
		return -1;
	note_time(walk, line);
	if (wanted->seq == 0 || wanted->seq != walk->chain.head.seq)
		return 0;
	if (strcmp(wanted->hash, walk->chain.head.hash) != 0)
		return err_set(err, ERR_INPUT,
			"its hash is not the one that --head names: the log was rewritten up "
			"to here");
	walk->has_head = true;
	return 0;
}

static void print_verified(const struct walk *walk)
{
	const struct audit_head *head = &walk->chain.head;

	if (walk->options->json) {
		json_t *out = json_pack("{s:I, s:s, s:s, s:s, s:b}", "records",
			(json_int_t)head->seq, "first", walk->first_ts, "last", walk->last_ts,
			"hash", head->hash, "keyed", walk->chain.key.len > 0);

		if (!out || json_dumpf(out, stdout, JSON_PRESERVE_ORDER))
			(void)cli_fail("out of memory");
		(void)putchar('\n');
		json_decref(out);
		return;
	}
	printf("%" PRIu64 " record%s, the chain is whole", head->seq,
		head->seq == 1 ? "" : "s");
	if (head->seq > 0)
		printf("; %s to %s; head %" PRIu64 ":%s", walk->first_ts, walk->last_ts,
			head->seq, head->hash);
	(void)putchar('\n');
}

static int read_key(const char *path, char *key, struct sv *out, struct err *err)
{
	FILE *file = fopen(path, "re");
	size_t len;

	if (!file)
		return err_sys(err, "%s", path);
	len = fread(key, 1, KEY_MAX, file);
	if (ferror(file) || len == KEY_MAX) {
		(void)fclose(file);
		return err_set(
			err, ERR_INPUT, "%s: not a key of at most %d bytes", path, KEY_MAX - 1);
	}
	(void)fclose(file);
	/* As the daemon takes it: a final newline is an editor's. */
	if (len > 0 && key[len - 1] == '\n')
		len--;
	if (len == 0)
		return err_set(err, ERR_INPUT, "%s is empty", path);
	*out = (struct sv){ key, len };
	return 0;
}

static int verify(const struct audit_options *options, struct err *err)
{
	struct walk walk = { .options = options };
	struct sv key = SV("");
	char bytes[KEY_MAX];
	int rc = -1;

	if (options->key_file && read_key(options->key_file, bytes, &key, err))
		goto out;
	audit_chain_init(&walk.chain, key);
	if (walk_files(&walk, verify_line, err))
		goto out;
	if (options->head.seq > 0 && !walk.has_head) {
		(void)err_set(err, ERR_INPUT,
			"%s ends at seq %" PRIu64 ", but there was a seq %" PRIu64
			": the end was cut off",
			options->files[options->files_len - 1], walk.chain.head.seq,
			options->head.seq);
		goto out;
	}
	print_verified(&walk);
	rc = 0;
out:
	OPENSSL_cleanse(bytes, sizeof(bytes));
	return rc;
}

/* ---- show */

static const char *text(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value ? value : "";
}

/* What clients sent goes to a terminal: no control character may, nor those that UTF-8 spells with
 * 0xc2. The log has escaped them, but reading its JSON undoes that. */
static void print_safely(const char *value)
{
	for (; *value; value++) {
		unsigned char byte = (unsigned char)*value, next = (unsigned char)value[1];

		if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {
			(void)putchar('?');
			value++;
		} else {
			(void)putchar(byte < 0x20 || byte == 0x7f ? '?' : byte);
		}
	}
}

static void print_word(const char *value)
{
	if (!*value)
		return;
	(void)putchar(' ');
	print_safely(value);
}

static void print_identity(const json_t *record)
{
	const json_t *identity = json_object_get(record, "identity");
	const json_t *client = json_object_get(record, "client");
	const json_t *uid = json_object_get(json_object_get(record, "peer"), "uid");
	const char *who = text(identity, "san");

	if (!*who)
		who = text(identity, "subject");
	if (*who)
		print_word(who);
	if (json_is_integer(uid))
		printf(" uid %" JSON_INTEGER_FORMAT, json_integer_value(uid));
	if (client) {
		(void)fputs(*who ? "@" : " ", stdout);
		print_safely(text(client, "address"));
	}
}

static void print_record(const json_t *record)
{
	const json_t *status = json_object_get(record, "status");
	const json_t *count = json_object_get(record, "count");

	print_safely(text(record, "ts"));
	print_word(text(record, "event"));
	print_identity(record);
	print_word(text(record, "method"));
	print_word(text(record, "target"));
	print_word(text(record, "path"));
	print_word(text(record, "params"));
	if (json_is_integer(status))
		printf(" %" JSON_INTEGER_FORMAT, json_integer_value(status));
	print_word(text(record, "reason"));
	print_word(text(record, "detail"));
	if (json_is_integer(count))
		printf(" x%" JSON_INTEGER_FORMAT, json_integer_value(count));
	(void)putchar('\n');
}

static bool is_wanted(const struct audit_options *options, const json_t *record)
{
	return (!options->event || strcmp(options->event, text(record, "event")) == 0) &&
	       (!options->request_id ||
		       strcmp(options->request_id, text(record, "request_id")) == 0);
}

static int keep_line(struct walk *walk, struct sv line, struct err *err)
{
	char **slot = &walk->kept[walk->kept_len++ % walk->options->last];

	free(*slot);
	*slot = strndup(line.ptr, line.len);
	return *slot ? 0 : err_set(err, ERR_NOMEM, "out of memory");
}

static int show_line(struct walk *walk, struct sv line, struct err *err)
{
	const struct audit_options *options = walk->options;
	json_error_t why;
	json_t *record = json_loadb(line.ptr, line.len, 0, &why);
	int rc = 0;

	if (!json_is_object(record))
		rc = err_set(err, ERR_INPUT, "not a record: %s", why.text);
	else if (!is_wanted(options, record))
		rc = 0;
	else if (walk->kept)
		rc = keep_line(walk, line, err);
	else if (options->json)
		printf(SV_FMT "\n", SV_ARG(line));
	else
		print_record(record);
	json_decref(record);
	return rc;
}

/* What was kept, from the oldest on; true also when a line behind it was torn. */
static void show_kept(struct walk *walk)
{
	unsigned long last = walk->options->last;
	unsigned long first = walk->kept_len > last ? walk->kept_len - last : 0;
	char **kept = walk->kept;
	struct err err;

	walk->kept = NULL;
	for (unsigned long i = first; i < walk->kept_len; i++) {
		if (kept[i % last])
			(void)show_line(walk, sv_from_cstr(kept[i % last]), &err);
	}
	for (unsigned long i = 0; i < last; i++)
		free(kept[i]);
	free(kept);
}

static int show(const struct audit_options *options, struct err *err)
{
	struct walk walk = { .options = options };
	int rc;

	if (options->last > 0) {
		walk.kept = calloc(options->last, sizeof(*walk.kept));
		if (!walk.kept)
			return err_set(err, ERR_NOMEM, "out of memory");
	}
	rc = walk_files(&walk, show_line, err);
	if (walk.kept)
		show_kept(&walk);
	return rc;
}

/* ---- the command */

/* "128:9f86d0…": what `postern status` and the system log name. */
static bool parse_head(const char *head, struct audit_head *out)
{
	unsigned char bytes[AUDIT_HASH_SIZE];
	struct sv hash = sv_from_cstr(head);
	struct sv seq = sv_cut(&hash, ':');

	return sv_to_u64(seq, UINT64_MAX, &out->seq) && out->seq > 0 &&
	       hex_decode(hash, bytes, sizeof(bytes)) &&
	       sv_to_cstr(hash, out->hash, sizeof(out->hash));
}

static bool is_event(const char *name)
{
	for (unsigned event = 1; event < AUDIT_EVENTS_LEN; event++) {
		if (strcmp(name, audit_event_name((enum audit_event)event)) == 0)
			return true;
	}
	return false;
}

static int check_options(const struct audit_options *options, const char *last)
{
	if (options->head_text && options->head.seq == 0)
		return cli_usage(&audit_command,
			"--head '%s': SEQ:HASH, as `postern status` tells it",
			options->head_text);
	if (last && options->last == 0)
		return cli_usage(&audit_command, "-n '%s': from 1 to %d", last, LAST_MAX);
	if (options->event && !is_event(options->event))
		return cli_usage(&audit_command,
			"--event '%s': received, completed, cut, refused, opened, closed, …",
			options->event);
	return CLI_DONE;
}

static int read_options(int argc, char **argv, struct audit_options *options)
{
	static const struct option longs[] = {
		{ "head", required_argument, NULL, 'H' },
		{ "key-file", required_argument, NULL, 'k' },
		{ "json", no_argument, NULL, 'j' },
		{ "event", required_argument, NULL, 'e' },
		{ "request", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	const char *last = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "n:", longs, NULL)) != -1) {
		if (option == 'H')
			options->head_text = optarg;
		else if (option == 'k')
			options->key_file = optarg;
		else if (option == 'j')
			options->json = true;
		else if (option == 'e')
			options->event = optarg;
		else if (option == 'r')
			options->request_id = optarg;
		else if (option == 'n')
			last = optarg;
		else
			return cli_usage(&audit_command, NULL);
	}
	if (options->head_text && !parse_head(options->head_text, &options->head))
		options->head.seq = 0;
	if (last && !cli_number(last, 1, LAST_MAX, &options->last))
		options->last = 0;
	options->files = argv + optind;
	options->files_len = argc - optind;
	return check_options(options, last);
}

static int audit_main(int argc, char **argv)
{
	static char file[] = DEFAULT_FILE;
	char *only[] = { file };
	struct audit_options options = { 0 };
	bool is_verify = argc > 1 && strcmp(argv[1], "verify") == 0;
	struct err err;
	int rc;

	if (!is_verify && (argc < 2 || strcmp(argv[1], "show") != 0))
		return cli_usage(&audit_command, "verify or show?");
	argv[1] = argv[0];
	rc = read_options(argc - 1, argv + 1, &options);
	if (rc)
		return rc;
	if (!is_verify && (options.head_text || options.key_file))
		return cli_usage(&audit_command, "--head and --key-file are for verify");
	if (is_verify && (options.last || options.event || options.request_id))
		return cli_usage(&audit_command, "-n, --event and --request are for show");
	if (is_verify && options.files_len == 0)
		return cli_usage(
			&audit_command, "name the log, or its files from the oldest on");
	if (options.files_len == 0) {
		options.files = only;
		options.files_len = 1;
	}
	if (is_verify ? verify(&options, &err) : show(&options, &err))
		return cli_fail_err(&err);
	return CLI_DONE;
}

const struct cli_command audit_command = {
	.name = "audit",
	.arguments = "verify [--head SEQ:HASH] [--key-file FILE] FILE... | show [FILE...]",
	.summary = "Check that the audit log is whole, or read it",
	.help = "verify: every line's hash, their order and numbers. Exit 1 and the line where "
		"the\n"
		"chain breaks. Name rotated files too, from the oldest on.\n"
		"  --head SEQ:HASH   what the log must contain, as told by `postern status` or "
		"the\n"
		"                    system log earlier: shows a cut end and a log written "
		"anew\n"
		"  --key-file FILE   the key of audit.key_file\n"
		"show: one line a record; with --json the records as they are. Without "
		"FILE\n" DEFAULT_FILE ".\n"
		"  -n N              only the last N of what is asked for\n"
		"  --event EVENT     only received, completed, cut, refused, opened, closed, "
		"…\n"
		"  --request ID      only the request that was answered with this "
		"X-Request-Id\n"
		"  --json            for programs",
	.example = "postern audit verify /var/log/postern/audit.jsonl\n"
		   "postern audit show -n 20 --event refused",
	.run = audit_main,
};
