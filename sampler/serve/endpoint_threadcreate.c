/* threadcreate: by which calls the program's threads were made. */
#include "sampler/collect/starts.h"
#include "sampler/serve/snapshot.h"

static int take(struct tally *out, int variant)
{
	(void)variant;
	return starts_take(out);
}

static void text(struct buf *out, struct symbols *symbols, const struct tally *tally)
{
	snapshot_text_counts(out, symbols, tally, "threadcreate", NULL);
}

static const struct snapshot_kind threadcreate = {
	.name = "threadcreate",
	.delta_name = "threadcreate-delta",
	.settings = {
		.values = { { "threadcreate", "count" } },
		.values_len = 1,
		.period_type = { "threadcreate", "count" },
	},
	.take = take,
	.text = text,
};

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	return snapshot_ask(&threadcreate, question, answer, capture);
}

const struct endpoint endpoint_threadcreate = {
	.name = "threadcreate",
	.description = "Stack traces that led to the creation of threads",
	.count = starts_count,
	.ask = ask,
};
