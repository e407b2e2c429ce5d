/*
 * load.h - the load generator's parts: one connection's life, and what was counted.
 *
 * One epoll loop, a closed loop of N connections with one request in flight each, TLS 1.3 without
 * resumption or plain.  The same for everybody that is measured.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/body.h"
#include "http/head.h"

enum load_mode {
	LOAD_KEEP, /* requests on kept connections */
	LOAD_NEW,  /* a connection, a full handshake and one request, again and again */
	LOAD_IDLE, /* open connections, one request on each, and hold them */
};

struct load_settings {
	enum load_mode mode;
	struct sockaddr_in server;
	SSL_CTX *tls; /* NULL: plain */
	const char *request;
	size_t request_len;
	unsigned status; /* expected */
};

#define LATENCY_BUCKETS 2048

struct load_counts {
	bool counting, stopping;
	uint64_t good, unexpected, errors, bytes, held;
	uint64_t
		latency[LATENCY_BUCKETS]; /* of whole requests; in LOAD_NEW from connect() on */
	char last_error[160];
};

enum connection_state {
	CONNECTION_DEAD = 0,
	CONNECTION_CONNECTING,
	CONNECTION_HANDSHAKING,
	CONNECTION_SENDING,
	CONNECTION_HEAD,
	CONNECTION_BODY,
	CONNECTION_HELD,
};

struct connection {
	enum connection_state state;
	int fd;
	SSL *tls;
	bool wants_write, close_after;
	size_t sent, head_len;
	unsigned status;
	struct http_body body;
	uint64_t began_ns;
	char head[16384];
};

struct load {
	const struct load_settings *settings;
	struct load_counts counts;
	int epoll;
};

void connection_open(struct load *load, struct connection *connection);

/* Go on as far as it goes without waiting. */
void connection_step(struct load *load, struct connection *connection);

uint64_t load_now_ns(void);

/* Microseconds below which `share` (0 to 1) of the requests lie; buckets are 3 % wide at most. */
double load_latency_us(const struct load_counts *counts, double share);
void load_count_latency(struct load_counts *counts, uint64_t ns);

/* User and system time of these processes (comma-separated pids), seconds. */
double load_cpu_of(const char *pids);

#endif
