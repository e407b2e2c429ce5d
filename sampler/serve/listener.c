#include "sampler/serve/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/announce.h"
#include "base/buf.h"
#include "base/sockdiag.h"
#include "http/query.h"

#define BACKLOG 16

static int parse_unix(struct sv path, const char *text, struct place *out, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (path.len == 0 || path.ptr[0] != '/' ||
		!sv_to_cstr(path, address.sun_path, sizeof(address.sun_path)))
		return err_set(err, ERR_INPUT,
			"'%s' must be unix: and an absolute path of less than %zu bytes", text,
			sizeof(address.sun_path));
	out->len = sizeof(address);
	memcpy(&out->address, &address, sizeof(address));
	return 0;
}

int place_parse(const char *text, struct place *out, struct err *err)
{
	struct sv whole = sv_from_cstr(text), name, port;
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	char host[INET6_ADDRSTRLEN];
	const char *colon;
	uint64_t number;

	*out = (struct place){ 0 };
	if (sv_starts_with(whole, SV("unix:")))
		return parse_unix((struct sv){ text + 5, whole.len - 5 }, text, out, err);
	/* http_host_split() refuses port 0, which means "any" here. */
	colon = strrchr(text, ':');
	if (!colon || !sv_to_u64(sv_from_cstr(colon + 1), 65535, &number) ||
		!http_host_split((struct sv){ text, (size_t)(colon - text) }, &name, &port) ||
		!sv_to_cstr(name, host, sizeof(host)))
		return err_set(err, ERR_INPUT,
			"'%s' is not an address: write 127.0.0.1:6060, [::1]:0 or unix:/path",
			text);
	if (!http_host_is_loopback(name) || sv_is_nocase(name, SV("localhost")))
		return err_set(err, ERR_INPUT,
			"'%s' is not a loopback address: a profiler is never open to a "
			"network; "
			"put posternd in front of it",
			text);
	v4.sin_port = v6.sin6_port = htons((uint16_t)number);
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		out->len = sizeof(v4);
		memcpy(&out->address, &v4, sizeof(v4));
	} else {
		(void)inet_pton(AF_INET6, host, &v6.sin6_addr);
		out->len = sizeof(v6);
		memcpy(&out->address, &v6, sizeof(v6));
	}
	return 0;
}

/* Who may put something there, or take away what is ours? */
static int check_folder(const char *path, struct err *err)
{
	struct stat status;
	int folder, rc = -1;

	/* The folder of all users is made by the package; a user's own one by whoever comes first. */
	(void)mkdir(path, 0700);
	folder = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder < 0)
		return err_sys(err, "runtime folder %s", path);
	if (fstat(folder, &status))
		(void)err_sys(err, "runtime folder %s", path);
	else if (status.st_uid != 0 && status.st_uid != geteuid())
		(void)err_set(err, ERR_DENIED, "runtime folder %s is another user's", path);
	else if (status.st_mode & (S_IWGRP | S_IWOTH) && !(status.st_mode & S_ISVTX))
		(void)err_set(err, ERR_DENIED,
			"others can take files out of the runtime folder %s: chmod go-w or +t",
			path);
	else
		rc = 0;
	(void)close(folder);
	return rc;
}

int place_own(
	const struct settings *settings, const char *ending, struct place *out, struct err *err)
{
	char text[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	struct buf path;

	if (check_folder(settings->runtime_dir, err))
		return -1;
	buf_init_fixed(&path, text, sizeof(text) - 1);
	buf_add_cstr(&path, "unix:");
	buf_add_cstr(&path, settings->runtime_dir);
	buf_add_byte(&path, '/');
	announce_write(sv_from_cstr(settings->name), &path);
	buf_add_byte(&path, '.');
	buf_add_u64(&path, (uint64_t)getpid());
	buf_add_cstr(&path, ending);
	text[path.len] = '\0';
	if (path.failed)
		return err_set(err, ERR_INPUT, "the runtime folder's path is too long");
	return place_parse(text, out, err);
}

const char *place_path(const struct place *place)
{
	return place->address.ss_family == AF_UNIX
		       ? ((const struct sockaddr_un *)(const void *)&place->address)->sun_path
		       : NULL;
}

void place_format(const struct place *place, char *out, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "";
	struct buf text;

	buf_init_fixed(&text, out, size - 1);
	if (place->address.ss_family == AF_UNIX) {
		struct sockaddr_un address;

		memcpy(&address, &place->address, sizeof(address));
		buf_add_cstr(&text, "unix:");
		buf_add_cstr(&text, address.sun_path);
	} else if (place->address.ss_family == AF_INET) {
		struct sockaddr_in v4;

		memcpy(&v4, &place->address, sizeof(v4));
		buf_add_cstr(&text, inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host)));
		buf_add_byte(&text, ':');
		buf_add_u64(&text, ntohs(v4.sin_port));
	} else {
		struct sockaddr_in6 v6;

		memcpy(&v6, &place->address, sizeof(v6));
		buf_add_byte(&text, '[');
		buf_add_cstr(&text, inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host)));
		buf_add_cstr(&text, "]:");
		buf_add_u64(&text, ntohs(v6.sin6_port));
	}
	out[text.len] = '\0';
}

/* A socket that a process which is gone left behind refuses connections. */
static void remove_stale(const struct place *place)
{
	struct stat status;
	int probe;

	if (lstat(place_path(place), &status) || !S_ISSOCK(status.st_mode) ||
		status.st_uid != geteuid())
		return;
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe >= 0 &&
		connect(probe, (const struct sockaddr *)&place->address, place->len) &&
		errno == ECONNREFUSED)
		(void)unlink(place_path(place));
	if (probe >= 0)
		(void)close(probe);
}

int listener_open(struct place *place, const struct settings *settings, struct err *err)
{
	int family = place->address.ss_family, one = 1, saved;
	int listener = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (listener < 0)
		return err_sys(err, "socket");
	if (family == AF_UNIX) {
		remove_stale(place);
		/* The mode that bind() gives the file; nobody else gets in between. */
		(void)fchmod(listener, 0600);
	} else {
		(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	}
	if (bind(listener, (struct sockaddr *)&place->address, place->len) ||
		listen(listener, BACKLOG)) {
		saved = errno;
		(void)err_sys(err, "bind");
		(void)close(listener);
		errno = saved;
		return -1;
	}
	/* Whoever may not write to the file is not even heard by listener_admits(). */
	if (family == AF_UNIX && settings->allow_uids_len > 0)
		(void)chmod(place_path(place), 0666);
	(void)getsockname(listener, (struct sockaddr *)&place->address, &place->len);
	return listener;
}

/* Does anybody listen there, now that our own socket is closed? Then the file is somebody else's. */
void listener_close(int listener, const struct place *place)
{
	(void)close(listener);
	if (place->address.ss_family == AF_UNIX)
		remove_stale(place);
}

static bool user_of(int connection, uint32_t *uid)
{
	struct sockaddr_storage ours = { 0 }, theirs = { 0 };
	socklen_t ours_len = sizeof(ours), theirs_len = sizeof(theirs);
	struct ucred peer;
	socklen_t peer_len = sizeof(peer);

	if (getsockname(connection, (struct sockaddr *)&ours, &ours_len) ||
		getpeername(connection, (struct sockaddr *)&theirs, &theirs_len))
		return false;
	if (ours.ss_family != AF_UNIX)
		return sockdiag_owner(&theirs, &ours, uid) == 0;
	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len))
		return false;
	*uid = peer.uid;
	return true;
}

bool listener_admits(int connection, const struct settings *settings, uint32_t *uid)
{
	if (!user_of(connection, uid))
		return false;
	if (*uid == 0 || *uid == geteuid() || *uid == getuid())
		return true;
	for (size_t i = 0; i < settings->allow_uids_len; i++) {
		if (settings->allow_uids[i] == *uid)
			return true;
	}
	return false;
}
