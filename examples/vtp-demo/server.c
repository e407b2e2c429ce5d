#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "examples/vtp-demo/demo.h"

#define HEAD_MAX    8192
#define QUEUE_MAX   1024
#define THREADS_MAX 64

/* Accepted connections on their way to a thread of the pool. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t not_empty;
	int fds[QUEUE_MAX];
	size_t first, len;
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER, .not_empty = PTHREAD_COND_INITIALIZER };

static int listener = -1;
static pthread_t acceptor, pool[THREADS_MAX];
static unsigned pool_len;

bool send_all(int fd, const void *bytes, size_t len)
{
	const char *at = bytes;

	while (len > 0) {
		ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		at += sent;
		len -= (size_t)sent;
	}
	return true;
}

/* ---- one request */

/* Up to the empty line; false when it does not come, or is too long. */
static bool read_head(int fd, char head[static HEAD_MAX])
{
	size_t len = 0;

	while (len < HEAD_MAX - 1) {
		ssize_t got = recv(fd, head + len, HEAD_MAX - 1 - len, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		len += (size_t)got;
		head[len] = '\0';
		if (strstr(head, "\r\n\r\n"))
			return true;
	}
	return false;
}

static void answer(int fd, const char *status, const char *body)
{
	char head[256];
	int len = snprintf(head, sizeof(head),
		"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		"Connection: close\r\n\r\n",
		status, strlen(body));

	if (send_all(fd, head, (size_t)len))
		(void)send_all(fd, body, strlen(body));
}

/* The number after "NAME=" in the query, or `otherwise`. */
static unsigned parameter(const char *path, const char *name, unsigned otherwise)
{
	const char *at = strstr(path, name);

	return at ? (unsigned)strtoul(at + strlen(name), NULL, 10) : otherwise;
}

static bool starts(const char *path, const char *prefix)
{
	return strncmp(path, prefix, strlen(prefix)) == 0;
}

/* "/switch" lists them, "/switch/NAME/on" and "/switch/NAME/off" throw one. */
static void answer_switch(int fd, const char *path)
{
	static const char *const names[] = {
#define SWITCH(name, text) text,
		DEMO_SWITCHES
#undef SWITCH
	};
	char body[256], on[64], off[64];
	size_t len = 0;
	bool known = strcmp(path, "/switch") == 0;

	for (unsigned i = 0; i < SWITCHES_LEN; i++) {
		(void)snprintf(on, sizeof(on), "/switch/%s/on", names[i]);
		(void)snprintf(off, sizeof(off), "/switch/%s/off", names[i]);
		if (strcmp(path, on) == 0 || strcmp(path, off) == 0) {
			atomic_store(&demo_switches[i], strcmp(path, on) == 0);
			watch_log("switch", path);
			known = true;
		}
		len += (size_t)snprintf(body + len, sizeof(body) - len, "%c\"%s\":%s",
			i ? ',' : '{', names[i],
			atomic_load(&demo_switches[i]) ? "true" : "false");
	}
	(void)snprintf(body + len, sizeof(body) - len, "}\n");
	if (known)
		answer(fd, "200 OK", body);
	else
		answer(fd, "404 Not Found",
			"{\"error\":\"/switch/NAME/on or /off; /switch lists the names\"}\n");
}

static void answer_query(int fd, char *body)
{
	if (body)
		answer(fd, "200 OK", body);
	else
		answer(fd, "500 Internal Server Error", "{\"error\":\"database\"}\n");
	free(body);
}

/* The value of the header field `name` (written "\r\nname:"), cut out of the head; or NULL. */
static char *field(char *head, const char *name)
{
	char *at = strcasestr(head, name);

	if (!at)
		return NULL;
	at += strlen(name);
	at += strspn(at, " \t");
	at[strcspn(at, "\r\n \t")] = '\0';
	return at;
}

/* True when the connection is done with; a WebSocket is kept. */
static bool route(int fd, const char *path, const char *key, struct database *database)
{
	static atomic_uint viewers;

	if (starts(path, "/switch")) {
		answer_switch(fd, path);
		return true;
	}
	cache_touch(parameter(path, "viewer=", atomic_fetch_add(&viewers, 1)));
	if (starts(path, "/api/v1/courses")) {
		watch_route("courses");
		answer_query(fd, database_courses(database, parameter(path, "topic=", 0)));
	} else if (starts(path, "/api/v1/recordings")) {
		watch_route("recordings");
		answer_query(fd, database_recordings(database, parameter(path, "course=", 0)));
	} else if (strcmp(path, "/ws") == 0 && key) {
		websocket_take(fd, key);
		return false;
	} else {
		answer(fd, "404 Not Found",
			"{\"error\":\"/api/v1/courses, /api/v1/recordings, /ws or "
			"/switch\"}\n");
	}
	watch_route(NULL);
	return true;
}

static bool handle(int fd, char *head, struct database *database)
{
	char *path = strchr(head, ' '), *fields = strstr(head, "\r\n"), *key;
	struct postern_region region;
	bool done;

	if (!path || path > fields) {
		answer(fd, "400 Bad Request", "{\"error\":\"not HTTP\"}\n");
		return true;
	}
	path++;
	/* One byte on, so that "\r\n" is still there for the first field's name. */
	key = field(fields, "\r\nSec-WebSocket-Key:");
	path[strcspn(path, " \r\n")] = '\0';
	region = watch_begin("api");
	done = route(fd, path, key, database);
	watch_end(&region);
	return done;
}

static void serve(int fd, struct database *database)
{
	struct timeval patience = { .tv_sec = 5 };
	char head[HEAD_MAX], rest[HEAD_MAX];

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (read_head(fd, head) && !handle(fd, head, database))
		return;
	/* Unread bytes at a close would reset the connection and take the answer with them. */
	(void)shutdown(fd, SHUT_WR);
	(void)recv(fd, rest, sizeof(rest), MSG_DONTWAIT);
	(void)close(fd);
}

/* ---- the threads */

static int queue_take(void)
{
	int fd = -1;

	(void)pthread_mutex_lock(&queue.lock);
	while (queue.len == 0 && !atomic_load(&demo_is_stopping))
		(void)pthread_cond_wait(&queue.not_empty, &queue.lock);
	if (queue.len > 0) {
		fd = queue.fds[queue.first];
		queue.first = (queue.first + 1) % QUEUE_MAX;
		queue.len--;
	}
	(void)pthread_mutex_unlock(&queue.lock);
	return fd;
}

static void queue_give(int fd)
{
	bool full;

	(void)pthread_mutex_lock(&queue.lock);
	full = queue.len == QUEUE_MAX;
	if (!full)
		queue.fds[(queue.first + queue.len++) % QUEUE_MAX] = fd;
	(void)pthread_cond_signal(&queue.not_empty);
	(void)pthread_mutex_unlock(&queue.lock);
	if (full)
		(void)close(fd);
}

static void *serve_requests(void *database)
{
	int fd;

	while ((fd = queue_take()) >= 0)
		serve(fd, database);
	database_close(database);
	return NULL;
}

static void *accept_connections(void *unused)
{
	(void)unused;
	while (!atomic_load(&demo_is_stopping)) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			queue_give(fd);
		else if (errno == EMFILE || errno == ENFILE)
			(void)usleep(10000);
	}
	return NULL;
}

static int listen_on(unsigned port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port) };
	socklen_t len = sizeof(address);
	int on = 1;

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0)
		return -1;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
		listen(listener, 511) ||
		getsockname(listener, (struct sockaddr *)&address, &len))
		return -1;
	return ntohs(address.sin_port);
}

int server_start(unsigned port, unsigned threads)
{
	int bound = listen_on(port);

	if (bound < 0)
		return -1;
	for (; pool_len < threads && pool_len < THREADS_MAX; pool_len++) {
		struct database *database = database_open();

		if (!database ||
			pthread_create(&pool[pool_len], NULL, serve_requests, database))
			return -1;
	}
	if (pthread_create(&acceptor, NULL, accept_connections, NULL))
		return -1;
	return bound;
}

void server_stop(void)
{
	(void)shutdown(listener, SHUT_RDWR);
	(void)pthread_join(acceptor, NULL);
	(void)pthread_mutex_lock(&queue.lock);
	(void)pthread_cond_broadcast(&queue.not_empty);
	(void)pthread_mutex_unlock(&queue.lock);
	for (unsigned i = 0; i < pool_len; i++)
		(void)pthread_join(pool[i], NULL);
	(void)close(listener);
}
