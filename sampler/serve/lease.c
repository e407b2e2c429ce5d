#include "sampler/serve/lease.h"

#include "sampler/collect/rate.h"

static struct lease *held;
static uint64_t last_turn;

static void settle(void)
{
	for (enum rate rate = 0; rate < RATES_LEN; rate++) {
		uint64_t value = RATE_NOT_SET, turn = 0;

		for (const struct lease *at = held; at; at = at->next) {
			if (at->rates.is_set[rate] && at->turns[rate] > turn) {
				value = at->rates.values[rate];
				turn = at->turns[rate];
			}
		}
		rate_lease(rate, value);
	}
}

void lease_take(struct lease *lease)
{
	if (lease->is_held)
		return;
	*lease = (struct lease){ .is_held = true, .next = held };
	held = lease;
}

void lease_end(struct lease *lease)
{
	struct lease **at = &held;

	if (!lease->is_held)
		return;
	while (*at != lease)
		at = &(*at)->next;
	*at = lease->next;
	*lease = (struct lease){ 0 };
	settle();
}

void lease_rates(struct lease *lease, const struct rates *rates)
{
	last_turn++;
	for (size_t i = 0; i < RATES_LEN; i++) {
		if (!rates->is_set[i])
			continue;
		lease->rates.is_set[i] = true;
		lease->rates.values[i] = rates->values[i];
		lease->turns[i] = last_turn;
	}
	settle();
}

size_t leases_held(void)
{
	size_t len = 0;

	for (const struct lease *at = held; at; at = at->next)
		len++;
	return len;
}

void leases_forget(void)
{
	held = NULL;
	settle();
}
