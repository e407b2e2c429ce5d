/*
 * ipc.h - the messages between keeper, workers and scribe: one record a packet, over sequenced-packet
 * unix sockets, at most one descriptor beside it.
 *
 * A record is a fixed head (version, type, worker, number, result, length) and a payload.  The other
 * side may be taken over: a record that is not exactly as described here is refused whole, and
 * descriptors that do not belong are closed.
 */
#ifndef GATEWAY_IPC_H
#define GATEWAY_IPC_H

#include <stdint.h>

#include "audit/record.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/sv.h"

enum ipc_type {
	IPC_NOTHING = 0,
	/* worker -> scribe, keeper -> scribe: payload is an audit record's wire form. It is answered
	 * by IPC_ACK with the same number, unless the number is 0: then nobody waits for it. */
	IPC_AUDIT,
	/* scribe -> worker, scribe -> keeper: result 0 once the record is on disk by the `sync`
	 * policy, else an errno. */
	IPC_ACK,
	/* scribe -> keeper: record `number` of `worker` is on disk and asks for the target that the
	 * payload names. */
	IPC_RECEIPT,
	/* scribe -> keeper: the last line's sequence number is `number`, its hash the payload.
	 * keeper -> scribe: at first, the head that it kept; later, a question that is answered as
	 * soon as everything before it is written. */
	IPC_HEAD,
	/* keeper -> scribe: go on in the descriptor's file (audit_file_open()). */
	IPC_REOPEN,
	/* keeper -> scribe: the descriptor is a new configuration (as SCRIBE_FD_CONF). */
	IPC_CONF,
	/* keeper -> worker, keeper -> scribe: the descriptor is an audit channel. For the scribe it
	 * is that of `worker`; for a worker it replaces the one that broke with an earlier scribe. */
	IPC_CHANNEL,
	/* keeper -> worker: request `number` has its connected descriptor (result 0), or an errno. */
	IPC_TARGET,
	/* keeper -> worker: accept nothing more, let what runs end, answer with Connection: close.
	 * With a descriptor there is a new configuration (as WORKER_FD_CONF): cut at once what runs
	 * but is no longer allowed by it. */
	IPC_DRAIN,
	/* keeper -> worker: end every request now; payload is the reason's slug for the audit.
	 * keeper -> scribe: write out what is there and end. */
	IPC_CUT,
	/* worker -> keeper, scribe -> keeper: started, sandboxed, serving. */
	IPC_READY,
	/* worker -> keeper: nothing runs any more; the worker ends when its control channel does. */
	IPC_DRAINED,
	IPC_TYPES_LEN
};

struct ipc_message {
	enum ipc_type type;
	uint32_t worker; /* the keeper's number for it, never used twice; 0: none */
	uint64_t number;
	int32_t result;    /* 0, or an errno */
	struct sv payload; /* at most AUDIT_MESSAGE_MAX bytes */
	int fd;            /* -1: none. Received: the receiver's, to close */
};

#define IPC_HEAD_SIZE   24
#define IPC_MESSAGE_MAX (IPC_HEAD_SIZE + AUDIT_MESSAGE_MAX)

/* The bytes of a message, without its descriptor. */
void ipc_encode(const struct ipc_message *message, struct buf *out);

/* The payload points into `bytes`; `fd` is set to -1. -1 unless it is one whole, known record. */
int ipc_decode(struct sv bytes, struct ipc_message *out, struct err *err);

/* A pair of connected, non-blocking, close-on-exec sequenced-packet sockets. */
int ipc_pair(int fds[static 2], struct err *err);

/*
 * Send one message, with its descriptor (which stays the caller's). Never blocks: -1 and ERR_SYSTEM
 * with errno EAGAIN when the other side does not read, ERR_PEER when it is gone.
 */
int ipc_send(int socket, const struct ipc_message *message, struct err *err);

enum ipc_result {
	IPC_GONE = 0, /* the other side is gone, or broke the protocol (`err` says): close */
	IPC_EMPTY,    /* nothing there now */
	IPC_RECEIVED,
};

/* Receive one message into `storage`, into which its payload points. */
enum ipc_result ipc_receive(int socket, char storage[static IPC_MESSAGE_MAX],
	struct ipc_message *out, struct err *err);

#endif
