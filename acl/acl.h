/*
 * acl.h - which client addresses may come in.
 *
 * An address is let in when some allow entry covers it and no deny entry does; an IPv6 entry,
 * ::/0 too, never covers an IPv4 address (or its mapped spelling).  An acl is built once, never
 * changes, and is shared by every connection that was accepted while it was current; a reload
 * builds a new one.  IPv4 and IPv6 lie in one trie of 128-bit keys, path-compressed; a
 * look-up reads at most one node a differing bit.
 */
#ifndef ACL_ACL_H
#define ACL_ACL_H

#include "acl/addr.h"
#include "base/err.h"
#include "base/sv.h"

struct acl;

enum acl_verdict {
	ACL_DENY = 0, /* zero on purpose: a forgotten verdict refuses */
	ACL_ALLOW,
};

/* An acl that lets nobody in. NULL without memory. */
struct acl *acl_new(void);

/* Add "192.0.2.0/24", "2001:db8::/32" or a single address to one side. Host bits, mapped
 * addresses, leading zeros and prefix lengths out of range are errors that say what would be
 * right. */
int acl_add(struct acl *acl, enum acl_verdict side, struct sv net, struct err *err);

enum acl_verdict acl_check(const struct acl *acl, const struct addr *client);

/* As acl_check(); also the entry that decided, as text, for `postern acl test`: the deny entry, or
 * the longest allow entry, or "" when nothing covers it. */
enum acl_verdict acl_explain(const struct acl *acl, const struct addr *client,
	char entry[static ADDR_TEXT_SIZE + 4]);

/* Call `visit` for each entry, in no order. */
typedef void (*acl_visit)(void *arg, enum acl_verdict side, bool is_v4, const char *entry);
void acl_each(const struct acl *acl, acl_visit visit, void *arg);

/* True when no allow entry reaches beyond loopback. */
bool acl_is_loopback_only(const struct acl *acl);

/* NULL is fine. */
void acl_free(struct acl *acl);

#endif
