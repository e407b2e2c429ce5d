#include "cli/capture.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/cli.h"
#include "cli/credentials.h"
#include "cli/link.h"

#define REFUSAL_BYTES      ((size_t)64 << 10)
#define CONNECT_TIMEOUT_MS 10000L
#define GRACE_SECONDS      60UL /* to compress and send what was captured */
#define URL_SIZE           1024
#define DRAW_EACH_NS       ((uint64_t)100000000)

static const struct capture_kind kinds[] = {
	{ "heap", 0, "pb.gz" },
	{ "allocs", 0, "pb.gz" },
	{ "profile", 30, "pb.gz" },
	{ "goroutine", 0, "pb.gz" },
	{ "threads", 0, "pb.gz" },
	{ "threadcreate", 0, "pb.gz" },
	{ "block", 0, "pb.gz" },
	{ "mutex", 0, "pb.gz" },
	{ "trace", 1, "trace" },
	{ "wall", 30, "pb.gz" },
	{ "offcpu", 30, "pb.gz" },
	{ "cmdline", 0, "txt" },
};

#define KINDS_LEN (sizeof(kinds) / sizeof(kinds[0]))

const struct capture_kind *capture_kind(const char *name, const char **nearest)
{
	const char *names[KINDS_LEN + 1] = { NULL };

	for (size_t i = 0; i < KINDS_LEN; i++) {
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
		names[i] = kinds[i].name;
	}
	*nearest = strcmp(name, "cpu") == 0 ? "profile" : cli_nearest(name, names);
	return NULL;
}

/* A capture under way. */
struct transfer {
	const struct capture *capture;
	CURL *curl;
	int fd;
	int write_errno;
	uint64_t drew_ns; /* 0: never */
	unsigned long expected_seconds;
	uint64_t began_ns;
	struct buf refusal; /* the body of an answer other than 200 */
	char curl_text[CURL_ERROR_SIZE];
};

static long status_of(const struct transfer *transfer)
{
	long status = 0;

	(void)curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static size_t take_bytes(char *bytes, size_t size, size_t count, void *arg)
{
	struct transfer *transfer = arg;
	size_t len = size * count, done = 0;

	if (status_of(transfer) != 200) {
		buf_add(&transfer->refusal, bytes, len);
		return len;
	}
	while (done < len) {
		ssize_t wrote = write(transfer->fd, bytes + done, len - done);

		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0) {
			transfer->write_errno = errno;
			return CURL_WRITEFUNC_ERROR;
		}
		done += (size_t)wrote;
	}
	return len;
}

/* "profile of demo  [######------]  12 of 30 s" and, once they come, the bytes. */
static void draw(struct transfer *transfer, curl_off_t bytes)
{
	static const char full[] = "##############################";
	const int width = (int)sizeof(full) - 1;
	const struct capture *capture = transfer->capture;
	uint64_t now = clock_mono_ns();
	unsigned long elapsed = (now - transfer->began_ns) / 1000000000U;
	unsigned long expected = transfer->expected_seconds;

	if (transfer->drew_ns && now - transfer->drew_ns < DRAW_EACH_NS)
		return;
	transfer->drew_ns = now;
	(void)fprintf(stderr, "\r\033[K%s%s%s", capture->profile, capture->target ? " of " : "",
		capture->target ? capture->target : "");
	if (bytes > 0) {
		(void)fprintf(stderr, "  %lld KiB", (long long)(bytes + 1023) / 1024);
	} else if (expected > 0) {
		unsigned long shown = elapsed < expected ? elapsed : expected;
		int filled = (int)(shown * (unsigned long)width / expected);

		(void)fprintf(stderr, "  [%.*s%*s]  %lu of %lu s", filled, full, width - filled,
			"", elapsed, expected);
	} else {
		(void)fprintf(stderr, "  %lu s", elapsed);
	}
}

static int show(
	void *arg, curl_off_t total, curl_off_t bytes, curl_off_t up_total, curl_off_t up_bytes)
{
	struct transfer *transfer = arg;

	(void)total;
	(void)up_total;
	(void)up_bytes;
	if (transfer->capture->interrupted && *transfer->capture->interrupted)
		return 1;
	if (transfer->capture->show_progress)
		draw(transfer, bytes);
	return 0;
}

static int write_url(const struct capture *capture, const struct link_to *to,
	char url[static URL_SIZE], struct err *err)
{
	struct buf out;
	char mark = '?';

	buf_init_fixed(&out, url, URL_SIZE);
	buf_printf(&out, "https://%s", to->authority);
	if (capture->target)
		buf_printf(&out, "/targets/%s", capture->target);
	buf_printf(&out, "/debug/pprof/%s", capture->profile);
	if (capture->seconds > 0) {
		buf_printf(&out, "%cseconds=%lu", mark, capture->seconds);
		mark = '&';
	}
	if (capture->debug)
		buf_printf(&out, "%cdebug=%s", mark, capture->debug);
	buf_add_byte(&out, '\0');
	return out.failed ? err_set(err, ERR_INPUT, "the URL is too long") : 0;
}

/* Text of the other side's on our terminal: one line, nothing but visible characters. */
static void add_plain(struct buf *out, const char *text, size_t len)
{
	for (size_t i = 0; i < len && out->len < 200; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '\n')
			break;
		buf_add_byte(out, c < 0x20 || c == 0x7f ? '?' : text[i]);
	}
}

static void add_member(struct buf *out, const json_t *problem, const char *name,
	const char *before, const char *behind)
{
	const json_t *value = json_object_get(problem, name);

	if (!json_is_string(value))
		return;
	buf_add_cstr(out, before);
	add_plain(out, json_string_value(value), json_string_length(value));
	buf_add_cstr(out, behind);
}

/* The refusal as one line: RFC 9457's members, or the first line of a plain text. */
static int fail_refused(const struct transfer *transfer, struct err *err)
{
	const struct buf *body = &transfer->refusal;
	long status = status_of(transfer);
	curl_off_t retry = 0;
	json_t *problem = json_loadb(body->len ? body->ptr : "", body->len, 0, NULL);
	char text[512];
	struct buf out;

	buf_init_fixed(&out, text, sizeof(text));
	if (json_is_object(problem)) {
		add_member(&out, problem, "title", ": ", "");
		add_member(&out, problem, "detail", ": ", "");
		add_member(&out, problem, "request_id", " (request ", ")");
	} else if (body->len > 0) {
		buf_add_cstr(&out, ": ");
		add_plain(&out, body->ptr, body->len);
	}
	json_decref(problem);
	(void)curl_easy_getinfo(transfer->curl, CURLINFO_RETRY_AFTER, &retry);
	if (retry > 0)
		buf_printf(&out, "; free in %lld s", (long long)retry);
	if (status == 401)
		buf_add_cstr(&out, "; a token comes from POSTERN_TOKEN_FILE, " LINK_HINT_CERT);
	return err_set(err, ERR_DENIED, "%ld%.*s", status, (int)out.len, out.ptr);
}

static int fail_connect(const struct transfer *transfer, struct err *err)
{
	long number = 0;

	(void)curl_easy_getinfo(transfer->curl, CURLINFO_OS_ERRNO, &number);
	if (number == ECONNREFUSED)
		return err_set(err, ERR_PEER, "the connection was refused: " LINK_HINT_CLOSED);
	return err_set(err, ERR_PEER, "%s", transfer->curl_text);
}

/* The connection ended in the handshake or right behind it. */
static int fail_tls(const struct transfer *transfer, struct err *err)
{
	/* "OpenSSL SSL_read: OpenSSL/3.0: error:0A00045C:SSL routines::tlsv13 alert ..., errno 0" */
	const char *alert = strstr(transfer->curl_text, "routines::");
	const char *ours = NULL;

	if (alert && strstr(alert, "alert"))
		return err_set(err, ERR_DENIED,
			"the gateway refused the TLS connection (%.*s); " LINK_HINT_CERT,
			(int)strcspn(alert + 10, ","), alert + 10);
	(void)curl_easy_getinfo(transfer->curl, CURLINFO_LOCAL_IP, &ours);
	return err_set(err, ERR_PEER,
		"the gateway ended the connection before TLS: " LINK_HINT_ADDRESS,
		ours && *ours ? ours : "ADDR");
}

static int fail_curl(const struct transfer *transfer, CURLcode code, struct err *err)
{
	const char *text =
		transfer->curl_text[0] ? transfer->curl_text : curl_easy_strerror(code);

	if (code == CURLE_ABORTED_BY_CALLBACK)
		return err_set(err, ERR_NONE, "interrupted");
	if (transfer->write_errno) {
		errno = transfer->write_errno;
		return err_sys(err, "write");
	}
	if (code == CURLE_COULDNT_CONNECT)
		return fail_connect(transfer, err);
	if (code == CURLE_SSL_CONNECT_ERROR)
		return fail_tls(transfer, err);
	if (code == CURLE_RECV_ERROR && strstr(text, "alert"))
		return fail_tls(transfer, err);
	if (code == CURLE_PEER_FAILED_VERIFICATION)
		return err_set(err, ERR_DENIED, "%s; %s", text,
			strstr(text, "name") ? LINK_HINT_NAME : LINK_HINT_TRUST);
	if (status_of(transfer) == 200)
		return err_set(
			err, ERR_PEER, "the answer was cut short (%s); nothing was kept", text);
	return err_set(err, ERR_PEER, "%s", text);
}

/* curl's options for one request. The lists are the caller's to free. */
static bool set_options(struct transfer *transfer, const struct settings *settings,
	const char *url, struct curl_slist *headers, struct curl_slist *connect_to)
{
	CURL *curl = transfer->curl;
	unsigned long most = transfer->expected_seconds + GRACE_SECONDS;
	CURLcode rc = CURLE_OK;

#define SET(option, value) rc = rc ? rc : curl_easy_setopt(curl, option, value)
	SET(CURLOPT_ERRORBUFFER, transfer->curl_text);
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PROTOCOLS_STR, "https");
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_USERAGENT, "postern/" POSTERN_VERSION);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_CONNECT_TO, connect_to);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	SET(CURLOPT_TIMEOUT, (long)most);
	SET(CURLOPT_WRITEFUNCTION, take_bytes);
	SET(CURLOPT_WRITEDATA, transfer);
	SET(CURLOPT_XFERINFOFUNCTION, show);
	SET(CURLOPT_XFERINFODATA, transfer);
	SET(CURLOPT_NOPROGRESS, 0L);
	if (settings->ca)
		SET(CURLOPT_CAINFO, settings->ca);
	if (settings->cert) {
		SET(CURLOPT_SSLCERT, settings->cert);
		SET(CURLOPT_SSLKEY, settings->key);
	}
#undef SET
	return rc == CURLE_OK;
}

static int perform(struct transfer *transfer, const struct settings *settings, struct err *err)
{
	static struct credentials credentials; /* holds a token: not left on a stack */
	struct curl_slist *headers = NULL, *connect_to = NULL;
	struct link_to to;
	char url[URL_SIZE], text[sizeof("Authorization: Bearer ") + TOKEN_SIZE];
	CURLcode code;
	int rc = -1;

	credentials.settings = settings;
	if (link_to_parse(&to, settings, err) || write_url(transfer->capture, &to, url, err) ||
		credentials_refresh(&credentials, clock_boot_ms(), err))
		goto out;
	(void)snprintf(text, sizeof(text), "Authorization: Bearer %s", credentials.token);
	if (credentials.token[0] != '\0')
		headers = curl_slist_append(NULL, text);
	(void)snprintf(text, sizeof(text), strchr(to.host, ':') ? "::[%s]:%s" : "::%s:%s",
		to.host, to.port);
	connect_to = curl_slist_append(NULL, text);
	if ((credentials.token[0] != '\0' && !headers) || !connect_to ||
		!set_options(transfer, settings, url, headers, connect_to)) {
		(void)err_set(err, ERR_NOMEM, "libcurl lacks memory or an option");
		goto out;
	}
	transfer->began_ns = clock_mono_ns();
	code = curl_easy_perform(transfer->curl);
	if (transfer->drew_ns)
		(void)fputs("\r\033[K", stderr);
	if (code != CURLE_OK)
		rc = fail_curl(transfer, code, err);
	else
		rc = status_of(transfer) == 200 ? 0 : fail_refused(transfer, err);
out:
	OPENSSL_cleanse(text, sizeof(text));
	credentials_wipe(&credentials);
	curl_slist_free_all(headers);
	curl_slist_free_all(connect_to);
	return rc;
}

int capture_run(
	const struct capture *capture, const struct settings *settings, int fd, struct err *err)
{
	const char *nearest;
	const struct capture_kind *kind = capture_kind(capture->profile, &nearest);
	struct transfer transfer = {
		.capture = capture,
		.fd = fd,
		.expected_seconds =
			capture->seconds || !kind ? capture->seconds : kind->seconds,
	};
	int rc;

	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return err_set(err, ERR_SYSTEM, "libcurl does not start");
	transfer.curl = curl_easy_init();
	if (!transfer.curl)
		return err_set(err, ERR_NOMEM, "out of memory");
	buf_init(&transfer.refusal, REFUSAL_BYTES);
	rc = perform(&transfer, settings, err);
	buf_free(&transfer.refusal);
	curl_easy_cleanup(transfer.curl);
	return rc;
}
