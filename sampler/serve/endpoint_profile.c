#include "base/clock.h"
#include "sampler/collect/cpu.h"
#include "sampler/serve/captured.h"

#define DEFAULT_SECONDS 30
#define SECONDS_MAX     ((int64_t)7 * 24 * 3600)
#define COMMENT_MAX     1024

static void end_text(struct buf *text)
{
	if (text->failed)
		text->len = 0;
	buf_add_byte(text, '\0');
}

static const char *samples_comment(struct arena *arena, const struct cpu_result *result)
{
	struct buf text;

	if (arena_buf(arena, COMMENT_MAX, &text))
		return NULL;
	buf_add_cstr(&text, "source: ");
	buf_add_cstr(&text, result->source);
	buf_add_cstr(&text, ", ");
	buf_add_u64(&text, result->hz);
	buf_add_cstr(&text, " Hz; samples: ");
	buf_add_u64(&text, result->samples);
	buf_add_cstr(&text, ", of which without their outermost frame: ");
	buf_add_u64(&text, result->incomplete);
	buf_add_cstr(&text, "; dropped: ");
	buf_add_u64(&text, result->lost);
	buf_add_cstr(&text, "; CPU time (ms): ");
	buf_add_u64(&text, result->used_ns / 1000000);
	buf_add_cstr(&text, ", of which not seen: ");
	buf_add_u64(&text, result->unseen_ns / 1000000);
	end_text(&text);
	return text.ptr;
}

/* "true rate: 249.1 samples a CPU-second; timers tick at 250 a second here" */
static const char *rate_comment(struct arena *arena, const struct cpu_result *result)
{
	uint64_t tenths = result->used_ns >= 100000
				  ? result->hits * 1000000 / (result->used_ns / 10000)
				  : 0;
	struct buf text;

	if (arena_buf(arena, COMMENT_MAX, &text))
		return NULL;
	buf_add_cstr(&text, "true rate: ");
	buf_add_u64(&text, tenths / 10);
	buf_add_byte(&text, '.');
	buf_add_u64(&text, tenths % 10);
	buf_add_cstr(&text, " samples a CPU-second");
	if (result->limit_hz) {
		buf_add_cstr(&text, "; timers tick at ");
		buf_add_u64(&text, result->limit_hz);
		buf_add_cstr(&text, " a second here");
	}
	end_text(&text);
	return text.ptr;
}

static void end(struct capture *capture, struct arena *arena, struct answer *answer)
{
	struct cpu_capture *cpu = capture->state;
	const struct cpu_result *result = cpu_stop(cpu);
	const struct captured captured = {
		.settings = {
			.values = { { "samples", "count" }, { "cpu", "nanoseconds" } },
			.values_len = 2,
			.period_type = { "cpu", "nanoseconds" },
			.period = (int64_t)result->period_ns,
			.time_unix_ns = result->began_unix_ns,
			.duration_ns = (int64_t)result->duration_ns,
			.comments = { samples_comment(arena, result),
				rate_comment(arena, result), captured_text(arena, result->note) },
		},
		.tally = &result->tally,
		.without_stack = "[thread is ending]",
		.lost = { (int64_t)result->lost, (int64_t)(result->lost * result->period_ns) },
	};

	(void)captured_answer(&captured, "profile", arena, answer);
	cpu_release(cpu);
}

static void cut(struct capture *capture)
{
	cpu_release(capture->state);
}

static const struct capture_kind profile_capture = { .end = end, .cut = cut };

static void refuse(const struct question *question, struct answer *answer, const char *why)
{
	static const char prefix[] = "Could not enable CPU profiling: ";
	char text[sizeof(prefix) + sizeof(((struct err *)0)->text)];
	struct buf message;

	buf_init_fixed(&message, text, sizeof(text) - 1);
	buf_add_cstr(&message, prefix);
	buf_add_cstr(&message, why);
	text[message.len] = '\0';
	answer_error(question->arena, answer, 500, text);
}

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	bool has_seconds, has_hz;
	int64_t seconds = question_int(question, SV("seconds"), &has_seconds);
	int64_t hz = question_int(question, SV("hz"), &has_hz);
	struct cpu_wanted wanted = { .hz = has_hz ? (unsigned)hz : CPU_HZ };
	struct err err;

	if (has_hz && (hz < 1 || hz > CPU_HZ_MAX)) {
		answer_error(question->arena, answer, 400,
			"invalid value for \"hz\" - must be a whole number from 1 to 4000");
		return ENDPOINT_ANSWERED;
	}
	if (seconds <= 0)
		seconds = DEFAULT_SECONDS;
	if (seconds > SECONDS_MAX)
		seconds = SECONDS_MAX;
	capture->state = cpu_start(&wanted, &err);
	if (!capture->state) {
		refuse(question, answer, err.text);
		return ENDPOINT_ANSWERED;
	}
	capture->kind = &profile_capture;
	capture->until_ns = clock_mono_ns() + (uint64_t)seconds * 1000000000;
	return ENDPOINT_CAPTURE;
}

const struct endpoint endpoint_profile = {
	.name = "profile",
	.description =
		"CPU profile: seconds= is how long, hz= how many samples a second of CPU "
		"time (1 to 4000, else 100); read it with go tool pprof or postern top",
	.ask = ask,
};
