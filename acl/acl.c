#include "acl/acl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V4_BITS 96 /* prefix bits that make an address IPv4 */

/*
 * A path-compressed binary trie.  A node stands for the prefix of `len` bits of `key`; the bits
 * that lie between a node and its parent are not branched on, so each node is either an entry or
 * has two children, and there are at most twice as many nodes as entries.  Nodes lie in one
 * growing array and name each other by index, 0 being "none": the first real node is 1.
 *
 * An address is decided by the nodes on its path that are of its family: any deny entry wins, else
 * any allow entry lets it in.  IPv4 lies inside ::/0, but who wrote that meant IPv6, as the
 * firewall's rules would.
 */
struct node {
	struct addr key; /* bits after `len` are zero */
	uint8_t len;
	bool allow, deny;
	uint32_t child[2];
};

struct acl {
	struct node *nodes;
	uint32_t len, cap, root;
	bool beyond_loopback;
};

struct acl *acl_new(void)
{
	struct acl *acl = calloc(1, sizeof(*acl));

	if (acl)
		acl->len = 1; /* index 0 is "none" */
	return acl;
}

void acl_free(struct acl *acl)
{
	if (acl)
		free(acl->nodes);
	free(acl);
}

static unsigned bit_at(const struct addr *key, unsigned index)
{
	return (unsigned)key->bytes[index / 8] >> (7 - index % 8) & 1U;
}

/* How many leading bits two keys share, at most `max`. */
static unsigned shared_bits(const struct addr *a, const struct addr *b, unsigned max)
{
	for (unsigned i = 0; i < 16 && i * 8 < max; i++) {
		unsigned differing = (unsigned)(a->bytes[i] ^ b->bytes[i]);

		if (differing) {
			unsigned shared = i * 8 + (unsigned)__builtin_clz(differing) - 24U;

			return shared < max ? shared : max;
		}
	}
	return max;
}

static struct addr masked(const struct addr *key, unsigned len)
{
	struct addr out = { 0 };

	memcpy(out.bytes, key->bytes, len / 8);
	if (len % 8)
		out.bytes[len / 8] = (uint8_t)(key->bytes[len / 8] & 0xff00U >> (len % 8));
	return out;
}

static int parse_net(struct sv net, struct addr *key, unsigned *len, struct err *err)
{
	struct sv bits = net, addr = sv_cut(&bits, '/');
	bool has_bits = addr.len < net.len;
	unsigned max;
	uint64_t prefix;
	struct addr want;
	char text[ADDR_TEXT_SIZE];

	if (addr_parse(addr, key, err))
		return -1;
	max = addr_is_v4(key) ? 32 : 128;
	prefix = max;
	if (has_bits && !sv_to_u64(bits, max, &prefix))
		return err_set(err, ERR_INPUT,
			"'" SV_FMT "' needs a prefix length of 0 to %u after the slash",
			SV_ARG(net), max);
	*len = (unsigned)prefix + (max == 32 ? V4_BITS : 0);
	want = masked(key, *len);
	if (!addr_is_same(&want, key)) {
		addr_format(&want, text);
		return err_set(err, ERR_INPUT,
			"'" SV_FMT
			"' has bits set after the prefix: write %s/%u, or the address alone",
			SV_ARG(net), text, (unsigned)prefix);
	}
	return 0;
}

/* 0 without memory. */
static uint32_t new_node(struct acl *acl, const struct addr *key, unsigned len)
{
	if (acl->len >= acl->cap) {
		uint32_t cap = acl->cap ? acl->cap * 2 : 16;
		struct node *grown = reallocarray(acl->nodes, cap, sizeof(*grown));

		if (!grown)
			return 0;
		acl->nodes = grown;
		acl->cap = cap;
	}
	acl->nodes[acl->len] = (struct node){ .key = masked(key, len), .len = (uint8_t)len };
	return acl->len++;
}

/* The place that holds the index of the node below `at` (0: the root) on the side of `key`. */
static uint32_t *slot_below(struct acl *acl, uint32_t at, const struct addr *key)
{
	return at ? &acl->nodes[at].child[bit_at(key, acl->nodes[at].len)] : &acl->root;
}

/* Find or make the node for a prefix; 0 without memory. */
static uint32_t insert(struct acl *acl, const struct addr *key, unsigned len)
{
	uint32_t above = 0, at = acl->root, fresh, fork;
	unsigned shared = 0;

	while (at) {
		const struct node *node = &acl->nodes[at];

		shared = shared_bits(key, &node->key, len < node->len ? len : node->len);
		if (shared < node->len)
			break;
		if (shared == len)
			return at;
		above = at;
		at = node->child[bit_at(key, node->len)];
	}
	fresh = new_node(acl, key, len);
	if (!fresh)
		return 0;
	if (!at) {
		*slot_below(acl, above, key) = fresh;
		return fresh;
	}
	if (shared == len) { /* the new prefix covers the node that is there */
		acl->nodes[fresh].child[bit_at(&acl->nodes[at].key, len)] = at;
		*slot_below(acl, above, key) = fresh;
		return fresh;
	}
	fork = new_node(acl, key, shared);
	if (!fork)
		return 0;
	acl->nodes[fork].child[bit_at(key, shared)] = fresh;
	acl->nodes[fork].child[bit_at(&acl->nodes[at].key, shared)] = at;
	*slot_below(acl, above, key) = fork;
	return fresh;
}

/* 127.0.0.0/8 and ::1 are all of loopback. */
static bool reaches_beyond_loopback(const struct addr *key, unsigned len)
{
	if (!addr_is_loopback(key))
		return true;
	return addr_is_v4(key) ? len < V4_BITS + 8 : len < 128;
}

int acl_add(struct acl *acl, enum acl_verdict side, struct sv net, struct err *err)
{
	struct addr key;
	unsigned len = 0;
	uint32_t at;

	if (parse_net(net, &key, &len, err))
		return -1;
	at = insert(acl, &key, len);
	if (!at)
		return err_set(err, ERR_NOMEM, "out of memory for the address list");
	if (side == ACL_DENY) {
		acl->nodes[at].deny = true;
	} else {
		acl->nodes[at].allow = true;
		acl->beyond_loopback |= reaches_beyond_loopback(&key, len);
	}
	return 0;
}

/* The node that decides, or NULL. */
static const struct node *decide(const struct acl *acl, const struct addr *client)
{
	const struct node *allowed = NULL;
	unsigned family_bits = addr_is_v4(client) ? V4_BITS : 0;

	for (uint32_t at = acl->root; at;) {
		const struct node *node = &acl->nodes[at];

		if (shared_bits(client, &node->key, node->len) < node->len)
			break;
		if (node->deny && node->len >= family_bits)
			return node;
		if (node->allow && node->len >= family_bits)
			allowed = node;
		if (node->len == 128)
			break;
		at = node->child[bit_at(client, node->len)];
	}
	return allowed;
}

enum acl_verdict acl_check(const struct acl *acl, const struct addr *client)
{
	const struct node *node = decide(acl, client);

	return node && !node->deny ? ACL_ALLOW : ACL_DENY;
}

static bool is_v4_node(const struct node *node)
{
	return node->len >= V4_BITS && addr_is_v4(&node->key);
}

static void format_node(const struct node *node, char out[static ADDR_TEXT_SIZE + 4])
{
	size_t len;

	addr_format(&node->key, out);
	len = strlen(out);
	(void)snprintf(out + len, ADDR_TEXT_SIZE + 4 - len, "/%u",
		(unsigned)node->len - (is_v4_node(node) ? V4_BITS : 0));
}

enum acl_verdict acl_explain(
	const struct acl *acl, const struct addr *client, char entry[static ADDR_TEXT_SIZE + 4])
{
	const struct node *node = decide(acl, client);

	entry[0] = '\0';
	if (!node)
		return ACL_DENY;
	format_node(node, entry);
	return node->deny ? ACL_DENY : ACL_ALLOW;
}

void acl_each(const struct acl *acl, acl_visit visit, void *arg)
{
	for (uint32_t i = 1; i < acl->len; i++) {
		const struct node *node = &acl->nodes[i];
		char entry[ADDR_TEXT_SIZE + 4];

		format_node(node, entry);
		if (node->allow)
			visit(arg, ACL_ALLOW, is_v4_node(node), entry);
		if (node->deny)
			visit(arg, ACL_DENY, is_v4_node(node), entry);
	}
}

bool acl_is_loopback_only(const struct acl *acl)
{
	return !acl->beyond_loopback;
}
