/*
 * sockdiag.h - whose TCP socket is it? Asked of the kernel, since loopback is no boundary between
 * users and TCP has no peer credentials.  Source: sock_diag(7).
 */
#ifndef BASE_SOCKDIAG_H
#define BASE_SOCKDIAG_H

#include <stdint.h>
#include <sys/socket.h>

/*
 * The user that owns the socket whose own address is `local` and whose peer is `remote` (so for an
 * accepted connection's client, pass the addresses the other way round than this side sees them).
 * Both of family AF_INET or AF_INET6. -1 and errno when there is none, when its
 * process has closed it, or when the kernel does not say.
 */
int sockdiag_owner(const struct sockaddr_storage *local, const struct sockaddr_storage *remote,
	uint32_t *uid);

/* The user that owns the socket listening on `local`, or on that port of any address. */
int sockdiag_listener(const struct sockaddr_storage *local, uint32_t *uid);

#endif
