#include "gateway/switch.h"

#include <assert.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "the switch is shared between processes");

struct switch_state *switch_create(int *fd, struct err *err)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
	struct switch_state *state = MAP_FAILED;

	*fd = memfd_create("postern-switch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0) {
		(void)err_sys(err, "cannot make the shared switch");
		return NULL;
	}
	if (ftruncate(*fd, sizeof(*state)) == 0)
		state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	/* The seal leaves the mapping just made alone and forbids every later one. */
	if (state == MAP_FAILED || fcntl(*fd, F_ADD_SEALS, seals)) {
		(void)err_sys(err, "cannot map or seal the shared switch");
		if (state != MAP_FAILED)
			(void)munmap(state, sizeof(*state));
		(void)close(*fd);
		*fd = -1;
		return NULL;
	}
	return state;
}

const struct switch_state *switch_map(int fd, struct err *err)
{
	void *state = mmap(NULL, sizeof(struct switch_state), PROT_READ, MAP_SHARED, fd, 0);

	if (state == MAP_FAILED) {
		(void)err_sys(err, "cannot map the shared switch");
		return NULL;
	}
	return state;
}

void switch_open(struct switch_state *state, uint64_t until_ms)
{
	atomic_store(&state->until_ms, until_ms);
}

void switch_close(struct switch_state *state)
{
	atomic_store(&state->until_ms, 0);
}

void switch_set_generation(struct switch_state *state, uint64_t generation)
{
	atomic_store(&state->generation, generation);
}

bool switch_is_open(const struct switch_state *state, uint64_t now_boot_ms)
{
	return now_boot_ms < atomic_load(&state->until_ms);
}

bool switch_may_serve(
	const struct switch_state *state, uint64_t generation, uint64_t now_boot_ms)
{
	return switch_is_open(state, now_boot_ms) &&
	       atomic_load(&state->generation) == generation;
}

uint64_t switch_left_ms(const struct switch_state *state, uint64_t now_boot_ms)
{
	uint64_t until_ms = atomic_load(&state->until_ms);

	if (until_ms == SWITCH_NO_LIMIT)
		return SWITCH_NO_LIMIT;
	return until_ms > now_boot_ms ? until_ms - now_boot_ms : 0;
}
