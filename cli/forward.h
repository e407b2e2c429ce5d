/*
 * forward.h - one local connection of `postern forward`. Private to cli/.
 */
#ifndef CLI_FORWARD_H
#define CLI_FORWARD_H

#include "cli/credentials.h"
#include "cli/link.h"

struct forward {
	struct link_to to;
	struct credentials credentials;
};

/* Answer the requests that come on `local` until either side ends. Closes `local`. */
void forward_serve(struct forward *forward, int local);

#endif
