/*
 * endpoint.h - what the loopback server answers: one function for each path below /debug/pprof/.
 *
 * An endpoint gets a parsed request and fills in an answer; it knows no sockets.  Some take time: their
 * answer is asked for when the capture has ended, or sent meanwhile.
 */
#ifndef SAMPLER_ENDPOINT_H
#define SAMPLER_ENDPOINT_H

#include "http/head.h"
#include "sampler/memory/arena.h"
#include "sampler/names/symbols.h"

struct answer;

/*
 * The body is to be written when the addresses that `symbols` was asked for have got their names and lines
 * (names/lines.h), as far as they can be had.
 */
struct late {
	struct symbols *symbols;
	/* NULL: the body is whole. Fills in the answer anew where something goes wrong. */
	void (*write)(void *state, struct arena *arena, struct answer *answer);
	void *state; /* in the arena */
};

struct answer {
	unsigned status;
	const char *content_type;
	const char *filename; /* of the attachment; NULL: shown */
	const char *location; /* of a redirection, or NULL */
	const char *allow;    /* with 405, or NULL */
	bool is_error;        /* adds X-Go-Pprof, so that `go tool pprof` shows the text */
	struct buf body;
	struct late late;
};

struct lease;

struct question {
	const struct http_request *request;
	struct sv body; /* of POST */
	struct arena *arena;
	const char *name;    /* of this process */
	struct lease *lease; /* of a connection of the control socket; NULL of others */
	uint64_t now_ns;
};

/*
 * A request whose answer takes time: until `until_ns`, or until its client goes away.  Any number may run
 * at once.
 */
struct capture {
	const struct capture_kind *kind;
	void *state; /* the kind's own, in the connection's arena; the question is gone by then */
	uint64_t until_ns;
};

struct capture_kind {
	/* The time has come: fill in the answer. */
	void (*end)(struct capture *capture, struct arena *arena, struct answer *answer);
	/* The client has gone, or the server stops: let go of everything. */
	void (*cut)(struct capture *capture);
	/* Of an answer that is sent while the capture runs, in the place of end(): it has added to the answer's
	 * body, from whose front is taken what was sent. True: that was all, and cut() is not to come. */
	bool (*goes_on)(struct capture *capture, struct answer *answer);
};

enum endpoint_result {
	ENDPOINT_ANSWERED = 0,
	ENDPOINT_CAPTURE, /* `capture` was filled in, and its kind has the rest to say */
	ENDPOINT_STREAM,  /* likewise, and the answer, whose body grows while it is sent */
};

struct endpoint {
	const char *name;        /* the path below /debug/pprof/ */
	const char *description; /* on the index page; NULL: not shown there */
	bool takes_post;
	size_t (*count)(struct arena *arena); /* the number on the index page; NULL: 0 */
	enum endpoint_result (*ask)(const struct question *question, struct answer *answer,
		struct capture *capture);
};

/* One for each file endpoint_….c; the list is in endpoint.c. */
extern const struct endpoint endpoint_allocs, endpoint_block, endpoint_cmdline,
	endpoint_delta_block, endpoint_delta_heap, endpoint_delta_mutex, endpoint_goroutine,
	endpoint_heap, endpoint_metrics, endpoint_mutex, endpoint_offcpu, endpoint_profile,
	endpoint_rates, endpoint_symbol, endpoint_threadcreate, endpoint_threads,
	endpoint_trace, endpoint_wall;

enum endpoint_result endpoint_ask(
	const struct question *question, struct answer *answer, struct capture *capture);

/* An answer of one line, in Go's form for errors. */
void answer_error(
	struct arena *arena, struct answer *answer, unsigned status, const char *text);

/* Begin a text of at most `max` bytes; an error answer instead when there is no memory. */
void answer_text(struct arena *arena, struct answer *answer, size_t max);

/* Begin an attachment: a profile or a trace. -1, and an error answer, when there is no memory. */
int answer_attachment(struct arena *arena, struct answer *answer, const char *filename);

/* A form value as Go reads it: absent or not a whole number is 0. */
int64_t question_int(const struct question *question, struct sv name, bool *present);

/* The form value itself; "" when it is absent. */
struct sv question_text(const struct question *question, struct sv name);

/* Does it say that its body is JSON? No page of the web can without asking first. */
bool question_is_json(const struct question *question);

#define ANSWER_BODY_MAX ((size_t)256 << 20)

#endif
