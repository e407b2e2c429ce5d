#include "sampler/names/symbols.h"
#include "sampler/serve/endpoint.h"
#include "sampler/write/text.h"

/* 0x12, 012 or 12, as strconv.ParseUint with base 0 takes them. */
static bool parse_address(struct sv text, uint64_t *out)
{
	unsigned base = 10;

	*out = 0;
	if (text.len > 2 && text.ptr[0] == '0' && (text.ptr[1] == 'x' || text.ptr[1] == 'X')) {
		base = 16;
		text.ptr += 2;
		text.len -= 2;
	} else if (text.len > 1 && text.ptr[0] == '0') {
		base = 8;
	}
	for (size_t i = 0; i < text.len; i++) {
		char c = (char)(text.ptr[i] | 0x20);
		unsigned digit = c >= 'a' ? (unsigned)(c - 'a') + 10
					  : (unsigned)(unsigned char)text.ptr[i] - '0';

		if (digit >= base || __builtin_mul_overflow(*out, base, out) ||
			__builtin_add_overflow(*out, digit, out))
			return false;
	}
	return text.len > 0;
}

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	struct sv rest = question->request->method == HTTP_POST ? question->body
								: question->request->query;
	struct symbols *symbols;
	struct symbol symbol;
	struct err err;
	uint64_t outside;
	uintptr_t real;

	(void)capture;
	answer_text(question->arena, answer, ANSWER_BODY_MAX);
	buf_add_cstr(&answer->body, "num_symbols: 1\n");
	if (symbols_open(question->arena, &symbols, &err))
		return ENDPOINT_ANSWERED;
	while (rest.len > 0) {
		struct sv word = sv_trim(sv_cut(&rest, '+'));

		if (!parse_address(word, &outside) || !symbols_real(symbols, outside, &real))
			continue;
		symbols_find(symbols, real, &symbol);
		text_hex(&answer->body, outside);
		buf_add_byte(&answer->body, ' ');
		buf_add_cstr(&answer->body, symbol.name);
		buf_add_byte(&answer->body, '\n');
	}
	return ENDPOINT_ANSWERED;
}

const struct endpoint endpoint_symbol = {
	.name = "symbol",
	.description = "Maps the addresses of a request to names",
	.takes_post = true,
	.ask = ask,
};
