/*
 * trace: what the threads do, for `seconds` from now on, or the `last` ones from the flight recorder; in
 * Go's format, or with `format=chrome` in that of Chrome and Perfetto.
 */
#include <sched.h>

#include "base/clock.h"
#include "base/units.h"
#include "sampler/collect/flight.h"
#include "sampler/collect/trace.h"
#include "sampler/serve/endpoint.h"
#include "sampler/write/trace.h"
#include "sampler/write/trace_chrome.h"

#define SECOND_NS   UINT64_C(1000000000)
#define SECONDS_MAX (7.0 * 24 * 3600)  /* as a CPU profile's */
#define STREAM_MAX  ((size_t)64 << 20) /* that a client is behind */

/* A format and its writer. */
struct format {
	const char *name, *filename, *content_type;
	void *(*begin)(
		struct arena *arena, const char *name, uint64_t start_ns, struct buf *out);
	void (*add)(void *writer, const struct trace_event *event, struct buf *out);
	bool (*finish)(void *writer, struct symbols *symbols, uint64_t end_ns, struct buf *out);
};

struct taking {
	const struct format *format;
	void *writer;
	struct arena *arena;
	struct buf *out;
	struct trace_sink sink;
	uint64_t until_ns;
	struct symbols *symbols; /* once it is over */
};

static unsigned cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static void *begin_go(struct arena *arena, const char *name, uint64_t start_ns, struct buf *out)
{
	(void)name;
	return trace_begin(arena, cpus(), start_ns, out);
}

static void add_go(void *writer, const struct trace_event *event, struct buf *out)
{
	trace_add(writer, event, out);
}

static bool finish_go(void *writer, struct symbols *symbols, uint64_t end_ns, struct buf *out)
{
	return trace_finish(writer, symbols, end_ns, out);
}

static void *begin_chrome(
	struct arena *arena, const char *name, uint64_t start_ns, struct buf *out)
{
	return trace_chrome_begin(arena, name, start_ns, out);
}

static void add_chrome(void *writer, const struct trace_event *event, struct buf *out)
{
	trace_chrome_add(writer, event, out);
}

static bool finish_chrome(
	void *writer, struct symbols *symbols, uint64_t end_ns, struct buf *out)
{
	(void)symbols;
	return trace_chrome_finish(writer, end_ns, out);
}

static const struct format formats[] = {
	{ "go", "trace", "application/octet-stream", begin_go, add_go, finish_go },
	{ "chrome", "trace.json", "application/json", begin_chrome, add_chrome, finish_chrome },
};

static const struct format *choose_format(const struct question *question)
{
	struct sv wanted = question_text(question, SV("format"));

	if (wanted.len == 0)
		return &formats[0];
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (sv_is(wanted, sv_from_cstr(formats[i].name)))
			return &formats[i];
	}
	return NULL;
}

static uint64_t seconds_of(const struct question *question)
{
	double seconds;

	if (!units_decimal(question_text(question, SV("seconds")), &seconds) || seconds <= 0)
		seconds = 1;
	if (seconds > SECONDS_MAX)
		seconds = SECONDS_MAX;
	return (uint64_t)(seconds * (double)SECOND_NS);
}

static void add(void *to, const struct trace_event *event)
{
	struct taking *taking = to;
	struct trace_event cut;

	/* The stack of a wait that was cut by the end may become known only now. */
	if (event->time_ns > taking->until_ns) {
		if (event->kind != TRACE_STACK)
			return;
		cut = *event;
		cut.time_ns = taking->until_ns;
		event = &cut;
	}
	/* Its client takes what there is too slowly. */
	if (taking->out->max - taking->out->len < TRACE_ROOM)
		trace_drop();
	else
		taking->format->add(taking->writer, event, taking->out);
}

static int begin_answer(const struct question *question, const struct format *format,
	size_t max, struct answer *answer)
{
	*answer = (struct answer){ .status = 200,
		.content_type = format->content_type,
		.filename = format->filename };
	if (arena_buf(question->arena, max, &answer->body) == 0)
		return 0;
	answer_error(question->arena, answer, 500, "out of memory");
	return -1;
}

/* The rest of it, as far as there is room. */
static bool finish(struct taking *taking)
{
	while (taking->out->max - taking->out->len >= TRACE_ROOM) {
		if (taking->format->finish(
			    taking->writer, taking->symbols, taking->until_ns, taking->out))
			return true;
	}
	return false;
}

static bool goes_on(struct capture *capture, struct answer *answer)
{
	struct taking *taking = capture->state;
	struct err err;

	(void)answer; /* it is where taking->out is */
	if (!taking->symbols) {
		if (trace_told_ns() < taking->until_ns)
			return false;
		trace_tell_stacks(add, taking);
		trace_detach(&taking->sink);
		/* Without memory for the end it is cut short. */
		if (symbols_open(taking->arena, &taking->symbols, &err))
			return true;
	}
	return finish(taking);
}

static void cut(struct capture *capture)
{
	struct taking *taking = capture->state;

	trace_detach(&taking->sink);
}

static const struct capture_kind trace_capture = { .goes_on = goes_on, .cut = cut };

static enum endpoint_result fail(const struct question *question, struct answer *answer,
	unsigned status, const char *text)
{
	answer_error(question->arena, answer, status, text);
	return ENDPOINT_ANSWERED;
}

static struct taking *new_taking(
	const struct question *question, const struct format *format, struct answer *answer)
{
	struct taking *taking = arena_alloc(question->arena, sizeof(*taking));

	if (!taking)
		return NULL;
	taking->format = format;
	taking->arena = question->arena;
	taking->out = &answer->body;
	taking->sink = (struct trace_sink){ .told = add, .to = taking };
	return taking;
}

/* All that is recorded up to now, at once. */
static enum endpoint_result ask_last(
	const struct question *question, const struct format *format, struct answer *answer)
{
	struct sv text = question_text(question, SV("last"));
	uint64_t last_ns, now = trace_told_ns(), from_ns;
	struct taking *taking;
	struct err err;

	/* A number without a unit is seconds, as the gate passes it on. */
	if (!units_duration(text, &last_ns) &&
		(!sv_to_u64(text, UINT32_MAX, &last_ns) ||
			__builtin_mul_overflow(last_ns, SECOND_NS, &last_ns)))
		return fail(question, answer, 400,
			"invalid value for \"last\": it is a duration, as 10s");
	if (!flight_is_on())
		return fail(question, answer, 400,
			"the flight recorder is off: it is on in a program that is started "
			"with "
			"POSTERN_FLIGHT_RECORDER=16MiB (or a duration, as 30s) in its "
			"environment");
	from_ns = flight_begins(last_ns < now ? now - last_ns : 0);
	taking = new_taking(question, format, answer);
	if (!taking || begin_answer(question, format, ANSWER_BODY_MAX, answer) ||
		symbols_open(question->arena, &taking->symbols, &err))
		return fail(question, answer, 500, "out of memory");
	taking->until_ns = now;
	taking->writer = format->begin(question->arena, question->name, from_ns, &answer->body);
	if (!taking->writer || flight_read(question->arena, from_ns, add, taking) ||
		!finish(taking))
		return fail(question, answer, 500, "the trace is too large");
	return ENDPOINT_ANSWERED;
}

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	const struct format *format = choose_format(question);
	struct taking *taking;
	struct err err;

	if (!format)
		return fail(question, answer, 400,
			"invalid value for \"format\": there are go (which is also the "
			"default) and "
			"chrome");
	if (question_text(question, SV("last")).len > 0)
		return ask_last(question, format, answer);
	taking = new_taking(question, format, answer);
	if (!taking || begin_answer(question, format, STREAM_MAX, answer))
		return fail(question, answer, 500, "out of memory");
	if (trace_attach(&taking->sink, &err))
		return fail(question, answer, 500, err.text);
	taking->until_ns = taking->sink.from_ns + seconds_of(question);
	taking->writer = format->begin(
		question->arena, question->name, taking->sink.from_ns, &answer->body);
	if (!taking->writer) {
		trace_detach(&taking->sink);
		return fail(question, answer, 500, "out of memory");
	}
	*capture = (struct capture){
		.kind = &trace_capture, .state = taking, .until_ns = taking->until_ns
	};
	return ENDPOINT_STREAM;
}

const struct endpoint endpoint_trace = {
	.name = "trace",
	.description = "What each thread does: seconds= is how long, last= takes the last "
		       "seconds from the "
		       "flight recorder; read it with go tool trace, or with format=chrome in "
		       "ui.perfetto.dev",
	.ask = ask,
};
