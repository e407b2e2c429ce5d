/*
 * peer.h - who is at the other end of a loopback TCP connection.
 */
#ifndef CLI_PEER_H
#define CLI_PEER_H

#include <sys/types.h>

#include "base/err.h"

/* The uid that owns the other end's socket, asked of the kernel (sock_diag). Fails when that
 * socket has no owner any more: what nobody holds is nobody's. */
int peer_uid(int fd, uid_t *uid, struct err *err);

#endif
