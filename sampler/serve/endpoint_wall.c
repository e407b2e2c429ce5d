/* wall and offcpu: where threads spend their time, running or not. Go has no such profiles; the rest is as its
 * `profile`. */
#include "base/clock.h"
#include "sampler/collect/wall.h"
#include "sampler/serve/captured.h"

#define DEFAULT_SECONDS 30
#define SECONDS_MAX     ((int64_t)7 * 24 * 3600)
#define COMMENT_MAX     512

struct wall_state {
	struct wall_capture *capture;
	const char *name;
};

static void add_tenths(struct buf *text, uint64_t tenths)
{
	buf_add_u64(text, tenths / 10);
	buf_add_byte(text, '.');
	buf_add_u64(text, tenths % 10);
}

/* "looks: 4321 at 300 threads, each 14.4 times a second (asked for: 100); …" */
static const char *rate_comment(struct arena *arena, const struct wall_result *result)
{
	struct buf text;

	if (arena_buf(arena, COMMENT_MAX, &text))
		return NULL;
	buf_add_cstr(&text, "looks: ");
	buf_add_u64(&text, result->looks);
	buf_add_cstr(&text, " at ");
	buf_add_u64(&text, result->threads);
	buf_add_cstr(&text, " threads, each ");
	add_tenths(&text, result->thread_ns >= 1000000
				  ? result->looks * 10000 / (result->thread_ns / 1000000)
				  : 0);
	buf_add_cstr(&text, " times a second (asked for: ");
	buf_add_u64(&text, result->hz);
	buf_add_cstr(&text, "); CPU time that they took (ms): ");
	buf_add_u64(&text, result->cost_ns / 1000000);
	buf_add_cstr(&text, " in ");
	buf_add_u64(&text, result->duration_ns / 1000000);
	buf_add_cstr(&text, "; time of threads in all (ms): ");
	buf_add_u64(&text, result->thread_ns / 1000000);
	if (text.failed)
		text.len = 0;
	buf_add_byte(&text, '\0');
	return text.ptr;
}

static void end(struct capture *capture, struct arena *arena, struct answer *answer)
{
	struct wall_state *state = capture->state;
	const struct wall_result *result = wall_stop(state->capture);
	const struct captured captured = {
		.settings = {
			.values = { { "samples", "count" }, { state->name, "nanoseconds" } },
			.values_len = 2,
			.period_type = { state->name, "nanoseconds" },
			.period = 1000000000 / (int64_t)result->hz,
			.time_unix_ns = result->began_unix_ns,
			.duration_ns = (int64_t)result->duration_ns,
			.comments = { rate_comment(arena, result),
				captured_text(arena, result->note) },
		},
		.tally = &result->tally,
		.labels = snapshot_state_label,
	};

	(void)captured_answer(&captured, state->name, arena, answer);
	wall_release(state->capture);
}

static void cut(struct capture *capture)
{
	struct wall_state *state = capture->state;

	wall_release(state->capture);
}

static const struct capture_kind wall_capture = { .end = end, .cut = cut };

static enum endpoint_result begin(const struct question *question, struct answer *answer,
	struct capture *capture, const char *name, bool runs)
{
	struct wall_state *state = arena_alloc(question->arena, sizeof(*state));
	bool has_seconds, has_hz;
	int64_t seconds = question_int(question, SV("seconds"), &has_seconds);
	int64_t hz = question_int(question, SV("hz"), &has_hz);
	struct err err = { .text = "out of memory" };

	if (has_hz && (hz < 1 || hz > WALL_HZ_MAX)) {
		answer_error(question->arena, answer, 400,
			"invalid value for \"hz\" - must be a whole number from 1 to 100");
		return ENDPOINT_ANSWERED;
	}
	if (seconds <= 0)
		seconds = DEFAULT_SECONDS;
	if (seconds > SECONDS_MAX)
		seconds = SECONDS_MAX;
	if (state)
		*state = (struct wall_state){
			.capture = wall_start(has_hz ? (unsigned)hz : WALL_HZ, runs, &err),
			.name = name
		};
	if (!state || !state->capture) {
		answer_error(question->arena, answer, 500, err.text);
		return ENDPOINT_ANSWERED;
	}
	*capture = (struct capture){ .kind = &wall_capture,
		.state = state,
		.until_ns = clock_mono_ns() + (uint64_t)seconds * 1000000000 };
	return ENDPOINT_CAPTURE;
}

static enum endpoint_result ask_wall(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return begin(question, answer, capture, "wall", true);
}

static enum endpoint_result ask_off_cpu(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return begin(question, answer, capture, "offcpu", false);
}

const struct endpoint endpoint_wall = {
	.name = "wall",
	.description = "Wall-clock profile: where all threads spend their time, running or "
		       "not; seconds= is how long, hz= how often each is looked at (1 to 100)",
	.ask = ask_wall,
};

const struct endpoint endpoint_offcpu = {
	.name = "offcpu",
	.description = "Off-CPU profile: where threads sleep and wait; seconds= and hz= as for "
		       "wall",
	.ask = ask_off_cpu,
};
