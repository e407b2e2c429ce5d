#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "examples/vtp-demo/demo.h"

#define FRAME_BYTES     ((size_t)256 << 10)
#define LEAK_BYTES      ((size_t)16 << 10)
#define LEAK_BYTES_MAX  ((size_t)256 << 20)
#define LEAK_THREAD_MAX 500

/* Never freed, and so never used again: what a leak looks like from inside. */
struct leaked {
	struct leaked *next;
};

static struct leaked *leaked_buffers;
static size_t leaked_bytes;
static unsigned leaked_threads;
static pthread_t transcoder, housekeeper, client;
static bool has_client;
static unsigned load_rate, load_port;

static pthread_mutex_t session_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t session_ended = PTHREAD_COND_INITIALIZER;

static void sleep_ms(long ms)
{
	struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };

	(void)nanosleep(&pause, NULL);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the hot function */

__attribute__((noinline)) uint32_t hot_transcode(uint8_t *frame, size_t len);

uint32_t hot_transcode(uint8_t *frame, size_t len)
{
	uint32_t sum = 1;

	for (size_t i = 0; i < len; i++) {
		sum = sum * 31 + frame[i];
		frame[i] = (uint8_t)(sum >> 13 ^ i);
	}
	return sum;
}

/* About half of one core while the switch is on. */
static void *transcode_frames(void *frame)
{
	volatile uint32_t sink = 0;

	while (!atomic_load(&demo_is_stopping)) {
		if (!atomic_load(&demo_switches[SWITCH_HOT])) {
			sleep_ms(50);
			continue;
		}
		for (uint64_t end = now_ms() + 10; now_ms() < end;)
			sink = sink + hot_transcode(frame, FRAME_BYTES);
		sleep_ms(10);
	}
	free(frame);
	return NULL;
}

/* ---- the leaks */

static __attribute__((noinline)) void leak_recording_buffer(void)
{
	struct leaked *buffer;

	if (leaked_bytes >= LEAK_BYTES_MAX)
		return;
	buffer = malloc(LEAK_BYTES);
	if (!buffer)
		return;
	memset(buffer, 0x5a, LEAK_BYTES);
	buffer->next = leaked_buffers;
	leaked_buffers = buffer;
	leaked_bytes += LEAK_BYTES;
}

/* Waits for the end of a session that nobody will announce. */
static void *leaked_session(void *unused)
{
	(void)unused;
	(void)pthread_mutex_lock(&session_lock);
	while (!atomic_load(&demo_is_stopping))
		(void)pthread_cond_wait(&session_ended, &session_lock);
	(void)pthread_mutex_unlock(&session_lock);
	return NULL;
}

static void leak_session_thread(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	if (leaked_threads >= LEAK_THREAD_MAX || pthread_attr_init(&attributes))
		return;
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attributes, (size_t)256 << 10);
	if (pthread_create(&thread, &attributes, leaked_session, NULL) == 0)
		leaked_threads++;
	(void)pthread_attr_destroy(&attributes);
}

static void *keep_house(void *unused)
{
	(void)unused;
	for (unsigned round = 0; !atomic_load(&demo_is_stopping); round++) {
		sleep_ms(20);
		if (atomic_load(&demo_switches[SWITCH_LEAK_MEMORY]))
			leak_recording_buffer();
		if (round % 10 == 0 && atomic_load(&demo_switches[SWITCH_LEAK_THREADS]))
			leak_session_thread();
	}
	return NULL;
}

/* ---- the load */

static void ask(const char *path)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)load_port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char request[128], answer[4096];
	int len;

	if (fd < 0)
		return;
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	len = snprintf(request, sizeof(request),
		"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
		send_all(fd, request, (size_t)len))
		while (recv(fd, answer, sizeof(answer), 0) > 0)
			continue;
	(void)close(fd);
}

static void *make_load(void *unused)
{
	char path[64];

	(void)unused;
	for (unsigned n = 0; !atomic_load(&demo_is_stopping); n++) {
		(void)snprintf(path, sizeof(path),
			n % 3 ? "/api/v1/courses?topic=%u" : "/api/v1/recordings?course=%u",
			n % 97);
		ask(path);
		sleep_ms(1000 / (long)load_rate);
	}
	return NULL;
}

int background_start(unsigned load, unsigned port)
{
	void *frame = calloc(1, FRAME_BYTES);

	load_rate = load;
	load_port = port;
	if (!frame || pthread_create(&transcoder, NULL, transcode_frames, frame)) {
		free(frame);
		return -1;
	}
	if (pthread_create(&housekeeper, NULL, keep_house, NULL))
		return -1;
	has_client = load > 0;
	return has_client ? pthread_create(&client, NULL, make_load, NULL) : 0;
}

void background_stop(void)
{
	(void)pthread_mutex_lock(&session_lock);
	(void)pthread_cond_broadcast(&session_ended);
	(void)pthread_mutex_unlock(&session_lock);
	if (has_client)
		(void)pthread_join(client, NULL);
	(void)pthread_join(housekeeper, NULL);
	(void)pthread_join(transcoder, NULL);
}
