#include "cli/control_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "http/head.h"

#define ANSWER_MAX ((size_t)64 << 10)
#define HEAD_MAX   ((size_t)16 << 10)

static int send_all(int fd, struct sv bytes, struct err *err)
{
	while (bytes.len > 0) {
		ssize_t sent = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return err_sys(err, "control socket: sending");
		bytes.ptr += sent;
		bytes.len -= (size_t)sent;
	}
	return 0;
}

/* True when the head and all of the body are there; -1 in *wrong when they will never be. */
static bool is_whole(struct sv bytes, struct http_response *head, const char **wrong)
{
	*wrong = NULL;
	if (http_response_parse(bytes, HEAD_MAX, false, head, wrong) != HTTP_DONE)
		return false;
	if (head->framing != HTTP_LENGTH || head->content_length > ANSWER_MAX)
		*wrong = "an answer of unknown length";
	return !*wrong && bytes.len - head->head_len >= head->content_length;
}

/* One answer; nothing may follow it. */
static int receive(int fd, struct buf *in, struct http_response *head, struct err *err)
{
	const char *wrong;

	while (!is_whole(buf_sv(in), head, &wrong)) {
		char *to = wrong ? NULL : buf_reserve(in, 4096);
		ssize_t got = to ? recv(fd, to, 4096, 0) : 0;

		if (!to)
			return err_set(err, ERR_PEER,
				"what listens on the control socket is no sampler: %s",
				wrong ? wrong : "its answer is too long");
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return err_set(err, ERR_PEER, "the sampler does not answer");
		if (got <= 0)
			return err_set(err, ERR_DENIED,
				"the sampler does not answer you: it admits its own user, root "
				"and POSTERN_ALLOW_UIDS");
		buf_commit(in, (size_t)got);
	}
	return 0;
}

/* What it says goes to a terminal: no control character may. */
static int fail_refused(const struct http_response *head, struct sv body, struct err *err)
{
	char text[200];
	size_t len = 0;

	while (len < body.len && len < sizeof(text) - 1 && body.ptr[len] != '\n') {
		char byte = body.ptr[len];

		text[len++] = byte < 0x20 || byte == 0x7f ? '?' : byte;
	}
	text[len] = '\0';
	return err_set(err, ERR_DENIED, "the sampler refused (%u): %s", head->status, text);
}

static void put_request(struct buf *out, const char *method, const char *path, const char *json,
	const char *token)
{
	buf_printf(out, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, path);
	if (token)
		buf_printf(out, "Authorization: Bearer %s\r\n", token);
	if (json)
		buf_printf(out,
			"Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			strlen(json), json);
	else
		buf_add_cstr(out, "\r\n");
}

static int read_answer(int fd, json_t **out, struct err *err)
{
	struct http_response head;
	struct sv body;
	struct buf in;
	int rc = -1;

	buf_init(&in, HEAD_MAX + ANSWER_MAX);
	if (receive(fd, &in, &head, err) == 0) {
		body = (struct sv){ in.ptr + head.head_len, (size_t)head.content_length };
		if (head.status == 200)
			*out = json_loadb(body.ptr, body.len, 0, NULL);
		if (head.status != 200)
			(void)fail_refused(&head, body, err);
		else if (!json_is_object(*out))
			(void)err_set(err, ERR_PEER,
				"what listens on the control socket is no sampler: its answer "
				"is "
				"not JSON");
		else
			rc = 0;
	}
	buf_free(&in);
	return rc;
}

int control_ask(const struct control_target *target, const char *method, const char *path,
	const char *json, json_t **out, struct err *err)
{
	struct buf request;
	int rc = -1;

	*out = NULL;
	buf_init(&request, ANSWER_MAX);
	put_request(&request, method, path, json, target->token);
	if (request.failed)
		(void)err_set(err, ERR_INPUT, "the request is too long");
	else if (send_all(target->fd, buf_sv(&request), err) == 0)
		rc = read_answer(target->fd, out, err);
	if (rc) {
		json_decref(*out);
		*out = NULL;
	}
	buf_free(&request);
	return rc;
}

struct search {
	struct sv name;
	uint32_t pid; /* 0: by name */
	size_t found, strangers, deaf;
	char others[160]; /* which were found, in words */
	struct control_target best;
	bool best_is_child;
};

static bool is_wanted(const struct search *search, const struct announced *at, uint32_t pid)
{
	if (search->pid)
		return at->pid == search->pid || pid == search->pid;
	return announce_is_name(at->name, search->name);
}

/* Who it says it is; -1 when it does not answer as a sampler. */
static int ask_who(struct control_target *target, bool *is_child, struct err *err)
{
	json_t *who;
	const char *name;

	if (control_ask(target, "GET", "/control", NULL, &who, err))
		return -1;
	name = json_string_value(json_object_get(who, "name"));
	(void)snprintf(target->name, sizeof(target->name), "%s", name ? name : "");
	for (char *at = target->name; *at; at++) {
		if (*at < 0x20 || *at == 0x7f)
			*at = '?';
	}
	target->is_asleep = json_is_true(json_object_get(who, "asleep"));
	*is_child = json_integer_value(json_object_get(who, "parent")) != 0;
	json_decref(who);
	return 0;
}

static void keep(struct search *search, const struct control_target *target, bool is_child)
{
	size_t used = strlen(search->others);

	/* Forked ones are not what a name stands for while there is the one that forked them. */
	if (search->found > 0 && is_child && !search->best_is_child) {
		(void)close(target->fd);
		return;
	}
	if (search->found > 0) {
		(void)close(search->best.fd);
		if (search->best_is_child && !is_child) {
			search->found = 0;
			used = 0;
		}
	}
	search->found++;
	search->best = *target;
	search->best_is_child = is_child;
	(void)snprintf(search->others + used, sizeof(search->others) - used, "%s%u (uid %u)",
		used ? ", " : "", target->pid, target->uid);
}

/* Only one's own processes and root's are what they say; to root all are. */
static bool take(void *arg, const struct announced *at)
{
	struct search *search = arg;
	struct control_target target = { .uid = at->uid };
	bool is_child;
	struct err err;

	if (!search->pid && !is_wanted(search, at, 0))
		return true;
	if (geteuid() != 0 && at->uid != 0 && at->uid != geteuid()) {
		search->strangers += is_wanted(search, at, 0);
		return true;
	}
	target.fd = announce_connect(at, false, &target.pid);
	if (target.fd < 0) {
		search->deaf += errno != ECONNREFUSED && is_wanted(search, at, 0);
		return true;
	}
	if (is_wanted(search, at, target.pid) && ask_who(&target, &is_child, &err) == 0) {
		keep(search, &target, is_child);
		return true;
	}
	search->deaf += is_wanted(search, at, target.pid);
	(void)close(target.fd);
	return true;
}

static int fail_not_found(
	const struct search *search, const char *what, const char *folder, struct err *err)
{
	if (search->found > 1)
		return err_set(err, ERR_INPUT,
			"several processes are called '%s': %s; name one by its number", what,
			search->others);
	if (search->strangers > 0)
		return err_set(err, ERR_DENIED,
			"'%s' is another user's: use sudo, or have POSTERN_ALLOW_UIDS name "
			"yours",
			what);
	if (search->deaf > 0)
		return err_set(
			err, ERR_PEER, "'%s' announces itself, and does not let you in", what);
	return err_set(err, ERR_INPUT,
		"no '%s' announces itself in %s: is it run under `postern exec`, and does "
		"--dir name its POSTERN_RUNTIME_DIR?",
		what, folder);
}

int control_find(
	const char *folder, const char *what, struct control_target *out, struct err *err)
{
	const char *user = getenv("XDG_RUNTIME_DIR");
	struct search search = { .name = sv_from_cstr(what) };
	char own[sizeof(((struct announced *)0)->path)];
	struct err none;
	uint64_t pid;

	if (sv_to_u64(search.name, INT32_MAX, &pid))
		search.pid = (uint32_t)pid;
	if (!folder || !folder[0])
		folder = getenv("POSTERN_RUNTIME_DIR");
	if (folder && folder[0]) {
		if (announce_list(folder, take, &search, err))
			return -1;
	} else {
		folder = ANNOUNCE_FOLDER;
		(void)announce_list(folder, take, &search, &none);
		if (user && snprintf(own, sizeof(own), "%s/postern", user) < (int)sizeof(own))
			(void)announce_list(own, take, &search, &none);
	}
	if (search.found == 1) {
		*out = search.best;
		return 0;
	}
	if (search.found > 1)
		(void)close(search.best.fd);
	return fail_not_found(&search, what, folder, err);
}
