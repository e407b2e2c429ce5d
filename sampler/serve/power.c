#include "sampler/serve/power.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/announce.h"
#include "base/clock.h"
#include "sampler/collect/collect.h"
#include "sampler/collect/flight.h"
#include "sampler/collect/rate.h"
#include "sampler/serve/sweep.h"
#include "sampler/unwind/unwind.h"

#define PARENT_WATCH_NS UINT64_C(20000000000)
#define FEW_DESCRIPTORS 16 /* none of those for what can be done without */

static bool listen_at(struct power *power, struct place *place, struct err *err)
{
	struct server *server = power->server;
	int listener = listener_open(place, server->settings, err);

	if (listener < 0)
		return false;
	power->places[power->listeners_len] = *place;
	power->listeners[power->listeners_len++] = listener;
	place_format(place, server->address, sizeof(server->address));
	return true;
}

static int start_listening(struct power *power, struct err *err)
{
	struct server *server = power->server;
	struct place place;

	if (place_parse(server->settings->listen, &place, err))
		return -1;
	if (listen_at(power, &place, err)) {
		atomic_store(&server->state, SERVER_LISTENING);
		return 0;
	}
	if (errno != EADDRINUSE || place_own(server->settings, ".sock", &place, err) ||
		!listen_at(power, &place, err))
		return -1;
	if (server->parent)
		power->watch_parent_until_ns = clock_mono_ns() + PARENT_WATCH_NS;
	atomic_store(&server->state, SERVER_ELSEWHERE);
	return 0;
}

void power_watch_parent(struct power *power, uint64_t now)
{
	struct server *server = power->server;
	struct place place;

	if (power->watch_parent_until_ns == 0)
		return;
	if (now > power->watch_parent_until_ns || power->listeners_len == POWER_LISTENERS_MAX) {
		power->watch_parent_until_ns = 0;
		return;
	}
	if ((uint32_t)getppid() == server->parent ||
		place_parse(server->settings->listen, &place, &server->err))
		return;
	if (listen_at(power, &place, &server->err))
		power->watch_parent_until_ns = 0;
}

static int open_control(struct power *power, struct err *err)
{
	struct server *server = power->server;

	const char *ending = server->parent ? ANNOUNCE_FORK ANNOUNCE_ENDING : ANNOUNCE_ENDING;

	if (place_own(server->settings, ending, &power->control_place, err))
		return -1;
	sweep_stale(server->settings);
	power->control = listener_open(&power->control_place, server->settings, err);
	if (power->control < 0)
		return -1;
	place_format(&power->control_place, server->control, sizeof(server->control));
	atomic_store(&server->has_control, true);
	return 0;
}

/* A process that may open only a few files has use for them. */
static bool has_descriptors(int any)
{
	int high = fcntl(any, F_DUPFD_CLOEXEC, FEW_DESCRIPTORS);

	if (high >= 0)
		(void)close(high);
	return high >= 0;
}

/* What cannot be recorded is not there when it is asked for; nothing else ends for that. */
static void begin_recording(const struct settings *settings)
{
	struct err none;

	if (settings->flight_bytes > 0)
		(void)flight_open(settings->flight_bytes, settings->flight_ns, &none);
}

int power_begin(struct power *power, struct server *server)
{
	struct place place;
	struct err none;

	*power = (struct power){ .server = server, .control = -1 };
	if (!server->settings->asleep) {
		if (start_listening(power, &server->err))
			return -1;
		/* It can be asked, if not found. */
		if (has_descriptors(power->listeners[0]))
			(void)open_control(power, &none);
		begin_recording(server->settings);
		return 0;
	}
	if (place_parse(server->settings->listen, &place, &server->err))
		return -1;
	if (open_control(power, &server->err))
		return err_wrap(&server->err, "asleep, and nobody could wake it");
	atomic_store(&server->state, SERVER_ASLEEP);
	return 0;
}

int power_wake(struct power *power, struct err *err)
{
	if (power_is_awake(power))
		return 0;
	if (start_listening(power, err))
		return -1;
	rate_sleep(false);
	begin_recording(power->server->settings);
	return 0;
}

static void stop_listening(struct power *power)
{
	for (size_t i = 0; i < power->listeners_len; i++)
		listener_close(power->listeners[i], &power->places[i]);
	power->listeners_len = 0;
	power->watch_parent_until_ns = 0;
}

void power_sleep(struct power *power)
{
	flight_close();
	rate_sleep(true);
	stop_listening(power);
	power->server->address[0] = '\0';
	collect_poll(clock_mono_ns()); /* what was recorded is under way still */
	unwind_forget();
	atomic_store(&power->server->state, SERVER_ASLEEP);
}

void power_end(struct power *power)
{
	flight_close();
	stop_listening(power);
	if (power->control >= 0)
		listener_close(power->control, &power->control_place);
	power->control = -1;
}
