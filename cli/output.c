#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_written_in_place(const char *path)
{
	struct stat there;

	return stat(path, &there) == 0 && !S_ISREG(there.st_mode);
}

int output_open(struct output *output, const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	size_t folder_len = slash ? (size_t)(slash - path) + 1 : 0;
	int len;

	*output = (struct output){ .fd = -1, .path = path };
	if (strcmp(path, "-") == 0) {
		output->fd = STDOUT_FILENO;
		return 0;
	}
	if (is_written_in_place(path)) {
		output->fd = open(path, O_WRONLY | O_CLOEXEC);
		return output->fd < 0 ? err_sys(err, "%s", path) : 0;
	}
	len = snprintf(output->temporary, sizeof(output->temporary), "%.*s.%s.XXXXXX",
		(int)folder_len, path, path + folder_len);
	if (len < 0 || (size_t)len >= sizeof(output->temporary)) {
		output->temporary[0] = '\0';
		return err_set(err, ERR_INPUT, "the name of the file is too long");
	}
	output->fd = mkostemp(output->temporary, O_CLOEXEC); /* mode 0600 */
	if (output->fd < 0) {
		output->temporary[0] = '\0';
		return err_sys(err, "%s", path);
	}
	return 0;
}

static void shut(struct output *output)
{
	if (output->fd > STDERR_FILENO)
		(void)close(output->fd);
	output->fd = -1;
}

void output_abandon(struct output *output)
{
	if (output->temporary[0] != '\0')
		(void)unlink(output->temporary);
	output->temporary[0] = '\0';
	shut(output);
}

int output_commit(struct output *output, bool replace, struct err *err)
{
	unsigned flags = replace ? 0 : RENAME_NOREPLACE;
	int rc = 0;

	if (output->temporary[0] != '\0') {
		if (fsync(output->fd) ||
			renameat2(AT_FDCWD, output->temporary, AT_FDCWD, output->path, flags))
			rc = err_sys(err, "%s", output->path);
		else
			output->temporary[0] = '\0';
	}
	output_abandon(output);
	return rc;
}
