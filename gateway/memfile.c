#include "gateway/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

static int write_all(int fd, struct sv bytes)
{
	while (bytes.len > 0) {
		ssize_t written = write(fd, bytes.ptr, bytes.len);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return -1;
		bytes.ptr += written;
		bytes.len -= (size_t)written;
	}
	return 0;
}

int memfile_create(const char *name, struct sv bytes, struct err *err)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return err_sys(err, "cannot make the memory file %s", name);
	if (write_all(fd, bytes) || fcntl(fd, F_ADD_SEALS, SEALS)) {
		(void)err_sys(err, "cannot fill the memory file %s", name);
		(void)close(fd);
		return -1;
	}
	return fd;
}

int memfile_map(int fd, struct sv *bytes, struct err *err)
{
	struct stat info;
	void *mapped;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || fstat(fd, &info))
		return err_sys(err, "cannot look at the memory file");
	if (seals != SEALS)
		return err_set(err, ERR_INPUT, "the memory file is not sealed");
	if (info.st_size == 0)
		return err_set(err, ERR_INPUT, "the memory file is empty");
	mapped = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (mapped == MAP_FAILED)
		return err_sys(err, "cannot map the memory file");
	*bytes = (struct sv){ mapped, (size_t)info.st_size };
	return 0;
}
