/*
 * Address lists from anywhere, beside a list that is read from end to end, bit by bit.
 * A line is "+net" (allow), "-net" (deny) or "?address" (look it up in the list so far).
 */
#include <arpa/inet.h>
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "acl/acl.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NETS_MAX 64

struct net {
	int family;
	unsigned len;
	bool deny;
	uint8_t bytes[16];
};

static bool bit(const uint8_t *bytes, unsigned index)
{
	return bytes[index / 8] >> (7 - index % 8) & 1;
}

/* The plain reading of an address; the family, or 0. */
static int read_addr(struct sv text, uint8_t bytes[static 16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	char buf[64];

	if (!sv_to_cstr(text, buf, sizeof(buf)))
		return 0;
	if (inet_pton(AF_INET, buf, bytes) == 1)
		return AF_INET;
	if (inet_pton(AF_INET6, buf, bytes) == 1 && memcmp(bytes, mapped, 12) != 0)
		return AF_INET6;
	return 0;
}

static bool read_net(struct sv text, struct net *net)
{
	const char *slash = text.len ? memchr(text.ptr, '/', text.len) : NULL;
	struct sv addr = { text.ptr, slash ? (size_t)(slash - text.ptr) : text.len };
	unsigned bits;

	net->family = read_addr(addr, net->bytes);
	if (!net->family)
		return false;
	bits = net->family == AF_INET ? 32 : 128;
	net->len = bits;
	if (slash) {
		size_t digits = text.len - addr.len - 1;

		net->len = 0;
		if (digits < 1 || digits > 3 || (digits > 1 && slash[1] == '0'))
			return false;
		for (size_t i = 1; i <= digits; i++) {
			if (slash[i] < '0' || slash[i] > '9')
				return false;
			net->len = net->len * 10 + (unsigned)(slash[i] - '0');
		}
	}
	for (unsigned i = net->len; i < bits; i++) {
		if (bit(net->bytes, i))
			return false;
	}
	return net->len <= bits;
}

static bool covers(const struct net *net, int family, const uint8_t *bytes)
{
	if (net->family != family)
		return false;
	for (unsigned i = 0; i < net->len; i++) {
		if (bit(net->bytes, i) != bit(bytes, i))
			return false;
	}
	return true;
}

static void check_client(
	const struct acl *acl, const struct net *nets, size_t len, struct sv text)
{
	uint8_t bytes[16] = { 0 };
	int family = read_addr(text, bytes);
	bool allow = false, deny = false;
	enum acl_verdict want;
	struct addr client;
	struct err err;
	char entry[ADDR_TEXT_SIZE + 4], back[ADDR_TEXT_SIZE];

	assert((addr_parse(text, &client, &err) == 0) == (family != 0));
	if (!family)
		return;
	for (size_t i = 0; i < len; i++) {
		if (covers(&nets[i], family, bytes))
			*(nets[i].deny ? &deny : &allow) = true;
	}
	want = allow && !deny ? ACL_ALLOW : ACL_DENY;
	assert(acl_check(acl, &client) == want);
	assert(acl_explain(acl, &client, entry) == want);
	assert((entry[0] != '\0') == (allow || deny));
	if (entry[0] != '\0') {
		struct net named;

		assert(read_net(sv_from_cstr(entry), &named) && covers(&named, family, bytes));
	}
	addr_format(&client, back);
	{
		struct addr again;

		assert(addr_parse(sv_from_cstr(back), &again, &err) == 0 &&
			addr_is_same(&again, &client));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sv rest = { (const char *)data, size };
	struct net nets[NETS_MAX];
	struct acl *acl = acl_new();
	size_t len = 0;

	assert(acl);
	while (rest.len > 0 && len < NETS_MAX) {
		struct sv line = sv_cut(&rest, '\n'), text = line;
		struct err err;

		if (line.len == 0)
			continue;
		text.ptr++;
		text.len--;
		if (line.ptr[0] == '?') {
			check_client(acl, nets, len, text);
			continue;
		}
		nets[len].deny = line.ptr[0] == '-';
		if (acl_add(acl, nets[len].deny ? ACL_DENY : ACL_ALLOW, text, &err) == 0) {
			assert(read_net(text, &nets[len]));
			len++;
		} else {
			assert(!read_net(text, &nets[len]));
			assert(err.kind == ERR_INPUT && err.text[0] != '\0');
		}
	}
	acl_free(acl);
	return 0;
}
