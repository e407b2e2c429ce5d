#include "auth/grant.h"

static const char *const names[] = {
#define PROFILE(name, text, in_star) text,
#include "auth/profiles.def"
#undef PROFILE
};

static const bool covered_by_star[] = {
#define PROFILE(name, text, in_star) in_star,
#include "auth/profiles.def"
#undef PROFILE
};

const char *profile_name(enum profile profile)
{
	return profile < PROFILES_LEN ? names[profile] : "";
}

uint32_t profile_bits(struct sv name)
{
	bool star = sv_is(name, SV("*"));
	uint32_t bits = 0;

	for (unsigned i = 0; i < PROFILES_LEN; i++) {
		if (star ? covered_by_star[i] : sv_is(name, sv_from_cstr(names[i])))
			bits |= 1U << i;
	}
	return bits;
}

const char *identity_method(const struct identity *identity)
{
	if (identity->token)
		return identity->cert ? "both" : "jwt";
	return identity->cert ? "mtls" : "none";
}

bool pattern_matches(const char *pattern, struct sv text)
{
	struct sv pending = {
		0
	}; /* where to go on when what follows the last star does not fit */
	const char *after_star = NULL;

	for (;;) {
		if (*pattern == '*') {
			after_star = ++pattern;
			pending = text;
			continue;
		}
		if (text.len == 0 && *pattern == '\0')
			return true;
		if (text.len > 0 && *pattern == text.ptr[0]) {
			pattern++;
			text.ptr++;
			text.len--;
			continue;
		}
		/* The star takes one byte more. */
		if (!after_star || pending.len == 0 || pending.ptr[0] == '/')
			return false;
		pending.ptr++;
		pending.len--;
		text = pending;
		pattern = after_star;
	}
}

static bool matches(const char *pattern, const char *text)
{
	return !pattern || (text[0] != '\0' && pattern_matches(pattern, sv_from_cstr(text)));
}

static bool has_scope(const char *pattern, const char *scopes)
{
	struct sv rest = sv_from_cstr(scopes);

	if (!pattern)
		return true;
	while (rest.len > 0) {
		if (pattern_matches(pattern, sv_cut(&rest, ' ')))
			return true;
	}
	return false;
}

static bool has_san(const char *pattern, const struct cert *cert)
{
	if (!pattern)
		return true;
	for (size_t i = 0; i < cert->sans_len; i++) {
		if (pattern_matches(pattern, sv_from_cstr(cert->sans[i])))
			return true;
	}
	return false;
}

static bool token_matches(const struct grant *grant, const struct claims *token)
{
	if (!grant->issuer && !grant->subject && !grant->scope)
		return true;
	return token && matches(grant->issuer, token->issuer) &&
	       matches(grant->subject, token->subject) && has_scope(grant->scope, token->scope);
}

static bool cert_matches(const struct grant *grant, const struct cert *cert)
{
	if (!grant->san && !grant->cn && !grant->fingerprint)
		return true;
	return cert && has_san(grant->san, cert) && matches(grant->cn, cert->cn) &&
	       matches(grant->fingerprint, cert->fingerprint);
}

/* "jwt" and "mtls" ask for that proof, and another may be there too; "both" asks for both. */
static bool method_matches(const struct grant *grant, const struct identity *identity)
{
	if (!grant->method)
		return identity->token || identity->cert;
	if (sv_is(sv_from_cstr(grant->method), SV("jwt")))
		return identity->token != NULL;
	if (sv_is(sv_from_cstr(grant->method), SV("mtls")))
		return identity->cert != NULL;
	return identity->token && identity->cert;
}

bool grant_matches(const struct grant *grant, const struct identity *identity)
{
	return method_matches(grant, identity) && token_matches(grant, identity->token) &&
	       cert_matches(grant, identity->cert);
}

bool grant_covers_target(const struct grant *grant, struct sv target)
{
	for (size_t i = 0; i < GRANT_LIST_MAX && grant->targets[i]; i++) {
		if (pattern_matches(grant->targets[i], target))
			return true;
	}
	return false;
}

int grant_check(const struct grant *grant, struct err *err)
{
	bool of_token = grant->issuer || grant->subject || grant->scope;
	bool of_cert = grant->san || grant->cn || grant->fingerprint;
	struct sv method = sv_from_cstr(grant->method ? grant->method : "");

	if (method.len > 0 && !sv_is(method, SV("jwt")) && !sv_is(method, SV("mtls")) &&
		!sv_is(method, SV("both")))
		return err_set(err, ERR_INPUT,
			"match.method is \"%s\": it must be jwt, mtls or both", grant->method);
	if (!of_token && !of_cert)
		return err_set(err, ERR_INPUT,
			"match %s: it must name at least one of issuer, subject, scope, san, "
			"cn, "
			"fingerprint",
			grant->method
				? "has a method alone, which anybody with any such proof has"
				: "is empty, which is everybody");
	if (sv_is(method, SV("jwt")) && of_cert)
		return err_set(err, ERR_INPUT,
			"match asks for a certificate's san, cn or fingerprint, but its method "
			"is "
			"jwt: write both");
	if (sv_is(method, SV("mtls")) && of_token)
		return err_set(err, ERR_INPUT,
			"match asks for a token's issuer, subject or scope, but its method is "
			"mtls: "
			"write both");
	return 0;
}
