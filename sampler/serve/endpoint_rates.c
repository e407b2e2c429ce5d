/* rates: what is sampled now; changed by a lease on the control socket, and only while that lasts. */
#include "base/json.h"
#include "sampler/serve/endpoint.h"
#include "sampler/serve/lease.h"

#define BODY_MAX 1024

static void show(const struct question *question, struct answer *answer)
{
	answer_text(question->arena, answer, BODY_MAX);
	if (answer->is_error)
		return;
	answer->content_type = "application/json";
	json_object_begin(&answer->body);
	for (enum rate rate = 0; rate < RATES_LEN; rate++)
		json_member_u64(&answer->body, rate_names[rate], rate_now(rate));
	json_object_end(&answer->body);
	buf_add_byte(&answer->body, '\n');
}

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	struct rates rates;
	struct err err;

	(void)capture;
	if (question->request->method != HTTP_POST) {
		show(question, answer);
	} else if (!question_is_json(question)) {
		answer_error(question->arena, answer, 415,
			"the Content-Type must be application/json");
	} else if (!question->lease || !question->lease->is_held) {
		answer_error(question->arena, answer, 403,
			"rates are changed by a lease, and while it lasts: ask posternd's "
			"admin "
			"socket (POST /v1/targets/NAME/rates), or type `postern wake NAME "
			"--heap "
			"512KiB`");
	} else if (rates_parse(question->body, &rates, &err)) {
		answer_error(question->arena, answer, 400, err.text);
	} else {
		lease_rates(question->lease, &rates);
		show(question, answer);
	}
	return ENDPOINT_ANSWERED;
}

const struct endpoint endpoint_rates = { .name = "rates", .takes_post = true, .ask = ask };
