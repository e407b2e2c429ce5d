/*
 * `postern acl`: what the configuration's address list says, and the same for the firewall.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "cli/cli.h"
#include "conf/conf.h"

#define CONF_DEFAULT "/etc/postern/postern.conf"
#define ERRORS_MAX   ((size_t)1 << 20)

struct options {
	const char *file;
	bool json;
};

/* The texts alone: no key is read, so this needs no rights but to read the file. */
static struct conf *load(const char *file)
{
	struct conf_errors errors = { .count = 0 };
	struct conf *conf;

	buf_init(&errors.text, ERRORS_MAX);
	conf = conf_load(file, NULL, &errors);
	if (!conf)
		(void)fprintf(stderr, SV_FMT, SV_ARG(buf_sv(&errors.text)));
	buf_free(&errors.text);
	return conf;
}

static int print_verdict(const struct options *options, const char *address,
	enum acl_verdict verdict, const char *entry)
{
	char text[256];
	struct buf out;

	if (options->json) {
		buf_init_fixed(&out, text, sizeof(text));
		json_object_begin(&out);
		json_member_cstr(&out, "address", address);
		json_member_bool(&out, "allowed", verdict == ACL_ALLOW);
		json_member_cstr(&out, "entry", entry);
		json_object_end(&out);
		printf(SV_FMT "\n", SV_ARG(buf_sv(&out)));
	} else if (verdict == ACL_ALLOW) {
		printf("%s is let in by %s\n", address, entry);
	} else if (entry[0] != '\0') {
		printf("%s is not let in: acl.deny has %s\n", address, entry);
	} else {
		printf("%s is not let in: no entry of acl.allow covers it\n", address);
	}
	return verdict == ACL_ALLOW ? CLI_DONE : CLI_FAILED;
}

static int run_test(const struct options *options, const char *text)
{
	char address[ADDR_TEXT_SIZE], entry[ADDR_TEXT_SIZE + 4];
	enum acl_verdict verdict;
	struct conf *conf;
	struct addr addr;
	struct err err;
	int status;

	if (addr_parse(sv_from_cstr(text), &addr, &err)) {
		(void)cli_fail_err(&err);
		return CLI_USAGE;
	}
	conf = load(options->file);
	if (!conf)
		return CLI_FAILED;
	verdict = acl_explain(conf->acl, &addr, entry);
	addr_format(&addr, address);
	status = print_verdict(options, address, verdict, entry);
	conf_free(conf);
	return status;
}

/* One set of the rules: which entries go into it, and whether any has. */
struct set {
	const char *name;
	enum acl_verdict side;
	bool is_v4;
	unsigned len;
};

static void print_entry(void *arg, enum acl_verdict side, bool is_v4, const char *entry)
{
	struct set *set = arg;

	if (side != set->side || is_v4 != set->is_v4)
		return;
	printf("%s%s", set->len++ ? ",\n\t\t\t" : "\t\telements = {\n\t\t\t", entry);
}

static void print_set(const struct acl *acl, struct set *set)
{
	printf("\tset %s {\n\t\ttype %s\n\t\tflags interval\n\t\tauto-merge\n", set->name,
		set->is_v4 ? "ipv4_addr" : "ipv6_addr");
	acl_each(acl, print_entry, set);
	printf("%s\t}\n", set->len ? "\n\t\t}\n" : "");
}

static void print_rules(const struct conf *conf)
{
	struct set sets[] = {
		{ "deny4", ACL_DENY, true, 0 },
		{ "deny6", ACL_DENY, false, 0 },
		{ "allow4", ACL_ALLOW, true, 0 },
		{ "allow6", ACL_ALLOW, false, 0 },
	};

	printf("table inet postern\ndelete table inet postern\ntable inet postern {\n");
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		print_set(conf->acl, &sets[i]);
	printf("\tchain gate {\n");
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		printf("\t\t%s saddr @%s %s\n", sets[i].is_v4 ? "ip" : "ip6", sets[i].name,
			sets[i].side == ACL_DENY ? "drop" : "accept");
	printf("\t\tdrop\n\t}\n\tchain input {\n"
	       "\t\ttype filter hook input priority filter; policy accept\n");
	for (size_t i = 0; i < conf->gateway.listen_len; i++)
		printf("\t\ttcp dport %u jump gate\n", (unsigned)conf->gateway.listen[i].port);
	printf("\t}\n}\n");
}

static int run_nftables(const struct options *options)
{
	struct conf *conf = load(options->file);
	int status = CLI_DONE;

	if (!conf)
		return CLI_FAILED;
	for (size_t i = 0; i < conf->gateway.listen_len; i++) {
		if (conf->gateway.listen[i].port == 0)
			status =
				cli_fail("gateway.listen has \"%s\": a rule needs a fixed port",
					conf->gateway.listen[i].text);
	}
	if (status == CLI_DONE)
		print_rules(conf);
	conf_free(conf);
	return status;
}

static int acl_main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'j' },
		{ 0 },
	};
	struct options options = { CONF_DEFAULT, false };
	int option, words;
	char **word;

	/* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
	while ((option = getopt_long(argc, argv, "c:", longs, NULL)) != -1) {
		if (option == 'c')
			options.file = optarg;
		else if (option == 'j')
			options.json = true;
		else
			return cli_usage(&acl_command, NULL);
	}
	words = argc - optind;
	word = argv + optind;
	if (words == 2 && strcmp(word[0], "test") == 0)
		return run_test(&options, word[1]);
	if (words == 1 && strcmp(word[0], "nftables") == 0)
		return run_nftables(&options);
	return cli_usage(&acl_command, "test ADDR, or nftables");
}

const struct cli_command acl_command = {
	.name = "acl",
	.arguments = "test ADDR | nftables [-c FILE] [--json]",
	.summary = "Would this address be let in; the same rules for the firewall",
	.help = "test: exit status 0 when the address is let in, 1 when not. Bans are the "
		"daemon's and\n"
		"not in here.\n"
		"nftables: rules for `nft -f -`, for the ports of gateway.listen.\n\n"
		"  -c, --config FILE     default: " CONF_DEFAULT "\n"
		"      --json            the verdict as JSON",
	.example = "postern acl test 10.1.2.3\npostern acl nftables | nft -f -",
	.run = acl_main,
};
