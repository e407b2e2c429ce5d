#include "sampler/collect/cpu.h"
#include "sampler/serve/endpoint.h"
#include "sampler/store/depot.h"
#include "sampler/write/pprof.h"

#define DEFAULT_SECONDS 30
#define SECONDS_MAX     ((int64_t)7 * 24 * 3600)

static const char *rate_comment(struct arena *arena, const struct cpu_result *result)
{
	struct buf text;

	if (arena_buf(arena, 256, &text))
		return NULL;
	buf_add_cstr(&text, "source: per-thread CPU timers, 100 Hz; samples: ");
	buf_add_u64(&text, result->samples);
	buf_add_cstr(&text, ", of which without their outermost frame: ");
	buf_add_u64(&text, result->incomplete);
	buf_add_cstr(&text, "; dropped: ");
	buf_add_u64(&text, result->dropped);
	buf_add_cstr(&text, "; CPU time not seen (ms): ");
	buf_add_u64(&text, result->unseen_ns / 1000000);
	buf_add_byte(&text, '\0');
	return text.ptr;
}

static void add_samples(struct pprof *pprof, const struct cpu_result *result)
{
	const struct tally_row *row;
	size_t at = 0;

	while ((row = tally_next(&result->tally, &at)))
		pprof_add_row(pprof, &row->key, row->values, NULL, 0);
	if (result->dropped + result->tally.lost > 0) {
		int64_t values[2] = { (int64_t)(result->dropped + result->tally.lost) };

		values[1] = values[0] * CPU_PERIOD_NS;
		pprof_add_named(pprof, "[samples lost]", values);
	}
}

/* What was captured, until it is written; the collector's own may be another by then. */
struct captured {
	struct symbols *symbols;
	struct cpu_result result;
	struct pprof_settings settings;
};

static void write_profile(void *state, struct arena *arena, struct answer *answer)
{
	struct captured *captured = state;
	struct pprof *pprof = pprof_open(arena, captured->symbols, &captured->settings);
	struct err err = { .text = "out of memory for the profile" };

	if (pprof)
		add_samples(pprof, &captured->result);
	if (!pprof || pprof_finish(pprof, &answer->body, &err))
		answer_error(arena, answer, 500, err.text);
}

/* Copy the tally, and ask for the names of all that is in it. */
static int take_samples(
	struct arena *arena, const struct cpu_result *result, struct captured *captured)
{
	const struct tally_row *row;
	size_t at = 0;

	captured->result = *result;
	if (tally_open(&captured->result.tally, arena))
		return -1;
	while ((row = tally_next(&result->tally, &at))) {
		struct depot_stack stack = depot_get(row->key.stack);

		tally_add(&captured->result.tally, &row->key, row->values, 1);
		symbols_ask_stack(captured->symbols, stack.pcs, stack.len);
	}
	captured->result.tally.lost += result->tally.lost;
	return 0;
}

static int write_later(struct arena *arena, struct answer *answer, struct err *err)
{
	const struct cpu_result *result = cpu_stop();
	struct captured *captured = arena_alloc(arena, sizeof(*captured));
	const struct pprof_settings settings = {
		.values = { { "samples", "count" }, { "cpu", "nanoseconds" } },
		.values_len = 2,
		.period_type = { "cpu", "nanoseconds" },
		.period = CPU_PERIOD_NS,
		.time_unix_ns = result->began_unix_ns,
		.duration_ns = (int64_t)result->duration_ns,
		.comments = { rate_comment(arena, result) },
	};

	if (!captured || answer_attachment(arena, answer, "profile") ||
		symbols_open(arena, &captured->symbols, err) ||
		take_samples(arena, result, captured))
		return -1;
	captured->settings = settings;
	answer->late = (struct late){
		.symbols = captured->symbols, .write = write_profile, .state = captured
	};
	return 0;
}

static void end(struct capture *capture, struct arena *arena, struct answer *answer)
{
	struct err err = { .text = "out of memory" };

	(void)capture;
	if (write_later(arena, answer, &err))
		answer_error(arena, answer, 500, err.text);
}

static void cut(struct capture *capture)
{
	(void)capture;
	(void)cpu_stop();
}

static const struct capture_kind profile_capture = { .end = end, .cut = cut };

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	static const char prefix[] = "Could not enable CPU profiling: ";
	bool present;
	int64_t seconds = question_int(question, SV("seconds"), &present);
	char text[sizeof(prefix) + sizeof(((struct err *)0)->text)];
	struct buf message;
	struct err err;

	if (seconds <= 0)
		seconds = DEFAULT_SECONDS;
	if (seconds > SECONDS_MAX)
		seconds = SECONDS_MAX;
	if (cpu_start(&err) == 0) {
		capture->kind = &profile_capture;
		capture->until_ns = question->now_ns + (uint64_t)seconds * 1000000000;
		return ENDPOINT_CAPTURE;
	}
	buf_init_fixed(&message, text, sizeof(text) - 1);
	buf_add_cstr(&message, prefix);
	buf_add_cstr(&message, err.text);
	text[message.len] = '\0';
	answer_error(question->arena, answer, 500, text);
	return ENDPOINT_ANSWERED;
}

const struct endpoint endpoint_profile = {
	.name = "profile",
	.description =
		"CPU profile: seconds= is how long; read it with go tool pprof or postern top",
	.ask = ask,
};
