/*
 * addr.h - one canonical form for an address: 128 bits, IPv4 as IPv4-mapped IPv6.
 */
#ifndef ACL_ADDR_H
#define ACL_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/sv.h"

struct addr {
	uint8_t bytes[16]; /* network order; ::ffff:a.b.c.d for IPv4 */
};

#define ADDR_TEXT_SIZE 46

/* From what accept() gave. False for other families. */
bool addr_from_sockaddr(const struct sockaddr_storage *from, struct addr *out, uint16_t *port);

/* Strict text: no leading zeros, no zone, no IPv4-mapped spelling, no brackets. */
int addr_parse(struct sv text, struct addr *out, struct err *err);

bool addr_is_v4(const struct addr *addr);
bool addr_is_loopback(const struct addr *addr);
bool addr_is_same(const struct addr *a, const struct addr *b);

/* Dotted for IPv4, RFC 5952 for IPv6. */
void addr_format(const struct addr *addr, char out[static ADDR_TEXT_SIZE]);

/* What limits count by: the address itself for IPv4, its /64 for IPv6. */
struct addr addr_bucket(const struct addr *addr);

#endif
