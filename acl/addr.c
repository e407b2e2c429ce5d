#include "acl/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static const uint8_t mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static void set_v4(struct addr *addr, const struct in_addr *v4)
{
	memcpy(addr->bytes, mapped_prefix, sizeof(mapped_prefix));
	memcpy(addr->bytes + 12, v4, 4);
}

bool addr_from_sockaddr(const struct sockaddr_storage *from, struct addr *out, uint16_t *port)
{
	if (from->ss_family == AF_INET) {
		struct sockaddr_in v4;

		memcpy(&v4, from, sizeof(v4));
		set_v4(out, &v4.sin_addr);
		*port = ntohs(v4.sin_port);
		return true;
	}
	if (from->ss_family == AF_INET6) {
		struct sockaddr_in6 v6;

		memcpy(&v6, from, sizeof(v6));
		memcpy(out->bytes, &v6.sin6_addr, 16);
		*port = ntohs(v6.sin6_port);
		return true;
	}
	return false;
}

int addr_parse(struct sv text, struct addr *out, struct err *err)
{
	char buf[ADDR_TEXT_SIZE];
	struct in_addr v4;

	if (!sv_to_cstr(text, buf, sizeof(buf)))
		return err_set(
			err, ERR_INPUT, "'" SV_FMT "' is not an IP address", SV_ARG(text));
	if (inet_pton(AF_INET, buf, &v4) == 1) {
		set_v4(out, &v4);
		return 0;
	}
	if (inet_pton(AF_INET6, buf, out->bytes) != 1)
		return err_set(
			err, ERR_INPUT, "'" SV_FMT "' is not an IP address", SV_ARG(text));
	if (addr_is_v4(out))
		return err_set(err, ERR_INPUT,
			"'" SV_FMT "' is an IPv4 address in IPv6 clothes: write it as a.b.c.d",
			SV_ARG(text));
	return 0;
}

bool addr_is_v4(const struct addr *addr)
{
	return memcmp(addr->bytes, mapped_prefix, sizeof(mapped_prefix)) == 0;
}

bool addr_is_loopback(const struct addr *addr)
{
	static const uint8_t v6_loopback[16] = { [15] = 1 };

	if (addr_is_v4(addr))
		return addr->bytes[12] == 127;
	return memcmp(addr->bytes, v6_loopback, sizeof(v6_loopback)) == 0;
}

bool addr_is_same(const struct addr *a, const struct addr *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

void addr_format(const struct addr *addr, char out[static ADDR_TEXT_SIZE])
{
	if (addr_is_v4(addr))
		(void)inet_ntop(AF_INET, addr->bytes + 12, out, ADDR_TEXT_SIZE);
	else
		(void)inet_ntop(AF_INET6, addr->bytes, out, ADDR_TEXT_SIZE);
}

struct addr addr_bucket(const struct addr *addr)
{
	struct addr bucket = *addr;

	if (!addr_is_v4(addr))
		memset(bucket.bytes + 8, 0, 8);
	return bucket;
}
