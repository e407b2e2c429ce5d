/*
 * load - HTTP/1.1 load generator over TLS 1.3 or plain, for the benchmarks.  Loopback only.
 *
 *   load --port N [--path P] [--header 'Name: value']... [--cert F --key F] [--plain]
 *        [--connections N] [--seconds S] [--warm S] [--new | --idle] [--status N] [--pids P,P]
 *
 * Prints one line of JSON.  With --pids also the CPU time that those processes used meanwhile.
 * With --idle it opens the connections, prints a line once they are there, and holds them.
 * The server's certificate is not verified.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "tests/bench/load.h"

struct options {
	struct load_settings settings;
	struct buf request;
	const char *path, *cert, *key, *pids;
	unsigned connections;
	double seconds, warm;
	bool plain;
};

static const struct option long_options[] = {
	{ "port", required_argument, NULL, 'p' },
	{ "path", required_argument, NULL, 'u' },
	{ "header", required_argument, NULL, 'H' },
	{ "cert", required_argument, NULL, 'c' },
	{ "key", required_argument, NULL, 'k' },
	{ "plain", no_argument, NULL, 'P' },
	{ "connections", required_argument, NULL, 'n' },
	{ "seconds", required_argument, NULL, 'd' },
	{ "warm", required_argument, NULL, 'w' },
	{ "new", no_argument, NULL, 'N' },
	{ "idle", no_argument, NULL, 'I' },
	{ "status", required_argument, NULL, 's' },
	{ "pids", required_argument, NULL, 'g' },
	{ 0 },
};

static unsigned number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 10);
}

static int read_options(struct options *options, int argc, char **argv, struct buf *headers)
{
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case 'p':
			options->settings.server.sin_port = htons((uint16_t)number(optarg));
			break;
		case 'u':
			options->path = optarg;
			break;
		case 'H':
			buf_printf(headers, "%s\r\n", optarg);
			break;
		case 'c':
			options->cert = optarg;
			break;
		case 'k':
			options->key = optarg;
			break;
		case 'P':
			options->plain = true;
			break;
		case 'n':
			options->connections = number(optarg);
			break;
		case 'd':
			options->seconds = strtod(optarg, NULL);
			break;
		case 'w':
			options->warm = strtod(optarg, NULL);
			break;
		case 'N':
			options->settings.mode = LOAD_NEW;
			break;
		case 'I':
			options->settings.mode = LOAD_IDLE;
			break;
		case 's':
			options->settings.status = number(optarg);
			break;
		case 'g':
			options->pids = optarg;
			break;
		default:
			return -1;
		}
	}
	return options->settings.server.sin_port ? 0 : -1;
}

static SSL_CTX *tls_of(const struct options *options)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_client_method());

	if (!tls)
		return NULL;
	(void)SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
	(void)SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256"); /* alike for all */
	(void)SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
					    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					    SSL_MODE_RELEASE_BUFFERS);
	if (options->cert && (SSL_CTX_use_certificate_chain_file(tls, options->cert) != 1 ||
				     SSL_CTX_use_PrivateKey_file(
					     tls, options->key, SSL_FILETYPE_PEM) != 1)) {
		SSL_CTX_free(tls);
		return NULL;
	}
	return tls;
}

static void serve_events(struct load *load, int wait_ms)
{
	struct epoll_event events[256];
	int len = epoll_wait(load->epoll, events, 256, wait_ms);

	for (int i = 0; i < len; i++)
		connection_step(load, events[i].data.ptr);
}

static void run(struct load *load, const struct options *options)
{
	uint64_t from = load_now_ns() + (uint64_t)(options->warm * 1e9);
	uint64_t to = from + (uint64_t)(options->seconds * 1e9), began = 0, now;
	struct load_counts *counts = &load->counts;
	double cpu = 0, took;

	while ((now = load_now_ns()) < to) {
		if (!counts->counting && now >= from) {
			counts->counting = true;
			began = now;
			cpu = load_cpu_of(options->pids);
		}
		serve_events(load, 10);
	}
	cpu = load_cpu_of(options->pids) - cpu;
	took = (double)(load_now_ns() - began) / 1e9;
	counts->stopping = true;
	printf("{\"seconds\":%.3f,\"good\":%lu,\"unexpected\":%lu,\"errors\":%lu,\"rate\":%.1f,"
	       "\"mb_per_s\":%.2f,\"p50_us\":%.0f,\"p99_us\":%.0f,\"cpu_us\":%.2f,"
	       "\"last_error\":\"%s\"}\n",
		took, (unsigned long)counts->good, (unsigned long)counts->unexpected,
		(unsigned long)counts->errors, (double)counts->good / took,
		(double)counts->bytes / took / 1e6, load_latency_us(counts, 0.5),
		load_latency_us(counts, 0.99),
		counts->good ? cpu * 1e6 / (double)counts->good : 0, counts->last_error);
}

static void hold(struct load *load, struct connection *all, const struct options *options)
{
	uint64_t give_up = load_now_ns() + UINT64_C(30000000000), until;
	unsigned opened = 0;

	while (load->counts.held + load->counts.errors < options->connections &&
		load_now_ns() < give_up) {
		while (opened < options->connections &&
			opened - load->counts.held - load->counts.errors < 32)
			connection_open(load, &all[opened++]);
		serve_events(load, 100);
	}
	printf("{\"held\":%lu,\"errors\":%lu}\n", (unsigned long)load->counts.held,
		(unsigned long)load->counts.errors);
	(void)fflush(stdout);
	until = load_now_ns() + (uint64_t)(options->seconds * 1e9);
	while (load_now_ns() < until)
		serve_events(load, 100);
}

int main(int argc, char **argv)
{
	struct options options = {
		.settings = { .mode = LOAD_KEEP,
			.status = 200,
			.server = { .sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK) } },
		.path = "/",
		.connections = 32,
		.seconds = 3,
		.warm = 0.5,
	};
	struct load load = { .settings = &options.settings };
	struct connection *all;
	struct rlimit files;
	struct buf headers;

	buf_init(&headers, 65536);
	buf_init(&options.request, 65536);
	if (read_options(&options, argc, argv, &headers)) {
		(void)fprintf(stderr, "usage: load --port N [--path P] ...: see load.c\n");
		return 2;
	}
	buf_printf(&options.request, "GET %s HTTP/1.1\r\nHost: localhost\r\n%.*s%s\r\n",
		options.path, (int)headers.len, headers.len ? headers.ptr : "",
		options.settings.mode == LOAD_NEW ? "Connection: close\r\n" : "");
	options.settings.request = options.request.ptr;
	options.settings.request_len = options.request.len;
	if (!options.plain && !(options.settings.tls = tls_of(&options))) {
		(void)fprintf(stderr, "load: certificate or key cannot be used\n");
		return 1;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	all = calloc(options.connections, sizeof(*all));
	load.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!all || load.epoll < 0)
		return 1;
	if (options.settings.mode == LOAD_IDLE) {
		hold(&load, all, &options);
	} else {
		for (unsigned i = 0; i < options.connections; i++)
			connection_open(&load, &all[i]);
		run(&load, &options);
	}
	buf_free(&headers);
	buf_free(&options.request);
	return load.counts.good || load.counts.held ? 0 : 1;
}
