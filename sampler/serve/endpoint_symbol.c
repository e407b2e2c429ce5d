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

/* The addresses that are somewhere, until they are written; the request is gone by then. */
struct wanted {
	struct symbols *symbols;
	size_t len;

	struct wanted_address {
		uint64_t outside;
		uintptr_t real;
	} * addresses;
};

static int read_addresses(struct sv rest, struct arena *arena, struct wanted *out)
{
	size_t most = 1;
	struct symbol symbol;

	for (size_t i = 0; i < rest.len; i++)
		most += rest.ptr[i] == '+';
	out->addresses = arena_alloc(arena, most * sizeof(out->addresses[0]));
	if (!out->addresses)
		return -1;
	while (rest.len > 0) {
		struct sv word = sv_trim(sv_cut(&rest, '+'));
		struct wanted_address address;

		if (!parse_address(word, &address.outside) ||
			!symbols_real(out->symbols, address.outside, &address.real))
			continue;
		symbols_find(out->symbols, address.real, &symbol);
		out->addresses[out->len++] = address;
	}
	return 0;
}

static void write_names(void *state, struct arena *arena, struct answer *answer)
{
	const struct wanted *wanted = state;
	struct symbol symbol;

	(void)arena;
	for (size_t i = 0; i < wanted->len; i++) {
		symbols_find(wanted->symbols, wanted->addresses[i].real, &symbol);
		text_hex(&answer->body, wanted->addresses[i].outside);
		buf_add_byte(&answer->body, ' ');
		buf_add_cstr(&answer->body, symbol.lines[0].function); /* as Go's: innermost */
		buf_add_byte(&answer->body, '\n');
	}
}

static enum endpoint_result ask(
	const struct question *question, struct answer *answer, struct capture *capture)
{
	struct wanted *wanted = arena_alloc(question->arena, sizeof(*wanted));
	struct err err;

	(void)capture;
	answer_text(question->arena, answer, ANSWER_BODY_MAX);
	buf_add_cstr(&answer->body, "num_symbols: 1\n");
	if (!wanted || symbols_open(question->arena, &wanted->symbols, &err) ||
		read_addresses(question->request->method == HTTP_POST
				       ? question->body
				       : question->request->query,
			question->arena, wanted))
		return ENDPOINT_ANSWERED;
	answer->late = (struct late){
		.symbols = wanted->symbols, .write = write_names, .state = wanted
	};
	return ENDPOINT_ANSWERED;
}

const struct endpoint endpoint_symbol = {
	.name = "symbol",
	.description = "Maps the addresses of a request to names",
	.takes_post = true,
	.ask = ask,
};
