#include "auth/token_scan.h"

#include <string.h>

#include "auth/token.h"
#include "base/encode.h"

#define DEPTH_MAX 8

/* Depth of nesting, without a parser that could itself be nested too deep. */
static bool is_shallow(struct sv json)
{
	unsigned depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < json.len; i++) {
		char c = json.ptr[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > DEPTH_MAX)
				return false;
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return true;
}

static json_t *decode_object(struct sv part, const char *which, struct err *err)
{
	char mem[TOKEN_MAX];
	struct buf bytes;
	json_error_t why;
	json_t *json;

	buf_init_fixed(&bytes, mem, sizeof(mem));
	if (part.len == 0 || !base64url_decode(part, &bytes)) {
		(void)err_set(err, ERR_DENIED, "token: %s is not canonical base64url", which);
		return NULL;
	}
	if (!is_shallow(buf_sv(&bytes))) {
		(void)err_set(err, ERR_DENIED, "token: %s is nested too deep", which);
		return NULL;
	}
	/* Without JSON_ALLOW_NUL no text can hold one; json_loadb() wants one whole value. */
	json = json_loadb(bytes.ptr, bytes.len, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(json)) {
		(void)err_set(err, ERR_DENIED,
			"token: %s is not one JSON object without duplicate names", which);
		json_decref(json);
		return NULL;
	}
	return json;
}

static int read_head(struct token *token, struct err *err)
{
	const json_t *algorithm = json_object_get(token->head, "alg");
	const json_t *type = json_object_get(token->head, "typ");
	const json_t *kid = json_object_get(token->head, "kid");
	size_t known = (algorithm ? 1U : 0U) + (type ? 1U : 0U) + (kid ? 1U : 0U);

	if (json_object_size(token->head) != known)
		return err_set(err, ERR_DENIED,
			"token: a header parameter other than alg, kid and typ");
	if (!json_is_string(algorithm))
		return err_set(err, ERR_DENIED, "token: alg is missing or not a text");
	if (type && (!json_is_string(type) || strcmp(json_string_value(type), "JWT") != 0))
		return err_set(err, ERR_DENIED, "token: typ is not JWT");
	if (kid && !json_is_string(kid))
		return err_set(err, ERR_DENIED, "token: kid is not a text");
	token->algorithm = json_string_value(algorithm);
	token->kid = json_string_value(kid);
	return 0;
}

static size_t count(struct sv text, char c)
{
	size_t n = 0;

	for (size_t i = 0; i < text.len; i++)
		n += text.ptr[i] == c;
	return n;
}

int token_scan(struct sv text, struct token *out, struct err *err)
{
	char mem[TOKEN_MAX];
	struct buf signature;
	struct sv rest = text, head, payload;

	*out = (struct token){ 0 };
	if (text.len > TOKEN_MAX)
		return err_set(err, ERR_DENIED, "token: longer than %d bytes", TOKEN_MAX);
	if (count(text, '.') != 2)
		return err_set(err, ERR_DENIED, "token: not three parts");
	head = sv_cut(&rest, '.');
	payload = sv_cut(&rest, '.');
	buf_init_fixed(&signature, mem, sizeof(mem));
	if (rest.len == 0 || !base64url_decode(rest, &signature))
		return err_set(err, ERR_DENIED, "token: signature is not canonical base64url");
	out->signature_len = signature.len;
	out->head = decode_object(head, "header", err);
	if (!out->head || read_head(out, err))
		return -1;
	out->payload = decode_object(payload, "payload", err);
	return out->payload ? 0 : -1;
}

void token_fini(struct token *token)
{
	json_decref(token->head);
	json_decref(token->payload);
	*token = (struct token){ 0 };
}
