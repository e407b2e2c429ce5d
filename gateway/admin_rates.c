/*
 * POST /v1/targets/NAME/rates: the record first, then the target.
 */
#include <stdlib.h>

#include "gateway/admin.h"
#include "gateway/wakers.h"
#include "gateway/wish.h"

#define JSON_MAX 256

struct change {
	struct sv name; /* of the target, into text */
	struct sv json;
	void *later;
	char text[];
};

static const struct conf_target *find_target(const struct conf *conf, struct sv name)
{
	for (size_t i = 0; i < conf->targets_len; i++) {
		if (sv_is(sv_from_cstr(conf->targets[i].name), name))
			return &conf->targets[i];
	}
	return NULL;
}

static void on_recorded(struct keeper *keeper, void *arg, bool ok)
{
	struct change *change = arg;
	const struct conf_target *target = find_target(keeper->conf, change->name);

	if (!ok)
		admin_answer_rates(change->later, 503,
			"the audit record cannot be written; nothing changed");
	else if (!target)
		admin_answer_rates(change->later, 404, "there is no such target any more");
	else
		wakers_rates(keeper, target, change->json, admin_answer_rates, change->later);
	free(change);
}

static struct change *make_change(struct sv name, struct sv json, void *later)
{
	struct change *change = malloc(sizeof(*change) + name.len + json.len);

	if (!change)
		return NULL;
	memcpy(change->text, name.ptr, name.len);
	memcpy(change->text + name.len, json.ptr, json.len);
	change->name = (struct sv){ change->text, name.len };
	change->json = (struct sv){ change->text + name.len, json.len };
	change->later = later;
	return change;
}

static struct sv target_of(struct sv path)
{
	static const struct sv before = SV_INIT("/v1/targets/");

	path.ptr += before.len;
	path.len -= before.len;
	return sv_cut(&path, '/');
}

void admin_rates(struct keeper *keeper, const struct admin_request *request,
	struct admin_reply *reply, void *later)
{
	struct sv name = target_of(request->head->path);
	struct audit_record record = {
		.event = AUDIT_LEASED, .target = name, .reason = SV("rates")
	};
	struct change *change;
	const char *wrong;
	char mem[JSON_MAX];
	struct buf json;

	buf_init_fixed(&json, mem, sizeof(mem));
	wrong = wish_rates(request->body, &json);
	if (!find_target(keeper->conf, name)) {
		admin_refuse(reply, 404, "no-such-target", "no target has that name");
	} else if (wrong) {
		admin_refuse(reply, 400, "bad-request", wrong);
	} else if (!keeper->is_open) {
		admin_refuse(reply, 409, "access-closed",
			"rates are changed while access is open: open it first");
	} else if (!(change = make_change(name, buf_sv(&json), later))) {
		admin_refuse(reply, 503, "unavailable", "out of memory");
	} else {
		reply->is_later = true;
		record.params = change->json;
		audit_record(keeper, &request->actor, &record, on_recorded, change);
		keeper_settle(keeper);
	}
}
