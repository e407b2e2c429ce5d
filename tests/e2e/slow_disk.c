/*
 * An fdatasync() that is slow or fails, as the file named by SLOW_DISK says: preloaded into the scribe.
 * The file is mapped before the process locks itself in; poll() is a way to wait that it may still use.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct control {
	_Atomic uint32_t delay_ms, fails;    /* what is wanted */
	_Atomic uint64_t began_ns, ended_ns; /* of the last call, CLOCK_MONOTONIC */
	_Atomic uint32_t calls;
};

static struct control *control;

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

__attribute__((constructor)) static void map_control(void)
{
	const char *path = getenv("SLOW_DISK");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = fd < 0 ? MAP_FAILED
			  : mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
				    0);

	if (at != MAP_FAILED)
		control = at;
	if (fd >= 0)
		(void)close(fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd);

int fdatasync(int fd)
{
	int rc = 0;

	if (!control)
		return fsync(fd);
	atomic_store(&control->began_ns, now_ns());
	(void)poll(NULL, 0, (int)atomic_load(&control->delay_ms));
	if (atomic_load(&control->fails)) {
		errno = EIO;
		rc = -1;
	}
	atomic_store(&control->ended_ns, now_ns());
	atomic_fetch_add(&control->calls, 1);
	return rc;
}
