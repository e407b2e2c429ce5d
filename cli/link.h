/*
 * link.h - a TLS connection to the gateway, as `postern forward` needs it: its certificate
 * checked, ours shown, and waiting that ends when the local client goes away.
 */
#ifndef CLI_LINK_H
#define CLI_LINK_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/sv.h"
#include "cli/settings.h"

/* What to type when the gateway cannot be reached; the second with our own address. */
#define LINK_HINT_CLOSED  "closed? on its host: `postern open --reason TEXT`"
#define LINK_HINT_ADDRESS "address not let in or banned? on its host: `postern acl test %s`"
#define LINK_HINT_NAME    "the name that it does have belongs into --tls-server-name"
#define LINK_HINT_TRUST   "who signed it belongs into POSTERN_CA or --ca"
#define LINK_HINT_CERT    "a client certificate comes from POSTERN_CERT and POSTERN_KEY"

/* Where the gateway is, and what both sides must show. */
struct link_to {
	SSL_CTX *tls;
	char host[256], port[6];
	char name[256];      /* that its certificate must have: a name or an address */
	char authority[264]; /* the Host that it is asked by */
};

/* Set all but `tls`, from url and server_name: for who brings a TLS of his own. */
int link_to_parse(struct link_to *to, const struct settings *settings, struct err *err);

/* All, from url, ca, cert, key and server_name. To be freed with link_to_fini(), also on failure. */
int link_to_init(struct link_to *to, const struct settings *settings, struct err *err);
void link_to_fini(struct link_to *to);

struct link {
	int fd;
	SSL *tls; /* NULL: not connected */
};

/* `local` is the client that waits for this: when it goes away the waiting ends, here and below,
 * with err->kind ERR_NONE, as there is nobody left to tell. */
int link_open(struct link *link, const struct link_to *to, int local, struct err *err);

/* How many bytes came; 0 at an orderly end; -1. */
ssize_t link_read(struct link *link, void *bytes, size_t size, int local, struct err *err);

int link_write(struct link *link, struct sv bytes, int local, struct err *err);

/* Connected, and nothing has come on it, its end included, since the last answer. */
bool link_is_fresh(const struct link *link);

/* A link that is not connected is fine. */
void link_close(struct link *link);

#endif
