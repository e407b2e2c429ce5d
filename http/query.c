#include "http/query.h"

#include <arpa/inet.h>
#include <stdint.h>

#define HOST_NAME_MAX_LEN 253

bool http_query_next(struct sv *rest, struct sv *name, struct sv *value)
{
	if (rest->len == 0)
		return false;
	*value = sv_cut(rest, '&');
	*name = sv_cut(value, '=');
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t http_form_decode(struct sv text, char *out)
{
	size_t len = 0;

	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];

		if (c == '%') {
			int high = i + 2 < text.len ? hex_digit(text.ptr[i + 1]) : -1;
			int low = i + 2 < text.len ? hex_digit(text.ptr[i + 2]) : -1;

			if (high < 0 || low < 0)
				return SIZE_MAX;
			c = (char)(high << 4 | low);
			i += 2;
		} else if (c == '+') {
			c = ' ';
		}
		out[len++] = c;
	}
	return len;
}

static bool is_name_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       c == '-' || c == '.';
}

static bool is_host_name(struct sv name)
{
	if (name.len == 0 || name.len > HOST_NAME_MAX_LEN || name.ptr[0] == '.' ||
		name.ptr[0] == '-')
		return false;
	for (size_t i = 0; i < name.len; i++) {
		if (!is_name_char(name.ptr[i]) ||
			(i > 0 && name.ptr[i] == '.' && name.ptr[i - 1] == '.'))
			return false;
	}
	return true;
}

static bool is_ipv6(struct sv text)
{
	char buf[INET6_ADDRSTRLEN];
	struct in6_addr addr;

	return sv_to_cstr(text, buf, sizeof(buf)) && inet_pton(AF_INET6, buf, &addr) == 1;
}

bool http_host_split(struct sv host, struct sv *name, struct sv *port)
{
	struct sv rest = host;
	uint64_t number;

	if (host.len > 0 && host.ptr[0] == '[') {
		const char *end = memchr(host.ptr, ']', host.len);

		if (!end)
			return false;
		*name = (struct sv){ host.ptr + 1, (size_t)(end - host.ptr) - 1 };
		rest = (struct sv){ end + 1, host.len - name->len - 2 };
		if (!is_ipv6(*name) || (rest.len > 0 && rest.ptr[0] != ':'))
			return false;
		*port = rest;
		if (rest.len > 0) {
			port->ptr++;
			port->len--;
		}
	} else {
		*name = sv_cut(&rest, ':');
		*port = rest;
		if (!is_host_name(*name))
			return false;
	}
	/* "name:" has an empty port, which RFC 3986 allows. */
	return port->len == 0 || (sv_to_u64(*port, 65535, &number) && number > 0);
}

bool http_host_is_loopback(struct sv name)
{
	char buf[INET6_ADDRSTRLEN];
	struct in_addr v4;
	struct in6_addr v6;

	if (sv_is_nocase(name, SV("localhost")))
		return true;
	if (!sv_to_cstr(name, buf, sizeof(buf)))
		return false;
	if (inet_pton(AF_INET, buf, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, buf, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}
