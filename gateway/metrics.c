#include "gateway/metrics.h"

#include <stddef.h>

static const struct {
	const char *name, *type, *help;
	size_t offset;
} plain[] = {
	{ "postern_connections_total", "counter", "Connections accepted",
		offsetof(struct metrics, connections) },
	{ "postern_connections_open", "gauge", "Connections that are open",
		offsetof(struct metrics, connections_open) },
	{ "postern_handshake_failures_total", "counter", "TLS handshakes that failed",
		offsetof(struct metrics, handshakes_failed) },
	{ "postern_sent_bytes_total", "counter", "Bytes of answers sent, without TLS",
		offsetof(struct metrics, sent_bytes) },
	{ "postern_captures_total", "counter", "Timed captures begun",
		offsetof(struct metrics, captures) },
	{ "postern_captures_running", "gauge", "Timed captures that are running",
		offsetof(struct metrics, captures_running) },
	{ "postern_captures_cut_total", "counter",
		"Timed captures that ended before they were whole",
		offsetof(struct metrics, captures_cut) },
};

void metrics_answer(struct metrics *metrics, unsigned status)
{
	if (status >= 100 && status <= 599)
		metrics->answers[status / 100 - 1]++;
}

void metrics_refusal(struct metrics *metrics, enum problem problem)
{
	metrics->refusals[problem]++;
	metrics_answer(metrics, problem_status(problem));
}

static void write_head(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP %s %s.\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_write(const struct metrics *metrics, uint32_t worker, struct buf *out)
{
	write_head(out, "postern_build_info", "gauge", "The version that runs");
	buf_printf(out, "postern_build_info{version=\"" POSTERN_VERSION "\",worker=\"%u\"} 1\n",
		worker);
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		uint64_t value;

		memcpy(&value, (const char *)metrics + plain[i].offset, sizeof(value));
		write_head(out, plain[i].name, plain[i].type, plain[i].help);
		buf_printf(out, "%s{worker=\"%u\"} %llu\n", plain[i].name, worker,
			(unsigned long long)value);
	}
	write_head(out, "postern_answers_total", "counter", "Answers by class of status");
	for (unsigned class = 1; class <= 5; class ++)
		buf_printf(out, "postern_answers_total{worker=\"%u\",class=\"%uxx\"} %llu\n",
			worker, class, (unsigned long long)metrics->answers[class - 1]);
	write_head(out, "postern_refusals_total", "counter", "Refusals by reason");
	for (unsigned i = 1; i < PROBLEMS_LEN; i++)
		buf_printf(out, "postern_refusals_total{worker=\"%u\",reason=\"%s\"} %llu\n",
			worker, problem_slug((enum problem)i),
			(unsigned long long)metrics->refusals[i]);
}
