/* websocket.c - RFC 6455, the half that a server needs to push: handshake and text frames. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "examples/vtp-demo/demo.h"

#define CLIENTS_MAX 256
#define KEY_MAX     64
#define GUID        "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

static pthread_mutex_t clients_lock = PTHREAD_MUTEX_INITIALIZER;
static int clients[CLIENTS_MAX];
static size_t clients_len;
static pthread_t pusher;

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
	uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

	for (size_t i = 0; i < 16; i++)
		w[i] = (uint32_t)block[i * 4] << 24 | (uint32_t)block[i * 4 + 1] << 16 |
		       (uint32_t)block[i * 4 + 2] << 8 | block[i * 4 + 3];
	for (unsigned i = 16; i < 80; i++)
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (unsigned i = 0; i < 80; i++) {
		static const uint32_t k[] = { 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6 };
		const uint32_t f[] = { (b & c) | (~b & d), b ^ c ^ d,
			(b & c) | (b & d) | (c & d), b ^ c ^ d };
		uint32_t next = rotate(a, 5) + f[i / 20] + e + k[i / 20] + w[i];

		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = next;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
}

/* SHA-1 of up to 119 bytes: all that a handshake asks for. */
static void sha1(const char *text, size_t len, uint8_t out[20])
{
	uint32_t state[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	uint8_t blocks[128] = { 0 };
	size_t used = len < 56 ? 64 : 128;

	memcpy(blocks, text, len);
	blocks[len] = 0x80;
	blocks[used - 2] = (uint8_t)(len * 8 >> 8);
	blocks[used - 1] = (uint8_t)(len * 8);
	for (size_t at = 0; at < used; at += 64)
		sha1_block(state, blocks + at);
	for (unsigned i = 0; i < 20; i++)
		out[i] = (uint8_t)(state[i / 4] >> (24 - i % 4 * 8));
}

/* Base64 of a SHA-1: 27 digits and one '='. */
static void base64_digest(const uint8_t digest[20], char out[29])
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t padded[21] = { 0 };

	memcpy(padded, digest, 20);
	for (unsigned i = 0; i < 28; i++) {
		unsigned bit = i * 6, pair;

		pair = (unsigned)padded[bit / 8] << 8 |
		       (bit / 8 < 20 ? padded[bit / 8 + 1] : 0);
		out[i] = digits[pair >> (10 - bit % 8) & 63];
	}
	out[27] = '=';
	out[28] = '\0';
}

void websocket_take(int fd, const char *key)
{
	char text[KEY_MAX + sizeof(GUID)], accept[29], answer[256];
	uint8_t digest[20];
	bool kept = false;
	int len;

	len = snprintf(text, sizeof(text), "%.*s" GUID, KEY_MAX, key);
	sha1(text, (size_t)len, digest);
	base64_digest(digest, accept);
	len = snprintf(answer, sizeof(answer),
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
		"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		accept);
	if (send_all(fd, answer, (size_t)len)) {
		(void)pthread_mutex_lock(&clients_lock);
		if (clients_len < CLIENTS_MAX) {
			clients[clients_len++] = fd;
			kept = true;
		}
		(void)pthread_mutex_unlock(&clients_lock);
	}
	if (!kept)
		(void)close(fd);
}

/* A close frame, or the end of the connection. */
static bool has_left(int fd)
{
	uint8_t bytes[512];
	ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	return got == 0 || (got > 0 && (bytes[0] & 0xf) == 8);
}

static void push_message(unsigned n)
{
	uint8_t frame[128];
	int len = snprintf((char *)frame + 2, sizeof(frame) - 2,
		"{\"viewers\":%zu,\"message\":%u}", clients_len, n);

	frame[0] = 0x81;
	frame[1] = (uint8_t)len;
	for (size_t i = 0; i < clients_len;) {
		ssize_t sent =
			send(clients[i], frame, (size_t)len + 2, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent == len + 2 && !has_left(clients[i])) {
			i++;
			continue;
		}
		(void)close(clients[i]);
		clients[i] = clients[--clients_len];
	}
}

static void *push_messages(void *unused)
{
	struct timespec pause = { 0, 100000000 };
	struct postern_region region;

	(void)unused;
	for (unsigned n = 0; !atomic_load(&demo_is_stopping); n++) {
		(void)nanosleep(&pause, NULL);
		region = watch_begin("websocket");
		(void)pthread_mutex_lock(&clients_lock);
		push_message(n);
		(void)pthread_mutex_unlock(&clients_lock);
		watch_end(&region);
	}
	return NULL;
}

int websocket_start(void)
{
	return pthread_create(&pusher, NULL, push_messages, NULL);
}

void websocket_stop(void)
{
	(void)pthread_join(pusher, NULL);
	for (size_t i = 0; i < clients_len; i++)
		(void)close(clients[i]);
}
